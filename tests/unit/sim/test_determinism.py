"""What everything found by whole-node simulation stands on: trio does as its seed says."""

import pytest
import trio

from p2pledger.sim.whole import determinism


async def _interleaving() -> list[tuple[int, float]]:
    seen: list[tuple[int, float]] = []

    async def walk(number: int) -> None:
        for _ in range(5):
            seen.append((number, trio.current_time()))
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(walk, number)
    return seen


def test_the_same_seed_gives_the_same_interleaving() -> None:
    """Order of tasks and virtual times depend on the seed, and on nothing that ran before."""
    first = determinism.run(7, _interleaving)
    determinism.run(8, _interleaving)
    assert determinism.run(7, _interleaving) == first
    assert first[-1][1] == 4.0


def test_another_seed_gives_another_interleaving() -> None:
    """The seed is really used: ten seeds do not all agree."""
    assert len({tuple(determinism.run(seed, _interleaving)) for seed in range(10)}) > 5


def test_the_scheduler_of_other_runs_is_left_as_it_was() -> None:
    """Whoever runs trio afterwards gets what it had before."""
    before = getattr(determinism.hooks, determinism.FLAG), determinism.hooks._r.getstate()
    determinism.run(1, _interleaving)
    assert (getattr(determinism.hooks, determinism.FLAG), determinism.hooks._r.getstate()) == before


@pytest.mark.parametrize("hook", [determinism.FLAG, determinism.GENERATOR])
def test_a_trio_without_the_hooks_is_refused_by_name(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trio that has changed fails here and says so, and not as a seed that no longer replays."""
    monkeypatch.delattr(determinism.hooks, hook)
    with pytest.raises(determinism.NotDeterministic, match=f"trio {trio.__version__} has no {hook}"):
        determinism._check_trio.__wrapped__()


def test_a_trio_that_ignores_the_generator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not enough that the names are there: the order must follow the seed."""

    class Stubborn(determinism.Random):
        def shuffle(self, x: list[object]) -> None:  # type: ignore[override]
            """Leave it."""

    monkeypatch.setattr(determinism.hooks, determinism.GENERATOR, Stubborn())
    with pytest.raises(determinism.NotDeterministic, match="does not schedule by the seed"):
        determinism._check_trio.__wrapped__()
