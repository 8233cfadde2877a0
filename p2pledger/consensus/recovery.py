"""Taking up the journal, and asking whether anybody holds something of ours that it forgot (P19, P20)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from p2pledger.consensus import effects as do
from p2pledger.consensus.effects import Effect
from p2pledger.consensus.journal import (
    BlockRecord,
    CommittedRecord,
    EvidenceRecord,
    HaltRecord,
    JournalRecord,
    LockRecord,
    ViewRecord,
    VoteRecord,
)
from p2pledger.consensus.messages import Message, NewView, Prepare, ViewChange, same_statement, slot
from p2pledger.consensus.statements import Slot
from p2pledger.primitives.ids import Height, ValidatorId, View

if TYPE_CHECKING:
    from p2pledger.consensus.replica import Replica


@dataclass(slots=True)
class Recovery:
    """Collects the answers, and how far we may have signed beyond our journal."""

    answers_needed: int
    is_waiting: bool = True
    answered: set[ValidatorId] = field(default_factory=set)
    silent_height: int = 0
    silent_view: int = 0
    left_view: int = -1
    """When a silence is over: in this view and below nothing is said, a VIEW-CHANGE out of it may be forgotten (P9)."""
    is_silent: bool = False
    """The journal was rolled back: no PREPARE, COMMIT or VIEW-CHANGE until a later certificate is held."""

    def compare(
        self, message: Message, committed: Height, view: View, cast: Mapping[Slot, Message]
    ) -> Iterator[Effect]:
        """A signed message of ours: if it lies above the journal, that was rolled back, or somebody has our key."""
        if not is_forgotten(message, committed, view, cast):
            return
        if not self.is_silent:
            yield do.ReportRollback(message)
        self.stay_silent(0 if isinstance(message, ViewChange | NewView) else message.height, message.view)

    def stay_silent(self, height: int, view: int) -> None:
        """Everything up to here may have been signed with a journal that is lost."""
        self.is_silent = True
        self.silent_height = max(self.silent_height, height)
        self.silent_view = max(self.silent_view, view)

    def is_complete(self) -> bool:
        return len(self.answered) >= self.answers_needed

    def lift(self, height: Height, view: View) -> bool:
        """A commit certificate of (view, height) is held: whether that ends a silence."""
        if self.is_silent and height > self.silent_height and view > self.silent_view:
            self.is_silent = False
            self.left_view = self.silent_view
            return True
        return False


def is_forgotten(message: Message, committed: Height, view: View, cast: Mapping[Slot, Message]) -> bool:
    """Whether a signed message of ours lies above the journal: a slot that it does not know, or knows otherwise."""
    known = cast.get(slot(message))
    if known is not None:
        return not same_statement(known, message)
    if isinstance(message, ViewChange | NewView):
        return message.view >= view
    return message.height > committed


def restore(replica: "Replica", records: Sequence[JournalRecord], committed: CommittedRecord | None) -> None:
    """Put a fresh replica where its journal says it stood; nothing is sent, no timer set."""
    if committed is not None:
        replica.window.advance(committed.header)
        replica.committed_certificate = committed.certificate
    for record in records:
        match record:
            case ViewRecord():
                replica.view, replica.is_active = record.view, record.is_active
                replica.accepted.reset(record.view, (record.base_height, record.base_hash))
                replica.new_view = record.new_view
            case VoteRecord():
                replica.own.restore_vote(record.message)
            case LockRecord():
                replica.raise_lock(record.certificate)
            case BlockRecord():
                replica.window.add(record.header)
                replica.own.restore_block(record.header)
            case EvidenceRecord():
                pass  # about others
            case HaltRecord():
                replica.is_halted = True
            case _:
                assert_never(record)
    _restore_certificates(replica)
    replica.ballots.move_to(replica.committed, replica.view)
    if replica.is_active:
        _restore_accepted(replica)


def _restore_certificates(replica: "Replica") -> None:
    """P5: whatever certificate the stores hold counts for the lock."""
    entered = None if replica.new_view is None else replica.new_view.message
    quoted = entered.certificate if isinstance(entered, NewView) else None
    for certificate in (replica.committed_certificate, quoted):
        if certificate is not None:
            replica.raise_lock(certificate)


def _restore_accepted(replica: "Replica") -> None:
    """What was prepared in the journalled view was accepted in it, and so were the blocks below it from the base up.

    Those need not have been prepared: certified elsewhere, they may have been vouched for without being found good
    here. Without them another block could be prepared at their heights, beside what stands on them (P2, P19).
    """
    for message in replica.own.cast.values():
        if isinstance(message, Prepare) and message.view == replica.view and message.height > replica.committed:
            header = replica.window.headers.get(message.block_hash)
            while header is not None and header.height >= replica.base[0]:
                replica.accepted.blocks[header.height] = header
                header = replica.window.headers.get(header.parent)
