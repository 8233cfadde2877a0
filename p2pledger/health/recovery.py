"""A lost or stolen key is replaced: guardians start, time passes, the present key may veto, anybody finishes (F-23).

1. `RecoveryStart`: enough guardians have approved of the new keys. Everybody who watches the patient is told.
2. Until the delay is over by block time, the present key can veto (F-24): then nothing has happened.
3. `RecoveryFinalize`: the new keys take the old ones' place, and the old key is dead from this block on.

A thief who has the key can veto as well. After two vetoes one guardian more (or all of them) with the custodian, who
has looked at the person, start a recovery that takes longer and that no veto ends (F-25). Which guardians count is
settled at the start: a change of guardians in between decides nothing about it, and is void once it is final.
"""

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, guardian_state, guardians, keys, proxies, rules
from p2pledger.health.directory import KeyOwner
from p2pledger.health.events import RecoveryFinalized, RecoveryStarted, RecoveryVetoed
from p2pledger.health.guardian_operations import RecoveryFinalize, RecoveryStart, RecoveryVeto, start_bytes
from p2pledger.health.guardian_state import Guardianship, Recovery
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Millis
from p2pledger.state.view import StateView

VETOES = 2
"""After so many a recovery may go beyond veto."""


def start(operation: RecoveryStart, call: Call, state: StateView) -> Outcome:
    """Begin to wait, in place of a recovery that may wait already.

    Refused: E_ROLE (not by the new key), E_NOT_FOUND, E_DECEASED, E_GUARDIANS, E_DUP (a key or an id that was used),
    E_EXPIRED, E_STATE (one beyond veto waits), E_VETO (beyond veto before two vetoes), E_COSIGNERS (without the
    custodian then), E_APPROVAL, E_THRESHOLD.
    """
    held = _require_approved(operation, call, state)
    if directory.key_owner(operation.key, state) is not None:
        raise Refused(Code.E_DUP)  # also what keeps approvals from being used again
    if guardian_state.recovery_of(operation.recovery, state) is not None:
        raise Refused(Code.E_DUP)
    delay_ms = held.terms.delay_ms
    if operation.is_beyond_veto:
        delay_ms = max(delay_ms, rules.of(state).recovery_long_ms)
    recovery = Recovery(
        operation.pid,
        operation.key,
        operation.box,
        call.time_ms,
        Millis(call.time_ms + delay_ms),
        operation.is_beyond_veto,
        "pending",
        held.terms,
    )
    # The new key is nobody's yet, and whether it will be anybody's or not: never a fresh one again.
    event = RecoveryStarted(operation.pid, operation.recovery, recovery.due_ms, operation.is_beyond_veto)
    return Outcome(
        writes={
            **_replaced(held, state),
            **guardian_state.writes_of(operation.pid, replace(held, pending=operation.recovery)),
            **guardian_state.recovery_writes(operation.recovery, recovery),
            keys.key_owner(operation.key): encode(KeyOwner("identity", operation.pid, call.height)),
        },
        events=[encode(event)],
    )


def _require_approved(operation: RecoveryStart, call: Call, state: StateView) -> Guardianship:
    """Demand everything that guardians and custodian stand for; raises Refused as `start` does."""
    if operation.key != call.author:
        raise Refused(Code.E_ROLE)
    held = guardians.require_guardianship(operation.pid, call, state)
    if operation.not_after_ms <= call.time_ms:
        raise Refused(Code.E_EXPIRED)
    waiting = _pending(held, state)
    if waiting is not None and waiting.is_beyond_veto and not operation.is_beyond_veto:
        raise Refused(Code.E_STATE)
    needed = held.terms.threshold
    if operation.is_beyond_veto:
        _require_beyond_veto(operation, held, call, state)
        needed = min(needed + 1, len(held.terms.guardians))
    guardians.require_approvals(held.terms, operation.approvals, start_bytes(operation, call.chain), needed)
    return held


def _require_beyond_veto(operation: RecoveryStart, held: Guardianship, call: Call, state: StateView) -> None:
    """Raises Refused: E_VETO, E_COSIGNERS."""
    if held.vetoes < VETOES:
        raise Refused(Code.E_VETO)
    patient = directory.identity_of(operation.pid, state)
    assert patient is not None, "a guarded patient is registered"
    if not directory.has_signed(patient.organisation, call, state):
        raise Refused(Code.E_COSIGNERS)


def is_recovering(account: AccountKey, state: StateView) -> bool:
    """Whether this is the new key of a recovery that waits."""
    owner = directory.key_owner(account, state)
    if owner is None or owner.kind != "identity":
        return False
    held = guardian_state.guardianship_of(owner.id, state)
    waiting = None if held is None else _pending(held, state)
    return waiting is not None and waiting.key == account


def veto(operation: RecoveryVeto, call: Call, state: StateView) -> Outcome:
    """End a recovery that waits, with the present key; also while frozen, and after a delay that nobody has used.

    Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED, E_STATE (it does not wait), E_VETO (it is beyond veto).
    """
    directory.require_owner(operation.pid, call, state)
    held, recovery = _require_pending(operation.pid, operation.recovery, call, state)
    if recovery.is_beyond_veto:
        raise Refused(Code.E_VETO)
    counted = replace(held, pending=None, vetoes=held.vetoes + 1)
    event = RecoveryVetoed(operation.pid, operation.recovery, counted.vetoes)
    return Outcome(
        writes={
            **guardian_state.writes_of(operation.pid, counted),
            **guardian_state.recovery_writes(operation.recovery, replace(recovery, progress="vetoed")),
        },
        events=[encode(event)],
    )


def finalize(operation: RecoveryFinalize, call: Call, state: StateView) -> Outcome:
    """Put the new keys in place; a freeze has then done its work, and changes that the old key asked for are void.

    Refused: E_NOT_FOUND, E_STATE, E_DECEASED, E_TIMELOCK before the delay is over.
    """
    held, recovery = _require_pending(operation.pid, operation.recovery, call, state)
    if proxies.is_deceased(operation.pid, state):
        raise Refused(Code.E_DECEASED)
    if call.time_ms < recovery.due_ms:
        raise Refused(Code.E_TIMELOCK)
    patient = directory.identity_of(operation.pid, state)
    assert patient is not None, "a guarded patient is registered"
    after = Guardianship(recovery.terms, held.since, frozen_ms=held.frozen_ms)
    event = RecoveryFinalized(operation.pid, operation.recovery, patient.key, recovery.key)
    return Outcome(
        writes={
            **directory.replaced_keys(patient, recovery.key, recovery.box, call, state),
            **guardian_state.writes_of(operation.pid, after),
            **guardian_state.recovery_writes(operation.recovery, replace(recovery, progress="final")),
        },
        events=[encode(event)],
    )


def _pending(held: Guardianship, state: StateView) -> Recovery | None:
    if held.pending is None:
        return None
    recovery = guardian_state.recovery_of(held.pending, state)
    assert recovery is not None, "what waits was started"
    return recovery


def _replaced(held: Guardianship, state: StateView) -> dict[bytes, bytes | None]:
    waiting = _pending(held, state)
    if waiting is None or held.pending is None:
        return {}
    return guardian_state.recovery_writes(held.pending, replace(waiting, progress="replaced"))


def _require_pending(pid: bytes, identifier: bytes, call: Call, state: StateView) -> tuple[Guardianship, Recovery]:
    """Raises Refused: E_NOT_FOUND where there is no such recovery of this patient, E_STATE where it does not wait."""
    recovery = guardian_state.recovery_of(identifier, state)
    held = guardian_state.guardianship_of(pid, state)
    if recovery is None or held is None or recovery.pid != pid:
        raise Refused(Code.E_NOT_FOUND)
    if held.pending != identifier:
        raise Refused(Code.E_STATE)
    return held.at(call.time_ms, call.height), recovery
