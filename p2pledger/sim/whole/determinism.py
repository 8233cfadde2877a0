"""Makes a trio program depend on nothing but its seed. The only module that knows trio's private hooks.

Trio runs the tasks of a batch in random order, and says itself that its deterministic mode is private: a flag
(`_ALLOW_DETERMINISTIC_SCHEDULING`, set for Hypothesis) that sorts every batch before it is shuffled, and the generator
that shuffles (`_r`), which nobody seeds. Both are checked before the first run by a small program whose order
must follow the seed; a trio that has changed them fails here, with its version, and not as a seed that no longer
replays.

What runs here may use no threads and no real sockets: while a thread works every task is blocked, and the clock jumps.
"""

import gc
from collections.abc import Awaitable, Callable
from functools import cache
from random import Random
from typing import TypeVar

import trio
from trio._core import _run as hooks
from trio.testing import MockClock

T = TypeVar("T")

FLAG = "_ALLOW_DETERMINISTIC_SCHEDULING"
GENERATOR = "_r"


class NotDeterministic(AssertionError):
    """Trio does not do as this module expects: nothing found with it would replay."""


def run(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """`trio.run(main)` under a virtual clock that starts at 0 and jumps when nothing is left to do; what it returns.

    The same seed gives the same order of tasks in every process. Raises NotDeterministic, and what `main` raises.
    """
    _check_trio()
    return _run(seed, main)


def _run(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    allowed, state, collects = getattr(hooks, FLAG), hooks._r.getstate(), gc.isenabled()
    setattr(hooks, FLAG, True)
    hooks._r.seed(seed)
    gc.disable()  # a collection may finish a generator, and comes at another place in every process
    try:
        return trio.run(main, clock=MockClock(rate=0.0, autojump_threshold=0.0))
    finally:
        setattr(hooks, FLAG, allowed)
        hooks._r.setstate(state)
        if collects:
            gc.enable()


@cache
def _check_trio() -> None:
    """The order of twelve racing tasks follows the seed, and only the seed; virtual time passes at once."""
    missing = [name for name in (FLAG, GENERATOR) if not hasattr(hooks, name)]
    if missing or not isinstance(hooks._r, Random):
        raise NotDeterministic(f"trio {trio.__version__} has no {' and no '.join(missing) or 'Random _r'} any more")
    orders = [_run(seed, _race) for seed in (1, 1, 2, 3)]
    if orders[0] != orders[1] or len({tuple(order) for order in orders}) < 3:
        raise NotDeterministic(f"trio {trio.__version__} does not schedule by the seed of its `_r`: {orders}")


async def _race() -> list[int]:
    order: list[int] = []

    async def step(number: int) -> None:
        await trio.sleep(3_600)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(step, number)
    return order
