"""One validator's part in the agreement: total, ordered and deterministic (docs/protocol.md).

It is told what happened and answers what must happen, in order; durable comes before spoken. It never checks a
signature (its input is Verified), never waits, never reads a clock. Bodies, execution and proposals are the engine's.

The decisions are here. What others said is counted in `ballots` and `view_change`, what we said is kept in
`statements`, what a view accepts in `accepted`, which blocks are known in `window`, how long to wait in `timeouts`,
the journal is taken up by `recovery`, and `repetition` and `bounds` answer what the engine asks of a replica.
"""

from collections.abc import Generator, Iterator
from typing import assert_never

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.chain.statement import Claim
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus import repetition
from p2pledger.consensus.accepted import Accepted
from p2pledger.consensus.ballots import Ballots
from p2pledger.consensus.effects import Effect
from p2pledger.consensus.journal import CommittedRecord, HaltRecord, LockRecord, ViewRecord
from p2pledger.consensus.messages import (
    Ballot,
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    contradicts,
    slot,
)
from p2pledger.consensus.recovery import Recovery
from p2pledger.consensus.statements import NEW_VIEW, PRE_PREPARE, OwnStatements
from p2pledger.consensus.timeouts import Patience
from p2pledger.consensus.view_change import RivalClaims, ViewChanges, quoted, select_tip
from p2pledger.consensus.window import Conflict, ForkError, Missing, Window
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
        self.new_view: Signed | None = None
        self.window = Window(founding.header)
        self.committed_certificate: Certificate | None = None
        self.pending: Certificate | None = None
        """The highest commit certificate that could not be applied yet."""
        self.lock: Certificate | None = None
        self.accepted = Accepted(self._boundary)
        self.ballots = Ballots(self.epoch, self.validators, self.parameters.window)
        self.view_changes = ViewChanges(self.validators)
        self.own = OwnStatements()
        self.recovery = Recovery(answers_needed=self.validators.q - 1, is_waiting=False)
        self.has_work = self.is_halted = False
        self._building: tuple[View, Height] | None = None
        self._patience = Patience(self.parameters)

    # Properties that others read

    @property
    def committed(self) -> Height:
        return self.window.committed.height

    @property
    def base(self) -> tuple[Height, BlockHash]:
        return self.accepted.base

    @property
    def primary(self) -> ValidatorId:
        return self.validators.primary(self.epoch, self.view)

    @property
    def is_primary(self) -> bool:
        return self.me is not None and self.primary == self.me

    @property
    def may_sign(self) -> bool:
        """P20: not while others are still being asked, nor after a rolled-back journal, nor ever in its views."""
        is_fresh = self.view > self.recovery.left_view
        return self.me is not None and is_fresh and not self.recovery.is_waiting and not self.recovery.is_silent

    # Start

    def start(self) -> list[Effect]:
        """The first effects: ask the others before signing anything new."""
        if self.me is None or self.recovery.answers_needed == 0:
            return [*self._resume(), *self._patience.rearm()]
        self.recovery.is_waiting = True
        return [do.SendInquiry(), *self._patience.rearm()]

    def _resume(self) -> Iterator[Effect]:
        """Voting may begin: say again what the journal holds, then take up the normal case."""
        self.recovery.is_waiting = False
        self.accepted.checking.clear()
        if self.may_sign:
            yield from self.own.repeat(self.view)
        if self.lock is not None and self.lock.kind == "commit":
            yield from self._on_commit_certificate(self.lock)
        yield from self._take_up()

    # Events

    def handle(self, event: on.Event) -> list[Effect]:
        """What must happen now, in order."""
        if self.is_halted:
            return []
        try:
            return [*self._dispatch(event), *self._patience.demand_progress(self._wants_progress())]
        except (ForkError, RivalClaims) as error:
            self.is_halted = True
            return [do.Persist(HaltRecord(str(error))), do.Halt(str(error))]

    def _dispatch(self, event: on.Event) -> Iterator[Effect]:
        match event:
            case on.Received():
                return self._on_received(event.verified.signed)
            case on.CertificateReceived():
                return self._on_commit_certificate(event.certificate)
            case on.ProposalBuilt():
                return self._on_built(event)
            case on.ProposalChecked():
                return self._on_checked(event)
            case on.BlockHeld():
                self.window.hold(event.header)
                return self._on_block_known()
            case on.HeaderLearned():
                self.window.add(event.header)
                return self._on_block_known()
            case on.CaughtUp():
                return self._on_caught_up(event)
            case on.TimerFired():
                return self._on_timer(event)
            case on.WorkChanged():
                self.has_work = event.has_work
                return iter(())
            case on.PrimaryUnfair():
                is_ours = event.view == self.view and self.is_active  # P24
                return self._leave(View(self.view + 1)) if is_ours else iter(())
            case on.PeerStatus():
                return repetition.answer_status(self, event)
            case on.InquiryAnswered():
                return self._on_answer(event)
            case _:
                assert_never(event)

    def _on_received(self, signed: Signed) -> Iterator[Effect]:
        message = signed.message
        if message.epoch != self.epoch:
            return
        if message.author == self.me:
            yield from self.recovery.compare(message, self.committed, self.view, self.own.cast)
            self.own.keep_signed(signed)
        match message:
            case PrePrepare():
                yield from self._on_pre_prepare(signed, message)
            case Prepare() | Commit():
                yield from self._on_vote(signed, message)
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
        parent = self.accepted.head(self.window, self.committed_certificate)
        if parent is None or parent.height + 1 > self.committed + self.parameters.window:
            return
        place = (self.view, Height(parent.height + 1))
        if self._building == place or (PRE_PREPARE, self.epoch, *place) in self.own:
            return
        self._building = place
        yield do.BuildProposal(self.epoch, self.view, parent)

    def _on_built(self, event: on.ProposalBuilt) -> Iterator[Effect]:
        header = event.header
        if (event.epoch, event.view) != (self.epoch, self.view) or not (self.is_active and self.is_primary):
            return
        self._building = None
        parent = self.accepted.head(self.window, self.committed_certificate)
        message = PrePrepare(self.epoch, self.view, header, self.primary)
        if parent is None or header.parent != parent.hash or slot(message) in self.own:
            yield from self._propose()
            return
        self.window.add(header)
        yield from self._cast(message)

    def _on_pre_prepare(self, signed: Signed, message: PrePrepare) -> Iterator[Effect]:
        if not self.ballots.has_room_for(message):
            return
        known = self.ballots.proposals.setdefault((message.view, message.height), signed)
        if known.message != message:
            yield do.ReportEquivocation(known, signed)
            if message.view == self.view and self.is_active:
                yield from self._leave(View(self.view + 1))  # P9: proof that the primary equivocated
            return
        yield from self._accept_ready()

    def _accept_ready(self) -> Iterator[Effect]:
        """P2: accept the kept pre-prepares of this view that now have their parent, and have them checked."""
        if not self.is_active:
            return
        for signed in self.ballots.proposals_above(self.view, self.committed):
            assert isinstance(signed.message, PrePrepare)
            header = signed.message.header
            parent = self.accepted.parent_of(header, self.window, self.committed_certificate)
            if header.height not in self.accepted.blocks and parent is not None:
                self.accepted.blocks[header.height] = header
                self.window.add(header)
                yield from self._try_commit_votes()
        for header, parent in self.accepted.take_due_checks(self.window, self.committed_certificate):
            yield do.CheckProposal(self.epoch, self.view, header, parent)
        yield from self._propose()

    def _on_checked(self, event: on.ProposalChecked) -> Iterator[Effect]:
        header = self.accepted.blocks.get(event.height)
        if header is None or header.hash != event.block_hash:
            return
        self.window.hold(header)
        stands = self.accepted.parent_of(header, self.window, self.committed_certificate) is not None  # P2, still
        if stands and (event.epoch, event.view) == (self.epoch, self.view) and self.is_active and self.me is not None:
            yield from self._cast(Prepare(self.epoch, self.view, header.height, header.hash, self.me))
        yield from self._on_block_known()

    def _cast(self, message: Message) -> Iterator[Effect]:
        """Say it for the first time, with the block that it is about journalled before (P4, P6, P19)."""
        if not self.may_sign or slot(message) in self.own:
            return
        if isinstance(message, PrePrepare):
            yield from self.own.journal_blocks([message.header])
        elif isinstance(message, Prepare):
            yield from self.own.journal_blocks(self.accepted.up_to(message.height))
        yield from self.own.say(message)

    def _on_vote(self, signed: Signed, vote: Ballot) -> Iterator[Effect]:
        """P5, P7: q votes of one kind, view, height and hash are a certificate."""
        if not self.ballots.has_room_for(vote):
            return
        conflicting, certificate = self.ballots.count(signed, vote)
        if conflicting is not None:
            yield do.ReportEquivocation(conflicting, signed)
        if certificate is None:
            return
        if certificate.kind == "commit":
            yield from self._on_commit_certificate(certificate)
        else:
            self.raise_lock(certificate)
            yield from self._try_commit_votes()

    def raise_lock(self, certificate: Certificate) -> None:
        """P5: the highest certificate ever held, by (view, height)."""
        if self.lock is None or certificate.rank > self.lock.rank:
            self.lock = certificate

    def _try_commit_votes(self) -> Iterator[Effect]:
        """P6: COMMIT what is prepared in this active view, once the block and its ancestors are held."""
        if not (self.is_active and self.may_sign):
            return
        assert self.me is not None
        for height, block_hash in self.ballots.prepared_in(self.view):
            message = Commit(self.epoch, self.view, height, block_hash, self.me)
            if height <= self.committed or slot(message) in self.own:
                continue
            chain = yield from self._require(block_hash, height, self.view)
            if chain is None:
                continue
            yield from self.own.journal_blocks(chain)
            assert self.lock is not None, "a prepared certificate is held, so there is a lock"
            yield do.Persist(LockRecord(self.lock))
            yield from self._cast(message)

    def _require(self, block: BlockHash, height: Height, since: int) -> Generator[Effect, None, list[Header] | None]:
        """The held chain up to a prepared block, or None after asking for the first thing that is missing.

        It is a fork only if it contradicts what was committed in view `since` or before. Later commits make a stale tip
        of it, and for the tip of a NEW-VIEW so do those of its own view: others may have been shown another tip.
        """
        chain = self.window.chain_to(block, height)
        if isinstance(chain, Missing):
            yield from self.window.ask(chain)
            return None
        if isinstance(chain, Conflict):
            if self.committed_certificate is None or self.committed_certificate.view <= since:
                raise ForkError(str(chain))
            return None
        return chain

    def _on_block_known(self) -> Iterator[Effect]:
        """A header or its bodies arrived: whatever waited for them may go on."""
        yield from self._try_apply()
        yield from self._take_up()
        yield from self._try_new_view()

    def _take_up(self) -> Iterator[Effect]:
        """Everything that the normal case may do now."""
        yield from self._prepare_tip()
        yield from self._accept_ready()
        yield from self._try_commit_votes()

    def _on_commit_certificate(self, certificate: Certificate) -> Iterator[Effect]:
        """P7: from any view and in any mode. P21: beyond the window, blocks are synced."""
        if certificate.epoch != self.epoch or certificate.height <= self.committed:
            return
        self.raise_lock(certificate)
        if self.pending is None or certificate.height > self.pending.height:
            self.pending = certificate
            if certificate.height > self.committed + self.parameters.window:
                yield do.SyncBlocks(certificate)
        yield from self._try_apply()

    def _try_apply(self) -> Iterator[Effect]:
        pending = self.pending
        if pending is None or pending.height > self.committed + self.parameters.window:
            return
        if pending.height <= self.committed:
            self.pending = None
            return
        chain = self.window.chain_to(pending.block_hash, pending.height)
        if isinstance(chain, Conflict):
            raise ForkError(str(chain))  # both are committed
        if isinstance(chain, Missing):
            yield from self.window.ask(chain)
            return
        self.pending = None
        for header in chain:
            is_certified = header.hash == pending.block_hash
            yield do.CommitBlock(CommittedRecord(header, pending if is_certified else None))
        yield from self._moved_to(chain[-1], pending)

    def _on_caught_up(self, event: on.CaughtUp) -> Iterator[Effect]:
        if event.header.height > self.committed:
            self.raise_lock(event.certificate)
            yield from self._moved_to(event.header, event.certificate)

    def _moved_to(self, header: Header, certificate: Certificate) -> Iterator[Effect]:
        """The committed height rose: forget what lies below, take up what waited for it."""
        term = self.parameters.term_heights
        is_term_over = header.height // term > self.committed // term
        self.window.advance(header)
        self.committed_certificate = certificate
        self.ballots.move_to(header.height, self.view)
        self.accepted.forget_up_to(header.height)
        self.own.forget_up_to(header.height)
        self._building = None
        self.recovery.lift(certificate.height, certificate.view)
        yield from self._patience.height_committed()
        if self.is_active and is_term_over:
            yield from self._leave(View(self.view + 1))  # P24: nobody rules for ever
            return
        yield from self._on_block_known()

    # View change

    def _leave(self, target: View) -> Iterator[Effect]:
        """P9: stop voting below `target`, which is above the view of the lock too, and say what we are locked on."""
        if not self.may_sign or target <= self.view:
            return
        assert self.me is not None
        lock, left = self.lock, self.view
        claim = None if lock is None else Claim(lock.view, lock.height, lock.block_hash)
        self.view = View(max(target, 0 if lock is None else lock.view + 1))  # a claim is of a lower view than v'
        self.is_active = False
        self._stand_anew(self.base)
        if lock is not None:
            yield do.Persist(LockRecord(lock))
        yield do.Persist(ViewRecord(self.epoch, self.view, False, *self.base, None))
        yield from self._cast(ViewChange(self.epoch, self.view, claim, self.me, lock, self.committed_certificate))
        yield do.ViewLeft(left, self.view)
        yield from self._patience.view_left()

    def _stand_anew(self, base: tuple[Height, BlockHash]) -> None:
        self.accepted.reset(self.view, base)
        self._building = None
        self.window.ask_again()
        self.ballots.move_to(self.committed, self.view)
        self.own.forget_views_below(self.view)

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
        quorum = self.view_changes.quorum_for(self.view)
        if quorum is None or (NEW_VIEW, self.epoch, self.view, 0) in self.own:
            return
        tip, certificate = select_tip(quorum)
        headers: list[Header] = []
        if tip is not None and tip.height > self.committed:
            if tip.height > self.committed + self.parameters.window:
                return  # the commit certificates beside the VIEW-CHANGEs have started block sync
            chain = yield from self._require(tip.block_hash, tip.height, self.view - 1)
            if chain is None:
                return
            headers = chain
        yield from self._cast(NewView(self.epoch, self.view, quoted(quorum), certificate, tuple(headers), self.primary))

    def _on_new_view(self, signed: Signed, message: NewView) -> Iterator[Effect]:
        """P13: enter once; the base is the tip."""
        if message.view < self.view or (message.view == self.view and self.is_active):
            if self.new_view is not None and contradicts(self.new_view.message, message):
                yield do.ReportEquivocation(self.new_view, signed)
            return
        tip = message.tip
        self.view, self.is_active, self.new_view = message.view, True, signed
        self._stand_anew(self._boundary if tip is None else (tip.height, tip.block_hash))
        for header in message.headers:
            self.window.add(header)
        if message.certificate is not None:
            self.raise_lock(message.certificate)
        self.view_changes.forget_up_to(message.view)
        yield from self._patience.stop_progress()
        yield do.Persist(ViewRecord(self.epoch, self.view, True, *self.base, signed))
        yield do.ViewEntered(self.view)
        yield from self._take_up()

    def _prepare_tip(self) -> Iterator[Effect]:
        """P13: only the tip itself is prepared again, once it is held with its ancestors."""
        height, block_hash = self.base
        if not self.is_active or not self.committed < height <= self.committed + self.parameters.window:
            return
        chain = yield from self._require(block_hash, height, self.view - 1)
        if chain is None:
            return
        self.accepted.blocks[height] = chain[-1]
        if self.me is not None:
            yield from self._cast(Prepare(self.epoch, self.view, height, block_hash, self.me))

    # Timers and repetition

    def _wants_progress(self) -> bool:
        """P8: only while there is work, and while changing view only once a quorum is seen."""
        if self.me is None or self.recovery.is_waiting:
            return False
        if self.is_active:
            return self.has_work or bool(self.accepted.blocks) or self.pending is not None
        return self.view_changes.count_at_least(self.view) >= self.validators.q

    def _on_timer(self, event: on.TimerFired) -> Iterator[Effect]:
        if event.timer == "progress":
            if self._patience.progress.fires(event.generation):
                yield from self._leave(View(self.view + 1))
        elif self._patience.retransmit.fires(event.generation):
            self._patience.repeats += 1
            yield from self._repeat()
            yield from self._patience.rearm()

    def _repeat(self) -> Iterator[Effect]:
        """P16: say again where we stand and what we said; ask again for what did not come."""
        if self.recovery.is_waiting:
            yield do.SendInquiry()
        self.window.ask_again()
        self.accepted.check_again(self.window)
        yield do.SendStatus(self.epoch, self.view, self.is_active, self.committed)
        if self.may_sign:
            yield from self.own.repeat(self.view)
        if self.pending is not None and self.pending.height > self.committed + self.parameters.window:
            yield do.SyncBlocks(self.pending)
        yield from self._on_block_known()

    # Does anybody hold something of ours that our journal forgot? (P20)

    def _on_answer(self, event: on.InquiryAnswered) -> Iterator[Effect]:
        for verified in event.own:
            message = verified.signed.message
            if message.epoch == self.epoch and message.author == self.me:
                yield from self.recovery.compare(message, self.committed, self.view, self.own.cast)
        if not self.recovery.is_waiting or event.author == self.me:
            return
        self.recovery.answered.add(event.author)
        if self.recovery.is_complete():
            yield from self._resume()
