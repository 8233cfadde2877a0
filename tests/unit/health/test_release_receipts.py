"""I-9: what validators release stands on the chain, and what is missing there can be told."""

import pytest

from p2pledger.health import release_receipts
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.health.release_receipts import reports_of, unreported
from p2pledger.primitives.errors import Code
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import Chart
from tests.unit.health.world import BERG

ACCESS = id16("access")


@pytest.fixture
def chart() -> Chart:
    made = Chart()
    assert made.world.grant() == Code.OK
    made.allow(0, 1, 2)
    return made


def report(chart: Chart, *releases: Released, keeper: int = 0) -> Code:
    return chart.world.submit(chart.keepers[keeper].node, ReleaseReceipt(releases))


def counts(chart: Chart) -> dict[bytes, int]:
    return {validator: said.records for validator, said in reports_of(ACCESS, chart.world.state).items()}


def test_each_validator_reports_for_itself(chart: Chart) -> None:
    assert report(chart, Released(ACCESS, 2)) == Code.OK
    assert report(chart, Released(ACCESS, 3), keeper=1) == Code.OK
    first, second = (keeper.validator for keeper in chart.keepers[:2])
    assert counts(chart) == {first: 2, second: 3}


def test_a_report_only_grows(chart: Chart) -> None:
    """I-9. Replayed or late ones change nothing."""
    assert report(chart, Released(ACCESS, 2)) == Code.OK
    for records in (1, 2):
        assert report(chart, Released(ACCESS, records)) == Code.E_DUP
    assert report(chart, Released(ACCESS, 3)) == Code.OK
    assert set(counts(chart).values()) == {3}


def test_nobody_reports_what_cannot_be(chart: Chart) -> None:
    assert report(chart, Released(ACCESS, 4)) == Code.E_FORMAT, "three records were asked for"
    assert report(chart, Released(ACCESS, 1), Released(ACCESS, 2)) == Code.E_FORMAT
    assert report(chart, Released(id16("unknown"), 1)) == Code.E_NOT_FOUND
    assert chart.world.ask("denied", purpose="CLINTRCH") == Code.E_PURPOSE
    assert report(chart, Released(ACCESS, 1), Released(id16("denied"), 1)) == Code.E_STATE
    assert chart.world.submit(BERG, ReleaseReceipt((Released(ACCESS, 1),))) == Code.E_ROLE
    assert counts(chart) == {}, "all of a report or nothing"


def test_what_was_written_down_and_not_reported_is_owed(chart: Chart) -> None:
    """I-9. A node that has released without a report is found by its own entries, after a crash too."""
    chart.allow(3, 4, name="other")
    written = {ACCESS: 3, id16("other"): 1}
    mine = chart.keepers[0].validator
    owed = unreported(written, mine, chart.world.state)
    assert {released.access_id: released.records for released in owed} == written
    assert report(chart, *owed) == Code.OK
    assert unreported(written, mine, chart.world.state) == ()
    assert [it.records for it in unreported({**written, id16("other"): 2}, mine, chart.world.state)] == [2]
    assert release_receipts.unreported(written, chart.keepers[1].validator, chart.world.state) == owed
