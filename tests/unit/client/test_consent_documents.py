"""The example consents of IHE PCF as a decision table: what their notes say is what the chain decides (F-05)."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.client.consent_documents import Granted, Names, Patient, grant_of_document, names_of
from p2pledger.client.health import ConsentCard
from p2pledger.client.ingest import Origin, prepare_bundle
from p2pledger.client.records import Custodian
from p2pledger.client.records import Patient as RecordPatient
from p2pledger.client.sealing import BoxKey
from p2pledger.fhir.compartments import SENSITIVE
from p2pledger.health.operations import ActorOpening, CredentialIssue, Group, record_handle
from p2pledger.health.proxy_operations import ProxyGrant
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import Millis
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, PATIENT, PID, TAL, World

EXAMPLES = Path(__file__).parents[2] / "data" / "consents" / "ihe-pcf"
GROUP = Group(id16("privileged users"), True)
PRACTITIONER, COLLEAGUE, RESEARCHER = key("practitioner"), key("colleague"), key("researcher")


def handle(name: str) -> bytes:
    return sha256(b"handle of " + name.encode())[:16]


OBSERVATIONS = ["weight", "weight-2", "bloodPressure", "bloodSugar", "alcoholUse"]
NAMES = Names(
    {"Practitioner/ex-practitioner": id16("practitioner"), "Group/ex-privilegedUsers": GROUP.handle},
    {
        **{f"label/{label}": handle(label) for label in ("R", *SENSITIVE)},
        **{f"record/Observation/ex-{name}": handle(name) for name in OBSERVATIONS},
        "record/Encounter/ex-encounter": handle("encounter"),
        "author/Practitioner/ex-practitioner": handle("author"),
        "encounter/Encounter/ex-encounter": handle("of the encounter"),
        "class/allergy": handle("allergies"),
    },
)
SUBJECT = Patient("Patient/ex-patient", PID, id16("Berg"))


def document(name: str) -> bytes:
    return (EXAMPLES / f"Consent-ex-{name}.json").read_bytes()


class Clinic(World):
    """The practitioner is of the break-glass group; a colleague and a researcher are not."""

    def __init__(self, policy: Any = "deny") -> None:
        super().__init__(Parameters(default_policy=policy))
        for name, role, groups in (
            ("practitioner", "physician", (GROUP,)),
            ("colleague", "nurse", ()),
            ("researcher", "researcher", ()),
        ):
            self.register(name, "practitioner", TAL, "Tal")
            issue = CredentialIssue(id16(name), "physician", hash32("licence"), Millis(0), Millis(2**50))
            assert self.submit(TAL, replace(issue, role=role, groups=groups)) == Code.OK

    def granted(self, name: str, policy: str = "deny", author: SigningKey = PATIENT) -> Granted:
        made = grant_of_document(document(name), SUBJECT, NAMES, policy)
        assert self.submit(author, made.operation) == Code.OK
        return made

    def asks(self, made: Granted, reader: SigningKey, purpose: str, **asked: Any) -> Code:
        """The decision by this very consent, with the opening of whichever card means the reader."""
        openings = [card.actor for card in made.cards if card.actor is not None] or [None]
        given: dict[str, Any] = {"basis": made.operation.consent_id, "purpose": purpose, "cosigners": []}
        if purpose == "BTG":
            given |= {"reason_commit": hash32("reason"), "cosigners": [TAL]}
        return self.ask(f"access {self.height}", reader, **(given | {"actor_opening": openings[0]} | asked))


PSY, SDV, HIV, R = ((handle(label),) for label in ("PSY", "SDV", "HIV", "R"))
SCOPE, LABEL, PURPOSE = Code.E_SCOPE, Code.E_LABEL, Code.E_PURPOSE
OF_2021, OF_2022, ACROSS = (202101, 202112), (202206, 202206), (202112, 202201)
WEIGHT, ALCOHOL, UNKNOWN = (handle("weight"),), (handle("alcoholUse"),), (handle("something else"),)
AUTHOR, ANOTHER = (handle("author"),), (handle("another author"),)

TABLE: list[tuple[str, SigningKey, str, dict[str, Any], Code]] = [
    # Basic: by purpose of use alone, whatever the records; nothing is left over to enforce.
    *(("consent-basic-treat", COLLEAGUE, purpose, {}, Code.OK) for purpose in ("TREAT", "HPAYMT", "HOPERAT", "COC")),
    *(("consent-basic-treat", COLLEAGUE, purpose, {}, PURPOSE) for purpose in ("HRESCH", "CLINTRL", "ETREAT")),
    ("consent-basic-treat", COLLEAGUE, "TREAT", {"labels": (*PSY, *R)}, Code.OK),
    ("consent-basic-treat", COLLEAGUE, "BTG", {}, Code.E_BTG_FORBIDDEN),
    ("consent-basic-treat", PRACTITIONER, "BTG", {}, Code.OK),
    ("consent-basic-ink", COLLEAGUE, "TREAT", {}, Code.OK),
    ("consent-basic-ink", COLLEAGUE, "HMARKT", {}, PURPOSE),
    ("consent-basic-treat-infant", COLLEAGUE, "TREAT", {}, Code.OK),
    ("consent-basic-treat-infant", COLLEAGUE, "HRESCH", {}, PURPOSE),
    # F-54: research and what lies below it, and no treatment.
    *(("consent-basic-research", RESEARCHER, purpose, {}, Code.OK) for purpose in ("HRESCH", "CLINTRCH", "BIORCH")),
    *(("consent-basic-research", RESEARCHER, purpose, {}, PURPOSE) for purpose in ("TREAT", "CLINTRL", "HPAYMT")),
    # The rejection answers every request with an error, broken glass too.
    *(("consent-basic-reject", COLLEAGUE, purpose, {}, SCOPE) for purpose in ("TREAT", "HPAYMT", "HOPERAT")),
    ("consent-basic-reject", PRACTITIONER, "BTG", {}, Code.E_BTG_FORBIDDEN),
    ("consent-expired-treat", COLLEAGUE, "TREAT", {}, Code.E_EXPIRED),
    # Intermediate: nothing but the named data; everything but it.
    ("consent-intermediate-data", COLLEAGUE, "TREAT", {"records": WEIGHT}, Code.OK),
    ("consent-intermediate-data", COLLEAGUE, "TREAT", {"records": (*WEIGHT, *ALCOHOL)}, Code.OK),
    ("consent-intermediate-data", COLLEAGUE, "TREAT", {"records": (handle("encounter"),)}, Code.OK),
    ("consent-intermediate-data", COLLEAGUE, "TREAT", {"records": (*WEIGHT, *UNKNOWN)}, SCOPE),
    ("consent-intermediate-data", COLLEAGUE, "TREAT", {}, SCOPE),
    ("consent-intermediate-not-data", COLLEAGUE, "TREAT", {"records": WEIGHT}, Code.OK),
    ("consent-intermediate-not-data", COLLEAGUE, "TREAT", {"records": (*WEIGHT, *ALCOHOL)}, SCOPE),
    ("consent-intermediate-not-data", COLLEAGUE, "TREAT", {}, SCOPE),
    ("consent-intermediate-authoredby", COLLEAGUE, "TREAT", {"authors": AUTHOR}, Code.OK),
    ("consent-intermediate-authoredby", COLLEAGUE, "TREAT", {"authors": (*AUTHOR, *ANOTHER)}, SCOPE),
    ("consent-intermediate-authoredby", COLLEAGUE, "TREAT", {}, SCOPE),
    ("consent-intermediate-not-authoredby", COLLEAGUE, "TREAT", {"authors": ANOTHER}, Code.OK),
    ("consent-intermediate-not-authoredby", COLLEAGUE, "TREAT", {"authors": AUTHOR}, SCOPE),
    ("consent-intermediate-not-authoredby", COLLEAGUE, "TREAT", {}, SCOPE),
    ("consent-intermediate-not-timeframe", COLLEAGUE, "TREAT", {"months": OF_2021}, Code.OK),
    ("consent-intermediate-not-timeframe", COLLEAGUE, "TREAT", {"months": OF_2022}, SCOPE),
    ("consent-intermediate-not-timeframe", COLLEAGUE, "TREAT", {"months": ACROSS}, SCOPE),
    ("consent-intermediate-not-timeframe", COLLEAGUE, "TREAT", {}, SCOPE),
    # Everything is denied but broken glass by those whom the group names.
    ("dissent-intermediate-break-glass", COLLEAGUE, "TREAT", {}, SCOPE),
    ("dissent-intermediate-break-glass", PRACTITIONER, "TREAT", {}, SCOPE),
    ("dissent-intermediate-break-glass", PRACTITIONER, "BTG", {}, Code.OK),
    ("dissent-intermediate-break-glass", COLLEAGUE, "BTG", {}, Code.E_BTG_FORBIDDEN),
    # Advanced: normal data only, with or without saying so twice.
    ("consent-advanced-normal-not-restricted", COLLEAGUE, "TREAT", {}, Code.OK),
    *(("consent-advanced-normal-not-restricted", COLLEAGUE, "TREAT", {"labels": of}, LABEL) for of in (R, PSY, HIV)),
    *(("consent-advanced-normal-restricted", COLLEAGUE, "TREAT", {"labels": of}, Code.OK) for of in ((), R, PSY, HIV)),
    ("consent-advanced-normal-restricted", COLLEAGUE, "HRESCH", {}, PURPOSE),
    # Normal data for everybody, psychiatry (and violence) for the practitioner.
    ("consent-advanced-normal-focused-psy", COLLEAGUE, "TREAT", {}, Code.OK),
    ("consent-advanced-normal-focused-psy", COLLEAGUE, "TREAT", {"labels": PSY}, LABEL),
    ("consent-advanced-normal-focused-psy", PRACTITIONER, "TREAT", {}, Code.OK),
    ("consent-advanced-normal-focused-psy", PRACTITIONER, "TREAT", {"labels": PSY}, Code.OK),
    ("consent-advanced-normal-focused-psy", PRACTITIONER, "TREAT", {"labels": SDV}, LABEL),
    ("consent-advanced-normal-focused-psy", PRACTITIONER, "TREAT", {"labels": (*PSY, *HIV)}, LABEL),
    ("consent-advanced-normal-focused-psy", PRACTITIONER, "HRESCH", {"labels": PSY}, PURPOSE),
    ("consent-advanced-normal-focused-psy-or-sdv", COLLEAGUE, "TREAT", {}, Code.OK),
    ("consent-advanced-normal-focused-psy-or-sdv", COLLEAGUE, "TREAT", {"labels": SDV}, LABEL),
    ("consent-advanced-normal-focused-psy-or-sdv", PRACTITIONER, "TREAT", {"labels": (*PSY, *SDV)}, Code.OK),
    ("consent-advanced-normal-focused-psy-or-sdv", PRACTITIONER, "TREAT", {"labels": HIV}, LABEL),
    # Normal data for everybody; restricted data, too, by broken glass for the group.
    ("consent-advanced-normal-break-glass-restricted", COLLEAGUE, "TREAT", {}, Code.OK),
    ("consent-advanced-normal-break-glass-restricted", PRACTITIONER, "TREAT", {"labels": R}, LABEL),
    ("consent-advanced-normal-break-glass-restricted", PRACTITIONER, "BTG", {"labels": R}, Code.OK),
    ("consent-advanced-normal-break-glass-restricted", COLLEAGUE, "BTG", {"labels": R}, Code.E_BTG_FORBIDDEN),
]


@pytest.fixture(scope="module")
def chains() -> dict[str, tuple[Clinic, Granted]]:
    """A chain for each example, with the consent granted on it by whoever performed it."""
    found: dict[str, tuple[Clinic, Granted]] = {}
    for name in dict.fromkeys(row[0] for row in TABLE):
        policy = "break-glass-only" if name.startswith("dissent") else "deny"
        clinic = Clinic(policy)
        author = PATIENT
        if name.endswith("infant"):
            author = key("mother")
            clinic.register("mother", "patient", TAL, "Tal")
            mother = ProxyGrant(PID, id16("mother"), "parent", ("consent",), Millis(0), Millis(2**48), hash32("birth"))
            assert clinic.submit(BERG, mother, cosigners=[TAL]) == Code.OK
        found[name] = clinic, clinic.granted(name, policy, author)
    return found


@pytest.mark.parametrize(("name", "reader", "purpose", "asked", "decision"), TABLE)
def test_an_example_consent_is_decided_as_its_notes_describe(
    chains: dict[str, tuple[Clinic, Granted]],
    name: str,
    reader: SigningKey,
    purpose: str,
    asked: dict[str, Any],
    decision: Code,
) -> None:
    """F-05, F-15, F-30, F-54: every example of PCF that can be enforced, on a chain of its own."""
    clinic, made = chains[name]
    assert clinic.asks(made, reader, purpose, **asked) == decision


def test_the_table_is_about_every_example() -> None:
    """F-05: but for the one whose purpose nobody knows, which is refused (tests/unit/fhir/test_pcf.py)."""
    examples = {path.stem.removeprefix("Consent-ex-") for path in EXAMPLES.glob("*.json")}
    assert examples - {row[0] for row in TABLE} == {"consent-intermediate-purpose"}


def without(name: str) -> Names:
    handles = {key: value for key, value in NAMES.handles.items() if key != name}
    actors = {key: value for key, value in NAMES.actors.items() if key != name}
    return Names(actors, handles)


@pytest.mark.parametrize(
    ("example", "name", "element"),
    [
        ("consent-intermediate-data", "record/Observation/ex-weight", "Consent.provision.data[2].reference"),
        ("consent-intermediate-authoredby", "author/Practitioner/ex-practitioner", "Consent.provision.data[0].ref"),
        ("consent-advanced-normal-restricted", "label/HIV", "Consent.provision.securityLabel"),
        ("dissent-intermediate-break-glass", "Group/ex-privilegedUsers", "Consent.provision.provision[0].actor[0]"),
    ],
)
def test_what_has_no_name_on_the_chain_is_refused(example: str, name: str, element: str) -> None:
    """F-05: never narrowed to what happens to be known."""
    policy = "break-glass-only" if example.startswith("dissent") else "deny"
    with pytest.raises(Rejected, match="E_UNENFORCEABLE") as caught:
        grant_of_document(document(example), SUBJECT, without(name), policy)
    assert element in str(caught.value) and name in str(caught.value)


def test_a_consent_under_another_policy_than_the_chains_is_refused() -> None:
    """F-05: PCF's base policies are the chain's default policy, which one patient cannot choose."""
    with pytest.raises(Rejected, match=r"E_UNENFORCEABLE: Consent.policy\[0\].uri"):
        grant_of_document(document("dissent-intermediate-break-glass"), SUBJECT, NAMES, "deny")


def test_a_consent_of_another_patient_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Patient/ex-patient, not about Patient/other"):
        grant_of_document(document("consent-basic-treat"), replace_subject("Patient/other"), NAMES, "deny")


def replace_subject(reference: str) -> Patient:
    return Patient(reference, SUBJECT.pid, SUBJECT.custodian)


def test_the_chain_knows_the_document_byte_for_byte() -> None:
    """F-07: the card carries it; another document, or a card that says something else beside it, is not this one."""
    made = grant_of_document(document("consent-advanced-normal-focused-psy"), SUBJECT, NAMES, "deny")
    (card,) = made.cards
    assert card.document is not None and card.document.encode() == document("consent-advanced-normal-focused-psy")
    again = ConsentCard.load(card.dump())
    assert again == card
    again.check(made.operation)
    assert card.actor is not None
    stranger = ActorOpening(card.actor.salt, "person", id16("stranger"))
    for change in ({"document": card.document + " "}, {"actor": stranger}, {"valid_to_ms": 7}, {"purposes": ()}):
        with pytest.raises(Rejected, match="E_COMMIT_MISMATCH"):
            changed(card, **change).check(made.operation)
    anybody = grant_of_document(document("consent-basic-treat"), SUBJECT, NAMES, "deny").cards
    assert [one.actor for one in anybody] == [None]
    assert ConsentCard.load(anybody[0].dump()) == anybody[0]


def changed(card: ConsentCard, **changes: Any) -> ConsentCard:
    fields = {name: getattr(card, name) for name in ConsentCard.__dataclass_fields__}
    return ConsentCard(**(fields | changes))


def test_nothing_of_the_document_enters_the_chain() -> None:
    """F-29: the references become random handles and salted commitments."""
    from p2pledger.primitives.codec import encode

    made = grant_of_document(document("consent-intermediate-data"), SUBJECT, NAMES, "deny")
    data = encode(made.operation)
    for text in ("ex-weight", "Observation", "ex-patient", "example.org", "ex-practitioner"):
        assert text.encode() not in data


def test_a_names_file_is_read_as_it_was_written() -> None:
    assert Names.load(NAMES.dump()) == NAMES
    for text in ("", "[]", "{}", '{"format": "p2pledger/names/1"}'):
        with pytest.raises(InvalidInput, match="names file"):
            Names.load(text)
    broken = json.loads(NAMES.dump()) | {"actors": {"Group/x": "zz"}}
    with pytest.raises(InvalidInput, match="Group/x"):
        Names.load(json.dumps(broken))


BUNDLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [
        {"resource": {"resourceType": "Patient", "id": "p"}},
        {"resource": {"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/p"}}},
        {
            "resource": {
                "resourceType": "Observation",
                "id": "o",
                "subject": {"reference": "Patient/p"},
                "encounter": {"reference": "Encounter/e"},
            }
        },
    ],
}


def test_a_custodian_names_labels_classes_records_and_encounters() -> None:
    """F-05: from its keys and its manifests, so that a consent can name what is in the chart."""
    custodian = Custodian.of_box_seed(id16("Berg"), hash32("box"))
    patient = RecordPatient(PID, BoxKey(hash32("patient's box")).public)
    prepared = prepare_bundle(json.dumps(BUNDLE).encode(), Origin(custodian), patient)
    names = names_of(custodian, PID, [prepared.manifest])
    assert names.handles["record/Observation/o"] == record_handle(prepared.manifest.batch_id, 2)
    assert names.handles["encounter/Encounter/e"] == custodian.handle(PID, "encounter", "Encounter/e")
    assert names.handles["label/PSY"] == custodian.handle(PID, "label", "PSY")
    by_name = {name.name: name.handle for name in prepared.manifest.handles if name.kind == "class"}
    assert by_name and all(names.handles[f"class/{name}"] == found for name, found in by_name.items())
