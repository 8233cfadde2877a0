"""Access requests: is the reader who it says, what do the patient's consents say, and the line that remains.

A denial is a success of the contract: it is written down like a permission (F-01). Refused, and so without a line,
are only requests that cannot be about anything: an unknown patient, a used id, a key that is not the reader's.
"""

from collections.abc import Sequence

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import (
    break_glass,
    consent,
    directory,
    evaluator,
    guardian_state,
    keys,
    log,
    proxies,
    quotas,
    rules,
)
from p2pledger.health.consent import Consent
from p2pledger.health.directory import Identity
from p2pledger.health.evaluator import Decision, Reader, Setting
from p2pledger.health.events import AccessDecided, BasisKind
from p2pledger.health.operations import AccessRequest, pop_bytes
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import verify
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Bytes16, Height
from p2pledger.state.view import StateView


class Access(Record, frozen=True):
    """A decided access, for those who release shares."""

    request: AccessRequest
    author: AccountKey
    height: Height
    decision: int
    basis: BasisKind
    consent_id: Bytes16 | None
    cosigners: tuple[AccountKey, ...] = ()
    """Who has signed the request too: broken glass is judged by them again before each release."""


def request_access(operation: AccessRequest, call: Call, state: StateView) -> Outcome:
    """Decide and write it down.

    Refused: E_QUOTA (too many refusals lately), E_NOT_FOUND (unknown pid), E_DUP (used id), E_POP, E_FORMAT (months).
    """
    is_used_up = quotas.is_used_up(call.author, call.time_ms, state)
    if is_used_up and not is_emergency((operation,), call.author, call.time_ms, state):
        raise Refused(Code.E_QUOTA)
    patient = directory.identity_of(operation.pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if state.get(keys.access(operation.access_id)) is not None:
        raise Refused(Code.E_DUP)
    if operation.months is not None and operation.months[0] > operation.months[1]:
        raise Refused(Code.E_FORMAT)
    ephemeral, scope = operation.reader_eph_x25519, operation.scope_commit
    if not verify(call.author, pop_bytes(call.chain, ephemeral, operation.access_id, scope), operation.pop):
        raise Refused(Code.E_POP)
    decision = evaluate(operation, call.author, call.time_ms, state, call.cosigners)
    return _written_down(operation, decision, call, state)


def evaluate(
    request: AccessRequest, author: AccountKey, time_ms: int, state: StateView, cosigners: Sequence[AccountKey] = ()
) -> Decision:
    """The decision on this state at this block time; changes nothing, and counts no use."""
    patient = directory.identity_of(request.pid, state)
    if patient is not None and patient.key == author:
        return _of_owner(request, time_ms, state)
    if request.purpose in proxies.READING and _is_proxy(request, author, time_ms, state):
        return Decision(Code.OK, "proxy")
    reader = reader_of(request, author, time_ms, state, cosigners)
    if isinstance(reader, Code):
        return Decision(reader, "none")
    setting = Setting(rules.of(state).default_policy, time_ms, proxies.is_deceased(request.pid, state))
    return evaluator.decide(request, reader, _consents(request, state), setting)


def _of_owner(request: AccessRequest, time_ms: int, state: StateView) -> Decision:
    """F-12: patients read their own without anybody's leave, as patients and as nothing else.

    F-25: not with a key that guardians call stolen.
    """
    if guardian_state.is_frozen(request.pid, time_ms, state):
        return Decision(Code.E_FROZEN, "none")
    if proxies.is_deceased(request.pid, state):
        return Decision(Code.E_DECEASED, "none")
    if request.purpose == "PATRQT":
        return Decision(Code.OK, "owner")
    return Decision(Code.E_PURPOSE, "none")


def _is_proxy(request: AccessRequest, author: AccountKey, time_ms: int, state: StateView) -> bool:
    """F-30: whether the author may read for the patient, from the house that it belongs to."""
    identity = directory.identity_by_key(author, state)
    is_at_home = identity is not None and identity.organisation == request.organisation
    return is_at_home and proxies.acting(request.pid, author, "read", time_ms, state) is not None


def is_emergency(operations: Sequence[Record], author: AccountKey, time_ms: int, state: StateView) -> bool:
    """Whether this is broken glass by somebody who may break it: no quota stands in its way."""
    for operation in operations:
        if not isinstance(operation, AccessRequest) or operation.purpose != "BTG":
            return False
        reader = reader_of(operation, author, time_ms, state)
        if isinstance(reader, Code) or not reader.may_break_glass:
            return False
    return True


def reader_of(
    request: AccessRequest, author: AccountKey, time_ms: int, state: StateView, cosigners: Sequence[AccountKey] = ()
) -> Reader | Code:
    """What the directory proves about the author, or why it may not read at all: the code of the denial.

    E_UNKNOWN_ACTOR where the key is no current key of one of that organisation's people, E_SUSPENDED where person or
    organisation is not active, E_CREDENTIAL without a credential that is valid at this time.
    """
    identity = directory.identity_by_key(author, state)
    if identity is None or identity.kind == "patient" or identity.organisation != request.organisation:
        return Code.E_UNKNOWN_ACTOR
    organisation = directory.organisation_of(identity.organisation, state)
    assert organisation is not None, "an identity's organisation was registered before it"
    if identity.is_suspended or not organisation.is_active:
        return Code.E_SUSPENDED
    valid = [held for held in directory.credentials_of(identity.did, state) if held.is_valid(time_ms)]
    if not valid:
        return Code.E_CREDENTIAL
    groups = [group for held in valid for group in held.groups]
    return Reader(
        did=identity.did,
        organisation=identity.organisation,
        roles=tuple(held.role for held in valid),
        groups=tuple(group.handle for group in groups),
        may_break_glass=any(group.is_break_glass for group in groups),
        has_second_factor=any(_is_colleague(key, identity, time_ms, state) for key in cosigners),
    )


def _is_colleague(key: AccountKey, reader: Identity, time_ms: int, state: StateView) -> bool:
    """F-15: whether a cosigner is the reader's house itself, or another of its people with a valid credential."""
    organisation = directory.organisation_by_key(key, state)
    if organisation is not None:
        return organisation.is_active and organisation.id == reader.organisation
    other = directory.identity_by_key(key, state)
    if other is None or other.is_suspended or other.did == reader.did:
        return False
    held = directory.credentials_of(other.did, state)
    return other.organisation == reader.organisation and any(credential.is_valid(time_ms) for credential in held)


def _consents(request: AccessRequest, state: StateView) -> list[Consent]:
    """Those that can matter: the named one, or all where none is named or glass is broken."""
    if request.basis is None or request.purpose == "BTG":
        return consent.load_all(request.pid, state)
    named = consent.load(request.pid, request.basis, state)
    return [] if named is None else [named]


def _written_down(request: AccessRequest, decision: Decision, call: Call, state: StateView) -> Outcome:
    identity = directory.identity_by_key(call.author, state)
    before = log.head(request.pid, state)
    line = log.LogLine(
        pid=request.pid,
        sequence=before.count + 1,
        previous=before.hash,
        height=call.height,
        time_ms=call.time_ms,
        transaction=call.transaction,
        access_id=request.access_id,
        reader=call.author,
        actor=None if identity is None else identity.did,
        organisation=request.organisation,
        purpose=request.purpose,
        decision=int(decision.code),
        basis=decision.basis,
        consent_id=decision.consent_id,
        compartments=request.compartments,
        labels=request.labels,
        n_records=request.n_records,
        scope_commit=request.scope_commit,
        reason_commit=request.reason_commit,
    )
    writes, line_hash = log.append(line, before)
    access = Access(
        request, call.author, call.height, int(decision.code), decision.basis, decision.consent_id, call.cosigners
    )
    event = AccessDecided(
        request.access_id,
        request.pid,
        int(decision.code),
        decision.basis,
        decision.consent_id,
        request.purpose,
        line.sequence,
        line_hash,
    )
    writes[keys.access(request.access_id)] = encode(access)
    if decision.code != Code.OK:
        return Outcome({**writes, **quotas.counted(call.author, call.time_ms, state)}, [encode(event)])
    if identity is None or decision.basis in ("owner", "proxy"):
        return Outcome(writes, [encode(event)])
    use = break_glass.allowed(break_glass.Use(request, identity.did, line.sequence), call, state)
    return Outcome({**writes, **_use(request, decision, state), **use.writes}, [encode(event), *use.events])


def _use(request: AccessRequest, decision: Decision, state: StateView) -> dict[bytes, bytes | None]:
    """Count an allowed access under its consent; a consent without a limit is left as it is."""
    if decision.consent_id is None:
        return {}
    basis = consent.load(request.pid, decision.consent_id, state)
    assert basis is not None, "a decision rests on a consent that is there"
    if not basis.terms.max_uses:
        return {}
    return {keys.consent(request.pid, decision.consent_id): encode(consent.used(basis))}


def access_of(access_id: bytes, state: StateView) -> Access | None:
    """A decided access by id."""
    data = state.get(keys.access(access_id))
    return None if data is None else decode_access(data)


def decode_access(data: bytes) -> Access:
    """The state value under `keys.access`."""
    return decode(Access, data, limits.STATE_VALUE_BYTES_MAX)
