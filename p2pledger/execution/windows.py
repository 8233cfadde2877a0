"""Sliding windows of numbers that may each be used once: nonces of a sender, batch sequences of an origin.

A window knows the highest number used and which of the WINDOW numbers below and including it were not. The first
number is 1, so an empty window (highest 0) accepts 1 to WINDOW. A number is refused when it was used, when it is
below highest − (WINDOW − 1), whether it was ever used or not, and when it is above highest + WINDOW. So each
number is used at most once for ever, and the memory for it is bounded.
"""

from typing import Annotated

from msgspec import Meta

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Value, decode, encode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import U64

assert limits.NONCE_WINDOW == limits.ORIGIN_WINDOW, "one kind of window serves both"
WINDOW = limits.NONCE_WINDOW
_MASK = (1 << WINDOW) - 1
_UNUSED_BYTES_MAX = WINDOW // 8
_ENCODED_BYTES_MAX = _UNUSED_BYTES_MAX + 16


class _Stored(Record, frozen=True):
    highest: U64
    unused: Annotated[bytes, Meta(max_length=_UNUSED_BYTES_MAX)]


class Window(Value, frozen=True):
    """Which numbers were used."""

    highest: int = 0
    unused: int = 0
    """Bit i: highest − i was not used. Holes are rare, so this is 0 for a sender who counts without gaps."""

    def is_used(self, number: int) -> bool:
        """Whether `number` lies in the window and was used; False for those the window has forgotten."""
        behind = self.highest - number
        return number >= 1 and 0 <= behind < WINDOW and not self.unused >> behind & 1

    def use(self, number: int) -> "Window | None":
        """The window after `number` is used; None where it was used, is too old or too far ahead."""
        ahead = number - self.highest
        if number < 1 or ahead > WINDOW:
            return None
        if ahead > 0:
            between = (1 << ahead) - 2  # the numbers jumped over; bit 0 is `number` itself
            return Window(number, (self.unused << ahead | between) & _MASK)
        behind = -ahead
        if behind >= WINDOW or not self.unused >> behind & 1:
            return None
        return Window(self.highest, self.unused & ~(1 << behind))

    def encode(self) -> bytes:
        """The canonical bytes; two or three where no number was left out."""
        length = (self.unused.bit_length() + 7) // 8
        return encode(_Stored(self.highest, self.unused.to_bytes(length, "big")))

    @staticmethod
    def decode(data: bytes) -> "Window":
        """The window whose canonical bytes are `data`; raises InvalidInput."""
        stored = decode(_Stored, data, _ENCODED_BYTES_MAX)
        unused = int.from_bytes(stored.unused, "big")
        if stored.unused[:1] == b"\0":
            raise InvalidInput("window with leading zero bytes in its holes")
        if unused & 1:
            raise InvalidInput(f"window whose highest number {stored.highest} is not used")
        if unused.bit_length() > stored.highest:
            raise InvalidInput(f"window with highest number {stored.highest} has holes below 1")
        return Window(stored.highest, unused)


EMPTY = Window()
