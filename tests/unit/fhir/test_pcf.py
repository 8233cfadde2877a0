"""FHIR Consents are read whole or refused with the element named (F-05, F-07)."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pledger.fhir.dates import instants
from p2pledger.fhir.pcf import BYTES_MAX, FOREVER_MS, Named, Provision, read_consent
from p2pledger.primitives.errors import InvalidInput, Rejected

EXAMPLES = Path(__file__).parents[2] / "data" / "consents"
PCF = EXAMPLES / "ihe-pcf"
R4 = EXAMPLES / "r4-examples"


def example(name: str) -> Any:
    return json.loads((PCF / f"Consent-ex-{name}.json").read_bytes())


def refusal(resource: Any) -> str:
    with pytest.raises((Rejected, InvalidInput)) as caught:
        read_consent(json.dumps(resource).encode())
    return str(caught.value)


def test_every_example_is_read_or_refused() -> None:
    """F-05: all of PCF's examples but the one with a purpose of its own are read; what R4's lack is named."""
    pcf = {path.stem.removeprefix("Consent-ex-"): path for path in PCF.glob("*.json")}
    assert len(pcf) == 18
    refused = {}
    for name, path in pcf.items():
        try:
            read_consent(path.read_bytes())
        except Rejected as error:
            refused[name] = str(error)
    assert list(refused) == ["consent-intermediate-purpose"]
    assert refused["consent-intermediate-purpose"].startswith("E_UNENFORCEABLE: Consent.provision.purpose[0]: code 'F")


@pytest.mark.parametrize(
    ("name", "element"),
    [
        ("Emergency", "Consent.performer"),
        ("Out", "Consent.performer"),
        ("basic", "Consent.performer"),
        ("grantor", "Consent.performer"),
        ("notAuthor", "Consent.performer"),
        ("notOrg", "Consent.performer"),
        ("notThem", "Consent.performer"),
        ("notThis", "Consent.performer"),
        ("notTime", "Consent.performer"),
        ("pkb", "Consent.performer"),
        ("signature", "Consent.source[x]"),
        ("smartonfhir", "Consent.source[x]"),
    ],
)
def test_what_the_examples_of_r4_lack_is_named(name: str, element: str) -> None:
    """F-07: none of them names performer, document and policy, without which a consent is not informed."""
    assert len(list(R4.glob("*.json"))) == 12
    with pytest.raises(Rejected) as caught:
        read_consent((R4 / f"Consent-consent-example-{name}.json").read_bytes())
    assert str(caught.value) == f"E_CONSENT_INCOMPLETE: {element} is missing"


def completed(name: str) -> Any:
    """An example of R4 with what F-07 asks for."""
    resource = json.loads((R4 / f"Consent-consent-example-{name}.json").read_bytes())
    resource.pop("policyRule", None)
    resource |= {"performer": [resource["patient"]], "policy": [{"uri": "http://example.org/policy"}]}
    resource.setdefault("sourceReference", {"reference": "DocumentReference/1"})
    resource["provision"].setdefault("type", "permit")
    resource["provision"].setdefault("purpose", [{"system": ACT_REASON, "code": "TREAT"}])
    return resource


ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"


@pytest.mark.parametrize(
    ("name", "element"),
    [
        ("Emergency", "Consent.provision.actor[0].role"),
        ("Out", "Consent.provision.actor[0].role"),
        ("grantor", "Consent.provision.action"),
        ("notAuthor", "Consent.provision.actor[0].role"),
        ("notOrg", "Consent.provision.action"),
        ("notThem", "Consent.provision.action"),
        ("notThis", "Consent.provision.data[0]"),
        ("pkb", "Consent.provision.action"),
        ("signature", "Consent.provision.provision[0].code"),
        ("smartonfhir", "Consent.provision.provision[0].action"),
    ],
)
def test_what_the_examples_of_r4_ask_for_beyond_that_is_refused_by_its_element(name: str, element: str) -> None:
    """F-05: completed, they still limit custodians, actions or codes, which nothing on the chain does."""
    assert refusal(completed(name)).startswith(f"E_UNENFORCEABLE: {element}")


@pytest.mark.parametrize("name", ["basic", "notTime"])
def test_the_plain_examples_of_r4_are_read_when_they_are_complete(name: str) -> None:
    read = read_consent(json.dumps(completed(name)).encode())
    assert (read.base, read.whole.purposes, read.is_own) == ("permit", ("TREAT",), True)


def test_a_consent_says_who_and_when() -> None:
    """F-30: the infant's is its mother's; the one that has expired ends with the last day of its period."""
    own, infant, ended = (
        read_consent(json.dumps(example(name)).encode())
        for name in ("consent-basic-treat", "consent-basic-treat-infant", "consent-expired-treat")
    )
    assert (own.is_own, infant.is_own, infant.performer) == (True, False, "Patient/ex-mother")
    assert own.valid_from_ms == instants("2022-06-13", "")[0]
    assert (own.valid_to_ms, ended.valid_to_ms) == (FOREVER_MS, instants("2023-01-01", "")[0])
    assert own.whole == Provision(purposes=("TREAT", "HPAYMT", "HOPERAT"))


def test_a_permission_beside_a_permitting_base_becomes_two_exceptions() -> None:
    """F-05: normal data for everybody, psychiatry for one practitioner."""
    read = read_consent(json.dumps(example("consent-advanced-normal-focused-psy")).encode())
    assert read.base == "deny"
    everybody, one = read.exceptions
    assert (everybody.labels, everybody.actors, one.labels) == ((), (), ("PSY",))
    assert [actor.reference for actor in one.actors] == ["Practitioner/ex-practitioner"]
    assert one.purposes == everybody.purposes == ("TREAT", "HPAYMT", "HOPERAT")


def test_broken_glass_is_left_to_whom_the_consent_names() -> None:
    """F-15: PCF's group; a rejection forbids it, since BTG stands below TREAT in HL7's tree."""
    group = Named("group", "Group/ex-privilegedUsers", "Consent.provision.provision[0].actor[0].reference")
    for name in ("consent-advanced-normal-break-glass-restricted", "dissent-intermediate-break-glass"):
        read = read_consent(json.dumps(example(name)).encode())
        assert (read.btg, read.btg_actors) == ("named", (group,))
    assert read.default_policy == "break-glass-only"
    assert read_consent(json.dumps(example("consent-basic-reject")).encode()).btg == "never"


def test_a_time_frame_is_whole_months() -> None:
    """F-05: a year is twelve months; what begins within a month cannot be told apart on the chain."""
    resource = example("consent-intermediate-not-timeframe")
    assert read_consent(json.dumps(resource).encode()).exceptions[0].months == (202201, 202212)
    resource["provision"]["provision"][0]["dataPeriod"] = {"start": "2022-03", "end": "2022-04"}
    assert read_consent(json.dumps(resource).encode()).exceptions[0].months == (202203, 202204)
    for period in ({"start": "2022-01-02", "end": "2022-12-31"}, {"start": "2022-01-01"}):
        resource["provision"]["provision"][0]["dataPeriod"] = period
        assert refusal(resource).startswith("E_UNENFORCEABLE: Consent.provision.provision[0].dataPeriod")


LABEL_PSY = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PSY"}
LABEL_N = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}
TREAT = {"system": ACT_REASON, "code": "TREAT"}
BTG = {"system": ACT_REASON, "code": "BTG"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "inactive"}, "E_UNENFORCEABLE: Consent.status"),
        ({"status": None}, "E_CONSENT_INCOMPLETE: Consent.status"),
        ({"verification": [{"verified": True}]}, "E_UNENFORCEABLE: Consent.verification"),
        ({"extension": [{}]}, "E_UNENFORCEABLE: Consent.extension"),
        ({"modifierExtension": [{}]}, "E_UNENFORCEABLE: Consent.modifierExtension"),
        ({"policy": [{"authority": "http://x"}]}, "E_CONSENT_INCOMPLETE: Consent.policy.uri"),
        ({"policy": [{"uri": "http://x"}] * 2}, "E_UNENFORCEABLE: Consent.policy"),
        ({"policy": [{"uri": "https://profiles.ihe.net/ITI/PCF/Policy-x"}]}, "E_UNENFORCEABLE: Consent.policy[0].uri"),
        ({"performer": [{"reference": "Patient/a"}] * 2}, "E_UNENFORCEABLE: Consent.performer"),
        ({"scope": {"coding": [{"system": "x", "code": "y"}]}}, "E_UNENFORCEABLE: Consent.scope"),
        ({"scope": {"text": "privacy"}}, "Consent.scope has no coding"),
        ({"dateTime": "2022-02-30"}, "Consent.dateTime '2022-02-30' is no day"),
        ({"patient": {"display": "somebody"}}, "E_UNENFORCEABLE: Consent.patient"),
        ({"resourceType": "Contract"}, "not a Consent"),
    ],
)
def test_a_consent_is_understood_as_a_whole(change: dict[str, Any], message: str) -> None:
    """F-07: complete, active, about privacy, under one policy, by one performer, and nothing beside."""
    assert refusal(example("consent-basic-treat") | change).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": None}, "E_CONSENT_INCOMPLETE: Consent.provision.type"),
        ({"purpose": []}, "E_CONSENT_INCOMPLETE: Consent.provision.purpose"),
        ({"purpose": [BTG]}, "E_UNENFORCEABLE: Consent.provision.purpose"),
        ({"action": [{}]}, "E_UNENFORCEABLE: Consent.provision.action"),
        ({"code": [{}]}, "E_UNENFORCEABLE: Consent.provision.code"),
        ({"securityLabel": [LABEL_PSY]}, "E_UNENFORCEABLE: Consent.provision.securityLabel"),
        ({"securityLabel": [LABEL_N | {"code": "V"}]}, "E_UNENFORCEABLE: Consent.provision.securityLabel[0]"),
        ({"securityLabel": [LABEL_PSY | {"code": "R"}]}, "E_UNENFORCEABLE: Consent.provision.securityLabel[0]"),
        ({"securityLabel": "N"}, "Consent.provision.securityLabel is no list"),
        ({"period": {"start": "2023", "end": "2022"}}, "Consent.provision.period ends before"),
        ({"period": {"start": "soon"}}, "Consent.provision.period.start 'soon' is no date"),
        ({"class": [{"system": "urn:ietf:bcp:13", "code": "x"}]}, "E_UNENFORCEABLE: Consent.provision.class[0]"),
        (
            {"class": [{"system": "http://hl7.org/fhir/resource-types", "code": "MedicationRequest"}]},
            "E_UNENFORCEABLE: Consent.provision.class[0]",
        ),
        (
            {"data": [{"meaning": "dependents", "reference": {"reference": "Encounter/1"}}]},
            "E_UNENFORCEABLE: Consent.provision.data[0]",
        ),
        (
            {"provision": [{"type": "deny", "securityLabel": [LABEL_N]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0].securityLabel",
        ),
        ({"provision": [{"type": "deny"}]}, "E_UNENFORCEABLE: Consent.provision.provision[0]"),
        ({"provision": [{"purpose": [TREAT]}]}, "E_CONSENT_INCOMPLETE: Consent.provision.provision[0].type"),
        (
            {"provision": [{"type": "deny", "provision": [{"type": "permit"}]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0].provision",
        ),
        (
            {"provision": [{"type": "deny", "purpose": [TREAT, BTG]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0].purpose",
        ),
        (
            {"provision": [{"type": "permit", "securityLabel": [LABEL_PSY]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0]",
        ),
        (
            {"provision": [{"type": "permit", "purpose": [BTG], "securityLabel": [LABEL_PSY]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0]",
        ),
        (
            {
                "securityLabel": [LABEL_N],
                "provision": [
                    {"type": "permit", "securityLabel": [LABEL_PSY]},
                    {"type": "deny", "securityLabel": [LABEL_PSY]},
                ],
            },
            "E_UNENFORCEABLE: Consent.provision.provision",
        ),
        (
            {"securityLabel": [LABEL_N], "provision": [{"type": "permit", "purpose": [TREAT]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0]",
        ),
        ({"type": "deny", "purpose": [BTG]}, "E_UNENFORCEABLE: Consent.provision.purpose"),
        ({"type": "deny", "securityLabel": [LABEL_N]}, "E_UNENFORCEABLE: Consent.provision:"),
        (
            {"type": "deny", "provision": [{"type": "deny", "purpose": [TREAT]}]},
            "E_UNENFORCEABLE: Consent.provision.provision[0].type",
        ),
        (
            {"type": "deny", "purpose": [], "provision": [{"type": "permit"}]},
            "E_CONSENT_INCOMPLETE: Consent.provision.provision[0].purpose",
        ),
    ],
)
def test_a_provision_is_enforced_as_it_stands_or_refused(change: dict[str, Any], message: str) -> None:
    """F-05: never narrowed, never widened."""
    resource = example("consent-basic-treat")
    resource["provision"] |= change
    assert refusal(resource).startswith(message)


def test_a_denial_of_broken_glass_forbids_it() -> None:
    """F-15."""
    resource = example("consent-basic-treat")
    resource["provision"]["provision"] = [{"type": "deny", "purpose": [BTG]}]
    assert read_consent(json.dumps(resource).encode()).btg == "never"


def test_what_is_no_consent_is_refused() -> None:
    """Whatever it is instead."""
    for data in (b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b" " * (BYTES_MAX + 1)):
        with pytest.raises(InvalidInput):
            read_consent(data)


@pytest.mark.parametrize(
    ("text", "first", "after"),
    [
        ("1970", 0, 365 * 86_400_000),
        ("1970-02", 31 * 86_400_000, 59 * 86_400_000),
        ("1972-02", (730 + 31) * 86_400_000, (730 + 60) * 86_400_000),
        ("1999-12", 944_006_400_000, 946_684_800_000),
        ("2000-02-29", 951_782_400_000, 951_868_800_000),
        ("2016-06-23T17:02:33+10:00", 1_466_665_353_000, 1_466_665_354_000),
        ("2016-06-23T17:02:33.5-01:30", 1_466_706_753_500, 1_466_706_753_501),
        ("1969-12-31", -86_400_000, 0),
    ],
)
def test_dates_are_spans(text: str, first: int, after: int) -> None:
    """A year, a month, a day, a second."""
    assert instants(text, "x") == (first, after)


@pytest.mark.parametrize(
    "text", ["", "22", "2022-13", "2022-00", "2023-02-29", "1900-02-29", "2022-01-01T24:00:00Z", "2022-01-01T10:00", 7]
)
def test_what_is_no_date_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput, match="x"):
        instants(text, "x")
