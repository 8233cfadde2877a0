"""A run of many parts: one that breaks off is named and leaves the others, and nothing else is swallowed."""

import io

import pytest
import trio
from rich.console import Console

from bench.run import kept_apart
from bench.show import Show
from p2pledger.primitives.errors import Unavailable


def quiet() -> Show:
    return Show(Console(file=io.StringIO()))


def run(error: BaseException) -> list[str]:
    """What is noted when one part raises this inside nurseries, as stages do."""
    failed: list[str] = []

    async def part() -> None:
        async with kept_apart("stage far n=4", failed, quiet()), trio.open_nursery():
            raise error

    trio.run(part)
    return failed


def test_a_part_that_breaks_off_is_named_with_its_reason() -> None:
    """The reason is what was raised, whatever groups it came in."""
    assert run(Unavailable("no primary")) == ["stage far n=4: no primary"]
    assert run(OSError("no space"))[0].endswith("no space")
    assert run(ExceptionGroup("two", [Unavailable("first"), Unavailable("second")])) == ["stage far n=4: first"]


@pytest.mark.parametrize("error", [AssertionError("wrong"), KeyboardInterrupt()])
def test_mistakes_of_the_harness_and_interruptions_end_the_run(error: BaseException) -> None:
    """They are not the system's that is measured."""
    with pytest.raises(BaseExceptionGroup) as caught:
        run(error)
    assert caught.value.subgroup(type(error)) is not None
