"""One real replica over a real (memory) journal, with everything around it made trivial: bodies, clocks, links.

A `Host` performs effects as a node's driver does: the writes of a turn first and durably, then the rest in order;
between any two the surroundings may crash it. What crosses the network are the immutable messages themselves; each
goes once through the real verification, whose verdict does not depend on who asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, assert_never

from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, EvidenceRecord, VoteRecord
from p2pledger.consensus.messages import Certificate, Message, Signed, slot, statement
from p2pledger.consensus.recovery import restore
from p2pledger.consensus.repetition import newest_by
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutJournal
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash, Epoch, Height, Millis, ValidatorId
from p2pledger.sim.core.judge import Judge
from p2pledger.sim.core.signatures import Signatures
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.observer import InvariantBroken
from p2pledger.storage.memory import MemoryLedgerStore

TURN_EVENTS_MAX = 1_000
"""Events that may follow from one within a turn; more would be a turn that never ends."""
STATUS_MS = 20
"""Statuses of one validator are answered at most this often (P23), as the engine does."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """P20: what do you hold that I signed? Answers name the serial."""

    serial: int


@dataclass(frozen=True, slots=True)
class InquiryAnswer:
    """What somebody holds."""

    serial: int
    own: tuple[Signed, ...]


Wire: TypeAlias = Signed | Certificate | do.SendStatus | Inquiry | InquiryAnswer
"""What one host hands to another."""


def block_on(parent: Header, now: int, salt: bytes) -> Header:
    """An empty shell of a block: unlike all others with another parent, moment or salt (of at most 32 bytes)."""
    return replace(
        parent,
        height=Height(parent.height + 1),
        parent=parent.hash,
        time_ms=Millis(max(parent.time_ms + 1, WALL_START_MS + now)),
        transaction_root=salt.ljust(32),
    )


class Door:
    """What every message passes: the real verification, each object once. Keeps what it has judged."""

    def __init__(self, founding: Founding, signatures: Signatures) -> None:
        self.signatures = signatures
        self._founding = founding
        self._verdicts: dict[int, tuple[Signed, on.Received | None]] = {}
        self._certificates: dict[int, tuple[Certificate, bool]] = {}

    def received(self, signed: Signed) -> on.Received | None:
        """The event that this message is; None if it does not verify."""
        judged = self._verdicts.get(id(signed))
        if judged is None:
            try:
                verified = self.verified(signed)
                judged = (signed, on.Received(verified))
            except InvalidInput:
                judged = (signed, None)
            self._verdicts[id(signed)] = judged
        return judged[1]

    def verified(self, signed: Signed) -> on.Verified:
        """As the real door says it; raises InvalidInput."""
        founding = self._founding
        return verify_message(signed, founding.chain, Epoch(0), founding.validators, self.signatures.verify)

    def is_good(self, certificate: Certificate) -> bool:
        """Whether a commit certificate verifies, as the engine asks before it tells the replica."""
        judged = self._certificates.get(id(certificate))
        if judged is None:
            founding = self._founding
            try:
                check_certificate(certificate, founding.chain, founding.validators, self.signatures.verify)
                judged = (certificate, certificate.kind == "commit" and certificate.epoch == 0)
            except InvalidInput:
                judged = (certificate, False)
            self._certificates[id(certificate)] = judged
        return judged[1]


class Surroundings(Protocol):
    """What a host lives in."""

    now: int
    judge: Judge
    door: Door

    def signing(self, host: "Host") -> None:
        """A vote is about to be signed: may raise to crash the host here."""

    def writing(self, host: "Host", writes: list[LedgerWrite]) -> None:
        """These are about to become durable: may raise to crash the host here, or make the write fail."""

    def broadcast(self, host: "Host", wire: Wire) -> None:
        """Hand a message to the links to all others."""

    def send(self, host: "Host", to: ValidatorId, wire: Wire) -> None:
        """Hand a message to the link to one validator."""

    def set_timer(self, host: "Host", timer: do.SetTimer) -> None:
        """Fire it in due time, unless the host crashes."""

    def build(self, host: "Host", order: do.BuildProposal) -> None:
        """Tell the host a ProposalBuilt once there is something to propose."""

    def obtain(self, host: "Host", block_hash: BlockHash, answer: on.Event) -> bool:
        """Whether the host has this block at once; else tell it `answer` later, if anybody within reach holds it."""

    def sync(self, host: "Host", certificate: Certificate) -> None:
        """Let the host catch up from somebody within reach."""

    def wrote(self, host: "Host", writes: list[LedgerWrite]) -> None:
        """These are durable now: may raise to crash the host here."""


class Host:
    """One validator, or one of two copies of a lying one; its store survives it, its replica does not."""

    def __init__(self, index: int, seat: int, founding: Founding, surroundings: Surroundings) -> None:
        self.index = index
        self.seat = seat
        self.founding = founding
        self.id = founding.validators.members[seat].id
        self.is_honest = True
        self.incarnation = 0
        self.is_running = False
        self.store = MemoryLedgerStore(founding.chain, founding.header.hash)
        self.held: set[BlockHash] = set()
        """Blocks whose bodies are at hand."""
        self.timers: dict[str, int] = {}
        """The generation of each timer that was asked for last."""
        self.order: do.BuildProposal | None = None
        """A proposal that waits for something to propose."""
        self._around = surroundings
        self._journalled: dict[tuple[int, int, int, int], Message] = {}
        """Every statement that ever became durable here: kept apart from the store, which prunes."""
        self._evidence: set[ValidatorId] = set()
        self._asked_at: dict[ValidatorId, int] = {}
        self.replica = Replica(founding, self.id)

    # Life

    def start(self) -> None:
        """Take up the journal and begin; the first effects ask the others (P20)."""
        self.incarnation += 1
        self.is_running = True
        self.timers, self.order = {}, None
        self.replica = Replica(self.founding, self.id)
        tip = self.store.tip()
        records = self.store.journal()
        restore(self.replica, records, self.store.block(tip) if tip else None)
        self.held = {record.header.hash for record in records if isinstance(record, BlockRecord)}  # P16b
        self.held.update(self.ledger())
        self._evidence = {record.first.message.author for record in records if isinstance(record, EvidenceRecord)}
        self.perform([], self.replica.start())

    def stop(self) -> None:
        """Die: only what the store was given remains."""
        self.incarnation += 1
        self.is_running = False
        self.store = self.store.reopened()

    def empty_disk(self) -> None:
        """All that it ever wrote is gone."""
        self.store = MemoryLedgerStore(self.founding.chain, self.founding.header.hash)
        self._journalled.clear()

    def ledger(self) -> list[BlockHash]:
        """The hashes of the committed blocks, height 1 first."""
        return [self.store.committed_hash(Height(height)) for height in range(1, self.store.tip() + 1)]

    # What arrives

    def receive(self, author: ValidatorId, wire: Wire) -> None:
        """A message came through the network from `author`."""
        match wire:
            case Signed():
                if is_wanted(self.replica, wire):
                    received = self._around.door.received(wire)
                    if received is not None:
                        self.turn(received)
            case do.SendStatus():
                if self._around.now - self._asked_at.get(author, -STATUS_MS) >= STATUS_MS:
                    self._asked_at[author] = self._around.now
                    self.turn(on.PeerStatus(author, wire.epoch, wire.view, wire.is_active, wire.committed))
            case Certificate():
                if wire.height > self.replica.committed and self._around.door.is_good(wire):
                    self.turn(on.CertificateReceived(wire))
            case Inquiry():
                own = tuple(newest_by(self.replica, author))[:8]
                self._around.send(self, author, InquiryAnswer(wire.serial, own))
            case InquiryAnswer():
                if wire.serial == self.incarnation and self.replica.recovery.is_waiting:
                    self.turn(on.InquiryAnswered(author, tuple(self._around.door.verified(own) for own in wire.own)))
            case _:
                assert_never(wire)

    def turn(self, event: on.Event) -> None:
        """Tell the replica, and perform what it asks for and what follows from that."""
        effects = self.replica.handle(event)
        if effects:
            self.perform([], effects)

    def perform(self, events: list[on.Event], effects: list[do.Effect]) -> None:
        """Effects, then the events that they led to, until there are none."""
        self._perform(effects, events)
        for following in events:  # grows while it is walked
            assert len(events) < TURN_EVENTS_MAX, "a turn that never ends"
            self._perform(self.replica.handle(following), events)

    # Effects

    def _perform(self, effects: Iterable[do.Effect], events: list[on.Event]) -> None:  # noqa: PLR0915
        writes = self._writes(effects)
        if writes:
            self.write(writes)
        for effect in effects:
            match effect:
                case do.Persist():
                    pass  # written
                case do.SetTimer():
                    self.timers[effect.timer] = effect.generation
                    self._around.set_timer(self, effect)
                case do.StopTimer():
                    self.timers.pop(effect.timer, None)
                case do.Broadcast():
                    events.append(self._say(effect.message))
                case do.CommitBlock() | do.ViewEntered() | do.ViewLeft():
                    pass
                case do.SendSigned():
                    self._send(effect.to, effect.signed)
                case do.SendCertificate():
                    self._send(effect.to, effect.certificate)
                case do.SendStatus():
                    self._around.broadcast(self, effect)
                case do.SendInquiry():
                    self._around.broadcast(self, Inquiry(self.incarnation))
                case do.BuildProposal():
                    self._around.build(self, effect)
                case do.CheckProposal():
                    height, block_hash = effect.header.height, effect.header.hash
                    if block_hash not in self._around.judge.bad or not self.is_honest:
                        answer = on.ProposalChecked(effect.epoch, effect.view, height, block_hash)
                        self._need(block_hash, answer, events)
                case do.FetchHeader():
                    header = self._around.judge.blocks.get(effect.block_hash)
                    if header is not None:
                        self._need(effect.block_hash, on.HeaderLearned(header), events)
                case do.FetchBodies():
                    self._need(effect.header.hash, on.BlockHeld(effect.header), events)
                case do.SyncBlocks():
                    self._around.judge.reached["sync started"] += 1
                    self._around.sync(self, effect.certificate)
                case do.ReportEquivocation():
                    self._around.judge.reached["equivocation seen"] += 1
                case do.ReportRollback():
                    self._around.judge.reached["rollback seen"] += 1
                    if self.is_honest:
                        raise InvariantBroken(
                            "4: others hold a statement of an honest validator that its journal does not know"
                        )
                case do.Halt():
                    if self.is_honest:
                        raise InvariantBroken(f"an honest replica stopped itself: {effect.reason}")
                    self.is_running = False
                case _:
                    assert_never(effect)

    def _writes(self, effects: Iterable[do.Effect]) -> list[LedgerWrite]:
        writes: list[LedgerWrite] = []
        for effect in effects:
            if isinstance(effect, do.Persist):
                writes.append(PutJournal(effect.record))
            elif isinstance(effect, do.CommitBlock):
                writes.append(AppendBlock(effect.record))
            elif isinstance(effect, do.ReportEquivocation) and effect.first.message.author not in self._evidence:
                self._evidence.add(effect.first.message.author)
                writes.append(PutJournal(EvidenceRecord(effect.first, effect.second)))
        return writes

    def write(self, writes: list[LedgerWrite]) -> None:
        """All of it durably, and shown to the judge."""
        self._around.writing(self, writes)
        self.store.apply(writes)
        for write in writes:
            if isinstance(write, AppendBlock):
                self._appended(write.record)
            elif isinstance(write, PutJournal) and isinstance(write.record, VoteRecord):
                self._journalled[slot(write.record.message)] = write.record.message
        self._around.wrote(self, writes)

    def _appended(self, record: CommittedRecord) -> None:
        self.held.add(record.header.hash)
        if self.is_honest:
            self._around.judge.committed(record.header, record.certificate is not None)

    def _say(self, message: Message) -> on.Event:
        """Sign what is durable, let the judge hear it, hand it to the network, and hear it oneself."""
        self._around.signing(self)
        said = statement(self.founding.chain, message)
        if self.is_honest:
            if not self.replica.may_sign:
                raise InvariantBroken(f"P20: validator {self.seat} signs while it must be silent")
            durable = self._journalled.get(slot(message))
            if durable is not message and (durable is None or statement(self.founding.chain, durable) != said):
                raise InvariantBroken(f"4: validator {self.seat} says what it has not journalled: {slot(message)}")
        signed = Signed(message, self._around.door.signatures.sign(self.seat, said))
        self._around.judge.said(message, said)
        self._around.broadcast(self, signed)
        return on.Received(on.Verified(signed))

    def _send(self, to: ValidatorId | None, wire: Wire) -> None:
        if to is None:
            self._around.broadcast(self, wire)
        else:
            self._around.send(self, to, wire)

    def _need(self, block_hash: BlockHash, answer: on.Event, events: list[on.Event]) -> None:
        if block_hash in self.held or self._around.obtain(self, block_hash, answer):
            events.append(answer)
