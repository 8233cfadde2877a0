"""F-08, F-13: exported AuditEvents have the shapes of IHE BALP, read from the StructureDefinitions themselves."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.bundle import Bundle

from p2pledger.client.balp import audit_bundle, audit_events
from p2pledger.client.disclosures import PART2_NOTICE
from p2pledger.primitives.errors import Code
from tests.unit.client.papers import CHAIN, CUSTODIAN, card, consent, line, rows_of, slip

FOLDER = Path(__file__).parent / "balp"
PROFILES = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."


# A shape check made from the profiles: cardinalities, patterns, slices by value, closed slicing, value sets


@cache
def definition(url: str) -> dict[str, Any]:
    name = url.rsplit("/", 1)[1]
    found: dict[str, Any] = json.loads((FOLDER / f"StructureDefinition-{name}.json").read_text())
    assert found["url"] == url
    return found


@cache
def elements(url: str) -> dict[str, dict[str, Any]]:
    """The differential of a profile over those that it is derived from, by element id."""
    found = definition(url)
    base = found["baseDefinition"]
    merged = dict(elements(base)) if base.startswith(PROFILES) else {}
    for element in found["differential"]["element"]:
        merged[element["id"]] = {**merged.get(element["id"], {}), **element}
    return merged


@cache
def codes_of(url: str) -> set[tuple[str, str]]:
    """What a value set allows."""
    value_set = json.loads((FOLDER / f"ValueSet-{url.rsplit('/', 1)[1]}.json").read_text())
    found = set()
    for include in value_set["compose"]["include"]:
        concepts = include.get("concept")
        if concepts is None:
            name = include["system"].rsplit("/", 1)[1]
            concepts = json.loads((FOLDER / f"CodeSystem-{name}.json").read_text())["concept"]
        found |= {(include["system"], concept["code"]) for concept in concepts}
    return found


def is_like(value: Any, pattern: Any) -> bool:
    """FHIR's pattern: everything in it is there, more may be."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and is_like(value[name], pattern[name]) for name in pattern
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(is_like(one, wanted) for one in value) for wanted in pattern)
    return bool(value == pattern)


def pattern_of(element: dict[str, Any]) -> Any:
    return next((value for name, value in element.items() if name.startswith(("pattern", "fixed"))), None)


def values(node: Any, name: str) -> list[Any]:
    found = node.get(name)
    return [] if found is None else found if isinstance(found, list) else [found]


def faults(resource: dict[str, Any], url: str) -> list[str]:
    """Everything in which a resource is not what a profile says; empty for one that is."""
    wanted = elements(url)
    if url not in resource["meta"]["profile"]:
        return [f"meta.profile lacks {url}"]
    return [fault for name in _children(wanted, "AuditEvent") for fault in _check(resource, name, "AuditEvent", wanted)]


def _children(wanted: dict[str, Any], parent: str) -> list[str]:
    return sorted({name for name in wanted if name.rpartition(".")[0] == parent and ":" not in name.rpartition(".")[2]})


def _check(node: Any, identifier: str, where: str, wanted: dict[str, Any]) -> list[str]:
    element, name = wanted[identifier], identifier.rpartition(".")[2]
    found = values(node, name)
    place = f"{where}.{name}"
    out = _count(found, element, place)
    pattern = pattern_of(element)
    out += [
        f"{place} is {one!r}, not {pattern!r}" for one in found if pattern is not None and not is_like(one, pattern)
    ]
    slices = [key for key in wanted if key.startswith(f"{identifier}:") and "." not in key[len(identifier) :]]
    bound = element.get("binding", {})
    if bound.get("strength") == "required" and not slices:
        out += [f"{place}: {one} is not in the value set" for one in found if not _is_bound(one, bound["valueSet"])]
    taken = 0
    for key in slices:
        members = [one for one in found if _is_of(one, key, element["slicing"], wanted)]
        taken += len(members)
        out += _count(members, wanted[key], key)
        for member in members:
            for child in _children(wanted, key):
                out += _check(member, child, key, wanted)
    if slices and element["slicing"]["rules"] == "closed" and taken != len(found):
        out.append(f"{place} has {len(found) - taken} that belong to no slice")
    if not slices:
        for one in found:
            for child in _children(wanted, identifier):
                out += _check(one, child, place, wanted)
    return out


def _count(found: list[Any], element: dict[str, Any], place: str) -> list[str]:
    least, most = element.get("min", 0), element.get("max", "*")
    if len(found) < least or (most != "*" and len(found) > int(most)):
        return [f"{place} {len(found)} times, {least}..{most} wanted"]
    return []


def _is_of(value: Any, key: str, slicing: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a value belongs to a slice: its discriminator has the slice's pattern or is in its value set."""
    (discriminator,) = slicing["discriminator"]
    path = discriminator["path"]
    element = wanted[key] if path == "$this" else wanted[f"{key}.{path}"]
    tested = value if path == "$this" else value.get(path)
    pattern = pattern_of(element)
    if pattern is not None:
        return is_like(tested, pattern)
    return _is_bound(tested, element["binding"]["valueSet"])


def _is_bound(value: Any, value_set: str) -> bool:
    codings = value.get("coding", [value])
    return any((coding.get("system"), coding.get("code")) in codes_of(value_set) for coding in codings)


# The instrument itself


@pytest.mark.parametrize(
    ("example", "profile"),
    [
        ("AuditEvent-ex-auditAuthZconsent-deny", "AuthZconsent"),
        ("AuditEvent-ex-auditPrivacyDisclosure-source", "PrivacyDisclosure.Source"),
        ("AuditEvent-ex-auditBasicReadServer", "PatientRead"),
    ],
)
def test_the_check_accepts_ihe_s_examples_and_notices_what_is_taken_from_them(example: str, profile: str) -> None:
    """Without agents, without an entity, with another type or action: each is named."""
    resource = json.loads((FOLDER / f"{example}.json").read_text())
    assert faults(resource, PROFILES + profile) == []
    broken: list[dict[str, Any]] = [{**resource, "agent": resource["agent"][:n]} for n in range(2)]
    broken += [{**resource, "entity": resource["entity"][:1]}, {**resource, "entity": resource["entity"][1:]}]
    broken += [{**resource, "subtype": []}, {**resource, "type": {"system": "urn:x", "code": "x"}}]
    broken += [{**resource, "action": "D"}, {**resource, "agent": resource["agent"] + resource["agent"][:1]}]
    for one in broken:
        assert faults(one, PROFILES + profile), one


# What we export


KINDS = {
    "consent": {},
    "denied": {"decision": int(Code.E_EXPIRED), "consent_id": None, "basis": "none"},
    "denied by a consent": {"decision": int(Code.E_PURPOSE)},
    "policy": {"basis": "policy", "consent_id": None},
    "broken glass": {"basis": "btg", "consent_id": None, "purpose": "BTG"},
    "unknown key": {"decision": int(Code.E_UNKNOWN_ACTOR), "actor": None, "consent_id": None, "basis": "none"},
    "the custodian's own": {"organisation": CUSTODIAN},
    "the patient": {"basis": "owner", "consent_id": None, "purpose": "PATRQT", "organisation": CUSTODIAN},
    "a code of a later version": {"decision": 9_999, "consent_id": None, "basis": "none"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_has_the_shape_of_its_profile(kind: str) -> None:
    """AuthZ-Consent permit and deny, PatientRead, PrivacyDisclosure: fixed codes, slices, cardinalities (F-08)."""
    (row,) = rows_of(line(**KINDS[kind]))
    events = audit_events(row, CHAIN)
    for event in events:
        (profile,) = event["meta"]["profile"]
        assert faults(event, profile) == []
        assert AuditEvent.model_validate(event)
    profiles = [event["meta"]["profile"][0].removeprefix(PROFILES) for event in events]
    assert profiles == ["AuthZconsent", "PatientRead", "PrivacyDisclosure.Source"][: len(profiles)]
    assert len(profiles) == (1 if not row.is_allowed else 3 if row.is_outside else 2)
    assert events[0]["outcome"] == ("0" if row.is_allowed else "8")
    assert ("outcomeDesc" in events[0]) != row.is_allowed


def test_a_bundle_of_a_whole_log_is_one_that_fhir_knows() -> None:
    rows = rows_of(*(line(sequence=n, access=f"access {n}", **kind) for n, kind in enumerate(KINDS.values(), start=1)))
    bundle = json.loads(audit_bundle(rows, CHAIN))
    assert Bundle.model_validate(bundle)
    identifiers = [entry["resource"]["id"] for entry in bundle["entry"]]
    assert len(set(identifiers)) == len(identifiers) >= 2 * len(rows) - 4
    assert Bundle.model_validate(json.loads(audit_bundle([], CHAIN)))


def test_each_event_says_where_it_stands_in_the_chain() -> None:
    """Height, transaction and line, for whoever wants the proof: `audit prove` makes it."""
    (row,) = rows_of(line())
    for event in audit_events(row, CHAIN):
        (anchor,) = event["extension"]
        said = {part["url"]: part.get("valueUnsignedInt", part.get("valueUri")) for part in anchor["extension"]}
        assert said["height"] == row.line.height
        assert said["transaction"].endswith(row.line.transaction.hex())
        assert said["line"].endswith(f":{row.line.sequence}")


def test_a_disclosure_under_part_2_carries_consent_copy_and_notice() -> None:
    """42 CFR 2.32: with the card at hand the document itself, without it the commitment by which it is found."""
    for cards in ([card()], []):
        (row,) = rows_of(line(), cards=cards, consents=[consent()], names={b"part two handle!": "condition/ETH+R"})
        events = audit_events(row, CHAIN)
        (basis,) = [entity for entity in events[2]["entity"] if entity["type"]["code"] == "Consent"]
        notice, copy = basis["detail"]
        assert PART2_NOTICE in notice["valueString"]
        assert copy["valueString"] == (card().dump() if cards else row.consent_reference)
        assert faults(events[2], PROFILES + "PrivacyDisclosure.Source") == []
    (plain,) = rows_of(line())
    assert all("detail" not in entity for event in audit_events(plain, CHAIN) for entity in event["entity"])


def test_each_event_says_whether_keys_were_released() -> None:
    """F-08: BALP has no element for it, so it stands with height, transaction and line."""
    for row, said in ((rows_of(line())[0], "no"), (rows_of(line(decision=int(Code.E_SCOPE)))[0], "-")):
        for event in audit_events(row, CHAIN):
            told = {part["url"]: part for part in event["extension"][0]["extension"]}
            assert told["keys-released"]["valueString"] == said


def test_opened_records_are_named() -> None:
    """F-08: the record list opened from its commitment."""
    (row,) = rows_of(line(), slips=[slip()])
    (data,) = [entity for entity in audit_events(row, CHAIN)[1]["entity"] if entity["type"]["code"] == "2"]
    assert [one["valueString"] for one in data["detail"]] == [f"{ref}" for ref in slip().records]
