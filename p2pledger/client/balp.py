"""The access log as FHIR R4 AuditEvents in the shapes of IHE's Basic Audit Log Patterns (BALP), for audit repositories.

Each decision is an AuthZconsent event. A permission is a PatientRead, too, and where the reader belongs to another
organisation than the custodian, a PrivacyDisclosure by its source. What happened is known from the chain alone:
there are no device names and no network addresses, and the network of an agent is the name of its key or organisation.
"""

import json
from collections.abc import Sequence
from typing import Any

from p2pledger.client.disclosures import PART2_NOTICE, PART2_NOTICE_REFERENCE, Named
from p2pledger.client.times import instant
from p2pledger.client.words import DENIALS, PURPOSES
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ChainId

Resource = dict[str, Any]

_PROFILES = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_SNOMED = "http://snomed.info/sct"
_URN = "urn:p2pledger:"
_EXTENSION = "urn:p2pledger:fhir:anchor"
_NETWORK_URI = "5"
_OK, _DENIED = "0", "8"


def audit_bundle(rows: Sequence[Named], chain: ChainId) -> bytes:
    """A collection Bundle with all events of a log, oldest first, as JSON."""
    entries = [
        {"fullUrl": f"{_URN}audit-event:{event['id']}", "resource": event}
        for row in rows
        for event in audit_events(row, chain)
    ]
    bundle: Resource = {"resourceType": "Bundle", "type": "collection"}
    if entries:
        bundle["entry"] = entries
    return json.dumps(bundle, indent=1, ensure_ascii=False).encode() + b"\n"


def audit_events(row: Named, chain: ChainId) -> list[Resource]:
    """The events of one line."""
    events = [_decision(row, chain)]
    if row.is_allowed:
        events.append(_read(row, chain))
        if row.is_outside:
            events.append(_disclosure(row, chain))
    return events


def _decision(row: Named, chain: ChainId) -> Resource:
    """AuthZconsent: the consent decision, permit or deny (health rule 3.11)."""
    event = _event(row, chain, "AuthZconsent", "authz", _coding(_DCM, "110113", "Security Alert"), "E")
    event["subtype"] = [_coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType", "AuthZ-Consent")]
    if not row.is_allowed:
        event["outcome"] = _DENIED
        event["outcomeDesc"] = _denial(row.line.decision)
    event["agent"] = [
        {**_agent(_DCM, "110150", _reader(row), False), "network": _network(_reader(row))},
        {**_agent(_PARTICIPATION, "IRCP", _person(row), True), "purposeOfUse": [_purpose(row)]},
        _agent("http://terminology.hl7.org/CodeSystem/v3-RoleClass", "PROV", _organisation(row), False),
        _agent("http://terminology.hl7.org/CodeSystem/extra-security-role-type", "authserver", _ledger(chain), False),
    ]
    event["entity"] = [_patient(row), _consent(row)]
    return event


def _read(row: Named, chain: ChainId) -> Resource:
    """PatientRead: from here on the reader could read; the extension says whether it was given the keys."""
    rest = _coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest", "RESTful Operation")
    event = _event(row, chain, "PatientRead", "read", rest, "R")
    event["subtype"] = [_coding("http://hl7.org/fhir/restful-interaction", "read", "read")]
    event["agent"] = [
        {**_agent(_DCM, "110152", _reader(row), False), "network": _network(_reader(row))},
        {**_agent(_DCM, "110153", _custodian(row), False), "network": _network(_custodian(row))},
        {**_agent(_PARTICIPATION, "IRCP", _person(row), True), "purposeOfUse": [_purpose(row)]},
    ]
    event["entity"] = [_patient(row), _data(row)]
    return event


def _disclosure(row: Named, chain: ChainId) -> Resource:
    """PrivacyDisclosure.Source: another organisation got it; under 42 CFR Part 2 with consent copy and notice."""
    event = _event(row, chain, "PrivacyDisclosure.Source", "disclosure", _coding(_DCM, "110106", "Export"), "R")
    lifecycle = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
    event["subtype"] = [_coding(lifecycle, "disclose", "Disclose Record Lifecycle Event")]
    event["purposeOfEvent"] = [_purpose(row)]
    event["agent"] = [
        {**_agent(_DCM, "110153", _custodian(row), False), "network": _network(_custodian(row))},
        {**_agent(_DCM, "110152", _organisation(row), True), "network": _network(_organisation(row))},
        _agent(_SNOMED, "159541003", _custodian(row), False),
    ]
    event["entity"] = [_patient(row), _data(row)]
    if row.line.consent_id is not None:
        event["agent"].append(_agent(_SNOMED, "429577009", _who("pid", row.line.pid, "the patient"), False))
        event["entity"].append(_consent(row))
    return event


# Parts


def _event(row: Named, chain: ChainId, profile: str, kind: str, code: Resource, action: str) -> Resource:
    """What all three have in common; `agent` and `entity` are still missing."""
    line = row.line
    return {
        "resourceType": "AuditEvent",
        "id": f"{line.access_id.hex()}-{kind}",
        "meta": {"profile": [_PROFILES + profile]},
        "extension": [
            {
                "url": _EXTENSION,
                "extension": [
                    {"url": "height", "valueUnsignedInt": line.height},
                    {"url": "transaction", "valueUri": f"{_URN}transaction:{line.transaction.hex()}"},
                    {"url": "line", "valueUri": f"{_URN}log:{line.pid.hex()}:{line.sequence}"},
                    {"url": "keys-released", "valueString": row.released},
                ],
            }
        ],
        "type": code,
        "action": action,
        "recorded": instant(line.time_ms),
        "outcome": _OK,
        "source": {
            "observer": _ledger(chain),
            "type": [
                _coding("http://terminology.hl7.org/CodeSystem/security-source-type", "6", "Security Server"),
            ],
        },
    }


def _coding(system: str, code: str, display: str | None = None) -> Resource:
    coding = {"system": system, "code": code}
    return coding if display is None else {**coding, "display": display}


def _agent(system: str, code: str, who: Resource, is_requestor: bool) -> Resource:
    return {"type": {"coding": [_coding(system, code)]}, "who": who, "requestor": is_requestor}


def _who(kind: str, identifier: bytes, display: str | None = None) -> Resource:
    found: Resource = {"identifier": {"system": f"{_URN}{kind}", "value": identifier.hex()}}
    return found if display is None else {**found, "display": display}


def _reader(row: Named) -> Resource:
    return _who("key", row.line.reader)


def _person(row: Named) -> Resource:
    actor = row.line.actor
    return _who("key", row.line.reader, "a key that nobody has registered") if actor is None else _who("did", actor)


def _organisation(row: Named) -> Resource:
    return _who("organisation", row.line.organisation, row.recipient)


def _custodian(row: Named) -> Resource:
    return _who("organisation", row.custodian_id, row.custodian)


def _ledger(chain: ChainId) -> Resource:
    return _who("chain", chain, "the consortium's ledger")


def _network(who: Resource) -> Resource:
    identifier = who["identifier"]
    return {"address": f"{identifier['system']}:{identifier['value']}", "type": _NETWORK_URI}


def _purpose(row: Named) -> Resource:
    code = row.line.purpose
    return {"coding": [_coding(_ACT_REASON, code, PURPOSES.get(code))]}


def _patient(row: Named) -> Resource:
    return {
        "type": _coding(_ENTITY_TYPE, "1", "Person"),
        "role": _coding(_OBJECT_ROLE, "1", "Patient"),
        "what": {"type": "Patient", **_who("pid", row.line.pid)},
    }


def _data(row: Named) -> Resource:
    entity: Resource = {
        "type": _coding(_ENTITY_TYPE, "2", "System Object"),
        "role": _coding(_OBJECT_ROLE, "4", "Domain Resource"),
        "what": {**_who("access", row.line.access_id), "display": row.description},
    }
    if row.labels:
        entity["securityLabel"] = [_coding(_ACT_CODE, label) for label in row.labels if label != "R"]
    if row.records:
        entity["detail"] = [{"type": "record", "valueString": record} for record in row.records]
    return entity


def _consent(row: Named) -> Resource:
    """The consent on which it rests, or in words why there is none: the profile wants one in every decision."""
    line = row.line
    what = (
        {"display": f"no consent; {row.basis}"}
        if line.consent_id is None
        else {
            "type": "Consent",
            **_who("consent", line.consent_id, row.consent_reference),
        }
    )
    entity: Resource = {"type": _coding(_RESOURCE_TYPES, "Consent"), "what": what}
    if row.is_part2 and row.is_allowed:
        entity["detail"] = [
            {"type": "42 CFR Part 2 notice", "valueString": f"{PART2_NOTICE} ({PART2_NOTICE_REFERENCE})"},
            {
                "type": "42 CFR Part 2 consent copy",
                "valueString": row.consent_copy or row.consent_reference or row.basis,
            },
        ]
    return entity


def _denial(code: int) -> str:
    known = next((text for denial, text in DENIALS.items() if denial == code), None)
    name = Code(code).name if code in Code.__members__.values() else str(code)
    return name if known is None else f"{name}: {known}"
