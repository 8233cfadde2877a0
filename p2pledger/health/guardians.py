"""Guardians of a patient: who they are, what their approval is worth, and freezing a stolen key (F-23, F-25).

Guardians approve, they never hold key material, and alone each of them can do nothing: at least two are needed for
anything. A freeze stops what a thief could do with the patient's key, for a time: new consents, proxies and keys, and
reading as the patient. Consents that stand go on. Vetoes go on as well, or guardians could freeze first and then
recover without the patient's being able to object (F-24). No freeze is prolonged, and a change of guardians that was
asked for takes effect when it ends: guardians cannot keep their place for ever against the patient's will.
"""

from collections.abc import Sequence
from itertools import pairwise

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, guardian_state, proxies, rules
from p2pledger.health.events import GuardiansChanged, PatientFrozen, PatientUnfrozen
from p2pledger.health.guardian_operations import (
    Approval,
    Freeze,
    GuardianSet,
    Unfreeze,
    freeze_bytes,
    guardian_commit,
    unfreeze_bytes,
)
from p2pledger.health.guardian_state import Guardianship, Proposed
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import verify
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import Millis
from p2pledger.state.view import StateView

THRESHOLD_MIN = 2
"""No single key replaces a patient's or freezes it (F-22)."""


def set_guardians(operation: GuardianSet, call: Call, state: StateView) -> Outcome:
    """Name guardians: the first ones at once, others when the delay of those that stand is over.

    Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED, E_DECEASED, E_GUARDIANS for terms that cannot be, E_TIMELOCK for a
    delay that is too short or too long.
    """
    proxies.require_capacity(operation.pid, "patient", call, state)
    _check_terms(operation, rules.of(state).recovery_delay_min_ms)
    before = guardian_state.guardianship_of(operation.pid, state)
    if before is None:
        held = Guardianship(operation, call.height)
        from_ms = call.time_ms
    else:
        held = before.at(call.time_ms, call.height)
        from_ms = Millis(call.time_ms + held.terms.delay_ms)
        held = replace(held, proposed=Proposed(operation, from_ms))
    event = GuardiansChanged(operation.pid, operation.threshold, len(operation.guardians), from_ms)
    return Outcome(guardian_state.writes_of(operation.pid, held), [encode(event)])


def _check_terms(terms: GuardianSet, delay_min_ms: int) -> None:
    """Raises Refused: E_GUARDIANS, E_TIMELOCK."""
    named = terms.guardians
    is_sorted = all(one < other for one, other in pairwise(named))
    if not is_sorted or not THRESHOLD_MIN <= terms.threshold <= len(named):
        raise Refused(Code.E_GUARDIANS)
    if (terms.capsule is None) != (terms.key_epoch == 0):
        raise Refused(Code.E_GUARDIANS)
    if not delay_min_ms <= terms.delay_ms <= limits.RECOVERY_DELAY_MS_MAX:
        raise Refused(Code.E_TIMELOCK)


def require_approvals(terms: GuardianSet, approvals: Sequence[Approval], data: bytes, needed: int) -> None:
    """Demand that so many of these guardians signed exactly these bytes.

    What does not belong there refuses all of it: nobody pads a number. Commitments are compared before signatures are
    verified: who does not know what opens them costs nothing. Raises Refused: E_APPROVAL for one that is no
    guardian's, stands there twice or has signed something else, E_THRESHOLD for too few.
    """
    opened = {guardian_commit(terms.pid, one.salt, one.guardian) for one in approvals}
    guardians = {one.guardian for one in approvals}
    if not opened <= set(terms.guardians) or len(opened) < len(approvals) or len(guardians) < len(approvals):
        raise Refused(Code.E_APPROVAL)
    if len(approvals) < needed:
        raise Refused(Code.E_THRESHOLD)
    if not all(verify(one.guardian, data, one.signature) for one in approvals):
        raise Refused(Code.E_APPROVAL)


def require_guardianship(pid: bytes, call: Call, state: StateView) -> Guardianship:
    """How a living patient is guarded now; raises Refused: E_NOT_FOUND, E_DECEASED, E_GUARDIANS where it is not."""
    patient = directory.identity_of(pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if proxies.is_deceased(pid, state):
        raise Refused(Code.E_DECEASED)
    held = guardian_state.guardianship_of(pid, state)
    if held is None:
        raise Refused(Code.E_GUARDIANS)
    return held.at(call.time_ms, call.height)


def freeze(operation: Freeze, call: Call, state: StateView) -> Outcome:
    """Freeze a patient, at once; anybody who may send at all can hand the approvals in.

    Refused: E_NOT_FOUND, E_DECEASED, E_GUARDIANS, E_STATE where it is frozen, E_EXPIRED for an end that is past or not
    after that of the last freeze (so that no approval counts twice), E_TIMELOCK for one that is too far, E_APPROVAL,
    E_THRESHOLD.
    """
    held = require_guardianship(operation.pid, call, state)
    if held.frozen_at(call.time_ms):
        raise Refused(Code.E_STATE)
    if operation.until_ms <= max(call.time_ms, held.frozen_ms):
        raise Refused(Code.E_EXPIRED)
    if operation.until_ms > call.time_ms + rules.of(state).freeze_max_ms:
        raise Refused(Code.E_TIMELOCK)
    data = freeze_bytes(call.chain, operation.pid, operation.until_ms)
    require_approvals(held.terms, operation.approvals, data, held.terms.threshold)
    frozen = replace(held, frozen_ms=operation.until_ms, is_frozen=True)
    event = PatientFrozen(operation.pid, operation.until_ms)
    return Outcome(guardian_state.writes_of(operation.pid, frozen), [encode(event)])


def unfreeze(operation: Unfreeze, call: Call, state: StateView) -> Outcome:
    """End a freeze before its time.

    Refused: E_NOT_FOUND, E_DECEASED, E_GUARDIANS, E_STATE where that freeze does not hold, E_APPROVAL, E_THRESHOLD.
    """
    held = require_guardianship(operation.pid, call, state)
    if not held.frozen_at(call.time_ms) or held.frozen_ms != operation.until_ms:
        raise Refused(Code.E_STATE)
    data = unfreeze_bytes(call.chain, operation.pid, operation.until_ms)
    require_approvals(held.terms, operation.approvals, data, held.terms.threshold)
    thawed = replace(held, is_frozen=False)
    return Outcome(guardian_state.writes_of(operation.pid, thawed), [encode(PatientUnfrozen(operation.pid))])
