"""What a resource says about when, about whom and from whom, as far as the ledger's metadata needs it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from p2pledger.fhir.spans import Resource
from p2pledger.primitives.errors import Code, Rejected

_DATES: Mapping[str, tuple[str, ...]] = {
    "AllergyIntolerance": ("onsetDateTime", "recordedDate"),
    "CarePlan": ("period.start", "created"),
    "Claim": ("billablePeriod.start", "created"),
    "Condition": ("onsetDateTime", "onsetPeriod.start", "recordedDate"),
    "Device": ("manufactureDate",),
    "DiagnosticReport": ("effectiveDateTime", "effectivePeriod.start", "issued"),
    "DocumentReference": ("date",),
    "Encounter": ("period.start",),
    "ExplanationOfBenefit": ("billablePeriod.start", "created"),
    "Goal": ("startDate", "statusDate"),
    "Immunization": ("occurrenceDateTime", "recorded"),
    "MedicationAdministration": ("effectiveDateTime", "effectivePeriod.start"),
    "MedicationDispense": ("whenHandedOver", "whenPrepared"),
    "MedicationRequest": ("authoredOn",),
    "Observation": ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "issued"),
    "Procedure": ("performedDateTime", "performedPeriod.start"),
    "ServiceRequest": ("occurrenceDateTime", "authoredOn"),
}
"""Per type the elements that say when it was true for the patient, the clinically nearest first.

No birth dates: the month of a record is written on the chain.
"""
_OTHERWISE = ("effectiveDateTime", "date", "authoredOn", "created", "recorded", "issued", "period.start")

_DATE = re.compile(
    r"(\d{4})(?:-(0[1-9]|1[0-2])(?:-(0[1-9]|[12]\d|3[01])"
    r"(?:T[0-2]\d:[0-5]\d:[0-6]\d(?:\.\d+)?(?:Z|[+-][01]\d:[0-5]\d))?)?)?"
)
_MONTH_FIRST, _MONTH_LAST = 190001, 299912

_ORGANISATION_FIELDS = (
    "serviceProvider",
    "managingOrganization",
    "custodian",
    "provider",
    "organization",
    "manufacturer",
    "insurer",
    "performer",
    "sourceOrganization",
)
_AUTHOR_FIELDS = ("author", "recorder", "asserter", "requester", "performer", "provider", "participant", "informant")


def clinical_date(resource: Resource) -> str | None:
    """The date or time, as written, at which what the resource says was so; None where it carries none.

    Raises Rejected(E_FHIR_INVALID) where that element is no FHIR date.
    """
    kind = resource["resourceType"]
    for path in _DATES.get(kind, _OTHERWISE):
        value = _at(resource, path)
        if value is None:
            continue
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            raise Rejected(Code.E_FHIR_INVALID, f"{kind}.{path} is not a FHIR date")
        return value
    return None


def month_of(date: str) -> int:
    """Year and month as one number, 202611; January where the date names a year only.

    The month is that of the date as written, in its own time zone. Raises Rejected outside 1900 to 2999.
    """
    match = _DATE.fullmatch(date)
    if match is None:
        raise Rejected(Code.E_FHIR_INVALID, "not a FHIR date")
    month = int(match[1]) * 100 + int(match[2] or 1)
    if not _MONTH_FIRST <= month <= _MONTH_LAST:
        raise Rejected(Code.E_FHIR_INVALID, f"year {match[1]} lies outside 1900 to 2999")
    return month


def patient_reference(resource: Resource) -> str | None:
    """The id of the patient whom the resource is about, its own for a Patient; None where it is about nobody."""
    if resource["resourceType"] == "Patient":
        own = resource.get("id")
        return own if isinstance(own, str) else None
    for name in ("subject", "patient", "beneficiary", "individual"):
        reference = _reference(resource.get(name))
        if reference is not None and _may_be("Patient", reference):
            return local_id(reference)
    return None


def organisation_references(resource: Resource) -> tuple[str, ...]:
    """Ids that stand where organisations stand, in order, each once; practitioners may be among them."""
    found: dict[str, None] = {}
    for name in _ORGANISATION_FIELDS:
        value = resource.get(name)
        for item in value if isinstance(value, list) else [value]:
            actor = item.get("actor", item) if isinstance(item, dict) else None
            reference = _reference(actor)
            if reference is not None and _may_be("Organization", reference):
                found[local_id(reference)] = None
    return tuple(found)


def author_references(resource: Resource, types: Mapping[str, str]) -> tuple[str, ...]:
    """Who made it, like `Practitioner/7`, sorted, each once. `types` knows what a `urn:uuid:` refers to.

    One that nobody knows the type of is named by its id alone.
    """
    found = set()
    for name in _AUTHOR_FIELDS:
        value = resource.get(name)
        for item in value if isinstance(value, list) else [value]:
            actor = item.get("actor", item.get("individual", item)) if isinstance(item, dict) else None
            reference = _reference(actor)
            if reference is not None:
                found.add(_typed(reference, types))
    return tuple(sorted(found))


def _typed(reference: str, types: Mapping[str, str]) -> str:
    own = local_id(reference)
    parts = reference.split("/_history/", maxsplit=1)[0].rsplit("/", 2)
    kind = parts[-2] if len(parts) > 1 else types.get(own)
    return own if kind is None else f"{kind}/{own}"


def encounter_reference(resource: Resource) -> str | None:
    """The id of the encounter in which the resource came about."""
    for name in ("encounter", "context"):
        reference = _reference(resource.get(name))
        if reference is not None and _may_be("Encounter", reference):
            return local_id(reference)
    return None


def references(value: Any) -> Iterator[str]:
    """The ids of everything that the resource refers to, at any depth."""
    if isinstance(value, dict):
        reference = _reference(value)
        if reference is not None:
            yield local_id(reference)
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def local_id(reference: str) -> str:
    """The id at the end of `urn:uuid:<id>`, `Type/<id>`, `Type/<id>/_history/<n>` or an absolute address."""
    path = reference.split("/_history/", maxsplit=1)[0]
    return path.removeprefix("urn:uuid:").rsplit("/", 1)[-1]


def _may_be(kind: str, reference: str) -> bool:
    """A typed reference must be of this kind; `urn:uuid:` does not say."""
    parts = reference.split("/_history/", maxsplit=1)[0].rsplit("/", 2)
    return len(parts) < 2 or parts[-2] == kind


def _reference(value: Any) -> str | None:
    reference = value.get("reference") if isinstance(value, dict) else None
    return reference if isinstance(reference, str) and reference and not reference.startswith("#") else None


def _at(resource: Resource, path: str) -> Any:
    value: Any = resource
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
