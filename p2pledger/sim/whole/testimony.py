"""What the observer is told of whole nodes, and the trace of a run: frames on the wire, durable writes, answers.

Nothing here asks a node what it believes. Everything is passed on as the bytes that went over the memory network, or
into a store, in the order in which it happened.
"""

import hashlib
from collections.abc import Sequence
from functools import cache

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction
from p2pledger.consensus.journal import VoteRecord
from p2pledger.engine.events import BlockExecuted
from p2pledger.engine.executor import genesis_flush
from p2pledger.engine.ports import AppendBlock, LedgerStore, LedgerWrite, PutBody, PutJournal, StateFlush
from p2pledger.health.application import HealthApplication
from p2pledger.network.api import ReceiptReply, Reply
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.ids import AccountKey, Height, Nonce
from p2pledger.sim.founding import Consortium
from p2pledger.sim.observer import InvariantBroken, Observer


class Testimony:
    """Passes on what happened to the observer, and into the trace. Nodes are numbered as in the consortium."""

    def __init__(self, consortium: Consortium, unreliable: frozenset[int], events: list[str] | None = None) -> None:
        """`unreliable` nodes lose their disks: like liars, nothing that they do counts. `events` takes the trace."""
        founding = consortium.founding
        validators = [consortium.validator(i) for i in range(len(consortium.nodes))]
        self.observer = Observer(encode(founding.signed), founding.chain, validators, unreliable)
        self.acknowledged: dict[tuple[AccountKey, Nonce], Executed] = {}
        """The receipts that clients hold with their proofs."""
        self.digest = hashlib.sha256()
        """Of every event in order: the same for the same seed, in every process."""
        self._founding = founding
        self._events = events

    def note(self, at_s: float, event: str) -> None:
        """A line of the trace."""
        line = f"{round(at_s * 1e6)} {event}"
        self.digest.update(line.encode())
        if self._events is not None:
            self._events.append(line)

    # Nodes

    def started(self, node: int, ledger: LedgerStore, height: Height) -> None:
        """A node starts from these stores; `height` is that of its state."""
        journal = [encode(record) for record in ledger.journal()]
        self.observer.reached["restart with a journal"] += bool(journal)
        self.observer.started(node, [_header(ledger, height) for height in range(1, ledger.tip() + 1)], journal)
        if height == 0:
            self.flushed(node, _genesis_flush(self._founding))

    def wrote(self, at_s: float, node: int, writes: Sequence[LedgerWrite]) -> None:
        """A ledger store has made these durable."""
        self.note(at_s, f"node-{node} wrote {' '.join(kind_of(write) for write in writes)}")
        blocks: list[tuple[bytes, bytes | None]] = []
        for write in writes:
            match write:
                case PutJournal():
                    self.observer.wrote(node, encode(write.record))
                case PutBody():
                    self.observer.stored(node, write.data)
                case AppendBlock():
                    certificate = write.record.certificate
                    blocks.append((encode(write.record.header), encode(certificate) if certificate else None))
        self.observer.appended(node, blocks)

    def flushed(self, node: int, flush: StateFlush) -> None:
        """A state store has made this durable."""
        root = flush.tree.get(b"r" + flush.height.to_bytes(8, "big"))
        self.observer.flushed(node, flush.height, root, flush.writes, flush.effects)

    def executed(self, node: int, block: BlockExecuted) -> None:
        """A node has executed a block."""
        self.observer.executed(node, block.height, block.root, [encode(executed) for executed in block.receipts])

    # Clients

    def submitted(self, transaction: Transaction) -> None:
        """A client is about to send a transaction, perhaps to several nodes."""
        self.observer.submitted(transaction.data)

    def replied(self, node: int, body: bytes) -> None:
        """A message from a node to a client: its answer, if it has a receipt in it."""
        reply: Reply = decode(Reply, body, limits.CLIENT_REPLY_BYTES_MAX)  # type: ignore[arg-type]
        if isinstance(reply, ReceiptReply):
            self.observer.answered(node, reply.executed.receipt.transaction, encode(reply.executed))

    def acknowledge(self, account: AccountKey, nonce: Nonce, executed: Executed) -> None:
        """A client holds a receipt with its proof: from here on it is promised for ever."""
        if self.acknowledged.setdefault((account, nonce), executed) != executed:
            raise InvariantBroken(f"9: two receipts of nonce {nonce} of account {account.hex()[:8]}")


def kind_of(write: LedgerWrite) -> str:
    """The kind of a journalled vote or record, or AppendBlock and PutBody: what kills aim at."""
    match write:
        case PutJournal(VoteRecord(message)):
            return type(message).__name__
        case PutJournal(record):
            return type(record).__name__
        case _:
            return type(write).__name__


def _header(ledger: LedgerStore, height: int) -> bytes:
    record = ledger.block(Height(height))
    if record is None:
        raise InvariantBroken(f"9: block {height} is missing below the tip {ledger.tip()}")
    return encode(record.header)


@cache
def _genesis_flush(founding: Founding) -> StateFlush:
    return genesis_flush(HealthApplication(), founding)
