"""Consents: the noun as it stands in the state, and the contracts that grant and revoke. `evaluator` judges by them."""

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import guardian_state, keys, proxies
from p2pledger.health.events import ConsentGranted, ConsentRevoked
from p2pledger.health.operations import ConsentGrant, ConsentRevoke, PolicyException
from p2pledger.health.vocabulary import RevokeReason
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, decode_again, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, Height
from p2pledger.state.view import StateView

_ZERO = bytes(32)


class Consent(Record, frozen=True):
    """A consent as it stands in the state."""

    terms: ConsentGrant
    granted: Height
    uses: U64 = 0
    """Accesses allowed under it so far."""
    revoked: Height | None = None
    revoke_reason: RevokeReason | None = None

    def is_in_force(self, time_ms: int) -> bool:
        """Whether it holds at this block time: its first instant is in, its last is out (F-03)."""
        return self.revoked is None and self.terms.valid_from_ms <= time_ms < self.terms.valid_to_ms


def grant(operation: ConsentGrant, call: Call, state: StateView) -> Outcome:
    """Enter a consent.

    Refused: E_NOT_FOUND, E_NOT_OWNER, E_CAPACITY, E_DECEASED, E_FROZEN, E_CONSENT_INCOMPLETE, E_BTG_FORBIDDEN, E_DUP,
    E_QUOTA.
    """
    until_ms = proxies.require_capacity(operation.pid, operation.capacity, call, state)
    guardian_state.require_thawed(operation.pid, call.time_ms, state)
    _check_terms(operation)
    if until_ms is not None and operation.valid_to_ms > until_ms:  # F-30: it ends with the proxy, as at majority
        raise Refused(Code.E_CAPACITY)
    if state.get(keys.consent_pid(operation.consent_id)) is not None:
        raise Refused(Code.E_DUP)
    before, stored = holdings_of(operation.pid, state), encode(Consent(operation, call.height))
    after = Holdings(before.count + 1, before.size + len(stored))
    if after.count > limits.CONSENTS_PER_PATIENT_MAX or after.size > limits.CONSENT_BYTES_PER_PATIENT_MAX:
        raise Refused(Code.E_QUOTA)
    return Outcome(
        writes={
            keys.consent(operation.pid, operation.consent_id): stored,
            keys.consent_pid(operation.consent_id): operation.pid,
            keys.consent_count(operation.pid): encode(after),
        },
        events=[encode(ConsentGranted(operation.consent_id, operation.pid))],
    )


def _check_terms(terms: ConsentGrant) -> None:
    """F-07: a consent names its document, its ceremony, its time and what it is for; nothing is dropped silently."""
    exceptions = terms.exceptions
    if _ZERO in (terms.doc_commit, terms.evidence_commit) or terms.valid_to_ms <= terms.valid_from_ms:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if terms.base == "permit" and not terms.purposes:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if terms.base == "deny" and not terms.purposes and any(not exception.purposes for exception in exceptions):
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    ranges = (terms.months, *(exception.months for exception in exceptions))
    if any(months is not None and months[0] > months[1] for months in ranges):
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if terms.base == "permit" and any(_denies_nothing(exception) for exception in exceptions):
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if (terms.btg == "named") != bool(terms.btg_commits):
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if "BTG" in terms.purposes or any("BTG" in exception.purposes for exception in exceptions):
        raise Refused(Code.E_BTG_FORBIDDEN)


def _denies_nothing(exception: PolicyException) -> bool:
    """An empty list would name nothing to deny, which nobody who writes it down can mean."""
    return () in (exception.labels, exception.classes, exception.compartments)


def revoke(operation: ConsentRevoke, call: Call, state: StateView) -> Outcome:
    """End a consent from this block on (F-06). Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED, E_STATE."""
    pid = state.get(keys.consent_pid(operation.consent_id))
    if pid is None:
        raise Refused(Code.E_NOT_FOUND)
    proxies.require_any_capacity(pid, call, state)
    consent = load(pid, operation.consent_id, state)
    assert consent is not None, "the index names a consent that is not there"
    if consent.revoked is not None:
        raise Refused(Code.E_STATE)
    ended = replace(consent, revoked=call.height, revoke_reason=operation.reason)
    return Outcome(
        writes={keys.consent(pid, operation.consent_id): encode(ended)},
        events=[encode(ConsentRevoked(operation.consent_id, pid, operation.reason))],
    )


def used(consent: Consent) -> Consent:
    """The consent after one more allowed access."""
    return replace(consent, uses=consent.uses + 1)


def load(pid: bytes, consent_id: bytes, state: StateView) -> Consent | None:
    """A consent of this patient, or None."""
    data = state.get(keys.consent(pid, consent_id))
    return None if data is None else decode_consent(data)


def load_all(pid: bytes, state: StateView) -> list[Consent]:
    """All consents of a patient, ended ones too, by id."""
    return [decode_consent(data) for _, data in state.scan(keys.consents(pid))]


def decode_consent(data: bytes) -> Consent:
    """A consent from its state value; raises InvalidInput."""
    consent: Consent = decode_again(Consent, data, limits.STATE_VALUE_BYTES_MAX)
    return consent


class Holdings(Record, frozen=True):
    """How many consents a patient has, ended ones too, and their bytes: what a request without a name must read."""

    count: U64
    size: U64


def holdings_of(pid: bytes, state: StateView) -> Holdings:
    """What a patient's consents amount to, as they were granted."""
    data = state.get(keys.consent_count(pid))
    return Holdings(0, 0) if data is None else decode(Holdings, data, 32)
