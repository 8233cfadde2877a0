"""What the others say to a lone replica: one history that at most f liars can bring about, told in pieces."""

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate, Commit, Message, NewView, Prepare, PrePrepare, Signed
from p2pledger.primitives.ids import BlockHash, View
from p2pledger.sim.core.host import block_on
from tests.seeded.voices import EPOCH, Voices

Prepared = tuple[int, Header]
"""(view, block) with a quorum of PREPAREs."""


class Story:
    """Views, and in each a chain from its base, prepared and then committed from below."""

    def __init__(self, voices: Voices, me: int) -> None:
        self.voices, self.random, self.me = voices, voices.random, me
        self.puppets = [seat for seat in range(voices.n) if seat != me]
        genesis = voices.founding.header
        self.library: dict[BlockHash, Header] = {genesis.hash: genesis}
        self.queue: list[Signed] = []
        """What is on its way."""
        self.view = 0
        self.chain: list[Header] = [genesis]
        """Of this view: the base, and what was proposed on it."""
        self.prepared = self.committed = 0
        """How many of those."""
        self.candidates: list[Prepared] = []
        """Whatever may still be claimed: nothing below what has a COMMIT."""
        self.decided: list[Certificate] = []
        self.ledger: dict[int, Header] = {0: genesis}
        self._rivals: list[Header] = []
        """What liars have shown beside the chain of this view."""
        self._lying = self.random.choice([0.1, 0.25, 0.6])
        self._awaits_me = False
        """It is for the replica to open this view."""

    def know(self, header: Header) -> Header:
        """A block that can be fetched from now on."""
        self.library[header.hash] = header
        return header

    def header_at(self, height: int) -> Header:
        """Of the committed chain."""
        return self.ledger[height]

    def goes_on(self) -> None:
        """One more thing happens among the others."""
        deeds = [self._propose, self._prepare, self._prepare, self._commit, self._commit]
        deeds += [self._change_view] * (1 if self.random.random() < 0.5 else 0)
        if self.random.random() < self._lying:
            deeds += [self._equivocate, self._equivocate, self._undercut, self._ask_for_a_view, self._change_view]
        self.random.choice(deeds)()

    def hears(self, message: Message) -> None:
        """What the replica itself says moves the story where it is its turn."""
        if (
            isinstance(message, PrePrepare)
            and message.view == self.view
            and message.header.parent == self.chain[-1].hash
        ):
            self.chain.append(message.header)
        if isinstance(message, NewView) and message.view == self.view and self._awaits_me:
            tip = message.tip
            self._enter(self.view, self.library[tip.block_hash] if tip else self.voices.founding.header)

    # The normal case

    @property
    def primary(self) -> int:
        return self.voices.primary(self.view)

    def _say(self, message: Message, share: float = 0.9) -> None:
        if self.random.random() < share:
            self.queue.append(self.voices.said(message))

    def _shows(self, header: Header) -> None:
        self._say(PrePrepare(EPOCH, View(self.view), self.know(header), self.voices.ids[self.primary]), 0.95)

    def _propose(self) -> None:
        if self.primary == self.me or self._awaits_me:
            return
        header = block_on(self.chain[-1], self.view, self.random.randbytes(8))
        self.chain.append(header)
        self._shows(header)

    def _vote(self, kind: type[Prepare | Commit], header: Header) -> None:
        share = self.random.choice([1.0, 0.9, 0.5])
        for seat in self.random.sample(self.puppets, len(self.puppets)):
            self._say(kind(EPOCH, View(self.view), header.height, header.hash, self.voices.ids[seat]), share)

    def _prepare(self) -> None:
        if self._awaits_me or self.prepared >= len(self.chain):
            return
        header = self.chain[self.prepared]
        self.prepared += 1
        if header.height > max(self.ledger):
            self._vote(Prepare, header)
            self.candidates.append((self.view, header))

    def _commit(self) -> None:
        if self._awaits_me or self.committed >= self.prepared:
            return
        header = self.chain[self.committed]
        self.committed += 1
        if header.height <= max(self.ledger):
            return
        self._vote(Commit, header)
        rank = (self.view, header.height)
        self.candidates = [one for one in self.candidates if (one[0], one[1].height) >= rank]
        while header.height not in self.ledger:
            self.ledger[header.height] = header
            header = self.library[header.parent]
        assert self.ledger[header.height].hash == header.hash, "the story itself forks"
        self.decided.append(self._certified("commit", self.view, self.chain[self.committed - 1]))

    def _certified(self, kind: str, view: int, header: Header) -> Certificate:
        seats = sorted(self.random.sample(self.puppets, self.voices.q))
        return self.voices.certificate(kind, view, header, seats)  # type: ignore[arg-type]

    # Misdeeds

    def _equivocate(self) -> None:
        """The primary shows another block, too; nobody else votes for it."""
        if self.primary != self.me and not self._awaits_me and len(self.chain) > 1:
            parent = self.chain[self.random.randrange(len(self.chain) - 1)]
            if self._rivals and self.random.random() < 0.6:
                parent = self._rivals[-1]
            self._rivals.append(block_on(parent, 99, self.random.randbytes(8)))
            self._shows(self._rivals[-1])

    def _undercut(self) -> None:
        """The primary proposes beside and below its tip (P13)."""
        if self.primary == self.me or self._awaits_me:
            return
        base = self.chain[0]
        height = max(0, base.height - self.random.choice([1, 1, 2]))
        parent = base
        while parent.height > height:
            parent = self.library[parent.parent]
        self._shows(block_on(parent, 98, self.random.randbytes(8)))

    def _ask_for_a_view(self) -> None:
        """Some ask for views that nobody opens; one of them for a very late one."""
        locks = self._claims(self._highest())
        for seat in self.random.sample(self.puppets, self.random.randint(1, self.voices.f + 1)):
            far = self.view + self.random.choice([1, 2, 3, 8])
            if self.voices.primary(far) != self.me:  # it could make a NEW-VIEW of claims that are outdated by then
                self._say(self.voices.view_change(seat, far, self.random.choice(locks)))

    # View changes

    def _highest(self) -> Prepared | None:
        """Mostly the highest claim; sometimes whoever held it keeps quiet, as they may where nothing has a COMMIT."""
        ordered = sorted(self.candidates, key=lambda one: (one[0], one[1].height))
        if not ordered or (not self.decided and self.random.random() < 0.2):
            return None
        return ordered[-1] if self.random.random() < 0.6 else self.random.choice(ordered)

    def _claims(self, tip: Prepared | None) -> list[Certificate | None]:
        """That one, and others that may stand beside it."""
        if tip is None:
            return [None]
        rank = (tip[0], tip[1].height)
        below = [one for one in self.candidates if (one[0], one[1].height) < rank]
        chosen = [tip, *self.random.sample(below, min(len(below), 2))]
        return [self._certified("prepare", view, header) for view, header in chosen]

    def _change_view(self) -> None:
        if any(header.height > max(self.ledger) + 6 for header in self.chain) or self.view > 12:
            return
        view = self.view + self.random.choice([1, 1, 1, 2])
        tip = self._highest()
        locks = self._claims(tip)
        seats = sorted(self.random.sample(self.puppets, self.voices.q))
        committed = self.decided[-1] if self.decided else None
        changes = [
            self.voices.view_change(seat, view, locks[0] if at == 0 else self.random.choice(locks), committed)
            for at, seat in enumerate(seats)
        ]
        share = self.random.choice([1.0, 0.7])
        self.view = view
        for change in changes:
            self._say(change, 1.0 if self.primary == self.me else share)
        if self.primary == self.me:
            self._awaits_me = True
            return
        base = tip[1] if tip else self.voices.founding.header
        message = self.voices.new_view(changes, self._headers_to(base))
        if self.random.random() < 0.2:
            other = self._claims(self._highest())[0]  # of the liar's own claim; perhaps the first to arrive
            lie = [
                self.voices.view_change(seat, view, other, committed) if seat == self.primary else change
                for seat, change in zip(seats, changes, strict=True)
            ]
            self._say(self.voices.new_view(lie))
        self._say(message, 0.95)
        self._enter(view, base)

    def _headers_to(self, tip: Header) -> list[Header]:
        if self.random.random() < 0.3:
            return []
        headers = []
        while tip.height > max(self.ledger) and len(headers) < 8:
            headers.insert(0, tip)
            tip = self.library[tip.parent]
        return headers

    def _enter(self, view: int, base: Header) -> None:
        """From now on the others build on this."""
        self.view, self.chain, self._rivals, self._awaits_me = view, [base], [], False
        self.prepared = self.committed = 0 if base.height > max(self.ledger) else 1
