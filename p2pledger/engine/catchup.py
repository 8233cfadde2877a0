"""Headers and ranges of committed blocks: what others ask for, and what this node asks for when it is behind (P21)."""

from collections.abc import Iterator, Sequence

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.consensus.replica import Replica
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.dissemination import FETCH_RETRY_MS, Bodies, transmit
from p2pledger.engine.events import EngineEffect, Note
from p2pledger.engine.executor import Executor, parse_bodies
from p2pledger.engine.ports import LedgerStore
from p2pledger.engine.questions import ASK_MS
from p2pledger.gossip import Router
from p2pledger.messages import HeaderRequest, RangeReply, RangeRequest, SyncBlock
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BatchId, BlockHash, ChainId, Height, NodeId
from p2pledger.sync import RETRY_MS, Syncer, check_range

Synced = tuple[CommittedRecord, Bodies, tuple[bytes, ...]]
"""A block to apply, with its bodies parsed and as bytes."""


def range_reply(ledger: LedgerStore, start: Height) -> RangeReply | None:
    """Blocks from `start` within the limits of a range, with what proves them; None if there is nothing to tell."""
    blocks: list[SyncBlock] = []
    size = 0
    for height in range(start, ledger.tip() + 1):
        record = ledger.block(Height(height))
        if record is None or len(blocks) == limits.SYNC_RANGE_BLOCKS_MAX:
            break
        block = SyncBlock(record.header, tuple(_kept(ledger, key) for key in record.header.batches))
        size += len(encode(block))
        if blocks and size > limits.SYNC_RANGE_BYTES_MAX:
            break
        blocks.append(block)
    certified = ledger.certified_from(blocks[-1].header.height) if blocks else None
    if certified is None or certified.certificate is None:
        return None
    between = range(blocks[-1].header.height + 1, certified.header.height + 1)
    tail = [record.header for height in between if (record := ledger.block(Height(height))) is not None]
    return RangeReply(tuple(blocks), tuple(tail), certified.certificate)


def _kept(ledger: LedgerStore, key: BatchId) -> bytes:
    """A body, or what is left of it: nobody can execute that, but whoever asked learns why."""
    left = ledger.pruned(key)
    return (ledger.body(key) or b"") if left is None else encode(left)


class Catchup:
    """Answers from what is here; and what this node has asked for and not got yet."""

    def __init__(
        self,
        founding: Founding,
        replica: Replica,
        router: Router,
        executor: Executor,
        ledger: LedgerStore,
        agenda: Agenda,
    ) -> None:
        self.syncer = Syncer()
        self._genesis = founding.header
        self._chain: ChainId = founding.chain
        self._validators = founding.validators
        self._replica = replica
        self._router = router
        self._executor = executor
        self._ledger = ledger
        self._agenda = agenda
        self._headers: dict[BlockHash, Height] = {}
        self._next_ask_ms = 0

    # What others ask for

    def known_header(self, height: Height, block_hash: BlockHash) -> Header | None:
        """The header of an open or committed block, or None if it is not known here."""
        header = self._replica.window.headers.get(block_hash)
        if header is not None:
            return header
        if height == 0:
            return self._genesis
        if block_hash == self._executor.last.hash:
            return self._executor.last
        record = self._ledger.block(height) if height <= self._ledger.tip() else None
        return record.header if record is not None and record.header.hash == block_hash else None

    def range_from(self, start: Height) -> RangeReply | None:
        """Blocks from `start` on for who is behind."""
        return range_reply(self._ledger, start)

    # What this node asks for

    def fetch_header(self, height: Height, block_hash: BlockHash) -> Iterator[EngineEffect]:
        """A certificate names this block and nobody here knows it."""
        self._headers[block_hash] = height
        self._agenda.after("fetch", FETCH_RETRY_MS)
        return transmit(self._router.broadcast(HeaderRequest(height, block_hash)))

    def fetch_headers_again(self, committed: Height) -> Iterator[EngineEffect]:
        """Those above the committed height that have not come."""
        self._headers = {key: height for key, height in self._headers.items() if height > committed}
        for block_hash, height in list(self._headers.items()):
            yield from self.fetch_header(height, block_hash)

    def is_awaited(self, header: Header) -> bool:
        """Whether this header was asked for; from now on it is not."""
        return self._headers.pop(header.hash, None) is not None

    def ask_range(self) -> Iterator[EngineEffect]:
        """One request at a time, to one peer after another, and not faster than they answer (P23)."""
        if self.syncer.is_active and self.syncer.asked is None and self._agenda.monotonic_ms < self._next_ask_ms:
            self._agenda.at("sync", self._next_ask_ms)
            return
        node = self.syncer.next_peer(sorted(self._router.links), self._agenda.monotonic_ms)
        if node is not None:
            yield from transmit(self._router.send(node, RangeRequest(Height(self._executor.executed + 1))))
            self._next_ask_ms = self._agenda.monotonic_ms + ASK_MS
            self._agenda.after("sync", RETRY_MS)

    def check(self, node: NodeId, reply: RangeReply) -> Sequence[Synced] | Note:
        """The blocks of a reply that continue our tip and are certified; anything else costs the peer its turn."""
        tip = self._executor.last
        if not self.syncer.is_active or reply.blocks[0].header.height > tip.height + 1:
            return ()
        fresh = tuple(block for block in reply.blocks if block.header.height > tip.height)
        if not fresh:
            return ()
        try:
            blocks = check_range(RangeReply(fresh, reply.tail, reply.certificate), tip, self._chain, self._validators)
            parsed = [parse_bodies(block.bodies) for block in blocks]
        except InvalidInput as error:
            self.syncer.fault(node)
            return Note("sync_refused", (("node", node.hex()), ("reason", str(error))))
        last = reply.certificate.height
        return [
            (CommittedRecord(block.header, reply.certificate if block.header.height == last else None), bodies, raw)
            for block, bodies, raw in zip(blocks, parsed, [block.bodies for block in blocks], strict=True)
        ]
