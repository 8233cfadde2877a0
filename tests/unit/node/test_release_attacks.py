"""Attacks on a node that releases shares, each with its check switched off and on (T67 to T69)."""

from typing import Any

import pytest

from p2pledger.client.joint_keys import Audited
from p2pledger.health.key_keeper import KeyKeeper, Wish
from p2pledger.health.operations import ConsentRevoke
from p2pledger.node.release import Releasing, is_current
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Height
from tests.attack import Without
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import Chart
from tests.unit.health.seats import active, run, seats_of, until_active
from tests.unit.health.world import NURSE, PATIENT, World
from tests.unit.node.test_release import Node, by, chart, node, told

__all__ = ["chart", "node"]


@pytest.mark.attack("T67")
async def test_a_release_under_way_does_not_outrun_a_revocation(node: Node, chart: Chart, without: Without) -> None:
    """I-2: judged before the entry, and revoked before the share leaves."""
    request = chart.allow(0)
    revoked = ConsentRevoke(id16("consent"), "withdrawn")
    with without(Releasing._released, "if self.engine.executor.executed != judged_at"):
        node.meanwhile = lambda: chart.world.submit(PATIENT, revoked)  # type: ignore[assignment]
        assert len((await node.shares(request)).shares) == 1
    other = Chart(random_name="other")
    assert other.world.grant() == Code.OK
    victim = Node(other)
    victim.meanwhile = lambda: other.world.submit(PATIENT, revoked)  # type: ignore[assignment]
    assert await victim.refusal(other.allow(0)) == Code.E_REVOKED


@pytest.mark.attack("T67")
async def test_nobody_spends_validators_time_on_anothers_access(node: Node, chart: Chart, without: Without) -> None:
    """Whoever has seen a request could have its shares computed, written down and reported, again and again."""
    request = chart.allow(0)
    with without(Releasing._demand_reader, "if asker != session.account"):
        assert len((await node.shares(request, by(NURSE))).shares) == 1
    assert await node.refusal(request, by(NURSE)) == Code.E_ROLE


@pytest.mark.attack("T68")
def test_a_node_that_is_behind_is_not_asked_for_what_was_revoked(node: Node, chart: Chart, without: Without) -> None:
    """A home restored from a backup, or cut off from the others: its own state would still say yes."""
    height, window = chart.world.height, node.tip.founding.parameters.window
    told(node, height + window + 1, height + window + 1)
    tip: Any = node.tip
    with without(is_current, "if len(told) > validators.f"):
        assert is_current(tip, Height(0))
    assert not is_current(tip, Height(0))


@pytest.mark.attack("T68")
def test_old_shares_are_not_kept_for_whoever_comes_later(without: Without) -> None:
    """I-10: t of one sharing, collected over the years, are the key."""

    def refreshed() -> list[list[str]]:
        ledger = World()
        seats = seats_of(ledger)
        until_active(ledger, seats)
        seats[0].wish(Wish(1, 1))
        until_active(ledger, seats, 1, 1)
        run(ledger, seats)
        assert active(ledger).key.share_epoch == 1
        return [seat.names for seat in seats]

    with without(KeyKeeper._is_over, "if active is not None and active.key.share_epoch > of.share_epoch"):
        assert all("share-1-0-0" in names for names in refreshed())
    assert all(names == ["share-1-1-0"] for names in refreshed())


@pytest.mark.attack("T69")
def test_a_validator_that_releases_in_silence_is_found_by_its_entries(without: Without) -> None:
    """I-9: to whoever audits the home, unless the entries are gone, too; the other validators' reports remain."""
    silent = Audited(id16("access"), entries=3, reported=1, is_allowed=True)
    with without(Audited.verdict.fget, "if self.reported < self.entries"):  # type: ignore[attr-defined]
        assert silent.verdict != "not reported"
    assert silent.verdict == "not reported"
