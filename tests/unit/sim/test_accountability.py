"""More than f liars: disagreement is detected, and at least f + 1 of them are named by their own signatures."""

from collections.abc import Collection

import pytest
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Commit, Prepare, PrePrepare
from p2pledger.messages import Agreement
from p2pledger.primitives.ids import Epoch, View
from p2pledger.sim.adversaries.base import Adversary
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.world import World
from tests.unit.sim.histories import History


def test_a_fork_in_one_view_convicts_those_who_voted_twice() -> None:
    """Two quorums of one view share f + 1 validators, and each of these signed both."""
    history = History(2, 3)
    a, b = history.header(), history.header(variant=1)
    for honest, block in ((0, a), (1, b)):
        history.says(history.prepare(honest, block))
        history.says(history.commit(honest, block))
        for liar in (2, 3):
            history.utters(history.prepare(liar, block))
            history.utters(history.commit(liar, block))
    history.appends(0, a, (0, 2, 3))
    with pytest.raises(InvariantBroken, match=r"1, I1: .*; 2 convicted by their signatures"):
        history.appends(1, b, (1, 2, 3))
    assert set(history.observer.culprits()) == {history.id(2), history.id(3)}


def test_a_fork_across_views_convicts_those_who_claimed_less_than_they_had_committed() -> None:
    """Nobody signs two statements for one place here: the liars forget their lock in the view change (P9)."""
    history = History(2, 3)
    a, b = history.header(), history.header(variant=1)
    history.says(history.propose(a))
    history.says(history.prepare(0, a))
    history.says(history.commit(0, a))
    for liar in (2, 3):
        history.utters(history.prepare(liar, a))
        history.utters(history.commit(liar, a))
    history.appends(0, a, (0, 2, 3))
    changes = [history.view_change(seat, 1) for seat in (1, 2, 3)]
    history.says(changes[0])
    for change in changes[1:]:
        history.utters(change)
    history.says(history.new_view(changes))
    history.says(history.propose(b, 1))
    for seat in (1, 2, 3):
        (history.says if seat == 1 else history.utters)(history.prepare(seat, b, 1))
        (history.says if seat == 1 else history.utters)(history.commit(seat, b, 1))
    with pytest.raises(InvariantBroken, match="1, I1"):
        history.appends(1, b, (1, 2, 3), 1)
    culprits = history.observer.culprits()
    assert set(culprits) == {history.id(2), history.id(3)}
    assert all(what.startswith("claims less than its COMMIT") for what in culprits.values())


def test_whoever_prepares_what_its_view_does_not_allow_is_convicted() -> None:
    """P13: a view that nobody opened, a height below the tip, another block beside it."""
    history = History(2, 3)
    first = history.header()
    second, rival = history.header(first), history.header(first, variant=1)
    history.utters(history.prepare(2, first, 5))
    changes = [history.view_change(seat, 1, second) for seat in (0, 1, 3)]
    for change in changes[:2]:
        history.says(change)
    history.utters(changes[2])
    history.says(history.new_view(changes))
    history.says(history.prepare(0, second, 1))
    assert set(history.observer.culprits()) == {history.id(2)}
    history.utters(history.prepare(3, rival, 1))
    assert set(history.observer.culprits()) == {history.id(2), history.id(3)}
    assert all(what.startswith("prepares what no NEW-VIEW") for what in history.observer.culprits().values())


def test_honest_validators_are_never_convicted_by_what_others_sign_for_them() -> None:
    """Whatever f + 1 liars forge in its name, an honest validator's own signatures do not contradict each other."""
    history = History(2, 3)
    a, b = history.header(), history.header(variant=1)
    history.agree(a, (0, 1, 2))
    for message in (history.commit(0, b), history.view_change(0, 1), history.prepare(1, b, 7)):
        history.sends(3, Agreement(history.signed(message, by=3)))
    assert history.id(0) not in history.observer.culprits()
    assert history.id(1) not in history.observer.culprits()


class Conspirator(Adversary):
    """With its fellows shows one half of the honest one block and the other half another, and votes for both."""

    def __init__(self, fellows: list["Conspirator"], deceived: Collection[int]) -> None:
        self._fellows = fellows
        self._deceived = deceived
        """Who is shown the other block."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if not isinstance(said, PrePrepare):
            return [body]
        twin: Header = replace(said.header, time_ms=said.header.time_ms + 1)
        shown = twin if target in self._deceived else said.header
        votes = [
            fellow.say(kind(Epoch(0), said.view, shown.height, shown.hash, fellow.node.validator))
            for fellow in self._fellows
            for kind in (Prepare, Commit)
        ]
        return [self.say(replace(said, header=shown)), *votes]


@pytest.mark.parametrize("n", [4, 7])
def test_f_plus_one_conspirators_fork_a_world_and_are_named(n: int) -> None:
    """The real engine, with more liars than it can bear: the observer sees the fork and says who did it."""
    f = (n - 1) // 3
    consortium = World(1, n).consortium
    first = consortium.founding.validators.primary(Epoch(0), View(0))
    ranked = sorted(range(n), key=lambda index: consortium.validator(index) != first)
    liars, honest = ranked[: f + 1], ranked[f + 1 :]
    fellows: list[Conspirator] = []
    fellows += [Conspirator(fellows, honest[::2]) for _ in liars]
    world = World(1, n, adversaries=dict(zip(liars, fellows, strict=True)))
    with pytest.raises(InvariantBroken, match=r"^1, I1"):
        for _ in range(20):
            world.submit(honest[0])
            world.run_until(world.now + 200)
    culprits = set(world.observer.culprits())
    assert len(culprits) >= f + 1
    assert culprits <= {world.consortium.validator(i) for i in liars}
