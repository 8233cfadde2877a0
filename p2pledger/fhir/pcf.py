"""A FHIR R4 Consent, as IHE's Privacy Consent on FHIR (PCF) profiles it, read for what the ledger can enforce.

Everything in the resource is either understood or refused with the element named: nothing is dropped, and nothing is
narrowed or widened in passing (F-05, F-07). What is missing of what makes a consent informed is E_CONSENT_INCOMPLETE,
what the chain cannot enforce E_UNENFORCEABLE. The result still speaks FHIR: references and codes, not handles.

- A permission beside a base that permits, as PCF's advanced consents have it, is the same as a base that denies with
  both as its exceptions. That is how it is read here, since a consent on the chain has one level of one kind.
- PCF's labels are N (normal), R (restricted) and the reasons for R. On the chain a record is normal when it has no
  sensitive label; R stands for all of them. "Normal" can therefore not be denied, nor left out of a permission.
- TREAT gives neither ETREAT nor BTG nor CLINTRL, although HL7's tree has them below it (health rule 0.6).
- Dates without a zone are of UTC. The last day, month or year of a period belongs to it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from p2pledger.fhir.compartments import SENSITIVE, Label, ResourceClass, only_class_of
from p2pledger.fhir.dates import DAY_MS, civil, instants
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

BYTES_MAX = 256 * 1024
FOREVER_MS = 253_402_300_800_000
"""The year 10000: FHIR's dates end before it."""
_POLICY = "https://profiles.ihe.net/ITI/PCF/Policy-"
_POLICIES = ("deny", "basic-normal", "all-normal", "break-glass-only")
_ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
_KNOWN = frozenset(
    {"resourceType", "id", "meta", "text", "language", "identifier", "scope", "status", "category", "patient"}
    | {"dateTime", "performer", "organization", "sourceAttachment", "sourceReference", "policy", "provision"}
)
_READ = frozenset({"type", "period", "actor", "securityLabel", "purpose", "class", "data", "dataPeriod", "provision"})
_RECIPIENTS = ("IRCP", "PRCP")
_ACTOR_KINDS = {"Practitioner": "person", "Organization": "organisation", "Group": "group"}
_BREAKING = {"TREAT", "ETREAT", "BTG"}
"""Codes above and at BTG in HL7's tree: who denies one of them denies broken glass, too."""


@dataclass(frozen=True, slots=True)
class Named:
    """Something that the consent refers to, and where it does."""

    kind: str
    """`person`, `organisation` or `group`; `record`, `author` or `encounter`."""
    reference: str
    element: str


@dataclass(frozen=True, slots=True)
class Provision:
    """Who, what for and which part of the chart, in FHIR's words; what is empty or None is not limited."""

    actors: tuple[Named, ...] = ()
    purposes: tuple[str, ...] = ()
    """Codes of v3-ActReason; whether the ledger knows them is not judged here."""
    labels: tuple[Label, ...] | None = None
    """Sensitive labels; for a permission those that it extends to beside normal records."""
    classes: tuple[ResourceClass, ...] | None = None
    months: tuple[int, int] | None = None
    data: tuple[Named, ...] = ()


@dataclass(frozen=True, slots=True)
class PcfConsent:
    """What a Consent resource says, ready for names to become handles."""

    patient: str
    performer: str
    base: Literal["permit", "deny"]
    whole: Provision
    exceptions: tuple[Provision, ...]
    """Of the other kind than `base`."""
    btg: Literal["policy", "named", "never"]
    btg_actors: tuple[Named, ...]
    valid_from_ms: int
    valid_to_ms: int
    """The first instant at which it has expired."""
    default_policy: str | None
    """Where the consent is given under one of PCF's four policies: which."""

    @property
    def is_own(self) -> bool:
        """Whether the patient gave it; otherwise somebody did for the patient."""
        return self.performer == self.patient


def read_consent(data: bytes) -> PcfConsent:
    """Read a Consent resource in JSON.

    Raises InvalidInput for what is no Consent, Rejected(E_CONSENT_INCOMPLETE) and Rejected(E_UNENFORCEABLE) naming the
    element.
    """
    resource = _resource(data)
    _demand_complete(resource)
    _demand_known(resource, _KNOWN, "Consent")
    _demand_meaning(resource)
    performers = resource["performer"]
    if len(performers) != 1:
        raise _unenforceable("Consent.performer", f"{len(performers)} performers, one signs for a consent")
    provision, element = resource["provision"], "Consent.provision"
    base = provision["type"]
    whole = _provision(provision, element)
    start, end = _period(provision.get("period"), f"{element}.period")
    given_ms, _ = instants(resource["dateTime"], "Consent.dateTime")
    read = PcfConsent(
        patient=_reference(resource["patient"], "Consent.patient"),
        performer=_reference(performers[0], "Consent.performer[0]"),
        base=base,
        whole=whole,
        exceptions=(),
        btg="policy",
        btg_actors=(),
        valid_from_ms=given_ms if start is None else start,
        valid_to_ms=FOREVER_MS if end is None else end,
        default_policy=_default_policy(resource["policy"]),
    )
    nested = [
        (one, f"{element}.provision[{number}]") for number, one in enumerate(_listed(provision, "provision", element))
    ]
    return _with_permit(read, nested) if base == "permit" else _with_deny(read, nested)


# A consent as a whole


def _resource(data: bytes) -> dict[str, Any]:
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"Consent of {len(data)} bytes, the limit is {BYTES_MAX}")
    try:
        resource = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not a Consent: {error}") from error
    kind = resource.get("resourceType") if isinstance(resource, dict) else type(resource).__name__
    if kind != "Consent":
        raise InvalidInput(f"not a Consent but {kind!r}")
    assert isinstance(resource, dict)
    return resource


def _demand_complete(resource: Mapping[str, Any]) -> None:
    """F-07: who, when, before whom, on which policy, with which document; and a decision."""
    for name in ("status", "scope", "category", "patient", "dateTime", "performer", "organization"):
        if not resource.get(name):
            raise _incomplete(f"Consent.{name}")
    if not resource.get("sourceReference") and not resource.get("sourceAttachment"):
        raise _incomplete("Consent.source[x]")
    policies = resource.get("policy")
    if not isinstance(policies, list) or not all(isinstance(one, dict) and one.get("uri") for one in policies):
        raise _incomplete("Consent.policy.uri")
    provision = resource.get("provision")
    if not isinstance(provision, dict) or provision.get("type") not in ("permit", "deny"):
        raise _incomplete("Consent.provision.type")
    if provision["type"] == "permit" and not provision.get("purpose"):
        raise _incomplete("Consent.provision.purpose")


def _demand_known(element: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for name in element:
        if name not in known:
            raise _unenforceable(f"{where}.{name}", "nothing on the chain corresponds to it")


def _demand_meaning(resource: Mapping[str, Any]) -> None:
    if resource["status"] != "active":
        raise _unenforceable("Consent.status", f"{resource['status']!r} is not in force")
    if (_SCOPE, "patient-privacy") not in set(_codings(resource["scope"], "Consent.scope")):
        raise _unenforceable("Consent.scope", "it is not about privacy")


def _default_policy(policies: Sequence[Mapping[str, Any]]) -> str | None:
    if len(policies) != 1:
        raise _unenforceable("Consent.policy", f"{len(policies)} policies, a consent is given under one")
    uri = policies[0]["uri"]
    if not isinstance(uri, str) or not uri.startswith(_POLICY):
        return None
    if uri.removeprefix(_POLICY) not in _POLICIES:
        raise _unenforceable("Consent.policy[0].uri", f"{uri} is none of PCF's policies")
    return uri.removeprefix(_POLICY)


def _with_permit(read: PcfConsent, nested: Sequence[tuple[dict[str, Any], str]]) -> PcfConsent:
    """A base that permits: less what its provisions deny, or together with what they permit, too."""
    element = "Consent.provision"
    if "BTG" in read.whole.purposes:
        raise _unenforceable(f"{element}.purpose", "breaking the glass is an exception, not a consent")
    denied: list[Provision] = []
    permitted: list[Provision] = []
    for one, where in nested:
        provision = _exception(one, where)
        if provision.purposes == ("BTG",):
            read = _with_glass(read, one["type"], provision, where)
        elif one["type"] == "deny":
            denied.append(_denial(provision, where))
        else:
            permitted.append(_beside(read.whole, provision, where))
    _demand_normal(element, read.whole)
    if not permitted:
        return replace(read, whole=_sensitive_only(read.whole), exceptions=tuple(denied))
    if denied:
        raise _unenforceable(f"{element}.provision", "permissions and denials beside one base")
    every = tuple(_sensitive_only(one) for one in (read.whole, *permitted))
    return replace(read, base="deny", whole=Provision(purposes=read.whole.purposes), exceptions=every)


def _with_deny(read: PcfConsent, nested: Sequence[tuple[dict[str, Any], str]]) -> PcfConsent:
    """A base that denies, plus what its provisions permit. Broken glass is denied with treatment, unless permitted."""
    element = "Consent.provision"
    if read.whole != Provision(purposes=read.whole.purposes):
        raise _unenforceable(element, "a base that denies is limited by nothing but purposes")
    if read.whole.purposes == ("BTG",):
        raise _unenforceable(f"{element}.purpose", "a consent that says nothing but who may not break the glass")
    is_forbidden = not read.whole.purposes or not _BREAKING.isdisjoint(read.whole.purposes)
    read = replace(
        read,
        btg="never" if is_forbidden else "policy",
        whole=replace(read.whole, purposes=tuple(one for one in read.whole.purposes if one != "BTG")),
    )
    permitted = []
    for one, where in nested:
        provision = _exception(one, where)
        if one["type"] == "deny":
            raise _unenforceable(f"{where}.type", "a denial within a denial")
        if provision.purposes == ("BTG",):
            read = _with_glass(read, "permit", provision, where)
            continue
        _demand_normal(where, provision)
        if not provision.purposes and not read.whole.purposes:
            raise _incomplete(f"{where}.purpose")
        permitted.append(_sensitive_only(provision))
    return replace(read, exceptions=tuple(permitted))


def _with_glass(read: PcfConsent, kind: str, provision: Provision, where: str) -> PcfConsent:
    """Who alone may break the glass, or that nobody may."""
    everything = {*SENSITIVE, "R"}
    limited = replace(provision, actors=(), purposes=(), labels=None) != Provision()
    if limited or (provision.labels is not None and not everything <= set(provision.labels)):
        raise _unenforceable(where, "broken glass is limited to actors, not to parts of the chart")
    if kind == "permit":
        return replace(read, btg="named" if provision.actors else "policy", btg_actors=provision.actors)
    if provision.actors or provision.labels is not None:
        raise _unenforceable(where, "broken glass is denied to everybody or to nobody")
    return replace(read, btg="never")


# Exceptions


def _exception(one: Mapping[str, Any], where: str) -> Provision:
    if one.get("type") not in ("permit", "deny"):
        raise _incomplete(f"{where}.type")
    for name in ("provision", "period"):
        if one.get(name):
            raise _unenforceable(f"{where}.{name}", "exceptions have one level and the period of the consent")
    provision = _provision(one, where)
    if "BTG" in provision.purposes and provision.purposes != ("BTG",):
        raise _unenforceable(f"{where}.purpose", "breaking the glass beside other purposes")
    return provision


def _denial(provision: Provision, where: str) -> Provision:
    if provision.labels is not None and "N" in provision.labels:
        raise _unenforceable(f"{where}.securityLabel", "normal records cannot be denied by their label")
    if provision == Provision():
        raise _unenforceable(where, "it denies everything that the base permits")
    return provision


def _beside(whole: Provision, provision: Provision, where: str) -> Provision:
    """A permission beside a permitting base: for some actors more labels, and otherwise the same."""
    if whole.labels is None or provision.labels is None:
        raise _unenforceable(where, "a permission beside the base extends its labels, and both must name them")
    if replace(provision, actors=(), labels=None) != Provision() or "N" not in whole.labels or whole.actors:
        raise _unenforceable(where, "a permission beside the base may name actors and labels only")
    return replace(whole, actors=provision.actors, labels=tuple(sorted({*whole.labels, *provision.labels})))


def _demand_normal(where: str, provision: Provision) -> None:
    if provision.labels is not None and "N" not in provision.labels:
        raise _unenforceable(f"{where}.securityLabel", "a permission for sensitive records without the normal ones")


def _sensitive_only(provision: Provision) -> Provision:
    labels = provision.labels
    return provision if labels is None else replace(provision, labels=tuple(one for one in labels if one != "N"))


# One provision, element by element


def _provision(one: Mapping[str, Any], where: str) -> Provision:
    _demand_known(one, _READ, where)
    labels = [_labels(*found) for found in _items(one, "securityLabel", where)]
    classes = [_class(*found) for found in _items(one, "class", where)]
    return Provision(
        actors=tuple(_actor(*found) for found in _items(one, "actor", where)),
        purposes=tuple(_code(*found, {_ACT_REASON}) for found in _items(one, "purpose", where)),
        labels=tuple(sorted({label for some in labels for label in some})) if labels else None,
        classes=tuple(sorted(set(classes))) if classes else None,
        months=_months(one.get("dataPeriod"), f"{where}.dataPeriod"),
        data=tuple(_datum(*found) for found in _items(one, "data", where)),
    )


def _items(one: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    for number, item in enumerate(_listed(one, name, where)):
        yield item, f"{where}.{name}[{number}]"


def _listed(one: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    items = one.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidInput(f"{where}.{name} is no list of elements")
    return items


def _actor(item: Mapping[str, Any], where: str) -> Named:
    _demand_known(item, frozenset({"role", "reference"}), where)
    roles = list(_codings(item.get("role"), f"{where}.role"))
    if not roles or any(role not in [(_PARTICIPATION, code) for code in _RECIPIENTS] for role in roles):
        raise _unenforceable(f"{where}.role", "only recipients of records are actors on the chain")
    reference = _reference(item.get("reference"), f"{where}.reference")
    kind = _ACTOR_KINDS.get(reference.split("/")[0])
    if kind is None:
        raise _unenforceable(f"{where}.reference", f"{reference} is no practitioner, organisation or group")
    return Named(kind, reference, f"{where}.reference")


def _labels(item: Mapping[str, Any], where: str) -> tuple[Label, ...]:
    """N as it is, a reason as it is, R as itself and every reason there can be."""
    code = _code(item, where, {_CONFIDENTIALITY, _ACT_CODE})
    known = {str(label): label for label in get_args(Label)}
    is_general = code in ("N", "R")
    if code not in known or is_general != (item.get("system") == _CONFIDENTIALITY):
        raise _unenforceable(where, f"no custodian labels records with {code!r}")
    return tuple(label for label in get_args(Label) if label != "N") if code == "R" else (known[code],)


def _class(item: Mapping[str, Any], where: str) -> ResourceClass:
    code = _code(item, where, {_RESOURCE_TYPES})
    found = only_class_of(code)
    if found is None:
        raise _unenforceable(where, f"resources of type {code!r} do not make up a class of their own")
    return found


def _datum(item: Mapping[str, Any], where: str) -> Named:
    _demand_known(item, frozenset({"meaning", "reference"}), where)
    meaning, reference = item.get("meaning"), _reference(item.get("reference"), f"{where}.reference")
    match meaning, reference.split("/")[0]:
        case "instance", _:
            kind = "record"
        case "authoredby", "Practitioner" | "Organization":
            kind = "author"
        case "related", "Encounter":
            kind = "encounter"
        case _:
            raise _unenforceable(where, f"{meaning!r} of {reference} is not what records are told apart by")
    return Named(kind, reference, f"{where}.reference")


def _reference(item: object, where: str) -> str:
    reference = item.get("reference") if isinstance(item, dict) else None
    if not isinstance(reference, str) or not re.fullmatch(r"[A-Z][A-Za-z]+/[A-Za-z0-9.\-]{1,64}", reference):
        raise _unenforceable(where, "it is no reference of the form Type/id")
    return reference


def _code(item: Mapping[str, Any], where: str, systems: set[str]) -> str:
    system, code = item.get("system"), item.get("code")
    if system not in systems or not isinstance(code, str):
        raise _unenforceable(where, f"code {code!r} of {system!r} is not known")
    return code


def _codings(concept: object, where: str) -> Iterator[tuple[str, str]]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    if not isinstance(codings, list):
        raise InvalidInput(f"{where} has no coding")
    for coding in codings:
        if not isinstance(coding, dict):
            raise InvalidInput(f"{where} has a coding that is no element")
        yield str(coding.get("system")), str(coding.get("code"))


# Time


def _period(period: object, where: str) -> tuple[int | None, int | None]:
    """(first instant, first instant after it) of a Period, None where it is open."""
    if period is None:
        return None, None
    if not isinstance(period, dict) or not period:
        raise InvalidInput(f"{where} is no period")
    _demand_known(period, frozenset({"start", "end"}), where)
    start = instants(period["start"], f"{where}.start")[0] if "start" in period else None
    end = instants(period["end"], f"{where}.end")[1] if "end" in period else None
    if start is not None and end is not None and end <= start:
        raise InvalidInput(f"{where} ends before it begins")
    return start, end


def _months(period: object, where: str) -> tuple[int, int] | None:
    """Whole months, which is how finely the chain knows the dates of records."""
    first, after = _period(period, where)
    if period is None:
        return None
    if first is None or after is None:
        raise _unenforceable(where, "it is open at one end")
    (year, month, day), (to_year, to_month, to_day) = civil(first // DAY_MS), civil(after // DAY_MS)
    if first % DAY_MS or after % DAY_MS or day != 1 or to_day != 1:
        raise _unenforceable(where, "the chain knows the dates of records by month: it begins or ends within one")
    last = to_year * 100 + to_month - 1 if to_month > 1 else (to_year - 1) * 100 + 12
    return year * 100 + month, last


def _incomplete(element: str) -> Rejected:
    return Rejected(Code.E_CONSENT_INCOMPLETE, f"{element} is missing")


def _unenforceable(element: str, why: str) -> Rejected:
    return Rejected(Code.E_UNENFORCEABLE, f"{element}: {why}")
