"""One validator's part in the agreement: total, ordered and deterministic (docs/protocol.md).

It is told what happened and answers what must happen, in order; durable comes before spoken. It never checks a
signature (its input is Verified), never waits, never reads a clock. Bodies, execution and proposals are the
engine's; what it needs of them it asks for and is told.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import assert_never

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.consensus import effects as do
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.effects import Effect
from p2pledger.consensus.events import (
    BlockHeld,
    CaughtUp,
    CertificateReceived,
    Event,
    HeaderLearned,
    InquiryAnswered,
    PeerStatus,
    PrimaryUnfair,
    ProposalBuilt,
    ProposalChecked,
    Received,
    TimerFired,
    WorkChanged,
)
from p2pledger.consensus.journal import (
    BlockRecord,
    CommittedRecord,
    HaltRecord,
    JournalRecord,
    LockRecord,
    ViewRecord,
    VoteRecord,
)
from p2pledger.consensus.messages import (
    Certificate,
    Claim,
    Commit,
    Kind,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    slot,
)
from p2pledger.consensus.recovery import Recovery, is_forgotten
from p2pledger.consensus.tally import Tally
from p2pledger.consensus.timeouts import Timer, progress_delay_ms, retransmit_delay_ms
from p2pledger.consensus.view_change import RivalClaims, ViewChanges, quoted, select_tip
from p2pledger.consensus.window import ForkError, Missing, Window
from p2pledger.primitives import limits
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


class Replica:
    """The state machine of one validator (or of an observer, which signs nothing) in epoch 0."""

    def __init__(self, founding: Founding, me: ValidatorId | None) -> None:
        self.me = me
        self.validators = founding.validators
        self.parameters = founding.parameters
        self.epoch = Epoch(0)
        self.view = View(0)
        self.is_active = True
        self._boundary = (Height(0), founding.header.hash)
        """The block before this epoch's first: in epoch 0 the genesis."""
        self.base = self._boundary
        self.new_view: Signed | None = None
        self.window = Window(founding.header)
        self.committed_certificate: Certificate | None = None
        self.lock: Certificate | None = None
        self.accepted: dict[Height, Header] = {}
        """Accepted in the current view."""
        self.prepares = Tally()
        self.commits = Tally()
        self.view_changes = ViewChanges(self.validators)
        self.proposals: dict[tuple[View, Height], Signed] = {}
        """The first pre-prepare seen for each place in the window."""
        self.cast: dict[tuple[int, int, int, int], Message] = {}
        """Own messages by slot, as journalled: what was signed or may have been."""
        self.own: dict[tuple[int, int, int, int], Signed] = {}
        """The same, signed, for resending."""
        self.recovery = Recovery(answers_needed=self.validators.q - 1, is_waiting=False)
        self.has_work = False
        self.is_halted = False
        self._pending: Certificate | None = None
        """The highest commit certificate that could not be applied yet."""
        self._asked: set[tuple[str, BlockHash]] = set()
        self._building: tuple[View, Height] | None = None
        self._journalled_blocks: set[BlockHash] = set()
        self._progress = Timer()
        self._retransmit = Timer()
        self._failures = 0
        self._repeats = 0

    # Properties that others read

    @property
    def committed(self) -> Height:
        return self.window.committed.height

    @property
    def primary(self) -> ValidatorId:
        return self.validators.primary(self.epoch, self.view)

    @property
    def is_primary(self) -> bool:
        return self.me is not None and self.primary == self.me

    @property
    def may_sign(self) -> bool:
        """P20: not while others are still being asked, nor after a rolled-back journal."""
        return self.me is not None and not self.recovery.is_waiting and not self.recovery.is_silent

    def kept_messages(self) -> int:
        """How many of others' messages are kept; P23 bounds it."""
        return len(self.prepares) + len(self.commits) + len(self.proposals) + len(self.view_changes)

    # Start

    def restore(self, records: Sequence[JournalRecord], committed: CommittedRecord | None) -> None:
        """Take up the journal (P20): effects of the past are not repeated, nothing is sent."""
        if committed is not None:
            self.window.advance(committed.header)
            self.committed_certificate = committed.certificate
        for record in records:
            match record:
                case ViewRecord():
                    self.view, self.is_active = record.view, record.is_active
                    self.base = (record.base_height, record.base_hash)
                    self.new_view = record.new_view
                case VoteRecord():
                    self.cast[slot(record.message)] = record.message
                case LockRecord():
                    self.lock = record.certificate
                case BlockRecord():
                    self.window.add(record.header)
                    self._journalled_blocks.add(record.header.hash)
                case HaltRecord():
                    self.is_halted = True
                case _:
                    assert_never(record)
        if self.is_active:
            for message in self.cast.values():
                if isinstance(message, Prepare) and message.view == self.view and message.height > self.committed:
                    header = self.window.headers.get(message.block_hash)
                    if header is not None:
                        self.accepted[message.height] = header

    def start(self) -> list[Effect]:
        """The first effects: ask the others before signing anything new."""
        return list(self._start())

    def _start(self) -> Iterator[Effect]:
        if self.me is not None and self.recovery.answers_needed > 0:
            self.recovery.is_waiting = True
            yield do.SendInquiry()
        else:
            yield from self._resume()
        yield from self._arm_retransmit()

    def _resume(self) -> Iterator[Effect]:
        """Voting may begin: say again what the journal holds, then take up the normal case."""
        self.recovery.is_waiting = False
        yield from self._repeat_own()
        if self.lock is not None and self.lock.kind == "commit":
            yield from self._on_commit_certificate(self.lock)
        yield from self._after_entering()
        for header in list(self.accepted.values()):
            yield from self._ask_check(header)

    # Events

    def handle(self, event: Event) -> list[Effect]:
        """What must happen now, in order."""
        if self.is_halted:
            return []
        try:
            done = list(self._dispatch(event))
            done += self._update_progress_timer()
        except (ForkError, RivalClaims) as error:
            self.is_halted = True
            return [do.Persist(HaltRecord(str(error))), do.Halt(str(error))]
        return done

    def _dispatch(self, event: Event) -> Iterator[Effect]:
        match event:
            case Received():
                return self._on_received(event.verified.signed)
            case CertificateReceived():
                return self._on_commit_certificate(event.certificate)
            case ProposalBuilt():
                return self._on_built(event)
            case ProposalChecked():
                return self._on_checked(event)
            case BlockHeld():
                self.window.hold(event.header)
                return self._on_block_known()
            case HeaderLearned():
                self.window.add(event.header)
                return self._on_block_known()
            case CaughtUp():
                return self._on_caught_up(event)
            case TimerFired():
                return self._on_timer(event)
            case WorkChanged():
                self.has_work = event.has_work
                return iter(())
            case PrimaryUnfair():
                return self._on_unfair(event)
            case PeerStatus():
                return self._on_status(event)
            case InquiryAnswered():
                return self._on_answer(event)
            case _:
                assert_never(event)

    def wants(self, signed: Signed) -> bool:
        """Whether a message is worth verifying: in its window and not already known or superfluous (P23)."""
        message = signed.message
        if message.epoch != self.epoch or message.author not in self.validators:
            return False
        match message:
            case Prepare() | Commit():
                tally = self.prepares if isinstance(message, Prepare) else self.commits
                if not self._in_window(message.view, message.height) or tally.has(message):
                    return False
                voters = tally.signatures(message.view, message.height, message.block_hash)
                return len(voters) < self.validators.q
            case PrePrepare():
                known = self.proposals.get((message.view, message.height))
                if known is not None and known.message == message:
                    return False
                return self._in_window(message.view, message.height) and message.view >= self.view
            case ViewChange():
                return message.view > self.view - (not self.is_active) and not self.view_changes.has(message)
            case NewView():
                return message.view > self.view or (message.view == self.view and not self.is_active)
            case _:
                assert_never(message)

    def _in_window(self, view: View, height: Height) -> bool:
        return (
            self.committed < height <= self.committed + self.parameters.window
            and view <= self.view + limits.VIEWS_AHEAD_MAX
        )

    def _on_received(self, signed: Signed) -> Iterator[Effect]:
        message = signed.message
        if message.epoch != self.epoch:
            return
        if message.author == self.me and slot(message) in self.cast:
            self.own[slot(message)] = signed
        match message:
            case PrePrepare():
                yield from self._on_pre_prepare(signed, message)
            case Prepare():
                yield from self._on_prepare(signed, message)
            case Commit():
                yield from self._on_commit(signed, message)
            case ViewChange():
                yield from self._on_view_change(signed, message)
            case NewView():
                yield from self._on_new_view(signed, message)
            case _:
                assert_never(message)

    # Normal case

    def _propose(self) -> Iterator[Effect]:
        """P1: ask for the next block while the window has room."""
        if not (self.is_active and self.is_primary and self.may_sign):
            return
        parent = self._head()
        if parent is None or parent.height + 1 > self.committed + self.parameters.window:
            return
        place = (self.view, Height(parent.height + 1))
        if self._building == place or (1, self.epoch, *place) in self.cast:
            return
        self._building = place
        yield do.BuildProposal(self.epoch, self.view, parent)

    def _head(self) -> Header | None:
        """The block to build on: the highest accepted, else the base or the committed one above it; None: not held."""
        if self.accepted:
            return self.accepted[max(self.accepted)]
        if self.base[0] > self.committed:
            return None  # the tip of the NEW-VIEW comes first (P13)
        return self.window.committed

    def _on_built(self, event: ProposalBuilt) -> Iterator[Effect]:
        header = event.header
        if (event.epoch, event.view) != (self.epoch, self.view) or not (self.is_active and self.is_primary):
            return
        self._building = None
        parent = self._head()
        message = PrePrepare(self.epoch, self.view, header, self.primary)
        if parent is None or header.parent != parent.hash or slot(message) in self.cast:
            yield from self._propose()
            return
        self.window.add(header)
        yield from self._cast(message)

    def _on_pre_prepare(self, signed: Signed, message: PrePrepare) -> Iterator[Effect]:
        place = (message.view, message.height)
        if not self._in_window(*place) or message.view < self.view:
            return
        known = self.proposals.get(place)
        if known is not None:
            if known.message.author == message.author and known.message != message:
                yield do.ReportEquivocation(known, signed)
                if message.view == self.view and self.is_active:
                    yield from self._leave(View(self.view + 1))  # P9: proof that the primary equivocated
            return
        self.proposals[place] = signed
        yield from self._accept_ready()

    def _accept_ready(self) -> Iterator[Effect]:
        """P2: accept the kept pre-prepares of this view that now have their parent."""
        if not self.is_active:
            return
        for height in range(self.committed + 1, self.committed + self.parameters.window + 1):
            signed = self.proposals.get((self.view, Height(height)))
            if signed is None or height in self.accepted or not isinstance(signed.message, PrePrepare):
                continue
            header = signed.message.header
            if self._parent_in_view(header) is None:
                continue
            self.accepted[header.height] = header
            self.window.add(header)
            yield from self._ask_check(header)
            yield from self._try_commit_votes()
        yield from self._propose()

    def _parent_in_view(self, header: Header) -> Header | None:
        """The parent that makes a block acceptable in this view (P2), or None."""
        below = Height(header.height - 1)
        if below < self.base[0]:
            return None  # P13: no height below the tip is ever prepared in this view
        accepted = self.accepted.get(below)
        if accepted is not None:
            return accepted if accepted.hash == header.parent else None
        committed = self.window.committed
        if committed.height == below and committed.hash == header.parent:
            certified = self.committed_certificate
            if certified is None or certified.view <= self.view or self.base == (below, header.parent):
                return committed
        return None

    def _ask_check(self, header: Header) -> Iterator[Effect]:
        if header.height == self.base[0]:
            yield from self._prepare_tip()
            return
        parent = self._parent_in_view(header)
        if parent is not None:
            yield do.CheckProposal(self.epoch, self.view, header, parent)

    def _on_checked(self, event: ProposalChecked) -> Iterator[Effect]:
        header = self.accepted.get(event.height)
        if header is None or header.hash != event.block_hash:
            return
        self.window.hold(header)
        if (event.epoch, event.view) == (self.epoch, self.view) and self.is_active and self.me is not None:
            yield from self._cast(Prepare(self.epoch, self.view, header.height, header.hash, self.me))
        yield from self._on_block_known()

    def _cast(self, message: Message) -> Iterator[Effect]:
        """Journal, then say: once per slot, and never something else for it (P4, P6, P19)."""
        place = slot(message)
        if not self.may_sign or place in self.cast:
            return
        if isinstance(message, PrePrepare):
            yield from self._journal_block(message.header)
        elif isinstance(message, Prepare | Commit):
            header = self.window.headers[message.block_hash]
            yield from self._journal_block(header)
        self.cast[place] = message
        yield do.Persist(VoteRecord(message))
        yield do.Broadcast(message)

    def _journal_block(self, header: Header) -> Iterator[Effect]:
        if header.hash not in self._journalled_blocks:
            self._journalled_blocks.add(header.hash)
            yield do.Persist(BlockRecord(header))

    def _on_prepare(self, signed: Signed, vote: Prepare) -> Iterator[Effect]:
        if not self._in_window(vote.view, vote.height):
            return
        conflicting = self.prepares.add(signed, vote)
        if conflicting is not None:
            yield do.ReportEquivocation(conflicting, signed)
        votes = self.prepares.signatures(vote.view, vote.height, vote.block_hash)
        if len(votes) >= self.validators.q:
            self._raise_lock(self._certificate("prepare", vote.view, vote.height, vote.block_hash))
            yield from self._try_commit_votes()

    def _certificate(self, kind: Kind, view: View, height: Height, block_hash: BlockHash) -> Certificate:
        tally = self.prepares if kind == "prepare" else self.commits
        votes = tally.signatures(view, height, block_hash)
        return build_certificate(kind, (self.epoch, view, height), block_hash, votes, self.validators)

    def _raise_lock(self, certificate: Certificate) -> None:
        """P5: the highest certificate ever held, by (view, height)."""
        if self.lock is None or certificate.rank > self.lock.rank:
            self.lock = certificate

    def _try_commit_votes(self) -> Iterator[Effect]:
        """P6: COMMIT what is prepared in this active view, once the block and its ancestors are held."""
        if not (self.is_active and self.may_sign):
            return
        assert self.me is not None
        for view, height, block_hash in self.prepares.quorums(self.validators.q):
            message = Commit(self.epoch, view, height, block_hash, self.me)
            if view != self.view or height <= self.committed or slot(message) in self.cast:
                continue
            chain = yield from self._require(block_hash, height)
            if chain is None:
                continue
            for header in chain:
                yield from self._journal_block(header)
            assert self.lock is not None, "a prepared certificate is held, so there is a lock"
            yield do.Persist(LockRecord(self.lock))
            yield from self._cast(message)

    def _require(self, block_hash: BlockHash, height: Height) -> Generator[Effect, None, list[Header] | None]:
        """The held chain up to a block, or None after asking for the first thing that is missing."""
        chain = self.window.chain_to(block_hash, height)
        if not isinstance(chain, Missing):
            return chain
        key = ("header" if chain.header is None else "bodies", chain.block_hash)
        if key not in self._asked:
            self._asked.add(key)
            if chain.header is None:
                yield do.FetchHeader(chain.height, chain.block_hash)
            else:
                yield do.FetchBodies(chain.header)
        return None

    def _on_block_known(self) -> Iterator[Effect]:
        """A header or its bodies arrived: whatever waited for them may go on."""
        yield from self._try_apply()
        yield from self._prepare_tip()
        yield from self._accept_ready()
        yield from self._try_commit_votes()
        yield from self._try_new_view()

    def _on_commit(self, signed: Signed, vote: Commit) -> Iterator[Effect]:
        if not self._in_window(vote.view, vote.height):
            return
        conflicting = self.commits.add(signed, vote)
        if conflicting is not None:
            yield do.ReportEquivocation(conflicting, signed)
        votes = self.commits.signatures(vote.view, vote.height, vote.block_hash)
        if len(votes) >= self.validators.q:
            yield from self._on_commit_certificate(self._certificate("commit", vote.view, vote.height, vote.block_hash))

    def _on_commit_certificate(self, certificate: Certificate) -> Iterator[Effect]:
        """P7: from any view and in any mode. P21: beyond the window, blocks are synced."""
        if certificate.epoch != self.epoch or certificate.height <= self.committed:
            return
        self._raise_lock(certificate)
        if self._pending is None or certificate.height > self._pending.height:
            self._pending = certificate
            if certificate.height > self.committed + self.parameters.window:
                yield do.SyncBlocks(certificate)
        yield from self._try_apply()

    def _try_apply(self) -> Iterator[Effect]:
        pending = self._pending
        if pending is None or pending.height > self.committed + self.parameters.window:
            return
        if pending.height <= self.committed:
            self._pending = None
            return
        chain = yield from self._require(pending.block_hash, pending.height)
        if chain is None:
            return
        self._pending = None
        for header in chain:
            is_certified = header.hash == pending.block_hash
            yield do.CommitBlock(CommittedRecord(header, pending if is_certified else None))
        yield from self._moved_to(chain[-1], pending)

    def _on_caught_up(self, event: CaughtUp) -> Iterator[Effect]:
        if event.header.height > self.committed:
            self._raise_lock(event.certificate)
            yield from self._moved_to(event.header, event.certificate)

    def _moved_to(self, header: Header, certificate: Certificate) -> Iterator[Effect]:
        """The committed height rose: forget what lies below, take up what waited for it."""
        before = self.committed
        self.window.advance(header)
        self.committed_certificate = certificate
        self.prepares.prune(header.height)
        self.commits.prune(header.height)
        self.accepted = {height: block for height, block in self.accepted.items() if height > header.height}
        self.proposals = {place: signed for place, signed in self.proposals.items() if place[1] > header.height}
        self.cast = {key: said for key, said in self.cast.items() if key[0] > 3 or key[3] > header.height}
        self.own = {key: said for key, said in self.own.items() if key in self.cast}
        self._journalled_blocks &= self.window.headers.keys()
        self._asked.clear()
        self._building = None
        self._failures = 0
        self._repeats = 0
        self._progress.stop()
        self.recovery.lift(certificate.height, certificate.view)
        yield from self._arm_retransmit()
        term = self.parameters.term_heights
        if self.is_active and header.height // term > before // term:
            yield from self._leave(View(self.view + 1))  # P24: nobody rules for ever
            return
        yield from self._try_apply()
        yield from self._prepare_tip()
        yield from self._accept_ready()
        yield from self._try_commit_votes()
        yield from self._try_new_view()

    # View change

    def _leave(self, target: View) -> Iterator[Effect]:
        """P9: stop voting below `target` and say what we are locked on."""
        if not self.may_sign or target <= self.view:
            return
        assert self.me is not None
        lock = self.lock
        left = self.view
        self.view = View(max(target, 0 if lock is None else lock.view + 1))  # a claim is of a lower view than v'
        self.is_active = False
        self._failures += 1
        self.accepted = {}
        self._building = None
        self._progress.stop()
        claim = None if lock is None else Claim(lock.view, lock.height, lock.block_hash)
        if lock is not None:
            yield do.Persist(LockRecord(lock))
        yield do.Persist(ViewRecord(self.epoch, self.view, False, *self.base, None))
        yield from self._cast(ViewChange(self.epoch, self.view, claim, self.me, lock, self.committed_certificate))
        yield do.ViewLeft(left, self.view)
        self._repeats = 0
        yield from self._arm_retransmit()

    def _next_view(self) -> View:
        return View(1 + max(self.view, -1 if self.lock is None else self.lock.view))

    def _on_view_change(self, signed: Signed, message: ViewChange) -> Iterator[Effect]:
        conflicting = self.view_changes.add(signed, message)
        if conflicting is not None:
            yield do.ReportEquivocation(conflicting, signed)
        if message.committed is not None:
            yield from self._on_commit_certificate(message.committed)
        wanted = self.view_changes.wanted_above(self.view)
        if wanted is not None:
            yield from self._leave(wanted)  # P10
        yield from self._try_new_view()

    def _try_new_view(self) -> Iterator[Effect]:
        """P12: the primary of the view that is being changed to shows its quorum, once it holds the tip."""
        if self.is_active or not self.is_primary or not self.may_sign:
            return
        assert self.me is not None
        quorum = self.view_changes.quorum_for(self.view)
        if quorum is None or (5, self.epoch, self.view, 0) in self.cast:
            return
        tip, certificate = select_tip(quorum)
        headers: list[Header] = []
        if tip is not None and tip.height > self.committed:
            if tip.height > self.committed + self.parameters.window:
                return  # the commit certificates beside the VIEW-CHANGEs have started block sync
            chain = yield from self._require(tip.block_hash, tip.height)
            if chain is None:
                return
            headers = chain
        yield from self._cast(NewView(self.epoch, self.view, quoted(quorum), certificate, tuple(headers), self.me))

    def _on_new_view(self, signed: Signed, message: NewView) -> Iterator[Effect]:
        """P13: enter once; the base is the tip."""
        if message.view < self.view or (message.view == self.view and self.is_active):
            known = self.new_view
            if known is not None and known.message.view == message.view and known.signature != signed.signature:
                yield do.ReportEquivocation(known, signed)
            return
        tip = message.tip
        self.view, self.is_active, self.new_view = message.view, True, signed
        self.base = self._boundary if tip is None else (tip.height, tip.block_hash)
        self.accepted = {}
        self._building = None
        self._asked.clear()
        for header in message.headers:
            self.window.add(header)
        if message.certificate is not None:
            self._raise_lock(message.certificate)
        self.view_changes.forget_up_to(message.view)
        self.proposals = {place: kept for place, kept in self.proposals.items() if place[0] >= message.view}
        self._progress.stop()
        yield do.Persist(ViewRecord(self.epoch, self.view, True, *self.base, signed))
        yield do.ViewEntered(self.view)
        yield from self._after_entering()

    def _after_entering(self) -> Iterator[Effect]:
        yield from self._prepare_tip()
        yield from self._accept_ready()
        yield from self._try_commit_votes()

    def _prepare_tip(self) -> Iterator[Effect]:
        """P13: only the tip itself is prepared again, once it is held with its ancestors."""
        height, block_hash = self.base
        if not self.is_active or height <= self.committed:
            return
        if height > self.committed + self.parameters.window:
            return
        chain = yield from self._require(block_hash, height)
        if chain is None:
            return
        is_new = height not in self.accepted
        self.accepted[height] = chain[-1]
        if self.me is not None:
            yield from self._cast(Prepare(self.epoch, self.view, height, block_hash, self.me))
        if is_new:
            yield from self._accept_ready()

    def _on_unfair(self, event: PrimaryUnfair) -> Iterator[Effect]:
        if event.view == self.view and self.is_active:
            yield from self._leave(View(self.view + 1))

    # Timers, repetition and what others say of themselves

    def _update_progress_timer(self) -> list[Effect]:
        """P8: it runs only while there is work, and while changing view only once a quorum is seen."""
        if self.is_active:
            wanted = self.has_work or bool(self.accepted) or self._pending is not None
        else:
            wanted = self.view_changes.count_at_least(self.view) >= self.validators.q
        wanted = wanted and not self.recovery.is_waiting and self.me is not None
        if wanted and not self._progress.is_running:
            delay = progress_delay_ms(self.parameters.timeout_ms, self.parameters.timeout_cap_ms, self._failures)
            return [do.SetTimer("progress", self._progress.start(), delay)]
        if not wanted and self._progress.is_running:
            self._progress.stop()
            return [do.StopTimer("progress")]
        return []

    def _arm_retransmit(self) -> Iterator[Effect]:
        delay = retransmit_delay_ms(self.parameters.timeout_ms, self.parameters.timeout_cap_ms, self._repeats)
        yield do.SetTimer("retransmit", self._retransmit.start(), delay)

    def _on_timer(self, event: TimerFired) -> Iterator[Effect]:
        if event.timer == "progress":
            if self._progress.fires(event.generation):
                yield from self._leave(self._next_view())
        elif self._retransmit.fires(event.generation):
            self._repeats += 1
            yield from self._repeat()
            yield from self._arm_retransmit()

    def _repeat(self) -> Iterator[Effect]:
        """P16: say again where we stand and what we said; fetch again what did not come."""
        if self.recovery.is_waiting:
            yield do.SendInquiry()
        self._asked.clear()
        yield do.SendStatus(self.epoch, self.view, self.is_active, self.committed)
        yield from self._repeat_own()
        if self._pending is not None and self._pending.height > self.committed + self.parameters.window:
            yield do.SyncBlocks(self._pending)
        yield from self._try_apply()
        yield from self._prepare_tip()
        yield from self._try_commit_votes()
        yield from self._try_new_view()
        for header in list(self.accepted.values()):
            if (2, self.epoch, self.view, header.height) not in self.cast:
                yield from self._ask_check(header)

    def _repeat_own(self) -> Iterator[Effect]:
        """All own statements of this view; signing again gives the same bytes."""
        if not self.may_sign:
            return
        for key in sorted(self.cast):
            if key[2] == self.view:
                yield do.Broadcast(self.cast[key])

    def _on_status(self, peer: PeerStatus) -> Iterator[Effect]:
        """P16: whoever is ahead answers with what moves the other on."""
        if peer.epoch != self.epoch or peer.author == self.me:
            return
        if peer.committed < self.committed and self.committed_certificate is not None:
            yield do.SendCertificate(peer.author, self.committed_certificate)
        is_behind = peer.view < self.view or (peer.view == self.view and not peer.is_active)
        if is_behind and self.new_view is not None and self.new_view.message.view >= peer.view:
            yield do.SendSigned(peer.author, self.new_view)
        if peer.view != self.view or not self.is_active:
            return
        for (view, height), signed in sorted(self.proposals.items()):
            if view == self.view and height > peer.committed:
                yield do.SendSigned(peer.author, signed)
        for key in sorted(self.own):
            if key[0] in {2, 3} and key[2] == self.view and key[3] > peer.committed:
                yield do.SendSigned(peer.author, self.own[key])

    # After a start

    def _on_answer(self, event: InquiryAnswered) -> Iterator[Effect]:
        """P20: what others hold of ours; more than our journal knows means that it was rolled back."""
        for verified in event.own:
            message = verified.signed.message
            if message.epoch == self.epoch and message.author == self.me:
                forgotten = is_forgotten(message, self.committed, self.view, self.cast)
                if forgotten and self.recovery.is_waiting:
                    self.recovery.note_forgotten(message)
        if not self.recovery.is_waiting or event.author == self.me:
            return
        self.recovery.answered.add(event.author)
        if self.recovery.is_complete():
            yield from self._resume()

    def newest_by(self, author: ValidatorId) -> list[Signed]:
        """The newest messages of each kind by a validator that this replica holds: its answer to an inquiry."""
        held = [self.prepares.newest_of(author), self.commits.newest_of(author), self.view_changes.newest_of(author)]
        held += [
            signed
            for _, signed in sorted(self.proposals.items())[-limits.WINDOW_MAX :]
            if signed.message.author == author
        ][-1:]
        if self.new_view is not None and self.new_view.message.author == author:
            held.append(self.new_view)
        return [signed for signed in held if signed is not None]
