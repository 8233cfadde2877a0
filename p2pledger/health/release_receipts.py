"""What validators report of the shares they have released, so that a patient's accounting knows what was really opened.

A report is a validator's word about itself: it can hide releases, but only its own, and t − 1 honest ones report the
same access. Each becomes a line that the patient can have proven (`release_log`, F-08). Reports are sent in batches,
after the fact; a release never waits for them. `unreported` is what a node owes the chain, and what an audit of its
written entries must find empty in the end (I-9).
"""

from collections.abc import Mapping

from p2pledger.execution import seats
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import access, keys, log, recovery_release, release_log
from p2pledger.health.events import SharesReleased
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.health.vocabulary import Count
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import Bytes16, Height
from p2pledger.state.view import StateView


class Reported(Record, frozen=True):
    """The state value of an access and a validator."""

    records: Count
    height: Height
    """Of its latest report."""


def report(operation: ReleaseReceipt, call: Call, state: StateView) -> Outcome:
    """Take a report; all of it or nothing.

    Refused: E_ROLE, E_NOT_FOUND, E_STATE for a denied access, E_FORMAT for an access that stands there twice or for
    more records than it is about, E_DUP for no more than was reported before.
    """
    validator = seats.validator_of(call.author, state)
    if validator is None:
        raise Refused(Code.E_ROLE)
    writes: dict[bytes, bytes | None] = {}
    heads: dict[Bytes16, log.LogHead] = {}
    events = []
    for released in operation.releases:
        key = keys.released(released.access_id, validator)
        pid = _pid(released, state)
        before = state.get(key)
        if key in writes:
            raise Refused(Code.E_FORMAT)
        if before is not None and decode_reported(before).records >= released.records:
            raise Refused(Code.E_DUP)
        writes[key] = encode(Reported(released.records, call.height))
        head = heads[pid] if pid in heads else log.head(pid, state)
        line = release_log.ReleaseLine(
            pid=pid,
            sequence=head.releases + 1,
            previous=head.releases_hash,
            height=call.height,
            time_ms=call.time_ms,
            access_id=released.access_id,
            validator=validator,
            records=released.records,
        )
        added, heads[pid] = release_log.append(line, head)
        writes |= added
        events.append(encode(SharesReleased(released.access_id, pid, validator, released.records)))
    return Outcome(writes, events)


def _pid(released: Released, state: StateView) -> Bytes16:
    decided = access.access_of(released.access_id, state)
    if decided is None:
        return _recovered(released, state)
    if decided.decision != Code.OK:
        raise Refused(Code.E_STATE)
    if released.records > decided.request.n_records:
        raise Refused(Code.E_FORMAT)
    return decided.request.pid


def _recovered(released: Released, state: StateView) -> Bytes16:
    """The patient of a recovery, which is about one capsule."""
    pid = recovery_release.subject_of(released.access_id, state)
    if pid is None:
        raise Refused(Code.E_NOT_FOUND)
    if released.records > 1:
        raise Refused(Code.E_FORMAT)
    return pid


def reports_of(access_id: bytes, state: StateView) -> dict[bytes, Reported]:
    """Who has reported how much of an access, by validator."""
    prefix = keys.releases(access_id)
    return {key[len(prefix) :]: decode_reported(data) for key, data in state.scan(prefix)}


def unreported(written: Mapping[bytes, int], validator: bytes, state: StateView) -> tuple[Released, ...]:
    """What of a validator's written entries, records by access, the chain does not know yet; ascending by access."""
    owed = []
    for access_id, records in sorted(written.items()):
        data = state.get(keys.released(access_id, validator))
        if data is None or decode_reported(data).records < records:
            owed.append(Released(access_id, records))
    return tuple(owed)


def decode_reported(data: bytes) -> Reported:
    """The state value under `keys.released`."""
    return decode(Reported, data, 32)
