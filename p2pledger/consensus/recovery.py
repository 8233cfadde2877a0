"""Before the first new signature after a start: does anybody hold something of ours that our journal forgot? (P20)"""

from dataclasses import dataclass, field

from p2pledger.consensus.messages import Message, NewView, ViewChange, same_statement, slot
from p2pledger.primitives.ids import Height, ValidatorId, View


@dataclass(slots=True)
class Recovery:
    """Collects the answers, and how far we may have signed beyond our journal."""

    answers_needed: int
    is_waiting: bool = True
    answered: set[ValidatorId] = field(default_factory=set)
    silent_height: int = 0
    silent_view: int = 0
    is_silent: bool = False
    """The journal was rolled back: no PREPARE, COMMIT or VIEW-CHANGE until a later certificate is held."""

    def note_forgotten(self, message: Message) -> None:
        """Somebody holds this signed message of ours, and the journal does not know it."""
        self.is_silent = True
        height = Height(0) if isinstance(message, ViewChange | NewView) else message.height
        self.silent_height = max(self.silent_height, height)
        self.silent_view = max(self.silent_view, message.view)

    def is_complete(self) -> bool:
        return len(self.answered) >= self.answers_needed

    def lift(self, height: Height, view: View) -> bool:
        """A commit certificate of (view, height) is held: whether that ends a silence."""
        if self.is_silent and height > self.silent_height and view > self.silent_view:
            self.is_silent = False
            return True
        return False


def is_forgotten(
    message: Message, committed: Height, view: View, cast: dict[tuple[int, int, int, int], Message]
) -> bool:
    """Whether a signed message of ours lies above the journal: a slot that it does not know, or knows otherwise."""
    known = cast.get(slot(message))
    if known is not None:
        return not same_statement(known, message)
    if isinstance(message, ViewChange | NewView):
        return message.view > view
    return message.height > committed
