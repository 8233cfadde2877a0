"""Each number at most once, for ever, with bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.execution.windows import EMPTY, WINDOW, Window
from p2pledger.primitives.errors import InvalidInput

NUMBERS = st.lists(
    st.one_of(st.integers(0, 40), st.integers(0, 5 * WINDOW), st.sampled_from([WINDOW, WINDOW + 1, 2 * WINDOW])),
    max_size=80,
)


class Model:
    """All numbers ever used, in a set."""

    def __init__(self) -> None:
        self.used: set[int] = set()

    def accepts(self, number: int) -> bool:
        highest = max(self.used, default=0)
        return number not in self.used and max(1, highest - 1023) <= number <= highest + 1024


@given(NUMBERS)
def test_a_number_is_never_used_twice(numbers: list[int]) -> None:
    """A window accepts exactly what a set with the written rule accepts, also after every trip through its bytes."""
    model, window = Model(), EMPTY
    for number in numbers:
        after = window.use(number)
        assert (after is not None) == model.accepts(number)
        if after is not None:
            model.used.add(number)
            assert after.is_used(number)
            window = Window.decode(after.encode())
            assert window == after


def test_the_edges_of_the_window() -> None:
    """An empty window takes 1 to 1,024; a later one from highest − 1,023 to highest + 1,024."""
    assert EMPTY.use(0) is None
    assert EMPTY.use(WINDOW + 1) is None
    top = EMPTY.use(WINDOW)
    assert top is not None
    assert top.use(WINDOW) is None and top.use(1) is not None
    moved = top.use(WINDOW + 1)
    assert moved is not None
    assert moved.use(1) is None, "older unused numbers die"
    assert moved.use(2) is not None
    assert moved.use(2 * WINDOW + 1) is not None and moved.use(2 * WINDOW + 2) is None


def test_counting_without_gaps_costs_no_memory() -> None:
    """The window of a sender that counts is a handful of bytes however far it got."""
    window = EMPTY
    for number in range(1, 3 * WINDOW):
        after = window.use(number)
        assert after is not None
        window = after
    assert len(window.encode()) <= 6


def test_a_window_has_one_spelling() -> None:
    """Bytes that no window encodes to are refused."""
    good = Window(5, 0b10).encode()
    assert Window.decode(good) == Window(5, 0b10)
    for bad in (
        b"",
        good + b"\0",
        Window(5, 0b1).encode(),  # the highest itself unused
        Window(3, 0b1000).encode(),  # number 0 as a hole
        b"\x92\x05\xc4\x02\x00\x02",  # leading zero byte
    ):
        with pytest.raises(InvalidInput):
            Window.decode(bad)
