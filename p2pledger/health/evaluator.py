"""How consents are judged: `decide`, the one place where an access is allowed or denied by them.

The contract, the client and the tests call it. It is a pure function of the request, the reader's proven attributes,
the patient's consents and the setting: the chain's default policy, block time, and whether the patient has died.
Health rule 3.4; the reference in the tests says the same in sets.

- A named consent is judged alone, and among several reasons the first of revoked, expired, not yet, actor, purpose,
  scope, label, uses is given. One that does not exist, or is another patient's, is no consent.
- Without a name the candidates are the patient's consents that mean this actor. A deny exception of one that is in
  force and covers the request wins; then any that permits; then the first reason. Ended consents stay candidates, so
  that neither revoking nor shortening one hands the request over to a laxer default policy (I-7).
- Without candidates the chain's default policy decides, one of the four of IHE PCF. `basic-normal` permits treatment
  to clinical roles, `all-normal` every purpose, both only for requests that name no sensitive label;
  `break-glass-only` and `deny` permit nothing here. After a death both permit HDECD and nothing else (F-30).
- What a request does not say may be anything: a consent that is limited to some authors does not cover a request
  without any, and a deny exception about an author does.
- Breaking the glass is not a matter of consent purposes, and of no default policy either: a member of a break-glass
  group who gives a reason may, with a colleague's signature, unless a consent in force says never, or names others.
  PCF's `deny` would refuse it where no consent is on file; here an emergency is worth more (0.8).
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, Protocol

from p2pledger.health.consent import Consent
from p2pledger.health.events import BasisKind
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    ConsentGrant,
    PolicyException,
    actor_commit,
    role_handle,
)
from p2pledger.health.purposes import Purpose, covers
from p2pledger.health.vocabulary import Handle, Months, Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Value
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Bytes32

DefaultPolicy = Literal["deny", "basic-normal", "all-normal", "break-glass-only"]
CLINICAL_ROLES: frozenset[Role] = frozenset({"physician", "nurse", "pharmacist", "paramedic", "therapist"})
_ZERO = bytes(32)


class Reader(Value, frozen=True):
    """What the directory proves about who asks, at block time."""

    did: bytes
    organisation: bytes
    roles: tuple[Role, ...]
    groups: tuple[Handle, ...]
    may_break_glass: bool
    has_second_factor: bool = False
    """A colleague has signed the request, too."""


class Setting(Value, frozen=True):
    """Where and when a request is judged."""

    default_policy: DefaultPolicy
    time_ms: int
    """Block time."""
    is_deceased: bool = False


class Decision(Value, frozen=True):
    """OK means ALLOWED, any other code DENIED for that reason."""

    code: Code
    basis: BasisKind
    consent_id: bytes | None = None


class _Scope(Protocol):
    """What consents and their exceptions have in common: parts of a chart."""

    @property
    def compartments(self) -> tuple[Handle, ...] | None: ...
    @property
    def classes(self) -> tuple[Handle, ...] | None: ...
    @property
    def months(self) -> Months | None: ...
    @property
    def records(self) -> tuple[Handle, ...]: ...
    @property
    def authors(self) -> tuple[Handle, ...]: ...
    @property
    def encounters(self) -> tuple[Handle, ...]: ...


def decide(request: AccessRequest, reader: Reader, consents: Sequence[Consent], setting: Setting) -> Decision:
    """Judge a request by the patient's consents; see the module's text for the rules."""
    own = [consent for consent in consents if consent.terms.pid == request.pid]
    actor = presented_actor(request.actor_opening, reader)
    if request.purpose == "BTG":
        return _break_glass(request, reader, actor, own, setting)
    if request.basis is not None:
        return _by_name(request, actor, own, setting.time_ms)
    candidates = [consent for consent in own if _means(consent.terms.actor_commits, actor)]
    if not candidates:
        return _by_default(request, reader, setting)
    return _by_candidates(request, actor, candidates, setting.time_ms)


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


def _by_default(request: AccessRequest, reader: Reader, setting: Setting) -> Decision:
    policy, asked = setting.default_policy, request.purpose
    is_normal = not request.labels
    is_clinical = not CLINICAL_ROLES.isdisjoint(reader.roles)
    if setting.is_deceased:
        is_basic = is_all = covers("HDECD", asked)
    else:
        is_basic, is_all = covers("TREAT", asked), True
    permits = (policy == "all-normal" and is_all) or (policy == "basic-normal" and is_basic and is_clinical)
    if is_normal and permits:
        return Decision(Code.OK, "policy")
    return Decision(Code.E_NO_CONSENT, "none")


def _break_glass(
    request: AccessRequest, reader: Reader, actor: Bytes32 | None, own: Sequence[Consent], setting: Setting
) -> Decision:
    """F-15; the alert and the review are `break_glass`'s."""
    if setting.is_deceased:
        return Decision(Code.E_DECEASED, "none")
    said = [consent.terms for consent in own if consent.is_in_force(setting.time_ms)]
    named = [commit for terms in said if terms.btg == "named" for commit in terms.btg_commits]
    is_allowed = (
        reader.may_break_glass
        and request.reason_commit is not None
        and request.reason_commit != _ZERO
        and request.n_records <= limits.BREAK_GLASS_RECORDS_MAX
        and not any(terms.btg == "never" for terms in said)
        and _means(named, actor)
    )
    if not is_allowed:
        return Decision(Code.E_BTG_FORBIDDEN, "none")
    if not reader.has_second_factor:
        return Decision(Code.E_COSIGNERS, "none")
    return Decision(Code.OK, "btg")


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
    if not _holds(terms, request):
        return Code.E_SCOPE
    refusal = _refusal(terms, request, actor)
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


# What lies in a scope, and what touches it


def _holds(scope: _Scope, request: AccessRequest) -> bool:
    """Whether all that is asked for lies inside, whatever its labels."""
    return (
        _is_inside(request.compartments, scope.compartments)
        and _is_inside(request.classes, scope.classes)
        and _is_within(request.months, scope.months)
        and _names(scope, request)
    )


def _is_inside(asked: Sequence[Handle], limit: Sequence[Handle] | None) -> bool:
    return limit is None or (bool(asked) and set(asked) <= set(limit))


def _is_within(asked: Months | None, limit: Months | None) -> bool:
    return limit is None or (asked is not None and limit[0] <= asked[0] and asked[1] <= limit[1])


def _named(scope: _Scope | AccessRequest) -> tuple[tuple[Handle, ...], ...]:
    return scope.records, scope.authors, scope.encounters


def _names(scope: _Scope, request: AccessRequest) -> bool:
    """Whether all that is asked for is named: any of record, author and encounter is enough, as in FHIR."""
    limits_and_asked = [pair for pair in zip(_named(scope), _named(request), strict=True) if pair[0]]
    return not limits_and_asked or any(_is_inside(asked, limit) for limit, asked in limits_and_asked)


def _touches(exception: PolicyException, base: _Scope, request: AccessRequest) -> bool:
    """Whether anything that is asked for may lie in the exception, and in the base that it is an exception from."""
    return (
        _shares(request.compartments, base.compartments, exception.compartments)
        and _shares(request.classes or None, base.classes, exception.classes)
        and _shares_month(request.months, base.months, exception.months)
        and _shares_named(_named(request), _one_by_one(base), _one_by_one(exception))
    )


_Named = tuple[Sequence[Handle] | None, ...]


def _one_by_one(scope: _Scope) -> list[_Named]:
    """A scope that names something as scopes of which each is limited in one way; one without limits if it does not."""
    records, authors, encounters = _named(scope)
    by_one: list[_Named] = [(records, None, None), (None, authors, None), (None, None, encounters)]
    return [limits for limits in by_one if any(limits)] or [(None, None, None)]


def _shares_named(asked: tuple[tuple[Handle, ...], ...], *scopes: list[_Named]) -> bool:
    said = tuple(handles or None for handles in asked)
    return any(all(map(_shares, said, *chosen)) for chosen in product(*scopes))


def _shares(*sets: Sequence[Handle] | None) -> bool:
    limited = [set(some) for some in sets if some is not None]
    return not limited or bool(set.intersection(*limited))


def _shares_month(*ranges: Months | None) -> bool:
    limited = [months for months in ranges if months is not None]
    return not limited or max(first for first, _ in limited) <= min(last for _, last in limited)


# Labels and exceptions


def _refusal(terms: ConsentGrant, request: AccessRequest, actor: Bytes32 | None) -> Code | None:
    """One level, as in PCF: a permitting base less what its exceptions deny, a denying one plus what they permit."""
    is_labelled = terms.labels is None or set(request.labels) <= set(terms.labels)
    own = [] if is_labelled else [Code.E_LABEL]
    if terms.base == "permit":
        return min([*own, *_denying(terms, request, actor)], default=None)
    reasons = [_why_not_permitted(exception, request, actor) for exception in terms.exceptions]
    if None not in reasons:
        own.append(Code.E_LABEL if Code.E_LABEL in reasons else Code.E_SCOPE)
    return min(own, default=None)


def _denying(terms: ConsentGrant, request: AccessRequest, actor: Bytes32 | None) -> Iterator[Code]:
    """For each deny exception that any part of the request falls under, the reason it gives."""
    for exception in terms.exceptions:
        if (
            _means(exception.actor_commits, actor)
            and _serves(exception.purposes, request.purpose)
            and _touches(exception, terms, request)
            and (exception.labels is None or not set(exception.labels).isdisjoint(request.labels))
        ):
            yield Code.E_SCOPE if exception.labels is None else Code.E_LABEL


def _why_not_permitted(exception: PolicyException, request: AccessRequest, actor: Bytes32 | None) -> Code | None:
    """None where the whole request falls under this permit exception; E_LABEL where only a label stands outside."""
    if not (
        _means(exception.actor_commits, actor)
        and _serves(exception.purposes, request.purpose)
        and _holds(exception, request)
    ):
        return Code.E_SCOPE
    if exception.labels is not None and not set(request.labels) <= set(exception.labels):
        return Code.E_LABEL
    return None


def _denial(consent: Consent, request: AccessRequest, actor: Bytes32 | None, time_ms: int) -> Code | None:
    """The reason of a deny exception that overrules other consents: in force, and for this actor and purpose."""
    terms = consent.terms
    is_about_this = terms.base == "permit" and consent.is_in_force(time_ms) and _serves(terms.purposes, request.purpose)
    return min(_denying(terms, request, actor), default=None) if is_about_this else None
