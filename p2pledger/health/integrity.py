"""Integrity alerts: a changed byte in a vault is told to everybody whom it concerns, for good (F-36).

An alert is the word of whoever sends it: the chain sees no bytes and can check neither hash. It checks that the sender
could have been given the record at all, and takes one alert about a record from each.
"""

from itertools import islice

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import access, directory, keys, records
from p2pledger.health.events import IntegrityAlerted
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.health.operations import record_handle
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Bytes16, Height, Millis
from p2pledger.state.view import StateView


class Alert(Record, frozen=True):
    """An alert as it stands in the state."""

    terms: IntegrityAlert
    custodian: Bytes16
    author: AccountKey
    height: Height
    time_ms: Millis


def alert(operation: IntegrityAlert, call: Call, state: StateView) -> Outcome:
    """Write it down.

    Refused: E_NOT_FOUND (no such record or access), E_ROLE unless by the reader of an allowed access to this patient,
    the patient itself or an active member, E_FORMAT where nothing differs, E_DUP for a second one by the same key.
    """
    batch = records.batch_of(operation.batch_id, state)
    if batch is None or operation.index >= batch.terms.n:
        raise Refused(Code.E_NOT_FOUND)
    pid, custodian = batch.terms.pid, batch.terms.custodian
    if not _could_be_given(operation.access_id, pid, call, state):
        raise Refused(Code.E_ROLE)
    if operation.expected == operation.found:
        raise Refused(Code.E_FORMAT)
    key = keys.integrity_alert(pid, operation.batch_id, operation.index, call.author)
    if state.get(key) is not None:
        raise Refused(Code.E_DUP)
    event = IntegrityAlerted(
        pid=pid,
        custodian=custodian,
        record=record_handle(operation.batch_id, operation.index),
        author=call.author,
        access_id=operation.access_id,
        expected=operation.expected,
        found=operation.found,
    )
    return Outcome({key: encode(Alert(operation, custodian, call.author, call.height, call.time_ms))}, [encode(event)])


def _could_be_given(access_id: Bytes16 | None, pid: Bytes16, call: Call, state: StateView) -> bool:
    if access_id is not None:
        decided = access.access_of(access_id, state)
        if decided is None:
            raise Refused(Code.E_NOT_FOUND)
        return decided.decision == Code.OK and decided.author == call.author and decided.request.pid == pid
    patient = directory.identity_of(pid, state)
    if patient is not None and patient.key == call.author:
        return True
    member = directory.organisation_by_key(call.author, state)
    return member is not None and member.is_active


def alerts_of(pid: bytes, state: StateView, most: int = 1_000) -> tuple[bytes, ...]:
    """The canonical bytes of the alerts about a patient's records, by batch and index."""
    return tuple(data for _, data in islice(state.scan(keys.integrity_alerts(pid)), most))


def decode_alert(data: bytes) -> Alert:
    """An alert from its state value; raises InvalidInput."""
    return decode(Alert, data, limits.STATE_VALUE_BYTES_MAX)
