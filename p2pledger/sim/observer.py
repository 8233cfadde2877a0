"""Judges a run from outside: what was said on the wire and what each store holds, never what a node believes.

It keeps every honest statement ever sent, across crashes, and every certificate that could be formed from votes seen.
"""

from collections import Counter
from collections.abc import Iterable

from p2pledger.chain.genesis import Founding
from p2pledger.consensus.messages import (
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    same_statement,
    slot,
)
from p2pledger.engine.ports import AppendBlock, LedgerStore
from p2pledger.execution.evidence import EquivocationRecorded
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash, Height, TransactionId, ValidatorId


class InvariantBroken(AssertionError):
    """The run showed what must never be; the text names the invariant of docs/protocol.md."""


class Observer:
    """The invariants, and counters of situations that must have been reached at least sometimes."""

    def __init__(self, founding: Founding, liars: frozenset[ValidatorId]) -> None:
        self._founding = founding
        self._liars = liars
        self._said: dict[tuple[ValidatorId, tuple[int, int, int, int]], Message] = {}
        self._commits: dict[tuple[int, int, BlockHash], set[ValidatorId]] = {}
        self._certified: dict[BlockHash, int] = {}
        self._chain: dict[Height, BlockHash] = {0: founding.header.hash}  # type: ignore[dict-item]
        self._roots: dict[Height, bytes] = {}
        self._executed: dict[TransactionId, Height] = {}
        self.submitted: set[TransactionId] = set()
        self.answered: dict[TransactionId, Height] = {}
        self.caught: set[ValidatorId] = set()
        """Whom the chain holds evidence against."""
        self.reached: Counter[str] = Counter()

    def said(self, signed: Signed) -> None:
        """A statement reached the wire (invariants 3 and, for the certificate oracle, I3)."""
        message = signed.message
        author = message.author
        if author not in self._liars:
            key = (author, slot(message))
            earlier = self._said.setdefault(key, message)
            if not same_statement(earlier, message):
                raise InvariantBroken(f"3: an honest validator signed two statements for {slot(message)}")
        match message:
            case Commit():
                key3 = (message.view, message.height, message.block_hash)
                voters = self._commits.setdefault(key3, set())
                voters.add(author)
                if len(voters) >= self._founding.validators.q:
                    self._certified[message.block_hash] = message.height
            case NewView():
                views = {claim.claim.view for claim in message.claims if claim.claim is not None}
                if len(views) > 1:
                    self.reached["new view with claims of two views"] += 1
                if message.tip is not None:
                    self.reached["new view with a tip"] += 1
            case ViewChange():
                self.reached["view change"] += 1
            case Prepare() | PrePrepare():
                pass

    def committed(self, height: Height, block_hash: BlockHash, parent: BlockHash) -> None:
        """A correct node appended a block (invariants 1 and 2)."""
        known = self._chain.setdefault(height, block_hash)
        if known != block_hash:
            raise InvariantBroken(f"1: two blocks at height {height}: {known.hex()[:8]} and {block_hash.hex()[:8]}")
        if self._chain.get(Height(height - 1)) != parent:
            raise InvariantBroken(f"2: block {height} does not hang on block {height - 1}")

    def appended(self, writes: list[AppendBlock]) -> None:
        """A correct node appended blocks in one write."""
        for write in writes:
            header = write.record.header
            self.committed(header.height, header.hash, header.parent)
        self.tip_committed(writes[-1].record.header.hash)

    def tip_committed(self, block_hash: BlockHash) -> None:
        """The last block of a step must have a quorum of commits seen on the wire (I3)."""
        if block_hash not in self._certified:
            raise InvariantBroken(f"I3: block {block_hash.hex()[:8]} was committed without a quorum on the wire")

    def executed(self, height: Height, root: bytes, transactions: list[TransactionId]) -> None:
        """Equal roots at equal heights, each transaction once (invariants 5 and 6)."""
        known = self._roots.setdefault(height, root)
        if known != root:
            raise InvariantBroken(f"6: two effects roots at height {height}")
        for transaction in transactions:
            if transaction not in self.submitted:
                raise InvariantBroken(f"5: transaction {transaction.hex()[:8]} was never submitted")
            if self._executed.setdefault(transaction, height) != height:
                raise InvariantBroken(f"5: transaction {transaction.hex()[:8]} was executed twice")

    def recorded(self, events: Iterable[bytes]) -> None:
        """What contracts reported at an honest node: nobody but liars is ever caught (P14)."""
        for event in events:
            try:
                author = decode(EquivocationRecorded, event, limits.STATE_VALUE_BYTES_MAX).validator
            except InvalidInput:
                continue  # what the application reports
            if author not in self._liars:
                raise InvariantBroken(f"P14: the chain holds evidence against {author.hex()[:8]}, who is honest")
            if author not in self.caught:
                self.caught.add(author)
                self.reached["evidence committed"] += 1

    def noted(self, name: str, is_honest: bool, values: tuple[tuple[str, str | int], ...] = ()) -> None:
        """What an engine reports of itself; an honest journal is never behind what was signed (invariant 4)."""
        self.reached[name] += 1
        if name == "evidence_offered":  # a node's own transaction
            self.submitted.add(TransactionId(bytes.fromhex(str(dict(values)["transaction"]))))
        if name == "rollback_seen" and is_honest:
            raise InvariantBroken("4: others hold a statement of an honest validator that its journal does not know")

    def store_is_sound(self, ledger: LedgerStore) -> None:
        """A restarted node's ledger is a prefix of the chain, and no answered receipt is above all tips (9)."""
        for height in range(1, ledger.tip() + 1):
            record = ledger.block(Height(height))
            if record is None or record.header.hash != self._chain.get(Height(height)):
                raise InvariantBroken(f"9: the ledger of a restarted node does not hold block {height} of the chain")

    def is_executed(self, transaction: TransactionId) -> bool:
        return transaction in self._executed
