"""Which part of a chart a resource belongs to, and how sensitive it is.

Consents name compartments: a class of resources with their security labels. On the chain a compartment is a handle
that says neither; the table here is what custodians and patients read handles by. Labels are codes of HL7 v3
ActCode (information sensitivity) and Confidentiality, the set that IHE's Privacy Consent on FHIR asks for.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from p2pledger.fhir.spans import Resource

ResourceClass = Literal[
    "allergy", "condition", "medication", "immunization", "vital-signs", "laboratory", "social-history", "observation",
    "procedure", "encounter", "report", "careplan", "device", "document", "billing", "demographics", "directory",
    "other",
]  # fmt: skip
CLASSES: tuple[ResourceClass, ...] = get_args(ResourceClass)

_CLASS_OF: Mapping[str, ResourceClass] = {
    "AllergyIntolerance": "allergy",
    "CarePlan": "careplan",
    "CareTeam": "careplan",
    "Claim": "billing",
    "ClaimResponse": "billing",
    "Composition": "document",
    "Condition": "condition",
    "Coverage": "billing",
    "Device": "device",
    "DeviceRequest": "device",
    "DeviceUseStatement": "device",
    "DiagnosticReport": "report",
    "DocumentReference": "document",
    "Encounter": "encounter",
    "EpisodeOfCare": "encounter",
    "ExplanationOfBenefit": "billing",
    "FamilyMemberHistory": "condition",
    "Goal": "careplan",
    "ImagingStudy": "report",
    "Immunization": "immunization",
    "Location": "directory",
    "Medication": "medication",
    "MedicationAdministration": "medication",
    "MedicationDispense": "medication",
    "MedicationRequest": "medication",
    "MedicationStatement": "medication",
    "Observation": "observation",
    "Organization": "directory",
    "Patient": "demographics",
    "Practitioner": "directory",
    "PractitionerRole": "directory",
    "Procedure": "procedure",
    "RelatedPerson": "demographics",
    "ServiceRequest": "procedure",
}
_OBSERVATIONS: Mapping[str, ResourceClass] = {
    "vital-signs": "vital-signs",
    "laboratory": "laboratory",
    "social-history": "social-history",
}

Label = Literal["N", "R", "ETH", "ETHUD", "OPIOIDUD", "PSY", "SDV", "HIV", "SEX"]
SENSITIVE: frozenset[str] = frozenset(get_args(Label)) - {"N", "R"}

_SNOMED = "http://snomed.info/sct"
_SENSITIVE_CODES: Mapping[tuple[str, str], Label] = {
    (_SNOMED, "55680006"): "ETH",  # drug overdose
    (_SNOMED, "361055000"): "ETH",  # misuses drugs
    (_SNOMED, "66214007"): "ETH",  # substance abuse
    (_SNOMED, "56876005"): "ETH",  # drug rehabilitation and detoxification
    (_SNOMED, "266707007"): "ETH",  # drug addiction therapy
    (_SNOMED, "60112009"): "ETH",  # drug addiction counselling
    (_SNOMED, "61480009"): "ETH",  # drug detoxification
    (_SNOMED, "7200002"): "ETHUD",  # alcoholism
    (_SNOMED, "10939881000119105"): "ETHUD",  # unhealthy alcohol drinking behaviour
    (_SNOMED, "5602001"): "OPIOIDUD",  # opioid abuse
    (_SNOMED, "75544000"): "OPIOIDUD",  # opioid dependence
    (_SNOMED, "370143000"): "PSY",  # major depressive disorder
    (_SNOMED, "36923009"): "PSY",  # major depression, single episode
    (_SNOMED, "80583007"): "PSY",  # severe anxiety
    (_SNOMED, "171207006"): "PSY",  # depression screening
    (_SNOMED, "706893006"): "SDV",  # victim of intimate partner abuse
    (_SNOMED, "86406008"): "HIV",  # HIV infection
    (_SNOMED, "62479008"): "HIV",  # AIDS
    (_SNOMED, "72892002"): "SEX",  # normal pregnancy
    (_SNOMED, "252160004"): "SEX",  # pregnancy test
    (_SNOMED, "19169002"): "SEX",  # miscarriage in first trimester
    (_SNOMED, "156073000"): "SEX",  # complete miscarriage
}
"""A start, over the codes that the sample records and the common sensitive conditions carry. A custodian's own
labels (`meta.security`) come on top; a real deployment brings a terminology service."""


def class_of(resource: Resource) -> ResourceClass:
    """The class of a resource; `other` for a type that the table does not know."""
    kind = _CLASS_OF.get(resource["resourceType"], "other")
    if kind != "observation":
        return kind
    for _, code in codings(resource.get("category")):
        if code in _OBSERVATIONS:
            return _OBSERVATIONS[code]
    return kind


def only_class_of(resource_type: str) -> ResourceClass | None:
    """The class that consists of the resources of this type and of nothing else; None where there is no such class."""
    found = _CLASS_OF.get(resource_type)
    if found is None or found == "observation":
        return None
    return found if list(_CLASS_OF.values()).count(found) == 1 else None


def labels_of(resource: Resource) -> tuple[Label, ...]:
    """The security labels, sorted: `N`, or `R` with the reasons why.

    From the coded values of the resource at any depth and from its own `meta.security`; never from its text.
    """
    found: set[Label] = {_SENSITIVE_CODES[coding] for coding in codings(resource) if coding in _SENSITIVE_CODES}
    meta = resource.get("meta")
    own = {code for _, code in codings(meta.get("security") if isinstance(meta, dict) else None)}
    found.update(label for label in get_args(Label) if label in own and label != "N")
    if own & {"R", "V"}:
        found.add("R")
    return restricted(found)


def restricted(found: set[Label]) -> tuple[Label, ...]:
    """Sorted labels; anything sensitive makes the whole `R`, nothing is `N`."""
    sensitive = found - {"N"}
    return tuple(sorted(sensitive | {"R"})) if sensitive else ("N",)


def codings(value: Any) -> Iterator[tuple[str, str]]:
    """(system, code) of every coding at any depth."""
    if isinstance(value, dict):
        system, code = value.get("system"), value.get("code")
        if isinstance(system, str) and isinstance(code, str):
            yield system, code
        for member in value.values():
            yield from codings(member)
    elif isinstance(value, list):
        for item in value:
            yield from codings(item)
