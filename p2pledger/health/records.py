"""Record batches: a custodian's commitment to records that never enter the chain."""

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, keys
from p2pledger.health.events import BatchRecorded
from p2pledger.health.operations import RecordBatch
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode_again, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import Height, Millis
from p2pledger.state.view import StateView


class Batch(Record, frozen=True):
    """A batch as it stands in the state."""

    terms: RecordBatch
    height: Height
    time_ms: Millis


def record_batch(operation: RecordBatch, call: Call, state: StateView) -> Outcome:
    """Commit to records. Refused: E_ROLE unless by the pid's own custodian, E_NOT_FOUND, E_FORMAT, E_DUP."""
    custodian = directory.require_organisation(call, state)
    patient = directory.identity_of(operation.pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if not operation.custodian == custodian.id == patient.organisation:
        raise Refused(Code.E_ROLE)
    author = operation.author_org
    if author != custodian.id and directory.organisation_of(author, state) is None:
        raise Refused(Code.E_NOT_FOUND)
    if not _is_consistent(operation):
        raise Refused(Code.E_FORMAT)
    key = keys.batch(operation.batch_id)
    if state.get(key) is not None:
        raise Refused(Code.E_DUP)
    return Outcome(
        writes={key: encode(Batch(operation, call.height, call.time_ms))},
        events=[encode(BatchRecorded(operation.batch_id, operation.pid, custodian.id, operation.n))],
    )


def _is_consistent(batch: RecordBatch) -> bool:
    """Months in order, each compartment once, none with more records than there are."""
    handles = set()
    for compartment in batch.compartments:
        if compartment.count > batch.n or compartment.handle in handles:
            return False
        handles.add(compartment.handle)
    return batch.months[0] <= batch.months[1]


def batch_of(batch_id: bytes, state: StateView) -> Batch | None:
    """A batch by id."""
    data = state.get(keys.batch(batch_id))
    return None if data is None else decode_again(Batch, data, limits.STATE_VALUE_BYTES_MAX)
