"""F-08: of every access the patient sees whether validators released the keys; provably all they reported."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client.export import of_reply, read_export, verify_export, write_export
from p2pledger.client.releases import Release
from p2pledger.client.verify import check_log_page, check_log_reply
from p2pledger.health import release_log
from p2pledger.health.release_log import decode_line, line_hash
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.network.api import GetLog, Reply, Request
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, ProofError
from tests.attack import Without
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import Chart
from tests.unit.health.world import PATIENT, PID

ACCESS, OTHER = id16("access"), id16("other")


@pytest.fixture(scope="module")
def chart() -> Chart:
    """Two accesses and a denial: of one all four validators report, of the other nobody does."""
    made = Chart(world=Chain())
    assert made.world.grant() == Code.OK
    made.allow(0, 1, 2)
    made.allow(3, 4, name="other")
    assert made.world.ask("denied", purpose="CLINTRCH") == Code.E_PURPOSE
    for keeper, records in zip(made.keepers, (3, 2, 3, 1), strict=True):
        assert made.world.submit(keeper.node, ReleaseReceipt((Released(ACCESS, records),))) == Code.OK
    chain_of(made).tick()
    return made


def chain_of(chart: Chart) -> Chain:
    assert isinstance(chart.world, Chain)
    return chart.world


@pytest.fixture
def chain(chart: Chart) -> Chain:
    return chain_of(chart)


async def test_the_patient_sees_what_was_released_and_what_was_not(chart: Chart, chain: Chain) -> None:
    """F-08. How many validators, of how many records, since when; nothing where nothing was released."""
    async with client_of(chain, [HonestNode(chain)], PATIENT) as client:
        log = await client.log(PID)
    told = dict(zip((line.access_id for line in log.lines), map(log.released.of_line, log.lines), strict=True))
    first = next(line.time_ms for line in map(decode_line, chain.log_reply(PID).releases) if line.access_id == ACCESS)
    assert told == {
        ACCESS: Release(records=3, validators=4, of=4, enough=3, first_ms=first),
        OTHER: Release(records=0, validators=0, of=4, enough=3, first_ms=None),
        id16("denied"): None,
    }
    words = [log.released.told(line) for line in log.lines]
    assert words[0].startswith("yes: 3 records, 4 of 4 validators, first reported ") and words[1:] == ["no", "-"]


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 5])
async def test_reports_come_in_pages_too(chain: Chain, lines: int) -> None:
    """However a log is cut: every report once, up to the same proven head (F-08)."""
    node = HonestNode(chain)
    whole = chain.log_reply(PID)
    node.page_bytes = sum(map(len, (*whole.lines, *whole.releases)[:lines]))
    async with client_of(chain, [node], PATIENT) as client:
        log = await client.log(PID)
    assert (len(log.lines), log.released.about(ACCESS).validators) == (3, 4)


async def test_a_node_that_hides_a_release_is_passed_over(chain: Chain) -> None:
    """F-08. What was released cannot be kept from the patient: the head counts the reports."""

    async def hide(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, GetLog):
            genuine = chain.log_reply(PID, request.first, node.page_bytes, request.first_release)
            return replace(genuine, id=request.id, releases=genuine.releases[:-1])
        return None

    async with client_of(chain, [MisbehavingNode(chain, hide), HonestNode(chain)], PATIENT) as client:
        assert (await client.log(PID)).released.about(ACCESS).validators == 4


@pytest.mark.parametrize("kept", [(), (0, 1, 2), (0, 1, 3), (1, 0, 2, 3), (0, 1, 2, 3, 3)])
def test_left_out_reordered_and_added_reports_are_refused(chain: Chain, kept: tuple[int, ...]) -> None:
    genuine = chain.log_reply(PID)
    with pytest.raises(ProofError, match=r"^releases: .*(does not follow|end at)"):
        check_log_reply(replace(genuine, releases=tuple(genuine.releases[at] for at in kept)), chain.founding, PID)


@pytest.mark.attack("T38")
@pytest.mark.parametrize("change", [{"records": 2}, {"access_id": OTHER}, {"validator": bytes(32)}])
def test_a_changed_report_is_refused(chain: Chain, without: Without, change: dict[str, object]) -> None:
    genuine = chain.log_reply(PID)
    changed = encode(replace(decode_line(genuine.releases[3]), **change))
    forged = replace(genuine, releases=(*genuine.releases[:3], changed))
    with without(release_log.check_lines, "if (count, previous) !="):
        assert check_log_reply(forged, chain.founding, PID)
    with pytest.raises(ProofError, match="end at 4, the proven head at 4"):
        check_log_reply(forged, chain.founding, PID)


def test_reports_about_somebody_else_are_refused(chain: Chain) -> None:
    genuine = chain.log_reply(PID)
    line = replace(decode_line(genuine.releases[0]), pid=id16("neighbour"))
    for report in (encode(line), b"report"):
        with pytest.raises(ProofError, match=r"^releases: report 1 "):
            check_log_reply(replace(genuine, releases=(report,)), chain.founding, PID)
        with pytest.raises(ProofError, match=r"^lines: "):
            check_log_page(replace(genuine, releases=(report,)), chain.founding, PID)


def test_a_page_that_goes_beyond_the_head_is_refused(chain: Chain) -> None:
    """Lines below the head, reports beyond it: the pages could never come to an end."""
    genuine = chain.log_reply(PID)
    last = decode_line(genuine.releases[-1])
    more = encode(replace(last, sequence=5, previous=line_hash(last)))
    forged = replace(genuine, lines=genuine.lines[:1], releases=(*genuine.releases, more))
    with pytest.raises(ProofError, match="at report 5 about released keys, the head at report 4"):
        check_log_page(forged, chain.founding, PID)


def test_an_exported_log_proves_its_releases(chain: Chain) -> None:
    """F-08. What people read of them is written from the proven bytes; a changed word does not verify."""
    data = write_export(of_reply(chain.log_reply(PID), chain.founding), chain.chain)
    assert verify_export(data, chain.chain).released.about(ACCESS).records == 3
    assert len(read_export(data).releases) == 4
    for old, new in ((b"yes: 3 records", b"yes: 1 records"), (b'"keys released": "no"', b'"keys released": "yes"')):
        assert old in data
        with pytest.raises(ProofError, match=r"^text: "):
            verify_export(data.replace(old, new), chain.chain)


def test_reports_of_one_patient_in_one_receipt_follow_each_other(tmp_path: Path) -> None:
    chart = Chart(world=Chain())
    assert chart.world.grant() == Code.OK
    chart.allow(0)
    chart.allow(1, 2, name="other")
    receipt = ReleaseReceipt(tuple(Released(access, 1) for access in sorted((ACCESS, OTHER))))
    assert chart.world.submit(chart.keepers[0].node, receipt) == Code.OK
    assert chart.world.submit(chart.keepers[0].node, ReleaseReceipt((Released(OTHER, 2),))) == Code.OK
    assert chart.world.ask("third") == Code.OK, "a line after reports keeps them"
    chain_of(chart).tick()
    log = check_log_reply(chain_of(chart).log_reply(PID), chart.world.founding, PID)
    told = log.released.about(OTHER)
    assert (told.records, told.validators, told.is_open, told.verdict) == (2, 1, False, "too few shares")
    assert "1 of 4 validators, 3 needed" in told.text and len(log.lines) == 3
