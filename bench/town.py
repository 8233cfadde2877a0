"""The people of a benchmark, and what they sign: all transactions are made and signed before the measured part.

A lane is one organisation with its practitioners and patients: their transactions go through its own session to its
own node. Everything drawn depends on the seed alone; keys of the founding members are those of their homes.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.arithmetic import Zipf
from bench.scenario import Workload
from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import sign
from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    CompartmentCount,
    ConsentGrant,
    ConsentRevoke,
    CredentialIssue,
    OrganisationRegister,
    RecordBatch,
    actor_commit,
    sign_pop,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import AccountKey, Millis, Nonce

READERS_PER_LANE = 4
DAY_MS = 24 * 3600 * 1000
KINDS = ("record", "access", "consent", "revoke", "identity")
HEALTH_MIX: tuple[tuple[str, int], ...] = (
    ("access", 60),
    ("record", 20),
    ("consent", 10),
    ("identity", 5),
    ("revoke", 5),
)
"""In hundredths. Directory and revocations are 10 together."""
_COMPARTMENT_BYTES = 19
"""A handle of 16 bytes with its head, a count and the head of the pair."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A signed transaction, and what the client must know to send it and to ask for its receipt."""

    kind: str
    lane: int
    account: bytes
    nonce: int
    signatures: int
    operations: int
    data: bytes


@dataclass(slots=True)
class Sender:
    """A key with an account, and the nonce it used last."""

    key: SigningKey
    nonce: int = 0

    def next_nonce(self) -> Nonce:
        self.nonce += 1
        return Nonce(self.nonce)


@dataclass(slots=True)
class Lane:
    """An organisation and its practitioners, who read."""

    organisation: bytes
    sender: Sender
    readers: list[tuple[Persona, Sender]] = field(default_factory=list)


@dataclass(slots=True)
class Patient:
    """A patient with the consent that its readers rest on."""

    persona: Persona
    sender: Sender
    lane: int
    readers: int
    """The lane whose practitioners may read."""
    basis: ConsentGrant
    opening: ActorOpening
    consents: int = 1


class Town:
    """Who there is on one chain. `entering` puts them there, `plan` draws what they do."""

    def __init__(
        self,
        founding: Founding,
        founders: Sequence[OrganisationWallet],
        lanes: int,
        patients: int,
        seed: int,
        now_ms: int,
    ) -> None:
        self.founding = founding
        self.rng = random.Random(seed)
        self._now_ms = now_ms
        self.lanes = [Lane(founder.organisation, Sender(founder.account)) for founder in founders[:lanes]]
        self._founders = len(self.lanes)
        while len(self.lanes) < lanes:
            self.lanes.append(Lane(self._bytes(16), Sender(SigningKey(self._bytes(32)))))
        for lane in self.lanes:
            for _ in range(READERS_PER_LANE):
                persona = Wallet(self._bytes(32)).at(lane.organisation)
                lane.readers.append((persona, Sender(persona.signing)))
        self.patients = [self._patient(number) for number in range(patients)]
        self._revocable: list[tuple[Patient, bytes]] = []
        senders = [lane.sender for lane in self.lanes]
        senders += [sender for lane in self.lanes for _, sender in lane.readers]
        senders += [patient.sender for patient in self.patients]
        self._senders = {sender.key.public: sender for sender in senders}

    def _bytes(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def _patient(self, number: int) -> Patient:
        lane = number % len(self.lanes)
        readers = (lane + 1) % len(self.lanes)
        persona = Wallet(self._bytes(32)).at(self.lanes[lane].organisation)
        opening = ActorOpening(self._bytes(32), "organisation", self.lanes[readers].organisation)
        return Patient(persona, Sender(persona.signing), lane, readers, self._grant(persona, opening), opening)

    def _grant(self, persona: Persona, opening: ActorOpening) -> ConsentGrant:
        return ConsentGrant(
            consent_id=self._bytes(16),
            pid=persona.did,
            capacity="patient",
            base="permit",
            actor_commits=(actor_commit(opening),),
            purposes=("TREAT",),
            compartments=None,
            months=None,
            valid_from_ms=Millis(self._now_ms - 3_600_000),
            valid_to_ms=Millis(self._now_ms + 30 * DAY_MS),
            max_uses=0,
            exceptions=(),
            btg="policy",
            doc_commit=self._bytes(32),
            evidence_commit=self._bytes(32),
        )

    # Signing

    def _signed(
        self, kind: str, lane: int, sender: Sender, operations: Sequence[Record], cosigners: Sequence[SigningKey] = ()
    ) -> Planned:
        nonce = sender.next_nonce()
        expires = Millis(self._now_ms + DAY_MS - 3_600_000)
        data = sign(self.founding.chain, sender.key, nonce, expires, operations, cosigners)
        return Planned(kind, lane, sender.key.public, nonce, 1 + len(cosigners), len(operations), data)

    # Entering

    def entering(self) -> Iterator[Planned]:
        """What puts everybody onto a new chain: organisations, identities, then credentials and the basic consents."""
        yield from self._organisations_signed()
        yield from self._identities_signed()
        yield from self._entitlements_signed()

    def _organisations_signed(self) -> Iterator[Planned]:
        """Each new one by a majority of all before it."""
        for number in range(self._founders, len(self.lanes)):
            lane = self.lanes[number]
            box = Wallet(self._bytes(32)).at(lane.organisation).box.public
            account = AccountKey(lane.sender.key.public)
            name = f"Bench hospital {number + 1}"
            operation = OrganisationRegister(lane.organisation, name, "hospital", account, box)
            first, *others = self.lanes[: max(1, number // 2 + 1)]
            cosigners = [lane.sender.key, *(other.sender.key for other in others)]
            yield self._signed("organisation", 0, first.sender, [operation], cosigners)

    def _identities_signed(self) -> Iterator[Planned]:
        for number, lane in enumerate(self.lanes):
            for persona, sender in lane.readers:
                yield self._registration(number, persona, "practitioner", sender)
        for patient in self.patients:
            yield self._registration(patient.lane, patient.persona, "patient", patient.sender)

    def _registration(self, lane: int, persona: Persona, kind: str, sender: Sender) -> Planned:
        operation = persona.registration(kind, self._bytes(32))  # type: ignore[arg-type]
        return self._signed("identity", lane, sender, [operation], [self.lanes[lane].sender.key])

    def _entitlements_signed(self) -> Iterator[Planned]:
        valid = Millis(self._now_ms - 3_600_000), Millis(self._now_ms + 30 * DAY_MS)
        for number, lane in enumerate(self.lanes):
            for persona, _ in lane.readers:
                issue = CredentialIssue(persona.did, "physician", self._bytes(32), *valid)
                yield self._signed("credential", number, lane.sender, [issue])
        for patient in self.patients:
            yield self._signed("consent", patient.lane, patient.sender, [patient.basis])

    # What they do

    def plan(
        self, workload: Workload, count: int, zipf: float, operations: int = 1, payload_bytes: int = 0
    ) -> Iterator[Planned]:
        """`count` transactions in the order they are to be sent. For `health`, call `stock` before.

        Raises InvalidInput where no patient has room for another consent.
        """
        law = Zipf(len(self.patients), zipf)
        kinds = [kind for kind, _ in HEALTH_MIX]
        weights = [weight for _, weight in HEALTH_MIX]
        for _ in range(count):
            kind = "record" if workload == "minimal" else self.rng.choices(kinds, weights)[0]
            patient = self.patients[law.draw(self.rng)]
            match kind:
                case "record":
                    records = [self._record(patient, payload_bytes) for _ in range(operations)]
                    yield self._signed(kind, patient.lane, self.lanes[patient.lane].sender, records)
                case "access":
                    yield self._access(patient)
                case "consent":
                    yield self._consent(patient)
                case "revoke" if self._revocable:
                    owner, consent = self._revocable.pop()
                    yield self._signed(kind, owner.lane, owner.sender, [ConsentRevoke(consent, "withdrawn")])
                case _:  # also where all that could be revoked is revoked
                    lane = patient.lane
                    persona = Wallet(self._bytes(32)).at(self.lanes[lane].organisation)
                    yield self._registration(lane, persona, "practitioner", Sender(persona.signing))

    def stock(self, workload: Workload, count: int, zipf: float) -> list[Planned]:
        """Consents that the next `count` transactions of `workload` will revoke; to be on the chain before them."""
        if workload != "health":
            return []
        law = Zipf(len(self.patients), zipf)
        wanted = max(0, int(count * 0.06) + 5 - len(self._revocable))
        granted = []
        for _ in range(wanted):
            patient = self._with_room(self.patients[law.draw(self.rng)])
            grant = self._grant(patient.persona, patient.opening)
            patient.consents += 1
            self._revocable.append((patient, grant.consent_id))
            granted.append(self._signed("consent", patient.lane, patient.sender, [grant]))
        self.rng.shuffle(self._revocable)
        return granted

    def take_back(self, unsent: Iterable[Planned]) -> None:
        """These will never be sent, nor any later one of their senders: the nonces are used again.

        Otherwise the next ones would lie beyond the window that the chain accepts.
        """
        for planned in unsent:
            sender = self._senders.get(planned.account)
            if sender is not None:
                sender.nonce = min(sender.nonce, planned.nonce - 1)

    def _record(self, patient: Patient, payload_bytes: int) -> RecordBatch:
        organisation = self.lanes[patient.lane].organisation
        handles = 1 + min(255, payload_bytes // _COMPARTMENT_BYTES)
        return RecordBatch(
            batch_id=self._bytes(16),
            pid=patient.persona.did,
            custodian=organisation,
            author_org=organisation,
            n=1,
            root=self._bytes(32),
            compartments=tuple(CompartmentCount(self._bytes(16), 1) for _ in range(handles)),
            classes=(self._bytes(16),),
            labels=(),
            months=(202601, 202612),
            schema=1,
        )

    def _access(self, patient: Patient) -> Planned:
        reader, sender = self.rng.choice(self.lanes[patient.readers].readers)
        access, scope, ephemeral = self._bytes(16), self._bytes(32), self._bytes(32)
        request = AccessRequest(
            access_id=access,
            organisation=reader.organisation,
            pid=patient.persona.did,
            basis=patient.basis.consent_id,
            purpose="TREAT",
            actor_opening=patient.opening,
            scope_commit=scope,
            n_records=3,
            compartments=(self._bytes(16),),
            labels=(),
            months=None,
            reader_eph_x25519=ephemeral,
            pop=sign_pop(reader.signing, self.founding.chain, ephemeral, access, scope),
            not_after_ms=Millis(self._now_ms + DAY_MS),
        )
        return self._signed("access", patient.readers, sender, [request])

    def _consent(self, drawn: Patient) -> Planned:
        patient = self._with_room(drawn)
        patient.consents += 1
        grant = self._grant(patient.persona, patient.opening)
        return self._signed("consent", patient.lane, patient.sender, [grant])

    def _with_room(self, drawn: Patient) -> Patient:
        """The patient drawn, or the next one who may grant another consent."""
        if drawn.consents < limits.CONSENTS_PER_PATIENT_MAX:
            return drawn
        free = [patient for patient in self.patients if patient.consents < limits.CONSENTS_PER_PATIENT_MAX]
        if not free:
            raise InvalidInput(
                f"all {len(self.patients)} patients have {limits.CONSENTS_PER_PATIENT_MAX} consents, "
                "the most there may be; the stage needs more patients"
            )
        return self.rng.choice(free)


def packed(number: int, planned: Planned) -> bytes:
    """How a transaction travels to a load process."""
    return encode((number, KINDS.index(planned.kind), planned.lane, planned.account, planned.nonce, planned.data))
