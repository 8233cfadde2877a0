"""What a member proves of joint keys and releases: where the ceremony stands, who released in silence (I-9)."""

from typing import Any

from p2pledger.client.joint_keys import audit_releases, standing
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.primitives.errors import Code
from p2pledger.threshold.dkg import CeremonyId, Phase
from tests.unit.execution.ledger import id16
from tests.unit.health.ceremonies import keepers_of
from tests.unit.health.charts import Chart
from tests.unit.health.world import World


class Proven:
    """A ledger client whose checkpoint is the state of a chain in memory."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def state(self, key: bytes) -> tuple[int, bytes | None]:
        return self.world.height, self.world.state.get(key)


def client(world: World) -> Any:
    return Proven(world)


async def test_a_new_chain_has_neither_key_nor_ceremony() -> None:
    found = await standing(client(World()))
    assert (found.active, found.ceremony) == (None, None)


async def test_a_ceremony_that_runs_is_shown_with_who_has_spoken() -> None:
    world = World()
    first, *_ = keepers_of(world)
    assert first.speak(CeremonyId(1, 0, 0)) == Code.OK
    found = await standing(client(world))
    assert found.active is None
    assert found.ceremony is not None
    assert (found.ceremony.phase, found.ceremony.joined) == (Phase.JOIN, (1,))


async def test_the_newest_key_and_the_new_shares_that_are_being_made() -> None:
    chart = Chart()
    found = await standing(client(chart.world))
    assert (found.active, found.ceremony) == (chart.active, None)
    assert chart.keepers[1].speak(CeremonyId(1, 1, 0)) == Code.OK
    found = await standing(client(chart.world))
    assert found.active == chart.active
    assert found.ceremony is not None and found.ceremony.id == CeremonyId(1, 1, 0)
    assert chart.keepers[2].speak(CeremonyId(2, 0, 0)) == Code.OK
    found = await standing(client(chart.world))
    assert found.ceremony is not None and found.ceremony.id == CeremonyId(2, 0, 0), "a new key comes first"


async def test_entries_are_held_against_what_the_chain_has() -> None:
    """Released and reported; released in silence, partly or wholly; never allowed; and entries that were lost."""
    chart = Chart()
    assert chart.world.grant() == Code.OK
    for name in ("told", "partly", "silent", "lost"):
        chart.allow(0, 1, name=name)
    assert chart.world.ask("denied", purpose="CLINTRCH") == Code.E_PURPOSE
    me = chart.keepers[0]
    said = tuple(sorted((id16("told"), id16("partly"), id16("lost"))))
    counts = {id16("told"): 2, id16("partly"): 1, id16("lost"): 2}
    report = ReleaseReceipt(tuple(Released(access_id, counts[access_id]) for access_id in said))
    assert chart.world.submit(me.node, report) == Code.OK
    entries = {id16("told"): 2, id16("partly"): 2, id16("silent"): 1, id16("lost"): 1, id16("denied"): 1}
    entries[id16("unknown")] = 1
    audited = await audit_releases(client(chart.world), entries, me.validator)
    assert {one.access_id: one.verdict for one in audited} == {
        id16("told"): "reported",
        id16("partly"): "not reported",
        id16("silent"): "not reported",
        id16("lost"): "reported, entries lost",
        id16("denied"): "never allowed",
        id16("unknown"): "never allowed",
    }
    others = await audit_releases(client(chart.world), {id16("told"): 2}, chart.keepers[1].validator)
    assert [one.verdict for one in others] == ["not reported"], "a report is about its own validator only"
