"""Dates, patients, classes and labels of the sample resources, looked at from outside."""

import json
from collections import Counter
from typing import Any

import pytest

from p2pledger.fhir.compartments import CLASSES, class_of, labels_of
from p2pledger.fhir.resources import (
    clinical_date,
    encounter_reference,
    local_id,
    month_of,
    organisation_references,
    patient_reference,
)
from p2pledger.fhir.spans import extract_bundle, extract_ndjson
from p2pledger.primitives.errors import Rejected
from tests.unit.fhir.samples import BULK_KINDS, PATIENTS, bundle, ndjson


def _resources(name: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in json.loads(bundle(name))["entry"]]


@pytest.mark.parametrize("name", PATIENTS)
def test_every_dated_sample_resource_has_a_month_and_every_clinical_one_its_patient(name: str) -> None:
    items = extract_bundle(bundle(name))
    patient = next(item.resource["id"] for item in items if item.resource_type == "Patient")
    for item in items:
        is_directory = item.resource_type in ("Organization", "Practitioner")
        assert patient_reference(item.resource) == (None if is_directory else patient)
        date = clinical_date(item.resource)
        is_undated = item.resource_type in ("Patient", "Goal")  # the sample goals carry no date of their own
        assert (date is None) == (is_directory or is_undated), item.resource_type
        assert date is None or 190001 <= month_of(date) <= 202112
        assert class_of(item.resource) in CLASSES and class_of(item.resource) != "other"


def test_bulk_resources_name_their_patients() -> None:
    patients = {item.resource["id"] for item in extract_ndjson(ndjson("Patient"))}
    for kind in BULK_KINDS:
        for item in extract_ndjson(ndjson(kind)):
            about = patient_reference(item.resource)
            assert about in patients or (about is None and class_of(item.resource) == "directory")


def test_months_are_read_as_written() -> None:
    """The month of the date in its own zone; a year alone counts as its January."""
    assert month_of("2019") == 201901
    assert month_of("2019-12") == 201912
    assert month_of("2019-12-31T23:59:59-05:00") == 201912
    for bad in ("2019-13", "19", "2019-1-1", "2019-12-31T25", "1899", "tomorrow"):
        with pytest.raises(Rejected):
            month_of(bad)
    with pytest.raises(Rejected, match=r"Observation\.effectiveDateTime is not a FHIR date"):
        clinical_date({"resourceType": "Observation", "effectiveDateTime": "yesterday"})


def test_a_birth_date_is_no_clinical_date() -> None:
    assert clinical_date({"resourceType": "Patient", "birthDate": "1980-01-01"}) is None


def test_references_of_every_spelling() -> None:
    for text in ("urn:uuid:x-1", "Patient/x-1", "https://h.example/fhir/Patient/x-1", "Patient/x-1/_history/2"):
        assert local_id(text) == "x-1"
        assert patient_reference({"resourceType": "Basic", "subject": {"reference": text}}) == "x-1"
    assert patient_reference({"resourceType": "Observation", "subject": {"reference": "Group/7"}}) is None
    assert patient_reference({"resourceType": "Coverage", "subject": {"reference": "#contained"}}) is None
    encounter = {"resourceType": "Encounter", "serviceProvider": {"reference": "Organization/o"}}
    assert organisation_references(encounter) == ("o",)
    claim = {"resourceType": "Claim", "provider": {"reference": "Practitioner/p"}}
    assert organisation_references(claim) == ()
    assert encounter_reference({"resourceType": "Observation", "encounter": {"reference": "Encounter/e"}}) == "e"


def test_fidel_bins_has_seven_allergies_and_trenton_turner_four_organisations() -> None:
    classes = Counter(class_of(resource) for resource in _resources("Fidel_Bins"))
    assert classes["allergy"] == 7
    turner = _resources("Trenton_Turner")
    own = {resource["id"] for resource in turner if resource["resourceType"] == "Organization"}
    assert len(own) == 4
    assert own <= {name for resource in turner for name in organisation_references(resource)}


def test_sensitive_codes_make_a_record_restricted() -> None:
    """Overdose -> ETH, R; major depression -> PSY, R; what carries no such code -> N."""
    labels = {labels_of(resource) for resource in _resources("Trenton_Turner")}
    assert ("ETH", "R") in labels
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "370143000"}]}
    assert labels_of({"resourceType": "Condition", "code": code}) == ("PSY", "R")
    assert labels_of({"resourceType": "Condition", "code": {"text": "Major depression"}}) == ("N",)
    assert ("R", "SEX") in {labels_of(resource) for resource in _resources("Eboni_Brekke")}
    assert {labels_of(r) for r in _resources("Fidel_Bins") if class_of(r) == "allergy"} == {("N",)}


def test_labels_that_a_record_brings_are_kept() -> None:
    meta = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    assert labels_of({"resourceType": "Observation", "meta": meta}) == ("HIV", "R")
    confidential = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}
    assert labels_of({"resourceType": "Observation", "meta": confidential}) == ("R",)
