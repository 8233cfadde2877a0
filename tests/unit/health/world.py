"""Two hospitals, a research institute and an agency, a physician, a patient: what most health tests begin with."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import access, log
from p2pledger.health.application import HealthApplication
from p2pledger.health.events import AccessDecided, AnyEvent, decode_event
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    CompartmentCount,
    ConsentGrant,
    CredentialIssue,
    Group,
    IdentityRegister,
    RecordBatch,
    actor_commit,
    sign_pop,
)
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import HOUR_MS, Ledger, founding_of, hash32, id16, key

BERG, TAL, SEE, WALD = (key(name) for name in ("Berg", "Tal", "See", "Wald"))
DOCTOR, NURSE, PATIENT = key("doctor"), key("nurse"), key("patient")
ALLERGY, NOTES = id16("allergy"), id16("notes")
PID = id16("patient")
DAY_MS = 24 * HOUR_MS
FOREVER_MS = 2**50


class World(Ledger):
    """A running chain with the usual people; the physician works at Tal, the patient's custodian is Berg."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        super().__init__(HealthApplication(), founding_of(["Berg", "Tal", "See", "Wald"], parameters))
        self.register("patient", "patient", BERG, "Berg")
        self.register("doctor", "practitioner", TAL, "Tal")
        self.credential("doctor", TAL)

    def register(self, name: str, kind: IdentityKind, sponsor: SigningKey, organisation: str) -> None:
        operation = registration(name, kind, organisation)
        assert self.submit(key(name), operation, cosigners=[sponsor]) == Code.OK

    def credential(self, name: str, employer: SigningKey, **changes: Any) -> Code:
        issue = CredentialIssue(id16(name), "physician", hash32("licence"), 0, FOREVER_MS)
        return self.submit(employer, replace(issue, **changes))

    def grant(self, **changes: Any) -> Code:
        return self.submit(PATIENT, self.consent(**changes))

    def consent(self, **changes: Any) -> ConsentGrant:
        """F-02: the doctor may treat by the allergies, for 24 hours from now."""
        consent = ConsentGrant(
            consent_id=id16("consent"),
            pid=PID,
            capacity="patient",
            base="permit",
            actor_commits=(actor_commit(opening("person", id16("doctor"))),),
            purposes=("TREAT", "ETREAT"),
            compartments=(ALLERGY,),
            months=None,
            valid_from_ms=self.now_ms,
            valid_to_ms=self.now_ms + DAY_MS,
            max_uses=0,
            exceptions=(),
            btg="policy",
            doc_commit=hash32("document"),
            evidence_commit=hash32("evidence"),
        )
        return replace(consent, **changes)

    def request(self, name: str = "access", reader: SigningKey = DOCTOR, **changes: Any) -> AccessRequest:
        """The doctor asks for the allergies, by the consent, to treat."""
        asked = AccessRequest(
            access_id=id16(name),
            organisation=id16("Tal"),
            pid=PID,
            basis=id16("consent"),
            purpose="TREAT",
            actor_opening=opening("person", id16("doctor")),
            scope_commit=hash32("scope"),
            n_records=7,
            compartments=(ALLERGY,),
            labels=(),
            months=None,
            reader_eph_x25519=hash32("ephemeral"),
            pop=bytes(64),
            not_after_ms=FOREVER_MS,
        )
        asked = replace(asked, **changes)
        pop = sign_pop(reader, self.chain, asked.reader_eph_x25519, asked.access_id, asked.scope_commit)
        return asked if "pop" in changes else replace(asked, pop=pop)

    def ask(
        self, name: str = "access", reader: SigningKey = DOCTOR, cosigners: Sequence[SigningKey] = (), **changes: Any
    ) -> Code:
        """The decision about a request that the contract accepts."""
        decided = self.decided(self.request(name, reader, **changes), reader, cosigners)
        return Code(decided.decision)

    def decided(
        self, request: AccessRequest, reader: SigningKey = DOCTOR, cosigners: Sequence[SigningKey] = ()
    ) -> AccessDecided:
        event = self.events(reader, request, cosigners=cosigners)[0]
        assert isinstance(event, AccessDecided)
        kept = access.access_of(request.access_id, self.state)
        assert kept is not None and kept.decision == event.decision
        return event

    def events(self, sender: SigningKey, *operations: Record, cosigners: Sequence[SigningKey] = ()) -> list[AnyEvent]:
        effects = self.run(self.signed(sender, *operations, cosigners=cosigners))
        assert not effects.alarms, effects.alarms
        assert effects.receipts[0].receipt.code == Code.OK, Code(effects.receipts[0].receipt.code)
        return [decode_event(data) for data in effects.receipts[0].events]

    def log(self) -> list[log.LogLine]:
        """The patient's whole log, checked against its head."""
        return log.check_lines(PID, log.lines(PID, self.state), log.head(PID, self.state))


def account(name: str) -> AccountKey:
    return AccountKey(key(name).public)


def opening(kind: Any, handle: bytes) -> ActorOpening:
    return ActorOpening(hash32("salt"), kind, handle)


def registration(name: str, kind: IdentityKind, organisation: str) -> IdentityRegister:
    return IdentityRegister(
        id16(name), kind, AccountKey(key(name).public), hash32(f"box of {name}"), id16(organisation), hash32("proof")
    )


def batch(**changes: Any) -> RecordBatch:
    """Berg commits to seven allergies of the patient."""
    made = RecordBatch(
        batch_id=id16("batch"),
        pid=PID,
        custodian=id16("Berg"),
        author_org=id16("Tal"),
        n=7,
        root=hash32("root"),
        compartments=(CompartmentCount(ALLERGY, 7),),
        classes=(),
        labels=(),
        months=(201901, 202611),
        schema=1,
    )
    return replace(made, **changes)


EMERGENCY = Group(id16("emergency room"), True)
