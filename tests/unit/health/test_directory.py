"""Organisations, identities, keys, credentials, batches and consents: who may enter what."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.receipt import ReceiptProof, effects_root_of
from p2pledger.chain.transaction import Envelope, assemble, check_signatures, parse
from p2pledger.execution import keys as ledger_keys
from p2pledger.execution.execute import execute_block
from p2pledger.health import consent, directory, queries, records
from p2pledger.health import keys as health_keys
from p2pledger.health.operations import (
    CompartmentCount,
    CredentialIssue,
    CredentialRevoke,
    IdentityResume,
    IdentitySuspend,
    KeyRotate,
    OrganisationRegister,
    PolicyException,
)
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import codes, hash32, id16, key
from tests.unit.health.world import (
    ALLERGY,
    BERG,
    DOCTOR,
    PATIENT,
    PID,
    SEE,
    TAL,
    WALD,
    World,
    account,
    batch,
    registration,
)


@pytest.fixture
def world() -> World:
    return World()


def test_founders_have_accounts_from_the_first_block_on(world: World) -> None:
    """Numbers from 1 in the order of the cards, names and kinds as they signed them."""
    cards = world.founding.genesis.cards
    assert [ledger_keys.account_number(card.account, world.state) for card in cards] == [1, 2, 3, 4]
    assert [found.name for found in queries.organisations(world.state)] == [card.name for card in cards]
    assert queries.organisation_name(id16("Berg"), world.state) == "Berg"
    assert queries.organisation_name(id16("Meer"), world.state) is None


def test_an_identity_enters_with_its_own_key_and_its_organisation(world: World) -> None:
    """F-20: one transaction registers key and account; a taken did or key is E_DUP, a missing sponsor opens nothing."""
    new = registration("new", "practitioner", "Tal")
    assert world.submit(key("new"), new) == Code.E_UNKNOWN_SENDER
    assert world.submit(key("new"), new, cosigners=[BERG]) == Code.E_UNKNOWN_SENDER
    assert world.submit(key("other"), new, cosigners=[TAL]) == Code.E_UNKNOWN_SENDER
    assert ledger_keys.account_number(account("new"), world.state) is None
    assert world.submit(key("new"), new, cosigners=[TAL]) == Code.OK
    assert ledger_keys.account_number(account("new"), world.state) == 11, (
        "after four organisations, their nodes and two people"
    )
    assert queries.identity_of(account("new"), world.state) == ("practitioner", id16("new"))

    second = replace(new, did=id16("second"))
    assert world.submit(key("new"), second, cosigners=[TAL]) == Code.E_DUP, "the key is taken"
    taken = replace(registration("thief", "patient", "Tal"), did=PID)
    assert world.submit(key("thief"), taken, cosigners=[TAL]) == Code.E_DUP, "the did is taken"
    assert world.submit(DOCTOR, registration("puppet", "patient", "Tal"), cosigners=[TAL]) == Code.E_ROLE
    organisation = replace(second, key=AccountKey(BERG.public))
    assert world.submit(BERG, organisation, cosigners=[TAL]) == Code.E_DUP


def test_registering_and_consenting_succeed_or_fail_together(world: World) -> None:
    """A wallet's first transaction may register and grant at once; a bad grant registers nobody."""
    new = registration("new", "patient", "Berg")
    good = world.consent(consent_id=id16("first"), pid=id16("new"))
    assert world.submit(key("new"), new, replace(good, doc_commit=bytes(32)), cosigners=[BERG]) == (
        Code.E_CONSENT_INCOMPLETE
    )
    assert queries.pid_owner(id16("new"), world.state) is None
    assert ledger_keys.account_number(account("new"), world.state) is None
    assert world.submit(key("new"), new, good, cosigners=[BERG]) == Code.OK
    assert queries.pid_owner(id16("new"), world.state) == key("new").public


def test_signatures_bind_chain_nonce_and_every_byte(world: World) -> None:
    """F-11: with any one bit of the body flipped the signature fails; another chain is another body."""
    signed = world.signed(PATIENT, world.consent())
    envelope = decode(Envelope, signed, 65_536)
    refused = 0
    for position in range(0, len(envelope.body), 7):
        flipped = bytearray(envelope.body)
        flipped[position] ^= 1
        forged = assemble(bytes(flipped), envelope.operations, envelope.signatures)
        with pytest.raises(Rejected):
            check_signatures(parse(forged))
        refused += 1
    assert refused > 10
    check_signatures(parse(signed))
    assert codes(world.run(signed, signed)) == [Code.OK], "a reused nonce runs once"


def test_rotating_a_key(world: World) -> None:
    """The new key signs too; the old one is dead from this block on and never anybody's again."""
    rotate = KeyRotate(PID, account("patient 2"), hash32("box 2"))
    new = key("patient 2")
    assert world.submit(PATIENT, rotate) == Code.E_COSIGNERS
    assert world.submit(DOCTOR, rotate, cosigners=[new]) == Code.E_NOT_OWNER
    assert world.submit(PATIENT, replace(rotate, did=id16("none")), cosigners=[new]) == Code.E_NOT_FOUND
    assert world.submit(PATIENT, replace(rotate, key=AccountKey(DOCTOR.public)), cosigners=[DOCTOR]) == Code.E_DUP
    assert world.submit(PATIENT, rotate, cosigners=[new]) == Code.OK
    assert world.submit(PATIENT, world.consent()) == Code.E_NOT_OWNER
    assert world.submit(new, world.consent()) == Code.OK
    assert queries.identity_of(AccountKey(PATIENT.public), world.state) == ("stranger", None)
    assert not world.application.may_send(AccountKey(PATIENT.public), world.state)
    back = replace(rotate, key=AccountKey(PATIENT.public))
    assert world.submit(new, back, cosigners=[PATIENT]) == Code.E_DUP


def test_employers_suspend_their_own_people_only(world: World) -> None:
    """A custodian is no employer of its patients."""
    doctor = id16("doctor")
    assert world.submit(BERG, IdentitySuspend(doctor)) == Code.E_ROLE
    assert world.submit(DOCTOR, IdentitySuspend(doctor)) == Code.E_ROLE
    assert world.submit(BERG, IdentitySuspend(PID)) == Code.E_ROLE
    assert world.submit(TAL, IdentitySuspend(id16("nobody"))) == Code.E_NOT_FOUND
    assert world.submit(TAL, IdentityResume(doctor)) == Code.E_STATE
    assert world.application.may_send(AccountKey(DOCTOR.public), world.state)
    assert world.submit(TAL, IdentitySuspend(doctor)) == Code.OK
    assert world.submit(TAL, IdentitySuspend(doctor)) == Code.E_STATE
    assert not world.application.may_send(AccountKey(DOCTOR.public), world.state)
    rotate = KeyRotate(doctor, account("doctor 2"), hash32("box"))
    assert world.submit(DOCTOR, rotate, cosigners=[key("doctor 2")]) == Code.E_SUSPENDED
    assert world.submit(TAL, IdentityResume(doctor)) == Code.OK


def test_organisations_issue_credentials_to_their_own_people(world: World) -> None:
    """F-21: role, licence and period, by the employer; again only after the first has ended."""
    issue = CredentialIssue(id16("doctor"), "nurse", hash32("licence"), 0, world.now_ms + 10_000)
    assert world.submit(BERG, issue) == Code.E_ROLE
    assert world.submit(BERG, replace(issue, subject=PID)) == Code.E_ROLE
    assert world.submit(TAL, replace(issue, subject=id16("nobody"))) == Code.E_NOT_FOUND
    assert world.submit(TAL, replace(issue, valid_to_ms=0)) == Code.E_CREDENTIAL
    assert world.submit(TAL, issue) == Code.OK
    assert world.submit(TAL, issue) == Code.E_DUP
    assert world.submit(BERG, CredentialRevoke(id16("doctor"), "nurse")) == Code.E_ROLE
    assert world.submit(TAL, CredentialRevoke(id16("doctor"), "clerk")) == Code.E_NOT_FOUND
    assert world.submit(TAL, CredentialRevoke(id16("doctor"), "nurse")) == Code.OK
    assert world.submit(TAL, CredentialRevoke(id16("doctor"), "nurse")) == Code.E_STATE
    assert world.submit(TAL, issue) == Code.OK
    roles = {held.role for held in directory.credentials_of(id16("doctor"), world.state)}
    assert roles == {"nurse", "physician"}


def test_a_majority_admits_an_organisation(world: World) -> None:
    """Half of the members are no majority, and the new member signs for its own key."""
    meer = key("Meer")
    admit = OrganisationRegister(id16("Meer"), "Meer", "pharmacy", account("Meer"), hash32("box"))
    assert world.submit(BERG, admit, cosigners=[TAL, meer]) == Code.E_ROLE
    assert world.submit(BERG, admit, cosigners=[TAL, SEE]) == Code.E_ROLE
    assert world.submit(DOCTOR, admit, cosigners=[BERG, TAL, SEE, meer]) == Code.E_ROLE
    for taken in ({"name": "Berg"}, {"organisation": id16("Berg")}):
        assert world.submit(BERG, replace(admit, **taken), cosigners=[TAL, SEE, meer]) == Code.E_DUP  # type: ignore[arg-type]
    assert world.submit(BERG, admit, cosigners=[TAL, SEE, meer]) == Code.OK
    assert queries.role_of(account("Meer"), world.state) == "organisation"
    world.register("pharmacist", "practitioner", meer, "Meer")
    again = replace(admit, organisation=id16("See 2"), name="See 2")
    assert world.submit(BERG, again, cosigners=[TAL, SEE, meer]) == Code.E_DUP, "the key is taken"


def test_a_custodian_records_batches_of_its_own_patients(world: World) -> None:
    """RecordBatch: by the custodian's account, once, with counts and months that can be."""
    for wrong, sender, code in (
        ({}, TAL, Code.E_ROLE),
        ({"custodian": id16("Tal")}, TAL, Code.E_ROLE),
        ({"custodian": id16("Tal")}, BERG, Code.E_ROLE),
        ({}, DOCTOR, Code.E_ROLE),
        ({"pid": id16("nobody")}, BERG, Code.E_NOT_FOUND),
        ({"pid": id16("doctor")}, BERG, Code.E_NOT_FOUND),
        ({"author_org": id16("nobody")}, BERG, Code.E_NOT_FOUND),
        ({"months": (202611, 201901)}, BERG, Code.E_FORMAT),
        ({"compartments": (CompartmentCount(ALLERGY, 8),)}, BERG, Code.E_FORMAT),
        ({"compartments": (CompartmentCount(ALLERGY, 1), CompartmentCount(ALLERGY, 2))}, BERG, Code.E_FORMAT),
    ):
        assert world.submit(sender, batch(**wrong)) == code, wrong
    assert world.submit(BERG, batch()) == Code.OK
    assert world.submit(BERG, batch()) == Code.E_DUP
    held = records.batch_of(batch().batch_id, world.state)
    assert held is not None
    assert held.terms == batch()


def test_only_the_patient_grants(world: World) -> None:
    """No organisation grants on a patient's behalf; a pid that is none has no consents."""
    assert world.submit(BERG, world.consent()) == Code.E_NOT_OWNER
    assert world.submit(DOCTOR, world.consent()) == Code.E_NOT_OWNER
    assert world.submit(PATIENT, world.consent(pid=id16("nobody"))) == Code.E_NOT_FOUND
    assert world.submit(DOCTOR, world.consent(pid=id16("doctor"))) == Code.E_NOT_FOUND
    assert world.grant() == Code.OK
    assert world.grant() == Code.E_DUP
    assert len(queries.consents_of(PID, world.state)) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"doc_commit": bytes(32)}, Code.E_CONSENT_INCOMPLETE),
        ({"evidence_commit": bytes(32)}, Code.E_CONSENT_INCOMPLETE),
        ({"valid_from_ms": 5, "valid_to_ms": 5}, Code.E_CONSENT_INCOMPLETE),
        ({"purposes": ()}, Code.E_CONSENT_INCOMPLETE),
        ({"months": (202602, 202601)}, Code.E_CONSENT_INCOMPLETE),
        ({"exceptions": (PolicyException(months=(202602, 202601)),)}, Code.E_CONSENT_INCOMPLETE),
        ({"base": "deny", "purposes": (), "exceptions": (PolicyException(),)}, Code.E_CONSENT_INCOMPLETE),
        ({"purposes": ("TREAT", "BTG")}, Code.E_BTG_FORBIDDEN),
        ({"exceptions": (PolicyException(purposes=("BTG",)),)}, Code.E_BTG_FORBIDDEN),
    ],
)
def test_what_cannot_be_enforced_is_refused(world: World, changes: dict[str, Any], code: Code) -> None:
    """F-07: an incomplete consent is no consent, and nothing of it is dropped silently."""
    assert world.grant(**changes) == code
    assert queries.consents_of(PID, world.state) == ()


def test_a_patient_has_a_bounded_number_of_consents(world: World) -> None:
    """Whoever is judged by all of them must not wait for ever."""
    world.state.apply(
        {health_keys.consent_count(PID): encode(consent.Holdings(limits.CONSENTS_PER_PATIENT_MAX - 1, 0))}
    )
    assert world.grant() == Code.OK
    assert world.grant(consent_id=id16("one more")) == Code.E_QUOTA


def test_a_patient_s_consents_have_a_bounded_size(world: World) -> None:
    """So that no patient makes the judgement of its requests expensive for everybody."""
    size = len(encode(consent.Consent(world.consent(), 100)))
    room = limits.CONSENT_BYTES_PER_PATIENT_MAX - size
    world.state.apply({health_keys.consent_count(PID): encode(consent.Holdings(1, room + 1))})
    assert world.grant() == Code.E_QUOTA
    world.state.apply({health_keys.consent_count(PID): encode(consent.Holdings(1, room))})
    assert world.grant() == Code.OK


def test_who_may_see_a_patient_s_log(world: World) -> None:
    """F-08: the patient its own, members all, practitioners and neighbours none."""
    world.register("neighbour", "patient", BERG, "Berg")
    asked = [PATIENT, WALD, DOCTOR, key("neighbour"), key("stranger")]
    answers = [queries.may_see_patient(AccountKey(asker.public), PID, world.state) for asker in asked]
    assert answers == [True, True, False, False, False]
    assert queries.custodian_of(PID, world.state) == id16("Berg")
    roles = [queries.role_of(AccountKey(asker.public), world.state) for asker in asked]
    assert roles == ["patient", "organisation", "practitioner", "patient", "stranger"]


def test_nodes_never_disagree_at_equal_height(world: World) -> None:
    """F-40: the same block on the same state gives the same root however the state was put together, and every
    receipt is provable against it."""
    transactions = [world.signed(PATIENT, world.consent()), world.signed(DOCTOR, world.request())]
    body = [world.batch(*transactions), world.batch(world.signed(BERG, batch()), origin="other")]
    twin = World()
    reversed_state = dict(reversed(list(twin.state.scan(b""))))
    for name, _ in list(twin.state.scan(b"")):
        twin.state.apply({name: None})
    twin.state.apply(reversed_state)
    effects = [
        execute_block(ledger.application, world.chain, world.header(), body, ledger.state)
        for ledger in (world, world, twin)
    ]
    assert effects[0] == effects[1] == effects[2]
    assert codes(effects[0]) == [Code.OK] * 3
    for index, done in enumerate(effects[0].receipts):
        proof = ReceiptProof(len(effects[0].leaves), merkle.inclusion_path(effects[0].leaves, index))
        assert effects_root_of(done.receipt, proof) == effects[0].root


def test_the_layers_keep_to_their_prefixes() -> None:
    """No two kinds of state share a first byte, and the application's begin where the ledger's end."""
    ledger = [ledger_keys.ACCOUNT, ledger_keys.NONCES, ledger_keys.ORIGIN, ledger_keys.NEXT_ACCOUNT]
    names = [name for name in vars(health_keys) if name.isupper()]
    health = [getattr(health_keys, name) for name in names]
    assert len({*ledger, *health}) == len(ledger) + len(health) >= 4 + 23
    assert all(len(prefix) == 1 for prefix in ledger + health)
    assert max(ledger)[0] < ledger_keys.APPLICATION_FIRST <= min(health)[0]
