"""Batches on their way: sealed here, pushed once, announced, asked for, held until they are ordered."""

from collections.abc import Iterable, Iterator

from p2pledger.chain.batch import Batch, batch_id, parse_batch, seal
from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Transaction
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.events import BatchVerified, EngineEffect, Transmit, VerifyBatch, Write
from p2pledger.engine.executor import Executor, parse_bodies
from p2pledger.engine.ports import LedgerStore, PutBody
from p2pledger.engine.standing import Standing
from p2pledger.execution import keys
from p2pledger.execution.execute import BlockEffects
from p2pledger.execution.windows import Window
from p2pledger.gossip import BatchPool, PooledBatch, Router, Transmission
from p2pledger.mempool import Mempool
from p2pledger.messages import BatchAnnounce, BatchPush, BatchRequest
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BatchId, NodeId

FETCH_RETRY_MS = 300
REQUESTED_MAX = 4 * limits.BLOCK_BATCHES_MAX
"""Requests remembered, so that the same batch is not asked for twice at once; more are forgotten when they are old."""
BATCHES_IN_FLIGHT_IDLE = 0
"""Own batches unordered at which the next one is sealed at once."""

Bodies = list[tuple[Batch, list[Transaction]]]


def transmit(transmissions: Iterable[Transmission]) -> Iterator[EngineEffect]:
    """As effects."""
    return (Transmit(transmission) for transmission in transmissions)


ANSWER_BYTES_MAX = 2 * limits.BLOCK_BYTES_MAX
"""What one request may draw: a block and its like."""


class Dissemination:
    """The batches of one node: its own, and everybody's that wait to be ordered."""

    def __init__(
        self,
        founding: Founding,
        node_key: SigningKey,
        router: Router,
        ledger: LedgerStore,
        executor: Executor,
        mempool: Mempool,
        agenda: Agenda,
    ) -> None:
        self.origins = frozenset(card.node for card in founding.genesis.cards)
        self.pool = BatchPool(origins=len(self.origins))
        self.standing = Standing(self.pool, NodeId(node_key.public), founding.parameters.drift_ms)
        self._chain = founding.chain
        self._key = node_key
        self._me = NodeId(node_key.public)
        self._router = router
        self._ledger = ledger
        self._executor = executor
        self._mempool = mempool
        self._agenda = agenda
        self._sequence = 0
        self._own_unordered: set[BatchId] = set()
        self._requested: dict[BatchId, int] = {}
        self._needed: dict[BatchId, None] = {}
        """Of the requested ones those that a block names: for them there is always room."""
        self._verifying: dict[BatchId, tuple[NodeId, int]] = {}
        """(origin, bytes) of each batch that is being verified."""
        self._overtaken: set[BatchId] = set()
        self.ordered_ms = 0
        """When a block with batches was last committed."""
        self.waited_ms = 0
        """How long the oldest of its batches had waited then: who sends transactions hears from us as late as that."""

    def resume(self, is_new_chain: bool, open_headers: Iterable[Header]) -> None:
        """After a start: number on from beyond what may still be under way; hold what was kept for open blocks."""
        self._sequence = 0 if is_new_chain else self.window_of(self._me).highest + limits.ORIGIN_WINDOW // 2
        for header in open_headers:
            for key in header.batches:
                data = self._ledger.body(key)
                if data is not None and key not in self.pool:
                    ((batch, transactions),) = parse_bodies([data])
                    pooled = PooledBatch(key, batch, transactions, data, self._agenda.monotonic_ms)
                    self.pool.add(pooled, is_wanted=True)

    def window_of(self, origin: NodeId) -> Window:
        """The batch sequences of an origin that the executed chain has used."""
        return keys.window_at(keys.origin(origin), self._executor.state)

    # Sealing

    @property
    def gather_ms(self) -> int:
        """How long to wait for company: what is sent, checked and ordered costs as much for one as for many.

        A quarter of what the last transactions took: those who wait notice little, and under load it grows with it.
        """
        return min(self.waited_ms // 4, limits.GATHER_MS_MAX)

    def seal_due(self) -> Iterator[EngineEffect]:
        """Seal what waits: at once when nothing of ours is under way, else at 200 transactions, or after a while."""
        mempool = self._mempool
        while len(mempool) and not self.pool.is_full(self._me):
            waited = self._agenda.monotonic_ms - mempool.oldest_ms
            is_idle = len(self._own_unordered) <= BATCHES_IN_FLIGHT_IDLE
            patience_ms = max(limits.BATCH_SEAL_MS, self.gather_ms)
            if not (is_idle or len(mempool) >= limits.BATCH_SEAL_TRANSACTIONS or waited >= patience_ms):
                self._agenda.at("seal", mempool.oldest_ms + patience_ms)
                return
            if len(self._own_unordered) >= limits.ORIGIN_WINDOW // 2:
                return
            yield from self._seal(mempool.take(limits.BATCH_TRANSACTIONS_MAX))
            mempool.oldest_ms = self._agenda.monotonic_ms
        self._agenda.cancel("seal")

    def _seal(self, transactions: list[Transaction]) -> Iterator[EngineEffect]:
        self._sequence = max(self._sequence, self.window_of(self._me).highest) + 1
        data = seal(self._chain, self._key, self._sequence, [item.data for item in transactions])
        key = batch_id(data)
        self._own_unordered.add(key)
        now = self._agenda.monotonic_ms
        self.pool.add(PooledBatch(key, parse_batch(data), transactions, data, now, is_own=True), is_wanted=True)
        yield from transmit(self._router.broadcast(BatchPush(data)))

    # What comes

    def _lacks(self, key: BatchId) -> bool:
        return key not in self.pool and key not in self._verifying and self._ledger.body(key) is None

    def on_push(self, link: NodeId, data: bytes) -> Iterator[EngineEffect]:
        """A batch in full: worth verifying if it is new, and was asked for or may be ordered and has room.

        Raises InvalidInput for what is no batch of a member.
        """
        key = batch_id(data)
        if not self._lacks(key):
            return
        if self.standing.is_known_junk(key):
            return
        batch = parse_batch(data)
        if batch.origin not in self.origins:
            raise InvalidInput(f"batch of {batch.origin.hex()}, who is not a member")
        is_open = self.window_of(batch.origin).use(batch.sequence) is not None
        if key in self._needed or (is_open and self._has_room(batch.origin)):
            self._verifying[key] = (batch.origin, len(data))
            yield VerifyBatch(link, data)

    def _has_room(self, origin: NodeId) -> bool:
        """Whether one more batch of an origin fits its share, with those that are being verified."""
        return not self.pool.is_full(origin, sum(size for by, size in self._verifying.values() if by == origin))

    def on_bad(self, key: BatchId | None, junk_of: NodeId | None = None) -> None:
        """A batch that does not hold, or that nobody looked at: it may come again, unless its origin signed it so."""
        if key is not None:
            self._verifying.pop(key, None)
            if junk_of is not None:
                self.standing.convict(junk_of, key)

    def on_verified(self, event: BatchVerified, wanted: Iterable[Header]) -> None:
        """File a batch whose signatures hold, if a block that is looked at names it or it may yet be ordered."""
        self._verifying.pop(event.id, None)
        self._requested.pop(event.id, None)
        self._needed.pop(event.id, None)
        if event.batch.origin not in self.origins or not self._lacks(event.id):
            return
        is_wanted = any(event.id in header.batches for header in wanted)
        is_open = self.window_of(event.batch.origin).use(event.batch.sequence) is not None
        if is_wanted or is_open:
            now = self._agenda.now
            pooled = PooledBatch(
                event.id, event.batch, event.transactions, event.data, now.monotonic_ms, came_ms=now.wall_ms
            )
            self.pool.add(pooled, is_wanted)

    def announce(self, nodes: Iterable[NodeId]) -> Iterator[EngineEffect]:
        """Tell peers what waits here; who lacks a batch asks for it."""
        ids = tuple(self.pool.batches)[: limits.BLOCK_BATCHES_MAX]
        if ids:
            for node in nodes:
                yield from transmit(self._router.send(node, BatchAnnounce(ids)))

    def ask_for(self, ids: Iterable[BatchId], nodes: Iterable[NodeId]) -> Iterator[EngineEffect]:
        """Request those that are lacking and were not asked for just now."""
        now = self._agenda.monotonic_ms
        if len(self._requested) > REQUESTED_MAX:
            self._requested = {key: at for key, at in self._requested.items() if now - at < FETCH_RETRY_MS}
        lacking = [key for key in ids if self._lacks(key)]
        wanted = [key for key in lacking if now - self._requested.get(key, -FETCH_RETRY_MS) >= FETCH_RETRY_MS]
        if wanted:
            self._requested.update(dict.fromkeys(wanted, now))
            for node in nodes:
                yield from transmit(self._router.send(node, BatchRequest(tuple(wanted))))
        if lacking:
            self._agenda.after("fetch", FETCH_RETRY_MS)

    def ask_missing(self, header: Header) -> Iterator[EngineEffect]:
        """The bodies of a block that are not here: everybody may have them."""
        if len(self._needed) > REQUESTED_MAX:
            self._needed.clear()  # whatever is still needed is asked for again
        self._needed.update(dict.fromkeys(key for key in header.batches if self._lacks(key)))
        return self.ask_for(header.batches, sorted(self._router.links))

    def on_request(self, node: NodeId, request: BatchRequest) -> Iterator[EngineEffect]:
        """Send what is asked for, each batch once and no more than a block's worth; the rest is asked for again."""
        room = ANSWER_BYTES_MAX
        for key in dict.fromkeys(request.ids):
            data = self.body(key)
            if data is not None and len(data) <= room:
                room -= len(data)
                yield from transmit(self._router.send(node, BatchPush(data)))

    # What is held

    def body(self, key: BatchId) -> bytes | None:
        pooled = self.pool.get(key)
        return pooled.data if pooled is not None else self._ledger.body(key)

    def bodies(self, header: Header) -> Bodies | None:
        """All bodies of a block, or None while one is missing; what is missing is asked for by the caller."""
        bodies: Bodies = []
        for key in header.batches:
            pooled = self.pool.get(key)
            if pooled is not None:
                bodies.append((pooled.batch, pooled.transactions))
                continue
            data = self._ledger.body(key)
            if data is None:
                return None
            bodies += parse_bodies([data])
        return bodies

    def keep(self, header: Header) -> Iterator[EngineEffect]:
        """P16b: durable together with the journal record that names them, until the height is committed."""
        for key in header.batches:
            data = self.body(key)
            assert data is not None, "a block is journalled or committed with all its bodies at hand"
            yield Write(PutBody(key, data))

    def judge(self, header: Header, bodies: Bodies, effects: BlockEffects) -> None:
        """What the batches of a committed block were worth, before they are let go."""
        waited = [self.pool.get(key) for key in header.batches]
        came = [None if pooled is None else pooled.came_ms for pooled in waited]
        self.standing.judge(header.time_ms, bodies, came, effects)

    def ordered(self, header: Header, bodies: Bodies) -> None:
        """A block is committed: its batches wait no more, nor do those that its batches made impossible."""
        ordered = [pooled for key in header.batches if (pooled := self.pool.remove(key)) is not None]
        self._own_unordered.difference_update(header.batches)
        if header.batches:
            self.ordered_ms = self._agenda.monotonic_ms
            self.waited_ms = max((self.ordered_ms - pooled.held_since_ms for pooled in ordered), default=0)
        self._note_overtaken(ordered)
        for _, transactions in bodies:
            for transaction in transactions:
                self._mempool.decided(transaction.body.sender, transaction.body.nonce)
        self._mempool.block_decided(self._agenda.monotonic_ms)
        self._drop_dead()

    def _note_overtaken(self, ordered: list[PooledBatch]) -> None:
        """Which waiting batches came before one that was ordered now (P24)."""
        latest = max((pooled.held_since_ms for pooled in ordered), default=0)
        self._overtaken &= self.pool.batches.keys()
        for pooled in self.pool.batches.values():
            if pooled.held_since_ms >= latest:
                break
            self._overtaken.add(pooled.id)

    def oldest_neglected_ms(self) -> int | None:
        """Since when a batch waits that the primary passed over, or that waits while nothing at all is ordered (P24).

        A backlog that is worked off in its order is nobody's fault.
        """
        overtaken = [pooled for key in self._overtaken if (pooled := self.pool.get(key)) is not None]
        # Who sends junk has less room at the primary than here, perhaps; that is not the primary's fault.
        passed_over = [one.held_since_ms for one in overtaken if not self.pool.halvings.get(one.batch.origin)]
        oldest = self.pool.oldest_ms()
        if oldest is not None:
            passed_over.append(max(oldest, self.ordered_ms))
        return min(passed_over, default=None)

    def _drop_dead(self) -> None:
        """Batches whose sequence another batch of their origin has used, or that fell out of the window."""
        windows: dict[NodeId, Window] = {}
        for pooled in list(self.pool.batches.values()):
            origin = pooled.batch.origin
            if origin not in windows:
                windows[origin] = self.window_of(origin)
            is_ahead = pooled.batch.sequence > windows[origin].highest  # an open block may be about to reach it
            if not is_ahead and windows[origin].use(pooled.batch.sequence) is None:
                self.pool.remove(pooled.id)
                self._own_unordered.discard(pooled.id)
                if pooled.is_own:  # a sequence used twice, as after a restart: the transactions go into a new batch
                    self._mempool.put_back(pooled.transactions)
