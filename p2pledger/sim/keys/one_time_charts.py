"""Charts whose keys are one-time secrets: a hospital deals them to the validators, well or badly, and shows them (3.6).

A dealer may seal a share that does not fit to one validator or to many; readers ask before enough validators have said
that theirs is good, and after. The observer judges in `observer/deposit_book.py`.
"""

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2pledger.health import deposits
from p2pledger.health.deposits import DepositTable
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Bytes16
from p2pledger.sim.clinic import PATIENTS
from p2pledger.sim.keys.liars import FalseWitness
from p2pledger.sim.keys.questions import Chart, ask_some, some_state
from p2pledger.threshold.one_time import OneTime, read_capsule

if TYPE_CHECKING:
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.world import World

CHARTS_MAX = 3


class Dealing:
    """One-time secrets of one ward."""

    def __init__(self) -> None:
        self._charts: list[Chart] = []

    def act(self, world: "World", ward: "Ward") -> None:
        """Deal a chart, show one to some validators, or ask for a record of one."""
        table = _newest(world)
        if table is None:
            return
        if not self._charts or (len(self._charts) < CHARTS_MAX and world.random.random() < 0.3):
            pid = ward.people[len(self._charts) % PATIENTS].did
            victims = {*self._victims(world, len(table.holders)), *_accomplices(world, ward, table)}
            chart = self._deal(world, ward, table, pid, victims)
            world.at(300, partial(ward.visit_chart, world, chart))  # a reader that does not wait for the deposit
        elif world.random.random() < 0.6:
            self._show(world, ward, world.random.choice(self._charts))
        else:
            chart = world.random.choice(self._charts)
            ward.visit_chart(world, chart)
            for visit in [visit for visit in ward.visits if visit.chart is chart][-2:]:
                ask_some(world, ward, visit)

    def _deal(self, world: "World", ward: "Ward", table: DepositTable, pid: Bytes16, victims: Collection[int]) -> Chart:
        """`victims`: the places of those whose boxes do not open."""
        chart = ward.sealed(world, table.release, pid, spoil=partial(_spoiled, victims))
        for index in range(len(chart.capsules)):
            cheated = frozenset(table.holders[at] for at in victims)
            world.observer.releases.knows_spoiled((chart.batch_id, index), cheated)
        self._charts.append(chart)
        ward.charts.append(chart)
        at = world.random.randrange(world.n)
        world.submit_signed(at, world.consortium.accounts[0], [ward.batch(world, chart)])
        return chart

    def _victims(self, world: "World", holders: int) -> Collection[int]:
        """Whom the dealer cheats: nobody, one validator, or as many as it pleases."""
        chance = world.random
        if chance.random() < 0.4:
            return ()
        world.observer.reached["lie of a dealer of one-time secrets"] += 1
        return chance.sample(range(holders), chance.choice([1, chance.randint(1, holders)]))

    def _show(self, world: "World", ward: "Ward", chart: Chart) -> None:
        openings = [chart.opening(index) for index in range(len(chart.capsules))]
        custodian = AccountKey(world.consortium.accounts[0].public)
        for node in world.random.sample(range(world.n), world.random.randint(1, world.n)):
            showing = partial(ward.holders[node].depositor.show, custodian, openings, partial(self._found, world))
            world.at(world.random.randint(1, 80), showing)

    def _found(self, world: "World", found: Code | tuple[int, ...]) -> None:
        reached = world.observer.reached
        if isinstance(found, Code):
            reached[f"deposit refused {found.name}"] += 1
        else:
            reached["deposit found bad" if found else "deposit found good"] += 1

    # A healed world

    def deposited(self, world: "World", ward: "Ward", pid: Bytes16) -> Chart:
        """Liveness: what is dealt well and shown to all counts as deposited."""
        ward.wait_until(world, "a deposit table can be used", lambda: _newest(world) is not None)
        table = _newest(world)
        assert table is not None
        chart = self._deal(world, ward, table, pid, ())

        def is_deposited() -> bool:
            state = some_state(world)
            return state is not None and deposits.is_deposited(table, chart.batch_id, len(chart.capsules) - 1, state)

        ward.wait_until(world, "a chart is deposited", is_deposited, lambda: self._show(world, ward, chart))
        return chart


def newest_dealt_to(world: "World") -> OneTime | None:
    """The holders to whom a writer deals now."""
    table = _newest(world)
    return None if table is None else table.release


def _accomplices(world: "World", ward: "Ward", table: DepositTable) -> Collection[int]:
    """The places of those who will say that their shares are good, whatever the dealer has put there."""
    false = [world.nodes[node].validator for node, kind in ward.liars.items() if issubclass(kind, FalseWitness)]
    return [table.holders.index(validator) for validator in false if validator in table.holders]


def _spoiled(victims: Collection[int], capsule: bytes) -> bytes:
    parts = read_capsule(capsule)
    boxes = [bytes([box[0] ^ 1]) + box[1:] if at in victims else box for at, box in enumerate(parts.boxes)]
    return encode(replace(parts, boxes=tuple(boxes)))


def _newest(world: "World") -> DepositTable | None:
    """What a writer finds who asks around."""
    state = some_state(world)
    table = None if state is None else deposits.newest_table(state)
    return table if table is not None and table.is_usable else None
