"""Integrity alerts, from the side of whoever was given other bytes, and of whom they are about (F-36)."""

from p2pledger.client.ledger import LedgerClient
from p2pledger.health.commitments import RecordRef
from p2pledger.health.integrity import Alert, decode_alert
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.network.api import AlertsReply, GetAlerts


def alert(ref: RecordRef, expected: bytes, found: bytes, access_id: bytes | None = None) -> IntegrityAlert:
    """What to submit: a reader names its access, the patient and members none."""
    return IntegrityAlert(ref.batch_id, ref.index, access_id, expected, found)


async def alerts_about(ledger: LedgerClient, pid: bytes) -> list[Alert]:
    """The alerts about a patient's records; as the node says. The feed tells the same, proven."""
    reply = await ledger.told(GetAlerts(0, pid), AlertsReply)
    return [decode_alert(data) for data in reply.alerts]
