"""Takes in the facts of a run and hands each to those who judge it; keeps what is known of each honest node.

Nodes are numbered; what they say, write and answer comes as the bytes that they really said, wrote and answered.
Every method raises InvariantBroken where the fact breaks an invariant. Facts must come in the order in which they
happened: what a turn makes durable before what it sends.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from p2pledger.sim.observer import judgement
from p2pledger.sim.observer.blocks import Header, read_founding, read_transaction
from p2pledger.sim.observer.encoding import Unreadable
from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.ledgers import Chain, Life, lost_votes
from p2pledger.sim.observer.outcomes import Outcomes
from p2pledger.sim.observer.reader import (
    COMMIT,
    EVIDENCE_RECORD,
    INQUIRY,
    INQUIRY_ANSWER,
    NEW_VIEW,
    PRE_PREPARE,
    STATUS,
    VIEW_CHANGE,
    VIEW_RECORD,
    VOTE_RECORD,
    Heard,
    Reader,
    Record,
    Statement,
)
from p2pledger.sim.observer.releases import Releases
from p2pledger.sim.observer.speech import Speech, named

EVIDENCE_GRACE_MS = 1_000
"""A node that was shown a contradiction has this long to verify and journal it."""
MESSAGES_REMEMBERED = 20_000
"""Bodies that need not be read again when they are repeated."""


class Observer:
    """The judge of one run."""

    def __init__(
        self, genesis: bytes, chain: bytes, validators: Sequence[bytes], liars: Collection[int] = frozenset()
    ) -> None:
        """`validators`: the consensus key of each node. `liars` may do anything, and nothing they do counts."""
        self.founding = read_founding(genesis)
        keys = {seat.key: seat.node for seat in self.founding.seats}
        if chain != self.founding.chain:
            raise InvariantBroken(f"the chain of this genesis is {self.founding.chain.hex()}, not {chain.hex()}")
        if sorted(validators) != sorted(keys):
            raise InvariantBroken(f"the genesis names {len(keys)} validators, and not these {len(validators)}")
        self.reached: Counter[str] = Counter()
        """How often each situation occurred that a campaign wants to have seen."""
        self.caught: set[bytes] = set()
        """Whom the chain holds evidence against."""
        self._reader = Reader(self.founding)
        self._speech = Speech(self.founding, frozenset(validators[i] for i in liars))
        self._chain = Chain(self.founding, self._speech)
        self._outcomes = Outcomes(self.founding)
        self._lives = {i: Life(i, key, keys[key]) for i, key in enumerate(validators) if i not in liars}
        self.releases = Releases(self.founding, validators, self.reached)
        """Judges what validators do with their shares of keys."""
        self._bodies: dict[bytes, Heard] = {}
        self._honest = frozenset(life.key for life in self._lives.values())
        self._nodes = frozenset(keys.values())
        self._node_of = [keys[key] for key in validators]
        self._spoke: set[bytes] = set()
        self._healed: tuple[int, int] | None = None
        """(height, view) at which the world healed."""
        self._quiet: list[int] = []
        """Messages so far, at the end of each quiet span."""
        self.messages = 0

    # Lives

    def started(self, node: int, headers: Sequence[bytes] = (), journal: Sequence[bytes] = ()) -> None:
        """A node starts, for the first time or again, from these committed headers and journal records."""
        life = self._lives.get(node)
        if life is None:
            return
        more = self._chain.check_kept(life, headers)
        for header in more:  # a write that was reported as failed may have become durable
            self._append(life, header)
        if more:
            self._chain.check_proven(life)
        life.executed = max(life.executed, life.tip)  # again, and not told again
        votes: dict[tuple[int, int, int, int], bytes] = {}
        evidence: set[bytes] = set()
        for data in journal:
            record = self._record(life, data)
            self._wrote(life, record)
            if record.kind == VOTE_RECORD:
                votes[record.statements[0].place] = record.statements[0].signed
            elif record.kind == EVIDENCE_RECORD:
                evidence.add(record.statements[0].author)
        lost = lost_votes(life, self._speech.journal_of(life.key), votes)
        if lost or evidence != life.evidence:
            raise InvariantBroken(f"9, I5: the journal of node {node} has lost {lost or 'evidence'}")
        life.is_up = True
        life.is_waiting = self.founding.q > 1
        life.serial = None
        for gone in (life.answered, life.shown, life.owes_evidence):
            gone.clear()

    def crashed(self, node: int) -> None:
        """A node is gone; what it made durable is not."""
        life = self._lives.get(node)
        if life is not None:
            life.is_up = False
            life.owes_evidence.clear()

    def stopped(self, node: int, reason: str) -> None:
        """A node ended itself: no honest one has a reason to."""
        if node in self._lives:
            raise InvariantBroken(f"an honest node stopped itself: node {node}, {reason}")

    def noted(self, node: int, name: str) -> None:
        """What a node reports of itself; of an honest one nobody remembers more than its journal (4)."""
        self.reached[name] += 1
        if name == "rollback_seen" and node in self._lives:
            raise InvariantBroken(f"4: others hold a statement of honest node {node} that its journal does not know")

    def failed(self, node: int, error: str) -> None:
        """Something was raised in a node that nobody caught."""
        if node in self._lives:
            raise InvariantBroken(f"I12: unhandled in node {node}: {error}")

    # The wire

    def overheard(self, source: int, target: int, body: bytes) -> None:
        """A message goes from one node to another, whether it will arrive or not."""
        self.messages += 1
        life = self._lives.get(source)
        heard = self._bodies.get(body)
        if heard is None:
            heard = self._reader.read_message(body)
            if life is not None and life.is_waiting and heard.own is not None:
                self._check_silence(life, heard.own)
            self._hear(body, heard)
        if life is None:
            return
        if not heard.is_readable:
            raise InvariantBroken(f"I12: honest node {source} sends what cannot be read: {body.hex():.80}")
        if heard.origin is not None and heard.origin != life.node:
            return
        if heard.kind == STATUS:
            self._stands(life, heard)
        elif heard.kind == INQUIRY:
            life.serial = heard.serial

    def _check_silence(self, life: Life, own: Statement) -> None:
        """P20: until q - 1 have answered a node says nothing that it had not signed before."""
        is_known = self._speech.was_heard(own) or own.signature == life.entered_by
        if own.author == life.key and not is_known and self._speech.is_signed(own):
            raise InvariantBroken(f"P20: node {life.index} signs while it must be silent: {named(own)}")

    def _hear(self, body: bytes, heard: Heard) -> None:
        if len(self._bodies) >= MESSAGES_REMEMBERED:
            self._bodies.clear()
        self._bodies[body] = heard
        for header in heard.headers:
            self._speech.learn(header)
        for said in heard.statements:
            self._speech.hear(said)
        if heard.own is not None:
            self._spoke.add(heard.own.author)
            self._count(heard)

    def _count(self, heard: Heard) -> None:
        own = heard.own
        assert own is not None
        if own.kind == VIEW_CHANGE:
            self.reached["view change"] += 1
        elif own.kind == NEW_VIEW:
            views = {said.block[0] for said in heard.statements if said.kind == VIEW_CHANGE and said.block is not None}
            self.reached["new view with claims of two views"] += len(views) > 1
            self.reached["new view with a tip"] += own.block is not None

    def _stands(self, life: Life, heard: Heard) -> None:
        """A Status never goes back, and never says more than is durable."""
        assert heard.standing is not None
        epoch, view, committed = heard.standing
        if (epoch, view) < life.told[:2] or committed < life.told[2]:
            raise InvariantBroken(f"I6: node {life.index} says {heard.standing} after {life.told}")
        if (epoch, view) > life.view or committed > life.tip:
            raise InvariantBroken(
                f"4, I5: node {life.index} says {heard.standing}; durable are {life.view} and height {life.tip}"
            )
        life.told = heard.standing

    def delivered(self, at_ms: int, source: int, target: int, body: bytes) -> None:
        """A running node is about to handle a message that was overheard before."""
        life = self._lives.get(target)
        if life is None:
            return
        if life.owes_evidence:
            self._demand_evidence(life, at_ms)
        heard = self._bodies.get(body) or self._reader.read_message(body)
        if heard.kind == INQUIRY_ANSWER:
            self._is_answered(life, source, heard)
        elif heard.own is not None and heard.own.author not in self._honest:
            self._show(life, at_ms, heard, heard.own)

    def _demand_evidence(self, life: Life, now: int) -> None:
        late = [author for author, until in life.owes_evidence.items() if now > until]
        if late:
            raise InvariantBroken(f"I11: node {life.index} was shown two sides of {late[0].hex()[:8]} and kept none")

    def _is_answered(self, life: Life, source: int, heard: Heard) -> None:
        if life.is_waiting and heard.serial == life.serial:
            life.answered.add(heard.origin or self._node_of[source])
            life.is_waiting = len(life.answered & self._nodes) < self.founding.q - 1

    def _show(self, life: Life, now: int, heard: Heard, said: Statement) -> None:
        """I11: of two contradicting proposals or votes for an open place of its view a node keeps evidence.

        Within P23's bounds: what lies outside the window, or after a quorum, it may drop unverified.
        """
        if life.is_waiting or said.kind > COMMIT or (said.epoch, said.view) != life.view:
            return
        if not life.tip < said.height <= life.tip + self.founding.window or not self._speech.is_signed(said):
            return
        if said.kind == PRE_PREPARE:
            if said.author != self.founding.primary(*life.view) or heard.headers[-1].chain != self.founding.chain:
                return
        elif self._speech.votes_for(said) >= self.founding.q:
            return
        first = life.shown.setdefault((said.author, said.place), said.signed)
        if first != said.signed and said.author not in life.evidence:
            life.owes_evidence.setdefault(said.author, now + EVIDENCE_GRACE_MS)

    # Disks

    def wrote(self, node: int, record: bytes) -> None:
        """A journal record became durable."""
        life = self._lives.get(node)
        if life is not None:
            self._wrote(life, self._record(life, record))

    def _record(self, life: Life, data: bytes) -> Record:
        try:
            return self._reader.read_record(data)
        except Unreadable as error:
            raise InvariantBroken(f"9: the journal of node {life.index} cannot be read: {error}") from error

    def _wrote(self, life: Life, record: Record) -> None:
        if record.kind == VOTE_RECORD:
            said = record.statements[0]
            if said.author != life.key:
                raise InvariantBroken(f"3: node {life.index} journals a vote of another: {named(said)}")
            self._speech.record(said)
        elif record.kind == VIEW_RECORD:
            assert record.view is not None
            if record.view < life.view:
                raise InvariantBroken(f"I6: node {life.index} goes back from view {life.view} to {record.view}")
            life.view = record.view
            life.entered_by = record.statements[0].signature if record.statements else b""
        elif record.kind == EVIDENCE_RECORD:
            self._keep_evidence(life, *record.statements)

    def _keep_evidence(self, life: Life, first: Statement, second: Statement) -> None:
        self._check_evidence(f"node {life.index}", first, second)
        life.evidence.add(first.author)
        life.owes_evidence.pop(first.author, None)

    def _check_evidence(self, who: str, first: Statement, second: Statement) -> None:
        same = first.author == second.author and first.place == second.place and first.signed != second.signed
        if not same or not self._speech.is_signed(first) or not self._speech.is_signed(second):
            raise InvariantBroken(f"I11: {who} keeps evidence that proves nothing: {named(first)}")
        if first.author in self._honest:
            raise InvariantBroken(f"I11: {who} keeps evidence against an honest validator: {named(first)}")

    def stored(self, node: int, body: bytes) -> None:
        """The bytes of a batch became durable."""
        if node in self._lives:
            self._outcomes.store(body)

    def appended(self, node: int, blocks: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Committed blocks, each a header and perhaps its certificate, became durable in one write."""
        life = self._lives.get(node)
        if life is None:
            return
        for data, certificate in blocks:
            header = self._chain.read(data)
            self._append(life, header)
            if certificate is not None:
                self._chain.check_certificate(self._reader.read_certificate(certificate), header)
        if blocks:
            self._chain.check_proven(life)

    def _append(self, life: Life, header: Header) -> None:
        before = self._chain.headers[-1]
        if self._chain.append(life, header):
            self._outcomes.list_roots(header, 0 if before is None else before.executed_height)

    def flushed(
        self,
        node: int,
        height: int,
        root: bytes | None,
        writes: Mapping[bytes, bytes | None],
        leaves: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """The state at a height became durable: its root (None: of the genesis), what changed since the last flush,
        and the concatenated leaf hashes of each height's effects tree."""
        life = self._lives.get(node)
        if life is not None:
            self._outcomes.flush(life, height, root, writes, leaves)

    # Clients

    def submitted(self, transaction: bytes) -> None:
        """A client hands over a transaction, for the first time or again."""
        self._outcomes.submit(read_transaction(transaction))

    def executed(self, node: int, height: int, root: bytes, receipts: Sequence[bytes]) -> None:
        """A node tells what a durable block came to: its effects root, and each receipt with its events."""
        life = self._lives.get(node)
        if life is None:
            return
        if height > life.tip:
            raise InvariantBroken(f"9, I5: node {node} tells of block {height}, durable is {life.tip}")
        self._outcomes.execute(life, self._chain, height, root, tuple(receipts))
        while self._outcomes.duties:
            self._convict(self._outcomes.duties.pop())
        while self._outcomes.told:
            self.releases.take(*self._outcomes.told.pop())

    def _convict(self, operations: bytes) -> None:
        """P14: what a validator's node put onto the chain proves that somebody contradicted itself, each liar once."""
        for first, second in self._reader.read_evidence(operations):
            self._check_evidence("the chain", first, second)
            if first.author in self.caught:
                raise InvariantBroken(f"I11: the chain holds evidence twice against {first.author.hex()[:8]}")
            self.caught.add(first.author)
            self.reached["evidence committed"] += 1

    def answered(self, node: int, transaction: bytes, receipt: bytes) -> None:
        """A node tells a client what became of its transaction."""
        life = self._lives.get(node)
        if life is not None:
            self._outcomes.answer(life, transaction, receipt)

    # The end

    def remembers(self, node: int, statements: int) -> None:
        """So many statements of others are in a node's memory (8, I10)."""
        most = judgement.statements_kept_max(len(self.founding.seats), self.founding.window)
        if statements > most:
            raise InvariantBroken(f"8, I10: node {node} keeps {statements} statements, more than {most}")

    def healed(self) -> None:
        """From now on the network is good and everybody runs."""
        self._healed = self._reached()

    def _reached(self) -> tuple[int, int]:
        lives = self._lives.values()
        return max((life.tip for life in lives), default=0), max((life.view[1] for life in lives), default=0)

    def quiet(self) -> None:
        """A span of time in which nobody wants anything has passed; call it after each of several equal ones (I13)."""
        n = len(self.founding.seats)
        self._quiet.append(self.messages)
        if len(self._quiet) >= 3:
            first, second, third = self._quiet[-3:]
            before, last = second - first, third - second
            if last > before + n * n:
                raise InvariantBroken(f"I13: {last} messages in a quiet span after {before} in the one before")

    def is_settled(self) -> bool:
        """Whether every honest node has executed every answered transaction."""
        return not any(self._outcomes.missing_at(life) for life in self._lives.values())

    def concluded(self, at_ms: int) -> None:
        """The run is over, the world was healed and had time to settle (7, I7, I11, I13)."""
        for life in self._lives.values():
            missing = self._outcomes.missing_at(life)
            if missing:
                raise InvariantBroken(
                    f"I7: node {life.index} lacks {len(missing)} answered transactions, first {missing[0].hex()[:8]}"
                )
            self._demand_evidence(life, at_ms)
        framed = sorted(what for author, what in self.culprits().items() if author in self._honest)
        if framed:
            raise InvariantBroken(f"3, I4: an honest validator is convicted by its signatures: {framed[0]}")
        if self._healed is not None:
            heights, views = (now - then for now, then in zip(self._reached(), self._healed, strict=True))
            if views > judgement.views_bound(self.founding.f, heights):
                raise InvariantBroken(f"I13: {views} views for {heights} heights after healing")

    def culprits(self) -> dict[bytes, str]:
        """The validators whose own signatures convict them, each with what it did; see `Speech.culprits`."""
        return self._speech.culprits()

    def is_executed(self, transaction: bytes) -> bool:
        """Whether some honest node told a receipt of it."""
        return transaction in self._outcomes.executed

    def has_spoken(self, validator: bytes) -> bool:
        """Whether a statement of it went over the wire in a message of its own."""
        return validator in self._spoke
