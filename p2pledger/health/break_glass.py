"""What follows broken glass: the alert, the review within its time, and how often a house breaks it (F-15, F-16).

Each use enters a list in the order in which reviews are due, so that overdue ones are found without reading anything
else; a review takes it off. Allowed accesses are counted by organisation and by person in windows of block time. When
an organisation breaks the glass too often in a window, its next use reports it to the consortium, once a window.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, keys, rules
from p2pledger.health.break_glass_operations import BtgReview
from p2pledger.health.events import BreakGlassRateExceeded, BreakGlassReviewed, BreakGlassUsed
from p2pledger.health.operations import AccessRequest
from p2pledger.health.vocabulary import Verdict
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Value, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Height, Millis
from p2pledger.state.view import StateView

_ZERO = bytes(32)


class Review(Record, frozen=True):
    """What a review found."""

    reviewer: AccountKey
    verdict: Verdict
    note_commit: Bytes32
    height: Height
    is_late: bool


class BrokenGlass(Record, frozen=True):
    """One emergency access as it stands in the state."""

    access_id: Bytes16
    pid: Bytes16
    organisation: Bytes16
    """The reader's."""
    signers: tuple[AccountKey, ...]
    """The reader and who signed with it: none of them may review."""
    due_ms: Millis
    """From this instant on the review is overdue."""
    review: Review | None = None


class Rate(Record, frozen=True):
    """Allowed accesses in one window of block time, and how many of them broke the glass."""

    window: U64 = 0
    accesses: U64 = 0
    broken: U64 = 0
    is_reported: bool = False


class Use(Value, frozen=True):
    """An access that was allowed, and whose it was."""

    request: AccessRequest
    did: bytes
    sequence: int
    """Of its line in the patient's log."""

    @property
    def is_broken_glass(self) -> bool:
        return self.request.purpose == "BTG"


# Looking up


def broken_glass_of(access_id: bytes, state: StateView) -> BrokenGlass | None:
    """One emergency access by id."""
    data = state.get(keys.broken_glass(access_id))
    return None if data is None else decode_broken_glass(data)


def decode_broken_glass(data: bytes) -> BrokenGlass:
    """An emergency access from its state value; raises InvalidInput."""
    return decode(BrokenGlass, data, limits.STATE_VALUE_BYTES_MAX)


def pending(state: StateView) -> Iterator[BrokenGlass]:
    """Those without a review, the one that is due first first."""
    for key, _ in state.scan(keys.REVIEW_DUE):
        found = broken_glass_of(key[-16:], state)
        assert found is not None, "the list of reviews names an access that is not there"
        yield found


def overdue(time_ms: int, state: StateView) -> Iterator[BrokenGlass]:
    """Those that should have been reviewed by this block time."""
    for used in pending(state):
        if used.due_ms > time_ms:
            return
        yield used


def rate_of(key: bytes, time_ms: int, state: StateView) -> Rate:
    """How often, in the window of this block time; `key` is `keys.organisation_rate` or `keys.person_rate`."""
    window = rules.of(state).break_glass_window(time_ms)
    data = state.get(key)
    stored = Rate() if data is None else decode(Rate, data, 64)
    return stored if stored.window == window else Rate(window)


# Contracts


def allowed(use: Use, call: Call, state: StateView) -> Outcome:
    """What an allowed access of one of an organisation's people adds: counts, and for broken glass the alert."""
    chain = rules.of(state)
    request, events = use.request, []
    person, key = keys.person_rate(use.did), keys.organisation_rate(request.organisation)
    writes: dict[bytes, bytes | None] = {person: encode(_counted(rate_of(person, call.time_ms, state), use))}
    rate = _counted(rate_of(key, call.time_ms, state), use)
    if use.is_broken_glass:
        due = Millis(call.time_ms + chain.break_glass_review_ms)
        signers = (call.author, *call.cosigners)
        used = BrokenGlass(request.access_id, request.pid, request.organisation, signers, due)
        writes[keys.broken_glass(request.access_id)] = encode(used)
        writes[keys.review_due(due, request.access_id)] = b""
        alert = BreakGlassUsed(request.access_id, request.pid, request.organisation, use.sequence, due)
        events.append(encode(alert))
        if not rate.is_reported and chain.is_too_often(rate.broken, rate.accesses):
            rate = replace(rate, is_reported=True)
            events.append(encode(BreakGlassRateExceeded(request.organisation, rate.window, rate.broken, rate.accesses)))
    writes[key] = encode(rate)
    return Outcome(writes, events)


def _counted(rate: Rate, use: Use) -> Rate:
    return Rate(rate.window, rate.accesses + 1, rate.broken + use.is_broken_glass, rate.is_reported)


def review(operation: BtgReview, call: Call, state: StateView) -> Outcome:
    """Close a review, late ones too. Refused: E_NOT_FOUND, E_STATE, E_ROLE, E_CONSENT_INCOMPLETE."""
    used = broken_glass_of(operation.access_id, state)
    if used is None:
        raise Refused(Code.E_NOT_FOUND)
    if used.review is not None:
        raise Refused(Code.E_STATE)
    if call.author in used.signers or not _may_review(used, call, state):
        raise Refused(Code.E_ROLE)
    if operation.note_commit == _ZERO:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    is_late = call.time_ms >= used.due_ms
    found = Review(call.author, operation.verdict, operation.note_commit, call.height, is_late)
    return Outcome(
        writes={
            keys.broken_glass(used.access_id): encode(replace(used, review=found)),
            keys.review_due(used.due_ms, used.access_id): None,
        },
        events=[encode(BreakGlassReviewed(used.access_id, used.pid, operation.verdict, is_late))],
    )


def _may_review(used: BrokenGlass, call: Call, state: StateView) -> bool:
    """The reader's house and the patient's custodian may, themselves or by an auditor of theirs."""
    patient = directory.identity_of(used.pid, state)
    assert patient is not None, "glass was broken over a patient who is not there"
    houses = {used.organisation, patient.organisation}
    organisation = directory.organisation_by_key(call.author, state)
    if organisation is not None:
        return organisation.is_active and organisation.id in houses
    identity = directory.identity_by_key(call.author, state)
    if identity is None or identity.is_suspended or identity.organisation not in houses:
        return False
    held = directory.credentials_of(identity.did, state)
    return any(credential.role == "auditor" and credential.is_valid(call.time_ms) for credential in held)
