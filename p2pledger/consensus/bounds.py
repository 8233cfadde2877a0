"""Which messages are worth the time to verify (P23): in bounds, and neither known nor superfluous."""

from typing import TYPE_CHECKING, assert_never

from p2pledger.consensus.messages import Commit, NewView, Prepare, PrePrepare, Signed, ViewChange

if TYPE_CHECKING:
    from p2pledger.consensus.replica import Replica


def is_wanted(replica: "Replica", signed: Signed) -> bool:
    """Judged by what is already verified only, so that forged input never costs the validator it names."""
    message = signed.message
    if message.epoch != replica.epoch or message.author not in replica.validators:
        return False
    match message:
        case PrePrepare() | Prepare() | Commit():
            return replica.ballots.wants(message)
        case ViewChange():
            oldest = replica.view + 1 if replica.is_active else replica.view
            return message.view >= oldest and not replica.view_changes.has(message)
        case NewView():
            if message.view == replica.view and replica.is_active:  # a second one is evidence (P13)
                return replica.new_view is not None and replica.new_view.signature != signed.signature
            return message.view >= replica.view
        case _:
            assert_never(message)
