"""Consents, cards and requests as people make them, judged by the real contracts."""

import json
from typing import get_args

import pytest
from msgspec.structs import replace

from p2pledger.chain.receipt import executed
from p2pledger.client import words
from p2pledger.client.health import (
    Compartment,
    ConsentCard,
    compartments_of,
    decision_of,
    events_of,
    grant_consent,
    issue_credential,
    register_identity,
    request_access,
    revoke_consent,
)
from p2pledger.client.ingest import Origin, prepare_bundle
from p2pledger.client.keyring import Wallet
from p2pledger.client.records import Custodian
from p2pledger.client.sealing import BoxKey
from p2pledger.health.commitments import RecordRef, scope_commit
from p2pledger.health.events import BasisKind, ConsentRevoked, IdentityRegistered
from p2pledger.health.operations import ActorOpening, Group, role_handle
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import Height, TransactionId
from tests.unit.execution.ledger import HOUR_MS, hash32, id16
from tests.unit.fhir.samples import bundle
from tests.unit.health.world import BERG, DAY_MS, FOREVER_MS, TAL, World

PATIENT = Wallet(hash32("a patient's wallet")).at(id16("Berg"))
DOCTOR = Wallet(hash32("a doctor's wallet")).at(id16("Tal"))
ALLERGY, NOTES = Compartment(id16("allergy"), "allergy"), Compartment(id16("notes"))


class Ward(World):
    """A world in which the owners of two wallets are registered, one of them as a physician."""

    def __init__(self):
        super().__init__()
        self.events(PATIENT.signing, register_identity(PATIENT, "patient"), cosigners=[BERG])
        self.events(DOCTOR.signing, register_identity(DOCTOR, "practitioner"), cosigners=[TAL])
        self.events(TAL, issue_credential(DOCTOR.did, "physician", 0, FOREVER_MS))

    def granted(self, **changes):
        """A card for the doctor: allergies, 24 hours from the block that takes it in."""
        terms = {"reader": DOCTOR.did, "compartments": [ALLERGY], "purposes": ["TREAT", "ETREAT"]}
        start = self.now_ms
        grant, card = grant_consent(PATIENT, valid_from_ms=start, valid_to_ms=start + DAY_MS, **{**terms, **changes})
        self.events(PATIENT.signing, grant)
        return card

    def answer(self, card=None, compartments=(ALLERGY.handle,), purpose="TREAT", reader=DOCTOR, cosigners=(), **more):
        request = request_access(
            reader,
            self.chain,
            pid=PATIENT.did,
            compartments=compartments,
            purpose=purpose,
            not_after_ms=self.now_ms + HOUR_MS,
            card=card,
            **more,
        )
        effects = self.run(self.signed(reader.signing, request, cosigners=cosigners))
        return Code(decision_of(effects.receipts[0]).decision)


@pytest.fixture
def ward():
    return Ward()


def test_a_registration_is_entered_with_the_organisations_signature(ward):
    """F-20, F-21: by its own key, cosigned; the commitments are never the same."""
    other = Wallet(hash32("another wallet")).at(id16("Berg"))
    (event,) = ward.events(other.signing, register_identity(other, "patient"), cosigners=[BERG])
    assert event == IdentityRegistered(other.did, "patient", id16("Berg"))
    one, two = (register_identity(other, "patient").attestation_commit for _ in range(2))
    assert one != two
    assert register_identity(other, "patient", hash32("kept")).attestation_commit == hash32("kept")


def test_the_card_lets_its_reader_in_for_24_hours(ward):
    """F-02, F-03: allowed one millisecond before the end, denied at the end."""
    card = ward.granted()
    assert ward.answer(card) == Code.OK
    ward.now_ms = card.valid_to_ms - 1
    assert ward.answer(card) == Code.OK
    ward.now_ms = card.valid_to_ms
    assert ward.answer(card) == Code.E_EXPIRED


def test_a_revoked_consent_lets_nobody_in(ward):
    """F-06: from its block on."""
    card = ward.granted()
    (event,) = ward.events(PATIENT.signing, revoke_consent(card.consent_id))
    assert event == ConsentRevoked(card.consent_id, PATIENT.did, "withdrawn")
    assert ward.answer(card) == Code.E_REVOKED


def test_the_card_covers_what_it_says_and_no_more(ward):
    """Purpose and compartments."""
    card = ward.granted()
    assert ward.answer(card, purpose="HRESCH") == Code.E_PURPOSE
    assert ward.answer(card, [ALLERGY.handle, NOTES.handle]) == Code.E_SCOPE
    assert ward.answer(ward.granted(compartments=[]), [ALLERGY.handle, NOTES.handle]) == Code.OK


def test_a_card_is_of_no_use_to_others(ward):
    """The opening means the doctor; another physician of the same hospital may copy the card, not become him."""
    card = ward.granted()
    thief = Wallet(hash32("a thief's wallet")).at(id16("Tal"))
    ward.events(thief.signing, register_identity(thief, "practitioner"), cosigners=[TAL])
    ward.events(TAL, issue_credential(thief.did, "physician", 0, FOREVER_MS))
    assert ward.answer(card) == Code.OK
    assert ward.answer(card, reader=thief) == Code.E_ACTOR
    relabelled = ConsentCard.load(card.dump().replace(DOCTOR.did.hex(), thief.did.hex()))
    assert ward.answer(relabelled, reader=thief) == Code.E_ACTOR


def test_roles_and_organisations_can_be_meant(ward):
    """Any physician; anybody of Tal; not any nurse."""
    assert ward.answer(ward.granted(reader=role_handle("physician"), kind="role")) == Code.OK
    assert ward.answer(ward.granted(reader=id16("Tal"), kind="organisation")) == Code.OK
    assert ward.answer(ward.granted(reader=role_handle("nurse"), kind="role")) == Code.E_ACTOR


def test_without_a_card_there_is_no_consent(ward):
    """The opening of the commitment is on the card."""
    ward.granted()
    assert ward.answer() == Code.E_NO_CONSENT


def test_the_number_of_uses_is_kept(ward):
    """max_uses."""
    card = ward.granted(max_uses=1)
    assert [ward.answer(card), ward.answer(card)] == [Code.OK, Code.E_USES]


def test_glass_is_broken_by_its_group_with_a_reason(ward):
    """F-15: not without a reason, and not where a consent in force says never."""
    ward.events(TAL, issue_credential(DOCTOR.did, "paramedic", 0, FOREVER_MS, groups=[Group(id16("er"), True)]))
    assert ward.answer(purpose="BTG") == Code.E_BTG_FORBIDDEN
    assert ward.answer(purpose="BTG", reason=b"unconscious") == Code.E_COSIGNERS
    assert ward.answer(purpose="BTG", reason=b"unconscious", cosigners=[TAL]) == Code.OK
    ward.granted(btg="never")
    assert ward.answer(purpose="BTG", reason=b"unconscious") == Code.E_BTG_FORBIDDEN


def test_the_patient_reads_its_own(ward):
    """F-12."""
    assert ward.answer(purpose="PATRQT", reader=PATIENT) == Code.OK


def test_the_chain_knows_the_card_by_its_commitment(ward):
    """F-07: the same card from its text; another one is refused."""
    grant, card = grant_consent(PATIENT, DOCTOR.did, [NOTES, ALLERGY], ["TREAT"], 1, 2)
    again = ConsentCard.load(card.dump())
    assert again == card
    again.check(grant)
    forged = ConsentCard.load(card.dump().replace('"allergy"', '"nothing"'))
    with pytest.raises(Rejected, match="E_COMMIT_MISMATCH"):
        forged.check(grant)
    assert card.dump().encode() not in encode(grant)
    assert DOCTOR.did not in encode(grant)  # F-29: the reader is a salted commitment until it asks


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(format="x"), "'x'"),
        (lambda d: d.update(more=1), "more"),
        (lambda d: d.pop("salt"), "salt"),
        (lambda d: d.update(pid="00"), "pid"),
        (lambda d: d.update(pid=d["pid"].upper() + "é"), "pid"),
        (lambda d: d.update(consent=7), "consent"),
        (lambda d: d.update(purposes="TREAT"), "purposes"),
        (lambda d: d.update(purposes=["FUN"]), "'FUN'"),
        (lambda d: d.update(purposes=[["TREAT"]]), "TREAT"),
        (lambda d: d.update(compartments=[7]), "compartment 7"),
        (lambda d: d["compartments"][0].update(name=7), "compartment"),
        (lambda d: d["actor"].update(kind="king"), "'king'"),
        (lambda d: d.update(actor=None), "actor"),
        (lambda d: d.update(valid_to_ms=True), "valid_to_ms"),
        (lambda d: d.update(valid_from_ms=-1), "valid_from_ms"),
    ],
)
def test_a_broken_card_is_refused_by_the_field(change, named):
    """InvalidInput names what is wrong."""
    _, card = grant_consent(PATIENT, DOCTOR.did, [ALLERGY], ["TREAT"], 1, 2)
    document = json.loads(card.dump())
    change(document)
    with pytest.raises(InvalidInput, match=named):
        ConsentCard.load(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "null", " " * 300_000])
def test_what_is_no_card_is_refused(text):
    """Whatever it is instead."""
    with pytest.raises(InvalidInput, match="consent card"):
        ConsentCard.load(text)


def test_a_consent_that_never_holds_is_not_made():
    """Nor one without a purpose, or with one twice."""
    for purposes, start, end in ((["TREAT"], 2, 2), ([], 1, 2), (["TREAT", "TREAT"], 1, 2)):
        with pytest.raises(InvalidInput):
            grant_consent(PATIENT, DOCTOR.did, [ALLERGY], purposes, start, end)


def test_a_request_with_another_patients_card_is_not_made(ward):
    """Nor one for nothing."""
    card = replaced(ward.granted(), pid=id16("somebody"))
    with pytest.raises(InvalidInput, match="is about pid"):
        ward.answer(card)
    with pytest.raises(InvalidInput, match="at least one"):
        ward.answer(None, [])


def replaced(card, **changes):
    parts = {**json.loads(card.dump()), **{name: value.hex() for name, value in changes.items()}}
    return ConsentCard.load(json.dumps(parts))


def test_the_scope_is_a_commitment_to_the_records(ward):
    """Whatever their order; the salt hides them; the reader's ephemeral key is the one that was given."""
    refs = [RecordRef(id16("b"), 2), RecordRef(id16("a"), 7)]
    assert scope_commit(bytes(32), refs) == scope_commit(bytes(32), refs[::-1]) != scope_commit(hash32("salt"), refs)
    key = BoxKey(hash32("ephemeral"))
    request = request_access(
        DOCTOR,
        ward.chain,
        pid=PATIENT.did,
        compartments=[ALLERGY.handle],
        purpose="TREAT",
        not_after_ms=1,
        records=refs,
        scope_salt=bytes(32),
        ephemeral=key,
    )
    assert (request.n_records, request.scope_commit) == (2, scope_commit(bytes(32), refs))
    assert request.reader_eph_x25519 == key.public


def test_somebody_elses_key_is_refused(ward):
    """Health rule 3.5.1: with a true proof of possession the chain decides; for a swapped key it refuses."""
    card = ward.granted()

    def receipt(swap):
        request = request_access(
            DOCTOR,
            ward.chain,
            pid=PATIENT.did,
            compartments=[ALLERGY.handle],
            purpose="TREAT",
            not_after_ms=ward.now_ms,
            card=card,
        )
        sent = replace(request, reader_eph_x25519=hash32("thief")) if swap else request
        return ward.run(ward.signed(DOCTOR.signing, sent)).receipts[0].receipt.code

    assert receipt(swap=False) == Code.OK
    assert receipt(swap=True) == Code.E_POP


def test_only_an_access_has_a_decision(ward):
    """A transaction without one is not mistaken for it."""
    done = executed(
        Height(1), 0, TransactionId(bytes(32)), Code.OK, [encode(ConsentRevoked(bytes(16), bytes(16), "other"))]
    )
    assert isinstance(events_of(done)[0], ConsentRevoked)
    for other in (done, executed(Height(1), 0, TransactionId(bytes(32)), Code.E_DUP, [])):
        with pytest.raises(InvalidInput, match="decided no access"):
            decision_of(other)


def test_compartments_are_found_by_class():
    """Sensitive ones too; a class that is not there is named."""
    custodian = Custodian.of_box_seed(id16("Berg"), hash32("box"))
    manifest = prepare_bundle(bundle("Fidel_Bins"), Origin(custodian), PATIENT.patient).manifest
    (allergy,) = compartments_of(manifest, "allergy")
    assert (allergy.name, (allergy.handle,)) == ("allergy", manifest.compartments("allergy"))
    assert allergy in compartments_of(manifest)
    with pytest.raises(InvalidInput, match="documents"):
        compartments_of(manifest, "documents")


def test_answers_are_said_in_words():
    """Every basis, every reason of a denial, every kind of reader; a code of the future as its number."""
    assert words.decision(Code.OK) == "ALLOWED"
    assert words.decision(Code.E_EXPIRED) == "DENIED(E_EXPIRED): the consent has expired"
    assert words.decision(999) == "DENIED(999)"
    assert words.purpose("TREAT") == "treatment (TREAT)" and words.purpose("HDM") == "HDM"
    assert all(words.basis(kind, None) for kind in get_args(BasisKind))
    assert words.basis("consent", bytes(16)) == f"consent {'00' * 16}"
    cards = World().founding.genesis.cards
    said = [
        words.actor(ActorOpening(bytes(32), kind, handle), cards)
        for kind, handle in (
            ("organisation", id16("Tal")),
            ("organisation", bytes(16)),
            ("role", role_handle("nurse")),
            ("group", bytes(16)),
            ("person", bytes(16)),
        )
    ]
    assert said == [
        "anybody of Tal",
        f"anybody of {'00' * 16}",
        "any nurse",
        f"any member of group {'00' * 16}",
        f"person {'00' * 16}",
    ]
