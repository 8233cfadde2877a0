"""Consent: how it is granted, revoked and judged.

`decide` is the one place where an access is judged by consents; the contract, the client and the tests call it. It is
a pure function of the request, the reader's proven attributes, the patient's consents, the chain's default policy
and block time. Health rule 3.4; the reference in the tests says the same in sets.

- A named consent is judged alone, and among several reasons the first of revoked, expired, not yet, actor, purpose,
  scope, label, uses is given. One that does not exist, or is another patient's, is no consent.
- Without a name the candidates are the patient's consents that mean this actor. A deny exception of one that is in
  force and covers the request wins; then any that permits; then the first reason. Ended consents stay candidates, so
  that neither revoking nor shortening one hands the request over to a laxer default policy (I-7).
- Without candidates the chain's default policy decides, one of the four of IHE PCF. `basic-normal` permits treatment
  to clinical roles, `all-normal` every purpose, both only for requests that name no sensitive label;
  `break-glass-only` and `deny` permit nothing here.
- Breaking the glass is not a matter of consent purposes, and of no default policy either: a member of a break-glass
  group who gives a reason may, unless a consent in force says never. PCF's `deny` would refuse it where
  no consent is on file; here an emergency is worth more (0.8).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, keys
from p2pledger.health.events import BasisKind, ConsentGranted, ConsentRevoked
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    ConsentGrant,
    ConsentRevoke,
    PolicyException,
    actor_commit,
    role_handle,
)
from p2pledger.health.purposes import Purpose, covers
from p2pledger.health.vocabulary import Handle, Months, RevokeReason, Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, Bytes32, Height
from p2pledger.state.view import StateView

DefaultPolicy = Literal["deny", "basic-normal", "all-normal", "break-glass-only"]
CLINICAL_ROLES: frozenset[Role] = frozenset({"physician", "nurse", "pharmacist", "paramedic", "therapist"})
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


@dataclass(frozen=True, slots=True)
class Reader:
    """What the directory proves about who asks, at block time."""

    did: bytes
    organisation: bytes
    roles: tuple[Role, ...]
    groups: tuple[Handle, ...]
    may_break_glass: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """OK means ALLOWED, any other code DENIED for that reason."""

    code: Code
    basis: BasisKind
    consent_id: bytes | None = None


def decide(
    request: AccessRequest,
    reader: Reader,
    consents: Sequence[Consent],
    default_policy: DefaultPolicy,
    time_ms: int,
) -> Decision:
    """Judge a request by the patient's consents; see the module's text for the rules."""
    own = [consent for consent in consents if consent.terms.pid == request.pid]
    if request.purpose == "BTG":
        return _break_glass(request, reader, own, time_ms)
    actor = presented_actor(request.actor_opening, reader)
    if request.basis is not None:
        return _by_name(request, actor, own, time_ms)
    candidates = [consent for consent in own if _means(consent.terms.actor_commits, actor)]
    if not candidates:
        return _by_default(request, reader, default_policy)
    return _by_candidates(request, actor, candidates, time_ms)


def _by_name(request: AccessRequest, actor: Bytes32 | None, own: Sequence[Consent], time_ms: int) -> Decision:
    for consent in own:
        if consent.terms.consent_id == request.basis:
            return Decision(judge(consent, request, actor, time_ms), "consent", request.basis)
    return Decision(Code.E_NO_CONSENT, "none")


def _by_candidates(
    request: AccessRequest, actor: Bytes32 | None, candidates: Sequence[Consent], time_ms: int
) -> Decision:
    denials = [
        (denial, consent.terms.consent_id)
        for consent in candidates
        if (denial := _denial(consent, request, actor, time_ms)) is not None
    ]
    verdicts = denials or [
        (judge(consent, request, actor, time_ms), consent.terms.consent_id) for consent in candidates
    ]
    code, consent_id = min(verdicts)  # OK is 0, codes follow their precedence; of equals the lowest id
    return Decision(code, "consent", consent_id)


def _by_default(request: AccessRequest, reader: Reader, policy: DefaultPolicy) -> Decision:
    is_normal = not request.labels
    is_treatment = covers("TREAT", request.purpose) and not CLINICAL_ROLES.isdisjoint(reader.roles)
    if is_normal and (policy == "all-normal" or (policy == "basic-normal" and is_treatment)):
        return Decision(Code.OK, "policy")
    return Decision(Code.E_NO_CONSENT, "none")


def _break_glass(request: AccessRequest, reader: Reader, own: Sequence[Consent], time_ms: int) -> Decision:
    """F-15, without the second factor and the review, which are contracts of their own."""
    is_allowed = (
        reader.may_break_glass
        and request.reason_commit is not None
        and request.reason_commit != _ZERO
        and request.n_records <= limits.BREAK_GLASS_RECORDS_MAX
        and not any(consent.terms.btg == "never" and consent.is_in_force(time_ms) for consent in own)
    )
    return Decision(Code.OK, "btg") if is_allowed else Decision(Code.E_BTG_FORBIDDEN, "none")


def judge(consent: Consent, request: AccessRequest, actor: Bytes32 | None, time_ms: int) -> Code:
    """What one consent alone says: OK, or the first reason against it in the order of precedence."""
    terms = consent.terms
    if consent.revoked is not None:
        return Code.E_REVOKED
    if time_ms >= terms.valid_to_ms:
        return Code.E_EXPIRED
    if time_ms < terms.valid_from_ms:
        return Code.E_NOT_YET
    if not _means(terms.actor_commits, actor):
        return Code.E_ACTOR
    if not _serves(terms.purposes, request.purpose):
        return Code.E_PURPOSE
    if not _holds(terms.compartments, terms.months, request):
        return Code.E_SCOPE
    refusal = _exceptions_refuse(terms, request, actor)
    if refusal is not None:
        return refusal
    if terms.max_uses and consent.uses >= terms.max_uses:
        return Code.E_USES
    return Code.OK


def presented_actor(opening: ActorOpening | None, reader: Reader) -> Bytes32 | None:
    """The commitment that the reader may open: only to somebody or something that it really is."""
    if opening is None:
        return None
    match opening.kind:
        case "person":
            is_true = opening.handle == reader.did
        case "organisation":
            is_true = opening.handle == reader.organisation
        case "role":
            is_true = any(opening.handle == role_handle(role) for role in reader.roles)
        case "group":
            is_true = opening.handle in reader.groups
    return actor_commit(opening) if is_true else None


def _means(commits: Sequence[Bytes32], actor: Bytes32 | None) -> bool:
    return not commits or actor in commits


def _serves(granted: Sequence[Purpose], asked: Purpose) -> bool:
    return not granted or any(covers(purpose, asked) for purpose in granted)


def _holds(compartments: Sequence[Handle] | None, months: Months | None, request: AccessRequest) -> bool:
    """Whether all that is asked for lies inside."""
    if compartments is not None and not set(request.compartments) <= set(compartments):
        return False
    if months is None:
        return True
    return request.months is not None and months[0] <= request.months[0] and request.months[1] <= months[1]


def _exceptions_refuse(terms: ConsentGrant, request: AccessRequest, actor: Bytes32 | None) -> Code | None:
    """One level, as in PCF: a permitting base less what its exceptions deny, a denying one plus what they permit."""
    if terms.base == "permit":
        return min(_denying(terms, request, actor), default=None)
    reasons = [_why_not_permitted(exception, request, actor) for exception in terms.exceptions]
    if None in reasons:
        return None
    return Code.E_LABEL if Code.E_LABEL in reasons else Code.E_SCOPE


def _denying(terms: ConsentGrant, request: AccessRequest, actor: Bytes32 | None) -> Iterator[Code]:
    """For each deny exception that any part of the request falls under, the reason it gives."""
    for exception in terms.exceptions:
        if (
            _means(exception.actor_commits, actor)
            and _serves(exception.purposes, request.purpose)
            and _shares_compartment(request, terms.compartments, exception.compartments)
            and _shares_month(request.months, terms.months, exception.months)
            and (not exception.labels or not set(exception.labels).isdisjoint(request.labels))
        ):
            yield Code.E_LABEL if exception.labels else Code.E_SCOPE


def _why_not_permitted(exception: PolicyException, request: AccessRequest, actor: Bytes32 | None) -> Code | None:
    """None where the whole request falls under this permit exception; E_LABEL where only a label stands outside."""
    if not (
        _means(exception.actor_commits, actor)
        and _serves(exception.purposes, request.purpose)
        and _holds(exception.compartments, exception.months, request)
    ):
        return Code.E_SCOPE
    if exception.labels and not set(request.labels) <= set(exception.labels):
        return Code.E_LABEL
    return None


def _denial(consent: Consent, request: AccessRequest, actor: Bytes32 | None, time_ms: int) -> Code | None:
    """The reason of a deny exception that overrules other consents: in force, and for this actor and purpose."""
    terms = consent.terms
    is_about_this = terms.base == "permit" and consent.is_in_force(time_ms) and _serves(terms.purposes, request.purpose)
    return min(_denying(terms, request, actor), default=None) if is_about_this else None


def _shares_compartment(request: AccessRequest, *scopes: Sequence[Handle] | None) -> bool:
    shared = set(request.compartments)
    for scope in scopes:
        if scope is not None:
            shared &= set(scope)
    return bool(shared)


def _shares_month(*ranges: Months | None) -> bool:
    limited = [months for months in ranges if months is not None]
    return not limited or max(first for first, _ in limited) <= min(last for _, last in limited)


# Contracts


def grant(operation: ConsentGrant, call: Call, state: StateView) -> Outcome:
    """Enter a consent. Refused: E_NOT_FOUND, E_NOT_OWNER, E_CONSENT_INCOMPLETE, E_BTG_FORBIDDEN, E_DUP, E_QUOTA."""
    directory.require_owner(operation.pid, call, state)
    _check_terms(operation)
    if state.get(keys.consent_pid(operation.consent_id)) is not None:
        raise Refused(Code.E_DUP)
    count = count_of(operation.pid, state)
    if count >= limits.CONSENTS_PER_PATIENT_MAX:
        raise Refused(Code.E_QUOTA)
    return Outcome(
        writes={
            keys.consent(operation.pid, operation.consent_id): encode(Consent(operation, call.height)),
            keys.consent_pid(operation.consent_id): operation.pid,
            keys.consent_count(operation.pid): encode(count + 1),
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
    if "BTG" in terms.purposes or any("BTG" in exception.purposes for exception in exceptions):
        raise Refused(Code.E_BTG_FORBIDDEN)


def revoke(operation: ConsentRevoke, call: Call, state: StateView) -> Outcome:
    """End a consent from this block on (F-06). Refused: E_NOT_FOUND, E_NOT_OWNER, E_STATE."""
    pid = state.get(keys.consent_pid(operation.consent_id))
    if pid is None:
        raise Refused(Code.E_NOT_FOUND)
    directory.require_owner(pid, call, state)
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
    return decode(Consent, data, limits.STATE_VALUE_BYTES_MAX)


def count_of(pid: bytes, state: StateView) -> int:
    """How many consents a patient has, ended ones too."""
    data = state.get(keys.consent_count(pid))
    return 0 if data is None else decode(int, data, 9)
