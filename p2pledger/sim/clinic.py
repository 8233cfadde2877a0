"""The health contracts under fire: patients grant and revoke, readers ask, an employer suspends, wherever it hurts.

What must be true of the state is written down anew from health rules F-01 to F-11 and invariants I-8 and I-9: it reads
terms and log lines, and never asks the evaluator that decided.
"""

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from p2pledger.health import keys
from p2pledger.health.access import Access
from p2pledger.health.application import HealthApplication
from p2pledger.health.consent import Consent
from p2pledger.health.log import LogLine, decode_head, decode_line, line_hash
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    ConsentGrant,
    ConsentRevoke,
    CredentialIssue,
    IdentityRegister,
    IdentityResume,
    IdentitySuspend,
    RecordBatch,
    actor_commit,
    sign_pop,
)
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import AccountKey, Bytes16, Millis
from p2pledger.sim.founding import WALL_START_MS, seeded_key
from p2pledger.sim.workload import Workload

if TYPE_CHECKING:
    from p2pledger.sim.world import World
    from p2pledger.state.view import StateView

ASKED: tuple[Purpose, ...] = ("TREAT", "COC", "ETREAT", "BTG", "CLINTRL", "HRESCH")
COVERED: dict[str, set[str]] = {"TREAT": {"TREAT", "COC"}, "ETREAT": {"ETREAT"}, "HRESCH": {"HRESCH"}}
"""Of what is asked here, what a consent for a purpose gives (I-8: TREAT gives neither BTG nor CLINTRL)."""
GRANTED: tuple[Purpose, ...] = ("TREAT", "ETREAT", "HRESCH")
COMPARTMENTS = tuple(hashlib.sha256(b"compartment %d" % i).digest()[:16] for i in range(4))
PATIENTS, READERS = 3, 4
HOUR_MS = 3_600_000


class Clinic(Workload):
    """One hospital, the first founding member, with its patients and their readers."""

    def __init__(self) -> None:
        super().__init__(HealthApplication())
        self.people = [Person(i, i < PATIENTS) for i in range(PATIENTS + READERS)]
        self._grants: list[tuple[Person, ConsentGrant, ActorOpening]] = []
        self._count = 0
        self._lines: dict[tuple[bytes, int], bytes] = {}
        """Every line that any correct node has shown: no node may ever show another in its place."""
        self._judged: dict[bytes, int] = {}

    def operations(self, random: Random, round_: int) -> Sequence[Record]:
        """What any member may send: a commitment to records of somebody, its own patient or not."""
        patient = self.people[random.randrange(PATIENTS)]
        return [
            RecordBatch(
                self.fresh(),
                patient.did,
                bytes(16),
                bytes(16),
                1,
                bytes(32),
                (),
                (),
                (),
                (202601, 202612),
                1,
            )
        ]

    def submit(self, world: "World", round_: int) -> None:
        chance = world.random
        at = chance.randrange(world.n)
        steps: list[Callable[[World, int], None]] = [
            self._register,
            self._credential,
            self._grant,
            self._grant,
            self._revoke,
            self._ask,
            self._ask,
        ]
        rare: list[Callable[[World, int], None]] = [self._suspend, self._resume]
        people = len(self.people)
        if round_ < people:
            self._register(world, at, self.people[round_])
        elif round_ < people + READERS:
            self._credential(world, at, self.people[PATIENTS + round_ - people], HOUR_MS)
        else:
            chance.choice(rare if chance.random() < 0.05 else steps)(world, at)

    # What people do

    def _register(self, world: "World", at: int, person: "Person | None" = None) -> None:
        hospital = world.consortium.accounts[0]
        person = person or world.random.choice(self.people)
        kind: IdentityKind = "patient" if person.is_patient else "practitioner"
        operation = IdentityRegister(
            person.did, kind, AccountKey(person.key.public), bytes(32), hospital_of(world), bytes(32)
        )
        world.submit_signed(at, person.key, [operation], [hospital])

    def _credential(self, world: "World", at: int, reader: "Person | None" = None, valid_ms: int | None = None) -> None:
        reader = reader or world.random.choice(self.people[PATIENTS:])
        valid_ms = valid_ms or world.random.choice([2_000, HOUR_MS, HOUR_MS])
        until = Millis(world.wall_ms + valid_ms)
        operation = CredentialIssue(reader.did, "physician", bytes(32), Millis(WALL_START_MS - HOUR_MS), until)
        world.submit_signed(at, world.consortium.accounts[0], [operation])

    def _grant(self, world: "World", at: int) -> None:
        chance = world.random
        patient, reader = chance.choice(self.people[:PATIENTS]), chance.choice(self.people[PATIENTS:])
        opening, grant = self._terms(world, patient, reader)
        self._grants.append((patient, grant, opening))
        world.submit_signed(at, patient.key, [grant])

    def _terms(self, world: "World", patient: "Person", reader: "Person") -> tuple[ActorOpening, ConsentGrant]:
        """A consent that may be short, in the past, or used up soon."""
        chance = world.random
        opening = ActorOpening(chance.randbytes(32), "person", reader.did)
        now = world.wall_ms
        return opening, ConsentGrant(
            consent_id=self.fresh(),
            pid=patient.did,
            capacity="patient",
            base="permit",
            actor_commits=(actor_commit(opening),),
            purposes=(chance.choice(GRANTED),),
            compartments=tuple(sorted(chance.sample(COMPARTMENTS, 2))),
            months=None,
            valid_from_ms=Millis(now - chance.choice([0, HOUR_MS])),
            valid_to_ms=Millis(now + chance.choice([500, 3_000, HOUR_MS, HOUR_MS])),
            max_uses=chance.choice([0, 1, 1, 2]),
            exceptions=(),
            btg=chance.choice(["policy", "never"]),
            doc_commit=b"\1" * 32,
            evidence_commit=b"\2" * 32,
        )

    def _revoke(self, world: "World", at: int) -> None:
        if self._grants:
            patient, grant, _ = world.random.choice(self._grants[-6:])
            world.submit_signed(at, patient.key, [ConsentRevoke(grant.consent_id, "withdrawn")])

    def _ask(self, world: "World", at: int) -> None:
        chance = world.random
        if not self._grants:
            return
        patient, grant, opening = chance.choice(self._grants[-4:])
        is_fitting = chance.random() < 0.6
        reader = next(person for person in self.people if person.did == opening.handle)
        access_id, ephemeral, scope = self.fresh(), chance.randbytes(32), chance.randbytes(32)
        chain = world.consortium.founding.chain
        asking = reader if chance.random() < 0.9 else chance.choice(self.people)
        request = AccessRequest(
            access_id=access_id,
            organisation=hospital_of(world),
            pid=patient.did,
            basis=grant.consent_id if chance.random() < 0.8 else None,
            purpose=grant.purposes[0] if is_fitting else chance.choice(ASKED),
            actor_opening=opening,
            scope_commit=scope,
            n_records=1,
            compartments=(grant.compartments or ())[:1] if is_fitting else tuple(chance.sample(COMPARTMENTS, 2)),
            labels=(),
            months=None,
            reader_eph_x25519=ephemeral,
            pop=sign_pop(asking.key, chain, ephemeral, access_id, scope),
            not_after_ms=Millis(world.wall_ms + HOUR_MS),
        )
        world.submit_signed(at, asking.key, [request])

    def _suspend(self, world: "World", at: int) -> None:
        reader = world.random.choice(self.people[PATIENTS:])
        world.submit_signed(at, world.consortium.accounts[0], [IdentitySuspend(reader.did)])

    def _resume(self, world: "World", at: int) -> None:
        reader = world.random.choice(self.people[PATIENTS:])
        world.submit_signed(at, world.consortium.accounts[0], [IdentityResume(reader.did)])

    def fresh(self) -> Bytes16:
        self._count += 1
        return hashlib.sha256(b"clinic %d" % self._count).digest()[:16]

    # What must be true

    def check(self, state: "StateView") -> None:
        """I-9: logs are complete chains and never change. F-01 to F-06, I-8: whoever was allowed had a consent."""
        shown = 0
        for person in self.people[:PATIENTS]:
            shown += self._check_log(person.did, state)
        accesses = sum(1 for _ in state.scan(keys.ACCESS))
        assert shown == accesses, f"I-9: {accesses} accesses were decided, the logs show {shown}"

    def _check_log(self, pid: bytes, state: "StateView") -> int:
        count, last = 0, b""
        for _, data in state.scan(keys.log_lines(pid)):
            count += 1
            assert self._lines.setdefault((pid, count), data) == data, f"I-9: line {count} of a log has changed"
            if count > self._judged.get(pid, 0):
                self._judge(decode_line(data), state)
                self._judged[pid] = count
            last = data
        head = state.get(keys.log_head(pid))
        if head is None:
            assert count == 0, "I-9: a log without a head"
            return 0
        proven = decode_head(head)
        assert proven.count == count, f"I-9: the head counts {proven.count} lines, there are {count}"
        named = line_hash(decode_line(last)) if count else bytes(32)
        assert proven.hash == named, "I-9: the head does not name the last line"
        return count

    def _judge(self, line: LogLine, state: "StateView") -> None:
        if line.decision != 0:
            return
        assert line.basis == "consent", f"nobody may read by {line.basis} in this clinic"
        data = state.get(keys.consent(line.pid, line.consent_id or b""))
        assert data is not None, "F-01: allowed by a consent that is not there"
        consent = decode(Consent, data, limits.STATE_VALUE_BYTES_MAX)
        terms = consent.terms
        assert terms.valid_from_ms <= line.time_ms < terms.valid_to_ms, "F-03: allowed outside the consent's time"
        assert consent.revoked is None or line.height <= consent.revoked, "F-06: allowed after it was revoked"
        assert line.purpose in COVERED[terms.purposes[0]], f"I-8: {terms.purposes[0]} gave {line.purpose}"
        assert set(line.compartments) <= set(terms.compartments or ()), "F-02: allowed beyond the scope"
        stored = state.get(keys.access(line.access_id))
        assert stored is not None
        request = decode(Access, stored, limits.STATE_VALUE_BYTES_MAX).request
        opening = request.actor_opening
        assert opening is not None and actor_commit(opening) in terms.actor_commits, "F-04: another actor was allowed"
        assert opening.handle == line.actor, "F-04: somebody else's opening"
        self._count_uses(line, terms, state)

    def _count_uses(self, line: LogLine, terms: ConsentGrant, state: "StateView") -> None:
        if terms.max_uses:
            lines = (decode_line(data) for _, data in state.scan(keys.log_lines(line.pid)))
            uses = sum(1 for other in lines if other.consent_id == line.consent_id and other.decision == 0)
            assert uses <= terms.max_uses, f"F-05: {uses} uses of {terms.max_uses}"


class Person:
    """A patient or a reader, with a key that depends on nothing but the number."""

    def __init__(self, number: int, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.key: SigningKey = seeded_key("clinic", number)
        self.did: Bytes16 = hashlib.sha256(b"person %d" % number).digest()[:16]


def hospital_of(world: "World") -> Bytes16:
    """The organisation of the first founding member."""
    account = world.consortium.accounts[0].public
    cards = world.consortium.founding.genesis.cards
    return next(card.organisation for card in cards if card.account == account)
