"""A node's whole logic as one state machine: what the driver of a real node and the simulator both run.

Events carry the moment at which they happen; effects are performed in order, all Writes of one turn first and
durably. The engine owns the replica, the executor, the pools and the router; each decides its own matters,
and the engine carries answers between them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import assert_never

from p2pledger.chain.batch import Batch, batch_id, parse_batch, seal
from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Transaction
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as replica_event
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, HaltRecord
from p2pledger.consensus.messages import Certificate, Signed
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.admission import Admission
from p2pledger.engine.events import (
    Answer,
    BatchVerified,
    BlockExecuted,
    Disconnect,
    EngineEffect,
    EngineEvent,
    Flush,
    Flushed,
    FromPeer,
    LinkDown,
    LinkUp,
    MessageBad,
    MessageVerified,
    Note,
    Now,
    OwnSigned,
    SignMessage,
    Stop,
    Submitted,
    Transmit,
    VerifyBatch,
    VerifyMessage,
    Woke,
    Write,
)
from p2pledger.engine.executor import Executor, parse_bodies
from p2pledger.engine.ports import AppendBlock, LedgerStore, PutBody, PutJournal, StateStore
from p2pledger.engine.proposals import OriginWindows, Verdict, build, judge, select
from p2pledger.execution import keys
from p2pledger.execution.contract import Application
from p2pledger.execution.windows import Window
from p2pledger.gossip import BatchPool, PooledBatch, Router, Transmission
from p2pledger.messages import (
    Agreement,
    BatchAnnounce,
    BatchPush,
    BatchRequest,
    Certified,
    HeaderReply,
    HeaderRequest,
    Inquiry,
    InquiryAnswer,
    Links,
    PeerMessage,
    RangeReply,
    RangeRequest,
    Relay,
    Status,
    SyncBlock,
    parse_message,
)
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Divergence, InvalidInput, Rejected
from p2pledger.primitives.ids import BatchId, BlockHash, Height, NodeId, ValidatorId
from p2pledger.sync import Syncer, check_range

ANNOUNCE_MS = 1_000
FETCH_RETRY_MS = 300
BATCHES_IN_FLIGHT_IDLE = 0
"""Own batches unordered at which the next one is sealed at once."""


class Engine:
    """One node of one chain."""

    def __init__(
        self,
        founding: Founding,
        application: Application,
        node_key: SigningKey,
        validator: ValidatorId | None,
        ledger: LedgerStore,
        state: StateStore,
        now: Now,
    ) -> None:
        self.founding = founding
        self.chain = founding.chain
        self.me = NodeId(node_key.public)
        self.replica = Replica(founding, validator)
        self.executor = Executor(founding, application, ledger, state)
        self.admission = Admission(founding, application, self.executor)
        self.pool = BatchPool()
        members = [card.node for card in founding.genesis.cards]
        self.router = Router(self.chain, node_key, members, now.wall_ms << 16)
        self.syncer = Syncer()
        self.statuses: dict[NodeId, Status] = {}
        self.evidence: list[tuple[Signed, Signed]] = []
        self.view_changes = 0
        self._node_key = node_key
        self._ledger = ledger
        self._now = now
        self._deadlines: dict[str, int] = {}
        self._generations: dict[str, int] = {}
        self._checks: dict[BlockHash, do.CheckProposal] = {}
        self._fetch_bodies: dict[BlockHash, Header] = {}
        self._fetch_headers: dict[BlockHash, Height] = {}
        self._requested: dict[BatchId, int] = {}
        self._verifying: set[BatchId] = set()
        self._build: do.BuildProposal | None = None
        self._kept_bodies: dict[BatchId, Height] = {}
        self._sequence = 0
        self._own_unordered: set[BatchId] = set()
        self._inquiry = now.wall_ms
        self._has_work = False
        self._view_since_ms = now.monotonic_ms
        self._ready_since_quorum = False
        self._stopped = False
        self._news: deque[replica_event.Event] = deque()
        self._is_performing = False

    # Start

    def start(self) -> list[EngineEffect]:
        """Recover from the stores, then the first effects. Raises Divergence, StoreError."""
        tip = self._ledger.tip()
        self.executor.recover(tip)
        records = self._ledger.journal()
        for record in records:
            if isinstance(record, HaltRecord):
                raise Divergence(f"this node halted itself: {record.reason}; resynchronise it before starting again")
        committed = self._ledger.block(tip) if tip > 0 else None
        self.replica.restore(records, committed)
        window = self._origin_window(self.me)
        for record in records:
            if isinstance(record, BlockRecord):
                self._pool_kept(record.header)
        self._sequence = window.highest + limits.ORIGIN_WINDOW // 2 if tip > 0 else 0
        done = list(self._perform(self.replica.start()))
        self._deadlines["announce"] = self._now.monotonic_ms + ANNOUNCE_MS
        return done

    def next_wake(self) -> int | None:
        """The monotonic moment at which to call again with Woke, or None."""
        return min(self._deadlines.values(), default=None)

    @property
    def is_ready(self) -> bool:
        """Whether this node takes part at the tip: it may vote, and is not catching up."""
        return not self.replica.recovery.is_waiting and not self.syncer.is_active and not self.replica.is_halted

    def _pool_kept(self, header: Header) -> None:
        """Bodies that the journal kept for an open block are held as if they had just come."""
        for key in header.batches:
            data = self._ledger.body(key)
            if data is not None and key not in self.pool:
                ((batch, transactions),) = parse_bodies([data])
                pooled = PooledBatch(key, batch, transactions, data, self._now.monotonic_ms)
                self.pool.add(pooled, is_wanted=True)
                self._kept_bodies[key] = header.height

    # Events

    def handle(self, event: EngineEvent, now: Now) -> list[EngineEffect]:
        """What must be done now, in order."""
        if self._stopped:
            return []
        self._now = now
        try:
            done = list(self._dispatch(event))
            done += self._after()
        except Divergence as error:
            self._stopped = True
            return [Write(PutJournal(HaltRecord(str(error)))), Stop(str(error), is_divergence=True)]
        return done

    def _dispatch(self, event: EngineEvent) -> Iterator[EngineEffect]:
        match event:
            case FromPeer():
                return self._on_body(event.node, event.node, event.body)
            case MessageVerified():
                return self._tell(replica_event.Received(event.verified))
            case MessageBad():
                return self._on_bad(event)
            case BatchVerified():
                return self._on_batch(event)
            case OwnSigned():
                return self._on_own(event.signed)
            case Submitted():
                return self._on_submitted(event)
            case Woke():
                return self._on_woke()
            case LinkUp():
                return self._on_link_up(event.node)
            case LinkDown():
                self.statuses.pop(event.node, None)
                return self._transmit(self.router.link_down(event.node))
            case Flushed():
                self.executor.flushed(event.height)
                return iter(())
            case _:
                assert_never(event)

    def _after(self) -> list[EngineEffect]:
        """What any event may have made possible."""
        done = list(self._seal_batches())
        done += self._build_block()
        done += self._update_work()
        done += self._ask_range()
        flush = self.executor.take_flush()
        if flush is not None:
            done.append(Flush(flush))
        return done

    def _tell(self, event: replica_event.Event) -> Iterator[EngineEffect]:
        """Let the replica know; what it asks for comes after everything that it asked for before."""
        self._news.append(event)
        if not self._is_performing:
            yield from self._perform([])

    # The replica's effects

    def _perform(self, effects: Iterable[do.Effect]) -> Iterator[EngineEffect]:
        assert not self._is_performing
        self._is_performing = True
        try:
            for effect in effects:
                yield from self._perform_one(effect)
            while self._news:
                for effect in self.replica.handle(self._news.popleft()):
                    yield from self._perform_one(effect)
        finally:
            self._is_performing = False

    def _perform_one(self, effect: do.Effect) -> Iterator[EngineEffect]:  # noqa: PLR0915
        match effect:
            case do.Persist():
                yield Write(PutJournal(effect.record))
            case do.Broadcast():
                yield SignMessage(effect.message)
            case do.SendSigned():
                yield from self._send_validator(effect.to, Agreement(effect.signed))
            case do.SendCertificate():
                yield from self._send_validator(effect.to, Certified(effect.certificate))
            case do.SendStatus():
                status = Status(effect.epoch, effect.view, effect.is_active, effect.committed)
                yield from self._transmit(self.router.broadcast(status))
            case do.SendInquiry():
                yield from self._transmit(self.router.broadcast(Inquiry(self._inquiry)))
            case do.SetTimer():
                self._deadlines[effect.timer] = self._now.monotonic_ms + effect.delay_ms
                self._generations[effect.timer] = effect.generation
            case do.StopTimer():
                self._deadlines.pop(effect.timer, None)
            case do.BuildProposal():
                self._build = effect
            case do.CheckProposal():
                self._checks[effect.header.hash] = effect
                yield from self._check(effect)
            case do.FetchHeader():
                self._fetch_headers[effect.block_hash] = effect.height
                yield from self._transmit(self.router.broadcast(HeaderRequest(effect.height, effect.block_hash)))
                self._deadlines["fetch"] = self._now.monotonic_ms + FETCH_RETRY_MS
            case do.FetchBodies():
                self._fetch_bodies[effect.header.hash] = effect.header
                yield from self._hold(effect.header)
            case do.CommitBlock():
                yield from self._commit(effect.record)
            case do.SyncBlocks():
                self.syncer.aim(effect.certificate)
            case do.ViewEntered():
                self._view_since_ms = self._now.monotonic_ms
                self._checks.clear()
                yield Note("view_entered", (("view", effect.view),))
            case do.ViewLeft():
                self.view_changes += 1
                self._view_since_ms = self._now.monotonic_ms
                self._build = None
                self._checks.clear()
                yield Note("view_left", (("view", effect.view), ("target", effect.target)))
                yield from self._push_pending()
            case do.ReportEquivocation():
                if len(self.evidence) < limits.VALIDATORS_MAX:
                    self.evidence.append((effect.first, effect.second))
                yield Note("equivocation_seen", (("author", effect.first.message.author.hex()),))
            case do.Halt():
                self._stopped = True
                yield Stop(effect.reason, is_divergence=False)
            case _:
                assert_never(effect)

    def _send_validator(self, to: ValidatorId | None, message: PeerMessage) -> Iterator[EngineEffect]:
        if to is None:
            return self._transmit(self.router.broadcast(message))
        return self._transmit(self.router.send(self.founding.validators.node_of(to), message))

    def _transmit(self, transmissions: Iterable[Transmission]) -> Iterator[EngineEffect]:
        return (Transmit(transmission) for transmission in transmissions)

    def _on_own(self, signed: Signed) -> Iterator[EngineEffect]:
        yield from self._transmit(self.router.broadcast(Agreement(signed)))
        yield from self._tell(replica_event.Received(replica_event.Verified(signed)))

    # Peers

    def _on_link_up(self, node: NodeId) -> Iterator[EngineEffect]:
        yield from self._transmit(self.router.link_up(node))
        if self.replica.recovery.is_waiting:
            yield from self._transmit(self.router.send(node, Inquiry(self._inquiry)))
        replica = self.replica
        status = Status(replica.epoch, replica.view, replica.is_active, replica.committed)
        yield from self._transmit(self.router.send(node, status))
        yield from self._announce([node])

    def _on_body(self, link: NodeId, origin: NodeId, body: bytes) -> Iterator[EngineEffect]:
        try:
            message = parse_message(body)
            yield from self._on_message(link, origin, message)
        except InvalidInput as error:
            yield Disconnect(link, str(error))

    def _on_message(self, link: NodeId, origin: NodeId, message: PeerMessage) -> Iterator[EngineEffect]:
        """`link` is who handed it over, `origin` whose message it is: they differ for relayed ones."""
        match message:
            case Agreement():
                if self.replica.wants(message.signed):
                    yield VerifyMessage(link, message.signed)
            case Certified():
                yield from self._on_certificate(message.certificate)
            case Status():
                yield from self._on_status(origin, message)
            case Inquiry():
                yield from self._on_inquiry(origin, message)
            case InquiryAnswer():
                yield from self._on_inquiry_answer(origin, message)
            case BatchPush():
                yield from self._on_push(link, message.data)
            case BatchAnnounce():
                missing = [key for key in message.ids if self._lacks(key)]
                if missing:
                    yield from self._request(missing, [origin])
            case BatchRequest():
                yield from self._on_request(origin, message)
            case HeaderRequest():
                header = self._known_header(message.height, message.block_hash)
                if header is not None:
                    yield from self._transmit(self.router.send(origin, HeaderReply(header)))
            case HeaderReply():
                yield from self._on_header(message.header)
            case RangeRequest():
                yield from self._on_range_request(origin, message.start)
            case RangeReply():
                yield from self._on_range(origin, message)
            case Links():
                self.router.learn_links(link, message)
            case Relay():
                inner, carried = self.router.on_relay(link, message)
                yield from self._transmit(carried)
                if inner is not None:
                    yield from self._on_relayed(link, message.origin, inner)
            case _:
                assert_never(message)

    def _on_relayed(self, link: NodeId, origin: NodeId, body: bytes) -> Iterator[EngineEffect]:
        message = parse_message(body)
        if isinstance(message, Relay | Links):
            raise InvalidInput(f"{type(message).__name__} inside a relayed message")
        yield from self._on_message(link, origin, message)

    def _on_bad(self, event: MessageBad) -> Iterator[EngineEffect]:
        if event.batch is not None:
            self._verifying.discard(event.batch)
        yield Note("message_rejected", (("node", event.node.hex()), ("reason", event.reason)))

    def _on_certificate(self, certificate: Certificate) -> Iterator[EngineEffect]:
        if certificate.kind != "commit" or certificate.height <= self.replica.committed:
            return
        if certificate.epoch == self.replica.epoch:
            check_certificate(certificate, self.chain, self.founding.validators)
            yield from self._tell(replica_event.CertificateReceived(certificate))

    def _on_status(self, node: NodeId, status: Status) -> Iterator[EngineEffect]:
        self.statuses[node] = status
        author = self.founding.validators.of_node(node)
        if author is not None:
            told = replica_event.PeerStatus(author, status.epoch, status.view, status.is_active, status.committed)
            yield from self._tell(told)
        elif status.committed < self.replica.committed and self.replica.committed_certificate is not None:
            yield from self._transmit(self.router.send(node, Certified(self.replica.committed_certificate)))

    def _on_inquiry(self, node: NodeId, inquiry: Inquiry) -> Iterator[EngineEffect]:
        author = self.founding.validators.of_node(node)
        if author is not None:
            own = tuple(self.replica.newest_by(author))[:8]
            yield from self._transmit(self.router.send(node, InquiryAnswer(inquiry.serial, own)))

    def _on_inquiry_answer(self, node: NodeId, answer: InquiryAnswer) -> Iterator[EngineEffect]:
        author = self.founding.validators.of_node(node)
        if author is None or answer.serial != self._inquiry or not self.replica.recovery.is_waiting:
            return
        replica = self.replica
        verified = tuple(
            verify_message(signed, self.chain, replica.epoch, self.founding.validators) for signed in answer.own
        )
        yield from self._tell(replica_event.InquiryAnswered(author, verified))

    # Batches

    def _on_submitted(self, event: Submitted) -> Iterator[EngineEffect]:
        transaction = event.transaction
        try:
            self.admission.admit(transaction, self._now)
        except Rejected as refusal:
            yield Answer(event.ticket, transaction.id, refusal.code, refusal.detail)
            return
        yield Answer(event.ticket, transaction.id, Code.OK, "")

    def _seal_batches(self) -> Iterator[EngineEffect]:
        """Seal what waits: at once when nothing of ours is under way, else at 200 transactions or 10 ms."""
        mempool = self.admission.mempool
        while len(mempool):
            waited = self._now.monotonic_ms - mempool.oldest_ms
            is_idle = len(self._own_unordered) <= BATCHES_IN_FLIGHT_IDLE
            if not (is_idle or len(mempool) >= limits.BATCH_SEAL_TRANSACTIONS or waited >= limits.BATCH_SEAL_MS):
                self._deadlines["seal"] = mempool.oldest_ms + limits.BATCH_SEAL_MS
                return
            if len(self._own_unordered) >= limits.ORIGIN_WINDOW // 2:
                return
            yield from self._seal(mempool.take(limits.BATCH_TRANSACTIONS_MAX))
            mempool.oldest_ms = self._now.monotonic_ms
        self._deadlines.pop("seal", None)

    def _seal(self, transactions: list[Transaction]) -> Iterator[EngineEffect]:
        self._sequence = max(self._sequence, self._origin_window(self.me).highest) + 1
        data = seal(self.chain, self._node_key, self._sequence, [item.data for item in transactions])
        key = batch_id(data)
        self._own_unordered.add(key)
        self.pool.add(PooledBatch(key, parse_batch(data), transactions, data, self._now.monotonic_ms, is_own=True))
        yield from self._transmit(self.router.broadcast(BatchPush(data)))

    def _lacks(self, key: BatchId) -> bool:
        return key not in self.pool and key not in self._verifying and self._ledger.body(key) is None

    def _on_push(self, link: NodeId, data: bytes) -> Iterator[EngineEffect]:
        key = batch_id(data)
        if self._lacks(key):
            self._verifying.add(key)
            yield VerifyBatch(link, data)

    def _on_batch(self, event: BatchVerified) -> Iterator[EngineEffect]:
        self._verifying.discard(event.id)
        self._requested.pop(event.id, None)
        if not any(card.node == event.batch.origin for card in self.founding.genesis.cards):
            return
        if event.id in self.pool or self._ledger.body(event.id) is not None:
            return
        is_wanted = any(event.id in header.batches for header in self._wanted_headers())
        is_open = self._origin_window(event.batch.origin).use(event.batch.sequence) is not None
        if is_wanted or is_open:
            pooled = PooledBatch(event.id, event.batch, event.transactions, event.data, self._now.monotonic_ms)
            self.pool.add(pooled, is_wanted)
        yield from self._recheck()

    def _wanted_headers(self) -> Iterator[Header]:
        yield from self._fetch_bodies.values()
        for check in self._checks.values():
            yield check.header

    def _recheck(self) -> Iterator[EngineEffect]:
        """Something arrived or time passed: judge and hold again what was waiting for it."""
        for check in list(self._checks.values()):
            yield from self._check(check)
        for header in list(self._fetch_bodies.values()):
            yield from self._hold(header)

    def _announce(self, nodes: Iterable[NodeId]) -> Iterator[EngineEffect]:
        ids = tuple(self.pool.batches)[: limits.BLOCK_BATCHES_MAX]
        if ids:
            for node in nodes:
                yield from self._transmit(self.router.send(node, BatchAnnounce(ids)))

    def _push_pending(self) -> Iterator[EngineEffect]:
        """P9: the next primary may not have what the last one was given; who lacks a batch asks for it."""
        return self._announce(sorted(self.router.links))

    def _request(self, ids: Iterable[BatchId], nodes: Iterable[NodeId]) -> Iterator[EngineEffect]:
        now = self._now.monotonic_ms
        wanted = [key for key in ids if now - self._requested.get(key, -FETCH_RETRY_MS) >= FETCH_RETRY_MS]
        if wanted:
            for key in wanted:
                self._requested[key] = now
            for node in nodes:
                yield from self._transmit(self.router.send(node, BatchRequest(tuple(wanted))))
        self._deadlines["fetch"] = now + FETCH_RETRY_MS

    def _on_request(self, node: NodeId, request: BatchRequest) -> Iterator[EngineEffect]:
        for key in request.ids:
            data = self._body(key)
            if data is not None:
                yield from self._transmit(self.router.send(node, BatchPush(data)))

    def _body(self, key: BatchId) -> bytes | None:
        pooled = self.pool.get(key)
        return pooled.data if pooled is not None else self._ledger.body(key)

    def _bodies(self, header: Header) -> list[tuple[Batch, list[Transaction]]] | None:
        """All bodies of a block, or None while one is missing; what is missing is asked for by the caller."""
        bodies = []
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

    def _keep_bodies(self, header: Header) -> Iterator[EngineEffect]:
        """P16b: durable from our own PREPARE until the height is committed."""
        for key in header.batches:
            pooled = self.pool.get(key)
            if pooled is not None and self._kept_bodies.get(key, 0) < header.height:
                self._kept_bodies[key] = header.height
                yield Write(PutBody(key, pooled.data))

    def _ask_missing(self, header: Header) -> Iterator[EngineEffect]:
        missing = [key for key in header.batches if self._lacks(key)]
        if missing:
            yield from self._request(missing, sorted(self.router.links))

    def _origin_window(self, origin: NodeId) -> Window:
        return keys.window_at(keys.origin(origin), self.executor.state)

    # Proposals

    def _windows(self, parent: Header) -> OriginWindows | None:
        """Batch sequences used up to and including `parent`; None if a body on the way is missing."""
        origins = {card.node for card in self.founding.genesis.cards}
        windows = OriginWindows({origin: self._origin_window(origin) for origin in origins})
        header: Header | None = parent
        while header is None or header.height > self.executor.executed:
            bodies = None if header is None else self._bodies(header)
            if header is None or bodies is None:
                return None
            for batch, _ in bodies:
                windows.use(batch)
            header = self._known_header(Height(header.height - 1), header.parent)
        return windows

    def _check(self, check: do.CheckProposal) -> Iterator[EngineEffect]:
        """P3, as far as it can be said now."""
        header = check.header
        replica = self.replica
        if (check.epoch, check.view) != (replica.epoch, replica.view) or header.height <= replica.committed:
            self._checks.pop(header.hash, None)
            return
        bodies = self._bodies(header)
        windows = self._windows(check.parent)
        if bodies is None or windows is None:
            yield from self._ask_missing(header)
            yield from self._ask_missing(check.parent)
            return
        judgement = judge(header, check.parent, bodies, windows, self.executor, self.founding, self._now.wall_ms)
        if judgement.verdict is Verdict.WAIT:
            self._deadlines["fetch"] = self._now.monotonic_ms + FETCH_RETRY_MS
            return
        self._checks.pop(header.hash, None)
        if judgement.verdict is Verdict.BAD:
            yield Note("proposal_refused", (("height", header.height), ("reason", judgement.reason)))
            return
        yield from self._keep_bodies(header)
        yield from self._tell(
            replica_event.ProposalChecked(check.epoch, check.view, header.height, header.hash),
        )

    def _hold(self, header: Header) -> Iterator[EngineEffect]:
        """A certified block needs its bodies only."""
        if header.height <= self.replica.committed:
            self._fetch_bodies.pop(header.hash, None)
            return
        if self._bodies(header) is None:
            yield from self._ask_missing(header)
            return
        self._fetch_bodies.pop(header.hash, None)
        yield from self._keep_bodies(header)
        yield from self._tell(replica_event.BlockHeld(header))

    def _build_block(self) -> Iterator[EngineEffect]:
        """P1, P15: answer the replica's request once there is something to propose."""
        request = self._build
        if request is None:
            return
        parent = request.parent
        if request.view != self.replica.view or parent.height < self.executor.executed:
            self._build = None  # asked for before the chain moved on
            return
        if self.executor.executed < parent.height + 1 - self.founding.parameters.window:
            return
        windows = self._windows(parent)
        if windows is None:
            return
        chosen = select(self.pool, windows, set())
        if chosen.batches:
            is_idle = parent.height == self.executor.executed
            oldest = chosen.batches[0].held_since_ms
            ripe_ms = oldest + limits.BLOCK_DELAY_MS
            is_ripe = chosen.transactions >= limits.BLOCK_TRANSACTIONS_TARGET or self._now.monotonic_ms >= ripe_ms
            if not (is_idle or is_ripe):
                self._deadlines["build"] = ripe_ms
                return
        elif not self.executor.has_unsealed(parent.executed_height) and not self._is_heartbeat_due(parent):
            return
        self._build = None
        self._deadlines.pop("build", None)
        header = build(parent, chosen, self.executor, self.founding, self._now.wall_ms)
        yield from self._tell(replica_event.ProposalBuilt(request.epoch, request.view, header))

    def _is_heartbeat_due(self, parent: Header) -> bool:
        heartbeat_ms = self.founding.parameters.heartbeat_ms
        if heartbeat_ms == 0 or parent.height != self.executor.executed:
            return False
        due_in = parent.time_ms + heartbeat_ms - self._now.wall_ms
        if due_in > 0:
            self._deadlines["heartbeat"] = self._now.monotonic_ms + due_in
            return False
        return True

    def _update_work(self) -> Iterator[EngineEffect]:
        """P8: the timer runs while transactions, unsealed roots or a due heartbeat wait."""
        last = self.executor.last
        has_work = (
            bool(len(self.pool))
            or bool(len(self.admission.mempool))
            or self.executor.has_unsealed(last.executed_height)
            or self._is_heartbeat_due(last)
        )
        if has_work != self._has_work:
            self._has_work = has_work
            yield from self._tell(replica_event.WorkChanged(has_work))

    # Committing

    def _commit(self, record: CommittedRecord) -> Iterator[EngineEffect]:
        bodies = self._bodies(record.header)
        assert bodies is not None, "the replica commits what is held"
        for key in record.header.batches:  # again: one kept for a height that another block won may be pruned
            data = self._body(key)
            assert data is not None
            yield Write(PutBody(key, data))
        yield from self._apply(record, bodies)

    def _apply(self, record: CommittedRecord, bodies: list[tuple[Batch, list[Transaction]]]) -> Iterator[EngineEffect]:
        """The single apply path: append, execute, tell."""
        header = record.header
        effects = self.executor.apply(header, bodies)
        yield Write(AppendBlock(record))
        for key in header.batches:
            self.pool.remove(key)
            self._own_unordered.discard(key)
        for _, transactions in bodies:
            for transaction in transactions:
                self.admission.mempool.decided(transaction.body.sender, transaction.body.nonce)
        self._kept_bodies = {key: height for key, height in self._kept_bodies.items() if height > header.height}
        yield BlockExecuted(header.height, effects.receipts, effects.receipt_keys, effects.root, effects.alarms)
        self._drop_dead_batches()

    def _drop_dead_batches(self) -> None:
        """Batches whose sequence another batch of their origin has used, or that fell out of the window."""
        windows = {}
        for pooled in list(self.pool.batches.values()):
            origin = pooled.batch.origin
            if origin not in windows:
                windows[origin] = self._origin_window(origin)
            if windows[origin].use(pooled.batch.sequence) is None:
                self.pool.remove(pooled.id)
                self._own_unordered.discard(pooled.id)
                if pooled.is_own:  # a sequence used twice, as after a restart: the transactions go into a new batch
                    self.admission.mempool.put_back(pooled.transactions)

    # Headers and ranges

    def _known_header(self, height: Height, block_hash: BlockHash) -> Header | None:
        header = self.replica.window.headers.get(block_hash)
        if header is not None:
            return header
        if height == 0:
            return self.founding.header
        if block_hash == self.executor.last.hash:
            return self.executor.last
        record = self._ledger.block(height) if height <= self._ledger.tip() else None
        return record.header if record is not None and record.header.hash == block_hash else None

    def _on_header(self, header: Header) -> Iterator[EngineEffect]:
        if self._fetch_headers.pop(header.hash, None) is not None:
            yield from self._tell(replica_event.HeaderLearned(header))

    def _on_range_request(self, node: NodeId, start: Height) -> Iterator[EngineEffect]:
        """Blocks from `start` to the first certified one at or beyond the limits."""
        blocks: list[SyncBlock] = []
        size = 0
        certified: tuple[int, Certificate] | None = None
        height = start
        while height <= self._ledger.tip() and len(blocks) < 2 * limits.SYNC_RANGE_BLOCKS_MAX:
            record = self._ledger.block(height)
            if record is None:
                break
            bodies = tuple(body for key in record.header.batches if (body := self._ledger.body(key)) is not None)
            size += sum(len(body) for body in bodies)
            if certified is not None and size > limits.FRAME_BYTES_MAX - 64 * 1024:
                break
            blocks.append(SyncBlock(record.header, bodies))
            if record.certificate is not None:
                certified = (len(blocks), record.certificate)
                if len(blocks) >= limits.SYNC_RANGE_BLOCKS_MAX or size >= limits.SYNC_RANGE_BYTES_MAX:
                    break
            height = Height(height + 1)
        if certified is not None:
            count, certificate = certified
            yield from self._transmit(self.router.send(node, RangeReply(tuple(blocks[:count]), certificate)))

    def _ask_range(self) -> Iterator[EngineEffect]:
        node = self.syncer.next_peer(sorted(self.router.links), self._now.monotonic_ms)
        if node is not None:
            start = Height(self.replica.committed + 1)
            yield from self._transmit(self.router.send(node, RangeRequest(start)))
            self._deadlines["sync"] = self._now.monotonic_ms + 1_000

    def _on_range(self, node: NodeId, reply: RangeReply) -> Iterator[EngineEffect]:
        """P21: apply what continues our tip and is certified; anything else costs the peer its turn."""
        tip = self.executor.last
        reply_start = reply.blocks[0].header.height
        if not self.syncer.is_active or reply_start > tip.height + 1:
            return
        fresh = tuple(block for block in reply.blocks if block.header.height > tip.height)
        if not fresh:
            return
        try:
            blocks = check_range(RangeReply(fresh, reply.certificate), tip, self.chain, self.founding.validators)
            parsed = [parse_bodies(block.bodies) for block in blocks]
        except InvalidInput as error:
            self.syncer.fault(node)
            yield Note("sync_refused", (("node", node.hex()), ("reason", str(error))))
            return
        for block, bodies in zip(blocks, parsed, strict=True):
            for key, data in zip(block.header.batches, block.bodies, strict=True):
                yield Write(PutBody(key, data))
            is_last = block is blocks[-1]
            record = CommittedRecord(block.header, reply.certificate if is_last else None)
            yield from self._apply(record, bodies)
            flush = self.executor.take_flush()
            if flush is not None:
                yield Flush(flush)
        self.syncer.reached(blocks[-1].header.height)
        yield Note("blocks_synced", (("height", blocks[-1].header.height),))
        yield from self._tell(replica_event.CaughtUp(blocks[-1].header, reply.certificate))

    # Time

    def _on_woke(self) -> Iterator[EngineEffect]:
        now = self._now.monotonic_ms
        for name in sorted(name for name, at in self._deadlines.items() if at <= now):
            del self._deadlines[name]
            if name in {"progress", "retransmit"}:
                yield from self._tell(
                    replica_event.TimerFired(name, self._generations[name]),  # type: ignore[arg-type]
                )
            elif name == "fetch":
                yield from self._on_fetch_retry()
            elif name == "announce":
                self._deadlines["announce"] = now + ANNOUNCE_MS
                yield from self._announce(sorted(self.router.links))
                yield from self._watch_primary()

    def _on_fetch_retry(self) -> Iterator[EngineEffect]:
        yield from self._recheck()
        for block_hash, height in list(self._fetch_headers.items()):
            if height <= self.replica.committed:
                del self._fetch_headers[block_hash]
                continue
            yield from self._transmit(self.router.broadcast(HeaderRequest(height, block_hash)))
        if self._fetch_headers or self._fetch_bodies or self._checks:
            self._deadlines["fetch"] = self._now.monotonic_ms + FETCH_RETRY_MS

    def _watch_primary(self) -> Iterator[EngineEffect]:
        """P24: a batch left unordered for four timeouts although the primary could order it."""
        oldest = self.pool.oldest_ms()
        patience = 4 * self.founding.parameters.timeout_ms
        if oldest is None or not self.replica.is_active:
            return
        if self._now.monotonic_ms - max(oldest, self._view_since_ms) > patience:
            yield Note("primary_unfair", (("view", self.replica.view),))
            yield from self._tell(replica_event.PrimaryUnfair(self.replica.view))
