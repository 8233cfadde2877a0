"""Judges a lone replica by what it was told, what became durable, and what it then said and asked for.

It keeps its own account of views, bases, votes and silence, and reads nothing of the replica but its journal.
"""

from collections import Counter
from typing import TYPE_CHECKING

from p2pledger.chain.block import Header
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import LockRecord, ViewRecord, VoteRecord
from p2pledger.consensus.messages import Certificate, Commit, Message, NewView, Prepare, PrePrepare, ViewChange
from p2pledger.consensus.verification import verify_message
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash
from p2pledger.sim.observer import InvariantBroken
from tests.seeded.voices import EPOCH, require

if TYPE_CHECKING:
    from tests.seeded.solo import Solo

Slot = tuple[type[Message], int, int]


def slot_of(message: Message) -> Slot:
    """An honest author says one thing at each."""
    at = message.height if isinstance(message, Prepare | Commit | PrePrepare) else 0
    return type(message), message.view, at


class Witness:
    """One life, restarts included."""

    def __init__(self, solo: "Solo") -> None:
        self.solo = solo
        voices = solo.voices
        self.q, self.f, self.window = voices.q, voices.f, voices.founding.parameters.window
        self.genesis = voices.founding.header
        self.reached: Counter[str] = Counter()
        self.expects_halt = self.is_over = False
        self.said: dict[Slot, Message] = {}
        self.told: list[Message] = []
        """All that it ever said, also what its disk has forgotten."""
        self.best = (-1, -1)
        """The highest (view, height) that it has claimed or committed to."""
        self.bases: dict[int, tuple[int, BlockHash]] = {0: (0, self.genesis.hash)}
        self.shown: dict[tuple[int, int], list[BlockHash]] = {}
        self.prepares: dict[tuple[int, int, BlockHash], set[bytes]] = {}
        self.commits: dict[tuple[int, int, BlockHash], set[bytes]] = {}
        self.event: on.Event | None = None
        self.asked_for: list[do.Effect] = []
        self.started(is_empty=True)

    # Lives

    def started(self, is_empty: bool) -> None:
        """From here on only the journal is known."""
        self.answers: set[bytes] = set()
        self.wanted: dict[bytes, int] = {}
        """The newest view that each asks for."""
        self.shown_now: dict[tuple[int, int], list[BlockHash]] = {}
        self.held: set[BlockHash] = set()
        self.certified = self.far = 0
        self.commits = {}
        self.may_be_pending = False
        """A term ended with blocks that were synced: their certificate is put away with the next repetition only."""
        self.silent: tuple[int, int] | None = None
        self.left_view = -1
        record = self._standing()
        self.view, self.is_active = (0, True) if record is None else (record.view, record.is_active)
        self.asked_for = []
        self.reached["restart with a journal"] += not is_empty
        for one in self.solo.store.journal():
            if isinstance(one, VoteRecord):
                self._journalled(one.message)

    def _journalled(self, message: Message) -> None:
        """It died between a write and its words: it may say them now."""
        if slot_of(message) in self.said:
            return
        self.said[slot_of(message)] = message
        self.told.append(message)
        if isinstance(message, Commit):
            self.best = max(self.best, (message.view, message.height))
        if isinstance(message, ViewChange) and message.claim is not None:
            self.best = max(self.best, (message.claim.view, message.claim.height))

    def forgot(self) -> None:
        """Its disk is lost; what it said it may contradict, but for what the others tell it (P20)."""
        self.reached["disk lost"] += 1
        self.said, self.best = {}, (-1, -1)
        self.bases = {0: (0, self.genesis.hash)}

    @property
    def is_waiting(self) -> bool:
        return len(self.answers) < self.q - 1

    @property
    def may_sign(self) -> bool:
        return not self.is_waiting and self.silent is None and self.view > self.left_view

    def _standing(self) -> ViewRecord | None:
        records = self.solo.store.journal()
        return next((record for record in records if isinstance(record, ViewRecord)), None)

    @property
    def tip(self) -> int:
        return int(self.solo.store.tip())

    # What it is told

    def before(self, event: on.Event) -> None:
        """A turn begins."""
        self.event, self.asked_for = event, []
        self.was = (self.view, self.is_active, self.tip, self.may_sign)
        self.earlier = dict(self.wanted)
        self.conflict: PrePrepare | None = None
        self.heard(event)

    def heard(self, event: on.Event) -> None:
        """The replica is about to handle this."""
        match event:
            case on.Received():
                self._received(event.verified.signed.message)
            case on.CertificateReceived():
                self._certificate(event.certificate)
            case on.ProposalChecked():
                self.held.add(event.block_hash)
            case on.BlockHeld():
                self.held.add(event.header.hash)
            case on.TimerFired():
                self.may_be_pending &= event.timer == "progress"
            case on.CaughtUp():
                self.may_be_pending = True
                self._lifted(event.certificate)
            case on.InquiryAnswered():
                for verified in event.own:
                    self._own(verified.signed.message)
                self.answers.add(event.author)
            case _:
                pass

    def _received(self, message: Message) -> None:
        if message.author == self.solo.id:
            self._own(message)
        match message:
            case Prepare() | Commit():
                votes = self.prepares if isinstance(message, Prepare) else self.commits
                voters = votes.setdefault((message.view, message.height, message.block_hash), set())
                voters.add(message.author)
                if isinstance(message, Commit) and len(voters) >= self.q:
                    self.certified = max(self.certified, message.height)
            case PrePrepare():
                self._show(message)
            case ViewChange():
                self.wanted[message.author] = max(message.view, self.wanted.get(message.author, 0))
                if message.committed is not None:
                    self._certificate(message.committed)
            case NewView():
                if message.view > self.view or (message.view == self.view and not self.is_active):
                    tip = message.tip
                    self.bases[message.view] = (0, self.genesis.hash) if tip is None else (tip.height, tip.block_hash)
                    self.view, self.is_active = message.view, True
                    self.reached["view entered"] += 1

    def _show(self, message: PrePrepare) -> None:
        place = (message.view, message.height)
        known = self.shown_now.setdefault(place, [])
        if known and known[0] != message.block_hash and message.view == self.view and self.is_active:
            self.conflict = message
        for shown in (known, self.shown.setdefault(place, [])):
            if message.block_hash not in shown:
                shown.append(message.block_hash)

    def _own(self, message: Message) -> None:
        """P20: above the journal, it means silence."""
        if self.said.get(slot_of(message)) == message:
            return
        is_vote = isinstance(message, Prepare | Commit | PrePrepare)
        is_above = message.height > self.tip if is_vote else message.view >= self.view  # type: ignore[union-attr]
        if is_above:
            height = message.height if is_vote else 0  # type: ignore[union-attr]
            before = self.silent or (0, 0)
            self.silent = (max(before[0], height), max(before[1], message.view))
            self.reached["own words from elsewhere"] += 1

    def _certificate(self, certificate: Certificate) -> None:
        self.certified = max(self.certified, certificate.height)
        if certificate.height > self.tip + self.window and certificate.height > self.far:
            self.due_sync = certificate.height

    def _lifted(self, certificate: Certificate) -> None:
        if self.silent and certificate.height > self.silent[0] and certificate.view > self.silent[1]:
            self.left_view, self.silent = self.silent[1], None
            self.reached["silence ends"] += 1

    # What it asks for

    def asks(self, effect: do.Effect) -> None:
        """One effect, in order."""
        self.asked_for.append(effect)
        match effect:
            case do.CommitBlock():
                if effect.record.certificate is not None:
                    self._lifted(effect.record.certificate)
            case do.BuildProposal():
                require(effect.parent.height < self.tip + self.window, "P1", "it proposes beyond its window")
            case do.ReportRollback():
                require(self.silent is not None, "P20", "its own words, journalled, are taken for a rollback")
            case do.Halt():
                self.is_over = True
                if not self.expects_halt:
                    raise InvariantBroken(f"an honest replica stopped itself: {effect.reason}")
            case _:
                pass

    # What it says

    def says(self, message: Message) -> None:
        """About to be signed."""
        require(not self.is_waiting, "P20", f"{len(self.answers)} have answered, and it speaks")
        require(self.silent is None, "P20", f"it must be silent up to {self.silent}")
        require(message.view > self.left_view, "P20", f"it speaks in view {message.view}, which it may have left")
        place = slot_of(message)
        known = self.said.get(place)
        require(known is None or _says_same(known, message), "3", f"two statements at {place}")
        self._is_durable(message)
        require(message.view >= self.view, "P9", f"it speaks in view {message.view} and has left for {self.view}")
        if known is not None:
            return
        self._passes(message)
        self.said[place] = message
        self.told.append(message)
        match message:
            case Prepare():
                self._prepare(message)
            case Commit():
                self._commit(message)
            case PrePrepare():
                self._show(message)
                self._stands(message)
            case ViewChange():
                self._view_change(message)
            case NewView():
                self._new_view(message)

    def _is_durable(self, message: Message) -> None:
        if isinstance(message, Prepare | Commit | PrePrepare) and message.height <= self.tip:
            return
        records = self.solo.store.journal()
        standing = self._standing()
        if isinstance(message, ViewChange | NewView) and standing is not None and standing.view > message.view:
            return  # one turn has led through two views, and what it said of the first is outgrown
        held = any(isinstance(one, VoteRecord) and _says_same(one.message, message) for one in records)
        require(held, "P19", f"it says what its journal does not hold: {slot_of(message)}")

    def _passes(self, message: Message) -> None:
        founding, voices = self.solo.voices.founding, self.solo.voices
        try:
            verify_message(voices.said(message), founding.chain, EPOCH, founding.validators, voices.signatures.verify)
        except InvalidInput as refusal:
            raise InvariantBroken(f"P11: it says what nobody can take: {refusal}") from refusal

    def _stands(self, vote: Message) -> tuple[int, BlockHash]:
        """P13, P19: in an entered view, of which the journal knows the base."""
        base = self.bases.get(vote.view)
        require(base is not None, "P13", f"it votes in view {vote.view}, which it has not entered")
        assert base is not None
        record = self._standing()
        if vote.view > 0:
            if record is None:
                raise InvariantBroken(f"P19: it votes in view {vote.view}, and its journal knows of none")
            if record.view > vote.view:
                return base  # one turn has voted, and then left the view
            require((record.view, record.is_active) == (vote.view, True), "P19", f"its journal lacks view {vote.view}")
            require((record.base_height, record.base_hash) == base, "P13", f"the journal has another base than {base}")
        return base

    def _prepare(self, vote: Prepare) -> None:
        base = self._stands(vote)
        view, height, block = vote.view, vote.height, vote.block_hash
        is_open = self.tip < height <= self.tip + self.window or block == self._committed(height)  # in this very turn
        require(is_open, "P2", f"a PREPARE at {height}, committed is {self.tip}")
        require(block in self.held, "P3", "a PREPARE for a block that was not found good")
        header = self.solo.story.library[block]
        require(self._ancestor(header, self.tip) == self._committed(self.tip), "P2", "its block has lost its height")
        require(height >= base[0], "P13", f"a PREPARE at {height} below the tip at {base[0]}")
        if height == base[0]:
            require(block == base[1], "P13", "a PREPARE beside the tip")
            self.reached["tip prepared again"] += 1
            return
        require(block in self.shown.get((view, height), ()), "P2", "a PREPARE for what its primary did not propose")
        is_above = header.parent == base[1] or header.parent in self.shown.get((view, height - 1), ())
        if not is_above:
            follows = header.parent == self._committed(height - 1) and self._certified_in(height - 1) <= view
            require(follows, "P2", f"the parent of {height} is neither of view {view} nor committed before it")
        for at in (height - 1, height + 1):
            other = self.said.get((Prepare, view, at))
            if isinstance(other, Prepare):
                low, high = (other, vote) if at < height else (vote, other)
                parent = self.solo.story.library[high.block_hash].parent
                linked = parent in (low.block_hash, self._committed(low.height))
                require(linked, "P2", f"two chains grow in view {view}")

    def _commit(self, vote: Commit) -> None:
        self._stands(vote)
        voters = self.prepares.get((vote.view, vote.height, vote.block_hash), set())
        require(len(voters) >= self.q, "P6", f"a COMMIT on {len(voters)} of {self.q} PREPAREs")
        self._holds(vote.block_hash, "P6", "a COMMIT for a block that is not held")
        require(self._locked() >= (vote.view, vote.height), "P19", "a COMMIT without its certificate in the journal")
        self.best = max(self.best, (vote.view, vote.height))

    def _view_change(self, message: ViewChange) -> None:
        claim = message.claim
        rank = (-1, -1) if claim is None else (claim.view, claim.height)
        require(rank >= self.best, "P9", f"a claim of {rank}, an earlier one was of {self.best}")
        require(self._locked() >= rank, "P19", f"a claim of {rank} that the journal cannot prove")
        record = self._standing()
        knows = record is not None and record.view >= message.view
        require(knows, "P19", f"it leaves for view {message.view}, and its journal does not know")
        self.best = rank
        self._has_a_reason(message.view)
        self.view, self.is_active = message.view, False
        self.reached["view left"] += 1

    def _has_a_reason(self, target: int) -> None:
        match self.event:
            case on.PrimaryUnfair(view):
                require(view == self.was[0], "P24", f"it leaves view {self.was[0]} over a complaint about view {view}")
            case on.PeerStatus() | on.WorkChanged():
                require(False, "P9", "it leaves a view for no reason")
            case on.Received(verified) if isinstance(verified.signed.message, ViewChange) and self.tip == self.was[2]:
                asked = sorted(view for view in self.wanted.values() if view > self.was[0])
                require(len(asked) > self.f, "P10", f"{len(asked)} ask, and it joins")
            case _:
                pass

    def _new_view(self, message: NewView) -> None:
        tip = message.tip
        self.reached["view opened"] += 1
        if tip is None or tip.height <= self.tip:
            return
        chain = self._holds(tip.block_hash, "P12", "it shows a tip that it does not hold")
        require([header.hash for header in message.headers] == chain, "P12", "its headers do not lead to the tip")

    # What stands where

    def _holds(self, block: BlockHash, rule: str, what: str) -> list[BlockHash]:
        """The held chain from the committed block to this one."""
        chain: list[BlockHash] = []
        header = self.solo.story.library[block]
        while header.height > self.tip:
            require(header.hash in self.held, rule, what)
            chain.insert(0, header.hash)
            header = self.solo.story.library[header.parent]
        return chain

    def _ancestor(self, header: Header, height: int) -> BlockHash:
        while header.height > height:
            header = self.solo.story.library[header.parent]
        return header.hash

    def _committed(self, height: int) -> BlockHash | None:
        if height == 0:
            return self.genesis.hash
        record = self.solo.store.block(height) if height <= self.tip else None  # type: ignore[arg-type]
        return None if record is None else record.header.hash

    def _certified_in(self, height: int) -> int:
        """The view whose certificate committed it, itself or as an ancestor."""
        for at in range(height, self.tip + 1):
            record = self.solo.store.block(at) if at else None  # type: ignore[arg-type]
            if record is not None and record.certificate is not None:
                return record.certificate.view
        return -1

    def _locked(self) -> tuple[int, int]:
        ranks = [(-1, -1)]
        for record in self.solo.store.journal():
            if isinstance(record, LockRecord):
                ranks.append((record.certificate.view, record.certificate.height))
            if isinstance(record, ViewRecord) and record.new_view is not None:
                message = record.new_view.message
                if isinstance(message, NewView) and message.certificate is not None:
                    ranks.append((message.certificate.view, message.certificate.height))
        block = self.solo.store.block(self.solo.store.tip())
        if block is not None and block.certificate is not None:
            ranks.append((block.certificate.view, block.certificate.height))
        return max(ranks)

    # What it must do

    due_sync = 0

    def after(self, event: on.Event | None) -> None:
        """A turn is over: what had to happen has happened."""
        due, self.due_sync = self.due_sync, 0
        if self.is_over or event is None:
            return
        if due:
            self.far = due
            asked = any(isinstance(one, do.SyncBlocks) for one in self.asked_for)
            require(asked or self.tip + self.window >= due, "P21", f"nothing is fetched though {due} is committed")
            self.reached["far behind"] += 1
        if isinstance(event, on.PeerStatus):
            self._answers_status(event)
        if not self.is_waiting:
            self._waits_in_time()
        if self.was[3] and self.may_sign:
            self._moves_on(event)

    def _moves_on(self, event: on.Event) -> None:
        view, was_active, tip, _ = self.was
        if isinstance(event, on.Received) and isinstance(event.verified.signed.message, ViewChange):
            asked = sorted(target for target in self.wanted.values() if target > view)
            if len(asked) > self.f:
                self.reached["joins"] += 1
                require(self.view >= asked[0], "P10", f"{len(asked)} ask for view {asked[0]}, and it stays in {view}")
        if self.conflict is not None and was_active:
            self.reached["two blocks shown"] += 1
            require(self.view > view, "P9", f"the primary of view {view} shows two blocks and keeps its view")
        if isinstance(event, on.PrimaryUnfair) and was_active and event.view == view:
            require(self.view > view, "P24", f"the unfair primary of view {view} keeps it")
        term = self.solo.voices.founding.parameters.term_heights
        if was_active and self.tip // term > tip // term:
            self.reached["term over"] += 1
            require(self.view > view, "P24", f"the primary of view {view} keeps it beyond its term")

    def _answers_status(self, peer: on.PeerStatus) -> None:
        sent = [one.signed.message for one in self.asked_for if isinstance(one, do.SendSigned)]
        if peer.committed < self.tip:
            proven = any(isinstance(one, do.SendCertificate) for one in self.asked_for)
            require(proven, "P16", "who is behind gets no certificate")
        is_behind = peer.view < self.view or not peer.is_active
        if self.is_active and self.view > 0 and is_behind:
            shown = any(isinstance(one, NewView) and one.view == self.view for one in sent)
            require(shown, "P16", f"who is behind does not get the NEW-VIEW of {self.view}")
            self.reached["NEW-VIEW handed on"] += 1
        if self.is_active and peer.view == self.view:
            for (view, height), blocks in self.shown_now.items():
                if view == self.view and height > max(self.tip, peer.committed):
                    handed = any(isinstance(one, PrePrepare) and one.block_hash == blocks[0] for one in sent)
                    require(handed, "P16", f"a proposal at {height} is not handed on")
                    self.reached["proposal handed on"] += 1

    def _waits_in_time(self) -> None:
        """P8: the timer runs while something is due, and only then."""
        if not self.is_active:
            return
        is_running = "progress" in self.solo.timers
        voted = any(kind is Prepare and at[0] == self.view and at[1] > self.tip for kind, *at in self.said)
        if self.solo.has_work or voted or self.certified > self.tip:
            require(is_running, "P8", f"no timer; work {self.solo.has_work}, voted {voted}, certified {self.certified}")
            self.reached["only a certificate waits"] += not self.solo.has_work and not voted
            return
        shown = any(at[0] == self.view and at[1] > self.tip for at in self.shown_now)
        if not shown and self.bases[self.view][0] <= self.tip and not self.may_be_pending:
            require(not is_running, "P8", "the timer runs while nothing is due")
            self.reached["rest"] += 1


def _says_same(first: Message, second: Message) -> bool:
    if type(first) is not type(second) or slot_of(first) != slot_of(second):
        return False
    if isinstance(first, ViewChange) and isinstance(second, ViewChange):
        return first.claim == second.claim
    if isinstance(first, NewView) and isinstance(second, NewView):
        return first.claims == second.claims
    return first == second
