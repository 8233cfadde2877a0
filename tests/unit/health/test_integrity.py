"""F-36: who was given other bytes than the chain committed to can tell everybody whom it concerns."""

import pytest
from msgspec.structs import replace

from p2pledger.health import integrity
from p2pledger.health.events import IntegrityAlerted
from p2pledger.health.integrity import alerts_of, decode_alert
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.health.operations import record_handle
from p2pledger.primitives.errors import Code
from tests.attack import Without
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.charts import Chart
from tests.unit.health.world import BERG, DOCTOR, PID, TAL, account

ACCESS = id16("access")
ALERT = IntegrityAlert(id16("batch"), 1, None, hash32("committed"), hash32("given"))
BY_READER = replace(ALERT, access_id=ACCESS)


@pytest.fixture
def chart() -> Chart:
    made = Chart()
    assert made.world.grant() == Code.OK
    made.allow(0, 1, 2)
    return made


def test_reader_patient_and_members_can_tell(chart: Chart) -> None:
    """F-36: each once about a record; the event has the patient, the custodian, the record and both hashes."""
    senders = {
        "doctor": (DOCTOR, BY_READER),
        "patient": (key("patient"), ALERT),
        "Berg": (BERG, ALERT),
        "Tal": (TAL, ALERT),
    }
    for name, (sender, operation) in senders.items():
        (event,) = chart.world.events(sender, operation)
        assert event == IntegrityAlerted(
            pid=PID,
            custodian=id16("Berg"),
            record=record_handle(id16("batch"), 1),
            author=account(name),
            access_id=operation.access_id,
            expected=hash32("committed"),
            found=hash32("given"),
        )
        assert chart.world.submit(sender, operation) == Code.E_DUP
    told = [decode_alert(data) for data in alerts_of(PID, chart.world.state)]
    assert {alert.author for alert in told} == {account(name) for name in senders}
    assert {alert.terms.batch_id for alert in told} == {id16("batch")}
    assert alerts_of(id16("somebody else"), chart.world.state) == ()


def test_who_was_given_nothing_cannot_tell(chart: Chart) -> None:
    """F-36: no alarm by strangers, by readers without an access, or about records that are not there."""
    submit = chart.world.submit
    assert submit(DOCTOR, ALERT) == Code.E_ROLE, "a practitioner names its access"
    assert submit(BERG, BY_READER) == Code.E_ROLE, "the access is another's"
    assert submit(DOCTOR, replace(BY_READER, access_id=id16("unknown"))) == Code.E_NOT_FOUND
    assert submit(BERG, replace(ALERT, batch_id=id16("no batch"))) == Code.E_NOT_FOUND
    assert submit(BERG, replace(ALERT, index=8)) == Code.E_NOT_FOUND
    assert submit(BERG, replace(ALERT, found=ALERT.expected)) == Code.E_FORMAT
    assert chart.world.ask("denied", purpose="CLINTRCH") == Code.E_PURPOSE
    assert submit(DOCTOR, replace(ALERT, access_id=id16("denied"))) == Code.E_ROLE
    assert alerts_of(PID, chart.world.state) == ()


@pytest.mark.attack("T73")
def test_a_false_alarm_by_somebody_else(chart: Chart, without: Without) -> None:
    """F-36: without the rule any practitioner could say of any house that it spoils records."""
    with without(integrity.alert, "raise Refused(Code.E_ROLE)"):
        assert chart.world.submit(DOCTOR, ALERT) == Code.OK
    assert chart.world.submit(DOCTOR, replace(ALERT, index=2)) == Code.E_ROLE
