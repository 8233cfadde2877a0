"""Who may act for a patient, until when, and what a death changes (F-30).

A patient names an attorney itself. Parents and guardians, and attorneys of who can no longer say so, are entered by
the patient's custodian and a second organisation together: no single house can put itself in a patient's place.
A parent's standing ends at the age of majority, by block time and without a transaction, and no consent that a proxy
grants outlasts it. An attorney's ends with the patient's life.
"""

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, guardian_state, keys
from p2pledger.health.events import DeceasedMarked, ProxyGranted, ProxyRevoked
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant, ProxyRevoke
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import Capacity, Power
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Bytes32, Height
from p2pledger.state.view import StateView

READING: frozenset[Purpose] = frozenset({"FAMRQT", "PWATRNY"})
"""What a proxy reads for: a family member's request, or by power of attorney."""
_ZERO = bytes(32)


class Proxy(Record, frozen=True):
    """A proxy as it stands in the state."""

    terms: ProxyGrant
    granted: Height
    is_by_patient: bool
    """By the patient's own will; otherwise by two organisations."""
    ended: Height | None = None

    def is_valid(self, time_ms: int) -> bool:
        """Whether it holds at this block time: its first instant is in, its last is out."""
        return self.ended is None and self.terms.valid_from_ms <= time_ms < self.terms.valid_to_ms


class Deceased(Record, frozen=True):
    """That a patient has died, as two organisations say."""

    marked: Height
    evidence_commit: Bytes32


# Looking up


def proxy_of(pid: bytes, did: bytes, state: StateView) -> Proxy | None:
    """What somebody is to a patient, or was."""
    data = state.get(keys.proxy(pid, did))
    return None if data is None else decode_proxy(data)


def decode_proxy(data: bytes) -> Proxy:
    """A proxy from its state value; raises InvalidInput."""
    return decode(Proxy, data, limits.STATE_VALUE_BYTES_MAX)


def proxies_of(pid: bytes, state: StateView) -> list[Proxy]:
    """All proxies of a patient, ended ones too, by did."""
    return [decode_proxy(data) for _, data in state.scan(keys.proxies(pid))]


def is_deceased(pid: bytes, state: StateView) -> bool:
    """Whether two organisations have said that the patient died."""
    return state.get(keys.deceased(pid)) is not None


def acting(pid: bytes, author: AccountKey, power: Power, time_ms: int, state: StateView) -> Proxy | None:
    """The proxy that this key is for the patient with this power at this block time, if it is one."""
    identity = directory.identity_by_key(author, state)
    if identity is None or identity.is_suspended:
        return None
    proxy = proxy_of(pid, identity.did, state)
    if proxy is None or not proxy.is_valid(time_ms) or power not in proxy.terms.powers:
        return None
    has_lapsed = proxy.terms.kind == "attorney" and is_deceased(pid, state)
    return None if has_lapsed else proxy


# What contracts demand


def require_capacity(pid: bytes, capacity: Capacity, call: Call, state: StateView) -> int | None:
    """Demand that the author consents in this capacity; until when it may, None where that has no end.

    Raises Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED for the patient's own, E_DECEASED after its death, E_CAPACITY
    for a proxy or guardian that the author is not, or not now.
    """
    if capacity == "patient":
        directory.require_owner(pid, call, state)
        if is_deceased(pid, state):
            raise Refused(Code.E_DECEASED)
        return None
    proxy = acting(pid, call.author, "consent", call.time_ms, state)
    if proxy is None or (proxy.terms.kind == "guardian") != (capacity == "guardian"):
        raise Refused(Code.E_CAPACITY)
    return proxy.terms.valid_to_ms


def require_any_capacity(pid: bytes, call: Call, state: StateView) -> None:
    """Demand the patient, or anybody who may consent for it. Raises Refused as `directory.require_owner` does."""
    if acting(pid, call.author, "consent", call.time_ms, state) is None:
        directory.require_owner(pid, call, state)


def require_two_organisations(pid: bytes, call: Call, state: StateView) -> None:
    """Demand the patient's custodian and another active organisation, one of them the author.

    Raises Refused: E_NOT_FOUND without such a patient, E_ROLE where the author is no organisation or the custodian has
    not signed, E_COSIGNERS where it signed alone.
    """
    patient = directory.identity_of(pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    directory.require_organisation(call, state)
    found = [directory.organisation_by_key(key, state) for key in (call.author, *call.cosigners)]
    signers = {organisation.id for organisation in found if organisation is not None and organisation.is_active}
    if patient.organisation not in signers:
        raise Refused(Code.E_ROLE)
    if len(signers) < 2:
        raise Refused(Code.E_COSIGNERS)


# Contracts


def grant(operation: ProxyGrant, call: Call, state: StateView) -> Outcome:
    """Enter a proxy. Refused: those of `_require_grantor`, E_NOT_FOUND, E_CONSENT_INCOMPLETE, E_DUP, E_QUOTA."""
    is_by_patient = _require_grantor(operation, call, state)
    if directory.identity_of(operation.proxy, state) is None:
        raise Refused(Code.E_NOT_FOUND)
    is_empty = operation.valid_to_ms <= max(operation.valid_from_ms, call.time_ms)
    if is_empty or operation.evidence_commit == _ZERO or operation.proxy == operation.pid:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    before = proxy_of(operation.pid, operation.proxy, state)
    if before is not None and before.ended is None and call.time_ms < before.terms.valid_to_ms:
        raise Refused(Code.E_DUP)
    if before is None and len(proxies_of(operation.pid, state)) >= limits.PROXIES_PER_PATIENT_MAX:
        raise Refused(Code.E_QUOTA)
    return Outcome(
        writes={
            keys.proxy(operation.pid, operation.proxy): encode(Proxy(operation, call.height, is_by_patient)),
            keys.proxy_for(operation.proxy, operation.pid): b"",
        },
        events=[encode(ProxyGranted(operation.pid, operation.proxy, operation.kind))],
    )


def _require_grantor(operation: ProxyGrant, call: Call, state: StateView) -> bool:
    """Whether the patient itself names the proxy, who can only be an attorney; else two organisations must.

    Raises Refused: E_ROLE, E_NOT_FOUND, E_SUSPENDED, E_DECEASED, E_FROZEN, E_COSIGNERS.
    """
    patient = directory.identity_of(operation.pid, state)
    if patient is None or patient.key != call.author:
        require_two_organisations(operation.pid, call, state)
        return False
    require_capacity(operation.pid, "patient", call, state)
    guardian_state.require_thawed(operation.pid, call.time_ms, state)
    if operation.kind != "attorney":
        raise Refused(Code.E_ROLE)
    return True


def revoke(operation: ProxyRevoke, call: Call, state: StateView) -> Outcome:
    """End a proxy: its own key, or whoever registered it.

    Refused: E_NOT_FOUND, E_STATE, E_NOT_OWNER, E_SUSPENDED, E_ROLE, E_COSIGNERS.
    """
    proxy = proxy_of(operation.pid, operation.proxy, state)
    if proxy is None:
        raise Refused(Code.E_NOT_FOUND)
    if proxy.ended is not None:
        raise Refused(Code.E_STATE)
    author = directory.identity_by_key(call.author, state)
    if author is None or author.did != operation.proxy:
        if proxy.is_by_patient:
            directory.require_owner(operation.pid, call, state)
        else:
            require_two_organisations(operation.pid, call, state)
    return Outcome(
        writes={keys.proxy(operation.pid, operation.proxy): encode(replace(proxy, ended=call.height))},
        events=[encode(ProxyRevoked(operation.pid, operation.proxy))],
    )


def mark_deceased(operation: DeceasedMark, call: Call, state: StateView) -> Outcome:
    """Mark a death, or take the mark back. Refused: E_NOT_FOUND, E_ROLE, E_COSIGNERS, E_CONSENT_INCOMPLETE, E_STATE."""
    require_two_organisations(operation.pid, call, state)
    if operation.evidence_commit == _ZERO:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if is_deceased(operation.pid, state) == operation.is_deceased:
        raise Refused(Code.E_STATE)
    mark = encode(Deceased(call.height, operation.evidence_commit)) if operation.is_deceased else None
    return Outcome(
        writes={keys.deceased(operation.pid): mark},
        events=[encode(DeceasedMarked(operation.pid, operation.is_deceased))],
    )
