"""The instrument itself: it finds one decision, switches only that off, and notices when a test shows nothing."""

from collections.abc import Callable, Iterator

import pytest

from tests.attack import Without

NO, TAKEN, ODD = ValueError("no"), ValueError("taken"), ValueError("odd")


class Door:
    """Every kind of decision that a check can be."""

    taken = frozenset({4})

    def enter(self, number: int, limit: int = 10) -> int:
        if number < 0 or number > limit:
            raise NO
        _check_free(number, self.taken)
        if number % 2:
            raise ODD
        assert number != 8, "eight is closed"
        return number

    def is_open(self, number: int) -> bool:
        return number < 10

    def is_known(self, number: int) -> bool:
        return self.is_open(number) and number in self.taken

    def kept(self, numbers: list[int]) -> list[int]:
        return [number for number in numbers if number < 10]

    def named(self, number: int) -> str:
        return "open" if number < 10 else "closed"

    def all(self, numbers: list[int]) -> Iterator[int]:
        for number in numbers:
            if number > 10:
                return
            yield number


def _check_free(number: int, taken: frozenset[int]) -> None:
    if number in taken:
        raise TAKEN


DOOR = Door()


@pytest.fixture
def without() -> Iterator[Without]:
    """Not finished: these tests look at the instrument, and finish it themselves."""
    return Without()


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except (ValueError, AssertionError):
        return True
    return False


@pytest.mark.attack()
@pytest.mark.parametrize(
    ("function", "decision", "attack", "works", "fails"),
    [
        (Door.enter, "raise NO", lambda: refused(lambda: DOOR.enter(12)), False, True),
        (Door.enter, "number > limit", lambda: refused(lambda: DOOR.enter(12)), False, True),
        (Door.enter, "if number % 2", lambda: refused(lambda: DOOR.enter(3)), False, True),
        (Door.enter, "_check_free(", lambda: refused(lambda: DOOR.enter(4)), False, True),
        (Door.enter, "assert number != 8", lambda: refused(lambda: DOOR.enter(8)), False, True),
        (Door.is_open, "return", lambda: DOOR.is_open(11), True, False),
        (Door.is_known, "number in self.taken", lambda: DOOR.is_known(1), True, False),
        (Door.kept, "number < 10", lambda: DOOR.kept([1, 11]), [1, 11], [1]),
        (Door.named, "number < 10", lambda: DOOR.named(11), "open", "closed"),
        (Door.all, "if number > 10", lambda: list(DOOR.all([1, 11, 2])), [1, 11, 2], [1]),
    ],
)
def test_a_decision_is_switched_off_and_on_again(
    without: Without, function: object, decision: str, attack: Callable[[], object], works: object, fails: object
) -> None:
    genuine = function.__code__  # type: ignore[attr-defined]
    assert attack() == fails
    with without(function, decision):  # type: ignore[arg-type]
        assert attack() == works
    assert attack() == fails
    without.finish()
    assert function.__code__ is genuine  # type: ignore[attr-defined]


@pytest.mark.attack()
def test_other_decisions_of_the_function_stay_on(without: Without) -> None:
    with without(Door.enter, "number > limit"), without(Door.enter, "if number % 2"):
        assert DOOR.enter(13) == 13
        assert refused(lambda: DOOR.enter(-2))
        assert refused(lambda: DOOR.enter(4))
    assert refused(lambda: DOOR.enter(12)) and refused(lambda: DOOR.enter(3))
    without.finish()


@pytest.mark.attack()
def test_a_check_that_is_not_there_is_noticed(without: Without) -> None:
    for decision in ("raise MAYBE", "number"):
        with pytest.raises(AssertionError, match="0 times, not once"), without(Door.enter, decision):
            pass


@pytest.mark.attack()
def test_a_check_that_nothing_depends_on_is_noticed(without: Without) -> None:
    with pytest.raises(AssertionError, match="nothing more went through"), without(Door.enter, "raise NO"):
        assert DOOR.enter(2) == 2


@pytest.mark.attack()
def test_a_refusal_by_another_rule_is_noticed(without: Without) -> None:
    """The attack works without the check, but what is shown to be refused is something else."""
    with without(Door.enter, "raise NO"):
        assert DOOR.enter(12) == 12
    assert refused(lambda: DOOR.enter(4))
    with pytest.raises(AssertionError, match="refused nothing after it was on again"):
        without.finish()


@pytest.mark.attack()
def test_a_test_without_an_attack_is_noticed(without: Without) -> None:
    with pytest.raises(AssertionError, match="must show the attack"):
        without.finish()
