"""A node's whole logic as one state machine: what the driver of a real node and the simulator both run.

Events carry the moment at which they happen; effects are performed in order, all Writes of one turn first and
durably. The engine owns the replica, the executor, the pools and the router; each decides its own matters,
and the engine carries answers between them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import assert_never

from p2pledger.chain.genesis import Founding
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as replica_event
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, EvidenceRecord, HaltRecord
from p2pledger.consensus.messages import Certificate, Signed
from p2pledger.consensus.recovery import restore
from p2pledger.consensus.replica import Replica
from p2pledger.engine.admission import Admission
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.catchup import Catchup
from p2pledger.engine.dissemination import FETCH_RETRY_MS, Bodies, Dissemination, transmit
from p2pledger.engine.duties import Duties
from p2pledger.engine.events import (
    BatchVerified,
    BlockExecuted,
    Disconnect,
    DutiesOwed,
    EngineEffect,
    EngineEvent,
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
    VerifyMessage,
    Woke,
    Write,
)
from p2pledger.engine.evidence import DEADLINE as EVIDENCE
from p2pledger.engine.evidence import Evidence
from p2pledger.engine.executor import Executor, WrongRoot
from p2pledger.engine.flushing import Flushing
from p2pledger.engine.inquiries import Inquiries
from p2pledger.engine.ports import AppendBlock, LedgerStore, PutBody, PutJournal, StateStore
from p2pledger.engine.primary_watch import PrimaryWatch
from p2pledger.engine.proposing import Proposing
from p2pledger.engine.questions import Questions
from p2pledger.execution.contract import Application
from p2pledger.gossip import Router
from p2pledger.mempool import Mempool
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
    parse_message,
)
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Divergence, InvalidInput
from p2pledger.primitives.ids import Height, NodeId, ValidatorId, View

FLOOR_LAG_HEIGHTS = 64
"""The sign floor is raised every so many heights, so votes may lie as far above it."""
ANNOUNCE_MS = 1_000


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
        mempool: Mempool | None = None,
        signed_up_to: tuple[Height, View] | None = None,
    ) -> None:
        """`signed_up_to`: what this key may have signed beyond a journal that was lost; it stays silent up to there."""
        self.founding = founding
        self.chain = founding.chain
        self.me = NodeId(node_key.public)
        self.replica = Replica(founding, validator)
        if signed_up_to is not None:
            height, view = signed_up_to
            self.replica.recovery.stay_silent(height + founding.parameters.window + FLOOR_LAG_HEIGHTS, view)
        self.executor = Executor(founding, application, ledger, state)
        self.admission = Admission(founding, application, self.executor, Mempool() if mempool is None else mempool)
        self._flushing = Flushing(application, self.executor, ledger)
        members = [card.node for card in founding.genesis.cards]
        self.router = Router(self.chain, node_key, members, now.wall_ms << 16)
        self.statuses: dict[NodeId, Status] = {}
        self.view_changes = 0
        self._agenda = Agenda(now)
        mempool = self.admission.mempool
        self._batches = Dissemination(founding, node_key, self.router, ledger, self.executor, mempool, self._agenda)
        self.pool = self._batches.pool
        self._duties = Duties(founding, node_key, self.executor, self.admission, self._agenda)
        self.evidence = Evidence(founding, self.me, self._duties, self.executor, self._agenda, lambda: self.is_ready)
        self._watch = PrimaryWatch(founding, self.replica, self._batches, self._agenda)
        self._questions = Questions(self._agenda)
        self._catchup = Catchup(founding, self.replica, self.router, self.executor, ledger, self._agenda)
        self.syncer = self._catchup.syncer
        self._proposing = Proposing(
            founding, self.replica, self.executor, self._batches, self._agenda, self._tell, self._catchup.known_header
        )
        self._ledger = ledger
        self._generations: dict[str, int] = {}
        self._inquiries = Inquiries(founding, self.replica, now.wall_ms)
        self._has_work = self._stopped = self._is_performing = False
        self._news: deque[replica_event.Event] = deque()

    # Start

    def start(self) -> list[EngineEffect]:
        """Recover from the stores, then the first effects. Raises StoreError, Divergence for a node that has halted."""
        tip = self._ledger.tip()
        records = self._ledger.journal()
        for record in records:
            if isinstance(record, EvidenceRecord):
                self.evidence.recall(record)
            if isinstance(record, HaltRecord):
                raise Divergence(f"this node halted itself: {record.reason}; resynchronise it before starting again")
        try:
            self.executor.recover(tip)
        except WrongRoot as error:
            return self._halt(error)
        committed = self._ledger.block(tip) if tip > 0 else None
        restore(self.replica, records, committed)
        open_headers = [record.header for record in records if isinstance(record, BlockRecord)]
        self._batches.resume(tip == 0, open_headers)
        done = list(self._perform(self.replica.start()))
        self._agenda.after("announce", ANNOUNCE_MS)
        return done

    def next_wake(self) -> int | None:
        """The monotonic moment at which to call again with Woke, or None."""
        return self._agenda.next()

    @property
    def is_ready(self) -> bool:
        """Whether this node takes part at the tip: it may vote, and is not catching up."""
        return not self.replica.recovery.is_waiting and not self.syncer.is_active and not self.replica.is_halted

    # Events

    def handle(self, event: EngineEvent, now: Now) -> list[EngineEffect]:
        """What must be done now, in order."""
        if self._stopped:
            return []
        self._agenda.now = now
        done: list[EngineEffect] = []
        try:
            done.extend(self._dispatch(event, now))
            done += self._after()
        except WrongRoot as error:
            # What came before becomes durable, so that the ledger ends below the disputed header; nothing is said.
            return [*(effect for effect in done if isinstance(effect, Write)), *self._halt(error)]
        return done

    def _halt(self, error: WrongRoot) -> list[EngineEffect]:
        """P22: stop, and stay stopped across restarts."""
        self._stopped = True
        return [Write(PutJournal(HaltRecord(str(error), error.header))), Stop(str(error), is_divergence=True)]

    def _dispatch(self, event: EngineEvent, now: Now) -> Iterator[EngineEffect]:
        match event:
            case FromPeer():
                return self._on_body(event.node, event.node, event.body)
            case MessageVerified():
                return self._tell(replica_event.Received(event.verified))
            case MessageBad():
                return self._on_bad(event)
            case BatchVerified():
                self._batches.on_verified(event, self._proposing.wanted_headers())
                return self._proposing.try_again()
            case OwnSigned():
                return self._on_own(event.signed)
            case Submitted():
                return iter((self.admission.answer(event, now),))
            case DutiesOwed():
                return self._duties.on_owed(event)
            case Woke():
                return self._on_woke()
            case LinkUp():
                return self._on_link_up(event.node)
            case LinkDown():
                self.statuses.pop(event.node, None)
                return transmit(self.router.link_down(event.node))
            case Flushed():
                self.executor.flushed(event.height)
                return iter(())
            case _:
                assert_never(event)

    def _after(self) -> list[EngineEffect]:
        """What any event may have made possible."""
        done = list(self._batches.seal_due())
        done += self._proposing.build_due()
        done += self._update_work()
        done += self._catchup.ask_range()
        done += self._flushing.due()
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
                if isinstance(effect.record, BlockRecord):
                    yield from self._batches.keep(effect.record.header)
                yield Write(PutJournal(effect.record))
            case do.Broadcast():
                yield SignMessage(effect.message)
            case do.SendSigned():
                yield from self._send_validator(effect.to, Agreement(effect.signed))
            case do.SendCertificate():
                yield from self._send_validator(effect.to, Certified(effect.certificate))
            case do.SendStatus():
                status = Status(effect.epoch, effect.view, effect.is_active, effect.committed)
                yield from transmit(self.router.broadcast(status))
            case do.SendInquiry():
                yield from transmit(self.router.broadcast(self._inquiries.own))
            case do.SetTimer():
                self._agenda.after(effect.timer, effect.delay_ms)
                self._generations[effect.timer] = effect.generation
            case do.StopTimer():
                self._agenda.cancel(effect.timer)
            case do.BuildProposal():
                self._proposing.ask_build(effect)
            case do.CheckProposal():
                yield from self._proposing.check(effect)
            case do.FetchHeader():
                yield from self._catchup.fetch_header(effect.height, effect.block_hash)
            case do.FetchBodies():
                yield from self._proposing.hold(effect.header)
            case do.CommitBlock():
                yield from self._commit(effect.record)
            case do.SyncBlocks():
                if not self.syncer.is_active:
                    yield Note("sync_started", (("height", effect.certificate.height),))
                self.syncer.aim(effect.certificate)
            case do.ViewEntered():
                self._watch.view_changed()
                self._proposing.view_changed()
                yield Note("view_entered", (("view", effect.view),))
            case do.ViewLeft():
                self.view_changes += 1
                self._watch.view_changed()
                self._proposing.view_changed()
                yield Note("view_left", (("view", effect.view), ("target", effect.target)))
                yield from self._batches.announce(sorted(self.router.links))  # P9
            case do.ReportEquivocation():
                yield from self.evidence.keep(EvidenceRecord(effect.first, effect.second))
                yield Note("equivocation_seen", (("author", effect.first.message.author.hex()),))
            case do.ReportRollback():
                forgotten = effect.forgotten
                yield Note("rollback_seen", (("kind", type(forgotten).__name__), ("view", forgotten.view)))
            case do.Halt():
                self._stopped = True
                yield Stop(effect.reason, is_divergence=False)
            case _:
                assert_never(effect)

    def _send_validator(self, to: ValidatorId | None, message: PeerMessage) -> Iterator[EngineEffect]:
        if to is None:
            return transmit(self.router.broadcast(message))
        return transmit(self.router.send(self.founding.validators.node_of(to), message))

    def _on_own(self, signed: Signed) -> Iterator[EngineEffect]:
        yield from transmit(self.router.broadcast(Agreement(signed)))
        yield from self._tell(replica_event.Received(replica_event.Verified(signed)))

    # Peers

    def _on_link_up(self, node: NodeId) -> Iterator[EngineEffect]:
        yield from transmit(self.router.link_up(node))
        if self.replica.recovery.is_waiting:
            yield from transmit(self.router.send(node, self._inquiries.own))
        replica = self.replica
        status = Status(replica.epoch, replica.view, replica.is_active, replica.committed)
        yield from transmit(self.router.send(node, status))
        yield from self._batches.announce([node])

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
                if is_wanted(self.replica, message.signed):
                    yield VerifyMessage(origin, message.signed)
            case Certified():
                yield from self._on_certificate(message.certificate)
            case Status():
                if self._questions.may_ask(origin, message):
                    yield from self._on_status(origin, message)
            case Inquiry():
                answer = self._inquiries.answer(origin, message)
                if answer is not None:
                    yield from transmit(self.router.send(origin, answer))
            case InquiryAnswer():
                heard = self._inquiries.heard(origin, message)
                if heard is not None:
                    yield from self._tell(heard)
            case BatchPush():
                yield from self._batches.on_push(origin, message.data)
            case BatchAnnounce():
                yield from self._batches.ask_for(message.ids, [origin])
            case BatchRequest():
                yield from self._batches.on_request(origin, message)
            case HeaderRequest():
                header = self._catchup.known_header(message.height, message.block_hash)
                if header is not None:
                    yield from transmit(self.router.send(origin, HeaderReply(header)))
            case HeaderReply():
                if self._catchup.is_awaited(message.header):
                    yield from self._tell(replica_event.HeaderLearned(message.header))
            case RangeRequest():
                reply = self._catchup.range_from(message.start) if self._questions.may_ask(origin, message) else None
                if reply is not None:
                    yield from transmit(self.router.send(origin, reply))
            case RangeReply():
                yield from self._on_range(origin, message)
            case Links():
                self.router.learn_links(link, message)
            case Relay():
                inner, carried = self.router.on_relay(link, message)
                yield from transmit(carried)
                if inner is not None:
                    yield from self._on_relayed(link, message.origin, inner)
            case _:
                assert_never(message)

    def _on_relayed(self, link: NodeId, origin: NodeId, body: bytes) -> Iterator[EngineEffect]:
        """What is wrong inside is the origin's fault, never that of whoever carried it."""
        try:
            message = parse_message(body)
            if isinstance(message, Relay | Links):
                raise InvalidInput(f"{type(message).__name__} inside a relayed message")
            yield from self._on_message(link, origin, message)
        except InvalidInput as error:
            yield Note("message_rejected", (("node", origin.hex()), ("reason", str(error))))

    def _on_bad(self, event: MessageBad) -> Iterator[EngineEffect]:
        self._batches.on_bad(event.batch, event.junk_of)
        yield Note("message_rejected", (("node", event.node.hex()), ("reason", event.reason)))
        if event.is_forged and event.node in self.router.links:
            yield Disconnect(event.node, event.reason)

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
            yield from transmit(self.router.send(node, Certified(self.replica.committed_certificate)))

    # Batches

    def _update_work(self) -> Iterator[EngineEffect]:
        """P8: the timer runs while transactions, unsealed roots or a due heartbeat wait."""
        last = self.executor.last
        has_work = (
            bool(len(self.pool))
            or bool(len(self.admission.mempool))
            or self.executor.has_unsealed(last.executed_height)
            or self._proposing.is_heartbeat_due(last)
        )
        if has_work != self._has_work:
            self._has_work = has_work
            yield from self._tell(replica_event.WorkChanged(has_work))

    # Committing

    def _commit(self, record: CommittedRecord) -> Iterator[EngineEffect]:
        header = record.header
        if self.executor.has_applied(header):  # P21: in a range whose end is still under way
            return
        bodies = self._batches.bodies(header)
        assert bodies is not None, "the replica commits what is held"
        yield from self._batches.keep(header)  # again: bodies of a height that another block won may be pruned
        yield from self._apply(record, bodies)
        self.syncer.reached(header.height)

    def _apply(self, record: CommittedRecord, bodies: Bodies) -> Iterator[EngineEffect]:
        """The single apply path: append, execute, tell."""
        header = record.header
        effects = self.executor.apply(header, bodies)
        yield Write(AppendBlock(record))
        self._batches.judge(header, bodies, effects)
        self._batches.ordered(header, bodies)
        yield BlockExecuted(header.height, effects.receipts, effects.receipt_keys, effects.root, effects.alarms)

    # Ranges

    def _on_range(self, node: NodeId, reply: RangeReply) -> Iterator[EngineEffect]:
        """P21: apply what continues our tip and is certified."""
        checked = self._catchup.check(node, reply)
        if isinstance(checked, Note):
            yield checked
            return
        for record, bodies, raw in checked:
            for key, data in zip(record.header.batches, raw, strict=True):
                yield Write(PutBody(key, data))
            yield from self._apply(record, bodies)
            yield from self._flushing.due()
        if checked:
            last = checked[-1][0].header
            self.syncer.reached(last.height)
            yield Note("blocks_synced", (("height", last.height),))
            if not reply.tail:  # else the rest of what the certificate commits is asked for next
                yield from self._tell(replica_event.CaughtUp(last, reply.certificate))

    # Time

    def _on_woke(self) -> Iterator[EngineEffect]:
        for name in self._agenda.take_due():
            if name in {"progress", "retransmit"}:
                yield from self._tell(
                    replica_event.TimerFired(name, self._generations[name]),  # type: ignore[arg-type]
                )
            elif name == "fetch":
                yield from self._proposing.try_again()
                yield from self._catchup.fetch_headers_again(self.replica.committed)
                if self._proposing.is_waiting:
                    self._agenda.after("fetch", FETCH_RETRY_MS)
            elif name == EVIDENCE:
                yield from self.evidence.offer_due()
            elif name == "announce":
                self._agenda.after("announce", ANNOUNCE_MS)
                yield from self._batches.announce(sorted(self.router.links))
                complaint = self._watch.complaint()
                if complaint is not None:
                    yield Note("primary_unfair", (("view", complaint.view),))
                    yield from self._tell(complaint)
