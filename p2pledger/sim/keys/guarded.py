"""Patients with guardians: keys are lost and stolen, frozen, recovered and vetoed, while shares are asked for.

All but the first patient name three guardians, two of which are enough. Old keys stay in use: those of a patient's that
were replaced are in a thief's hands. What must be true is judged by `observer/recoveries.py` (F-23 to F-25).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pledger.health import directory, guardian_state
from p2pledger.health.guardian_operations import (
    Approval,
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    Unfreeze,
    approve,
    freeze_bytes,
    guardian_commit,
    recovery_bytes,
    sorted_commits,
    unfreeze_bytes,
)
from p2pledger.health.guardian_state import Guardianship
from p2pledger.health.recovery_release import RecoverRequest, RecoveryOpening, recovery_label
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Bytes16, Millis, TransactionId
from p2pledger.sim.clinic import HOUR_MS, PATIENTS, Person, hospital_of
from p2pledger.sim.founding import seeded_key
from p2pledger.sim.keys.questions import Question, ask_all, ask_some, some_state
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret

if TYPE_CHECKING:
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.world import World

GUARDIANS, THRESHOLD = 3, 2
DELAY_MS = 1_200
"""Of a recovery; the ward's chains allow such a short one."""
VETOES = 2
"""After so many, all guardians together and the custodian pass by the next one."""
RECOVERIES_MAX = 6
"""Of one patient, in the faulty time."""
OWN_VISITS_MAX = 10


@dataclass(slots=True, kw_only=True)
class Retrieval(Question):
    """A recovery: the new key that asks for what waits in the capsule of the old one's guardians."""

    recovery: Bytes16
    is_beyond: bool


@dataclass(slots=True)
class _Set:
    """Guardians as they were named."""

    terms: GuardianSet
    capsule: bytes
    label: Label


@dataclass(slots=True)
class _Guarded:
    """A patient, with what its guardians and the thieves of its keys have."""

    person: Person
    guardians: list[SigningKey]
    keys: list[SigningKey]
    """All that it ever had."""
    salts: list[bytes]
    named: _Set | None = None
    frozen_ms: int = 0
    """The last end that guardians have signed."""
    retrievals: list[Retrieval] = field(default_factory=list)

    def is_beyond(self, recovery: bytes | None) -> bool:
        """Whether this recovery is one that no veto ends."""
        return any(each.recovery == recovery and each.is_beyond for each in self.retrievals)

    def approvals(self, data: bytes, count: int) -> tuple[Approval, ...]:
        pairs = list(zip(self.guardians, self.salts, strict=True))[:count]
        return tuple(approve(guardian, salt, data) for guardian, salt in pairs)


class Guarding:
    """The patients of one ward that have guardians."""

    def __init__(self) -> None:
        self._guarded: list[_Guarded] = []
        self._own_visits = 0

    def keys_of(self, pid: bytes) -> set[bytes]:
        """All that were ever the keys of a patient, or may become it."""
        mine = [each for each in self._guarded if each.person.did == pid]
        return {key.public for each in mine for key in (*each.keys, *(one.asker for one in each.retrievals))}

    # What happens

    def act(self, world: "World", ward: "Ward") -> None:
        """One step of somebody's."""
        chance, state = world.random, some_state(world)
        if state is None:
            return
        patient = chance.choice(self._patients(ward))
        _look(patient, state)
        held = guardian_state.guardianship_of(patient.person.did, state)
        if held is None or patient.named is None:
            self._name(world, ward, patient)
            return
        steps: list[Callable[[World, Ward, _Guarded, Guardianship], object]] = [
            self._visit,
            self._visit,
            self._freeze,
            self._race_freeze,
            self._thaw,
            self._start,
            self._start,
            self._veto,
            self._finish,
            self._finish,
            self._race_finish,
            self._retrieve,
        ]
        chance.choice(steps)(world, ward, patient, held)

    def _patients(self, ward: "Ward") -> list[_Guarded]:
        if not self._guarded:
            for number, person in enumerate(ward.people[1:PATIENTS], 1):
                guardians = [seeded_key("guardian", number, each) for each in range(GUARDIANS)]
                salts = [sha256(b"salt" + guardian.public) for guardian in guardians]
                self._guarded.append(_Guarded(person, guardians, [person.key], salts))
        return self._guarded

    def _name(self, world: "World", ward: "Ward", patient: _Guarded) -> TransactionId | None:
        """The patient names its guardians, with a capsule for the secrets of its box keys."""
        key = ward.newest_key(world)
        if key is None:
            return None
        if patient.named is None:
            pid, random = patient.person.did, seeded(world.random.randbytes(32))
            chain, custodian, epoch = world.consortium.founding.chain, hospital_of(world), key.key.key_epoch
            label = recovery_label(pid, custodian, chain, epoch)
            capsule = key.wrap(secret := random(32), label, random)
            place = (label.purpose, chain, custodian, pid, label.batch_id, label.index, epoch)
            world.observer.releases.knows_recovery(place, capsule, secret)
            commits = [
                guardian_commit(pid, salt, guardian.public)
                for guardian, salt in zip(patient.guardians, patient.salts, strict=True)
            ]
            terms = GuardianSet(pid, THRESHOLD, sorted_commits(commits), DELAY_MS, sha256(capsule), epoch)
            patient.named = _Set(terms, capsule, label)
        return world.submit_signed(world.random.randrange(world.n), patient.person.key, [patient.named.terms])

    def _visit(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """The patient reads its own; or a thief does, with a key that it has had."""
        if self._own_visits < OWN_VISITS_MAX:
            self._own_visits += 1
            key = world.random.choice([patient.person.key, patient.person.key, *patient.keys])
            ward.own_visit(world, key, patient.person.did)

    def _freeze(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> TransactionId | None:
        pid = patient.person.did
        span_ms = world.random.choice([1_500, 4_000, HOUR_MS])
        patient.frozen_ms = max(world.wall_ms + span_ms, patient.frozen_ms + 1)
        data = freeze_bytes(world.consortium.founding.chain, pid, patient.frozen_ms)
        count = world.random.choice([1, THRESHOLD, THRESHOLD, THRESHOLD])
        return _carried(world, Freeze(pid, Millis(patient.frozen_ms), patient.approvals(data, count)))

    def _race_freeze(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """While questions with the patient's key are under way (F-25)."""
        self._freeze(world, ward, patient, held)
        own = [visit for visit in ward.visits if visit.asker.public in self.keys_of(patient.person.did)]
        for question in (*[visit for visit in own if visit.shares][-2:], *own[-1:], *patient.retrievals[-1:]):
            for within_ms in (100, 300, 600):
                ask_all(world, ward, question, within_ms)

    def _thaw(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        pid = patient.person.did
        data = unfreeze_bytes(world.consortium.founding.chain, pid, held.frozen_ms)
        _carried(world, Unfreeze(pid, held.frozen_ms, patient.approvals(data, THRESHOLD)))

    def _start(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """Also by one guardian, and beyond veto before anybody has objected."""
        if len(patient.retrievals) < RECOVERIES_MAX:
            is_beyond = held.vetoes >= VETOES or world.random.random() < 0.15
            count = world.random.choice([1, THRESHOLD, THRESHOLD, THRESHOLD])
            self._recover(world, ward, patient, is_beyond, GUARDIANS if is_beyond else count)

    def _recover(self, world: "World", ward: "Ward", patient: _Guarded, is_beyond: bool, count: int) -> Retrieval:
        """So many guardians ask for a new key; beyond veto with the custodian."""
        chance, chain, pid, named = world.random, world.consortium.founding.chain, patient.person.did, patient.named
        assert named is not None, "recovered are those who have guardians"
        key, box = SigningKey(chance.randbytes(32)), BoxSecret(seed := chance.randbytes(32))
        world.observer.releases.knows_reader(seed, box.public)
        recovery, until = ward.fresh(), Millis(world.wall_ms + HOUR_MS)
        data = recovery_bytes(chain, pid, recovery, key.public, box.public, until)
        approvals = patient.approvals(data, count)
        start = RecoveryStart(pid, recovery, AccountKey(key.public), box.public, until, approvals, is_beyond)
        hospital = [world.consortium.accounts[0]] if is_beyond else []
        world.submit_signed(chance.randrange(world.n), key, [start], hospital)
        retrieval = Retrieval(
            asker=key,
            secret=box,
            request=RecoverRequest(recovery, (RecoveryOpening(named.capsule, named.label.key_epoch),)),
            access=key_release.Access(recovery, box.public),
            capsule=named.capsule,
            label=named.label,
            ref=(sha256(named.capsule), 0),
            recovery=recovery,
            is_beyond=is_beyond,
        )
        patient.retrievals.append(retrieval)
        return retrieval

    def _veto(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """The patient objects, or a thief does, with whatever key it has."""
        if held.pending is not None:
            key = world.random.choice([patient.person.key, patient.person.key, *patient.keys])
            world.submit_signed(world.random.randrange(world.n), key, [RecoveryVeto(patient.person.did, held.pending)])

    def _finish(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """Too early, in time, or though it was vetoed."""
        if patient.retrievals:
            recovery = world.random.choice([*patient.retrievals, patient.retrievals[-1]]).recovery
            _carried(world, RecoveryFinalize(patient.person.did, recovery))

    def _race_finish(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        """The new key asks before it is the patient's; a thief goes on asking with the old one."""
        self._finish(world, ward, patient, held)
        own = [visit for visit in ward.visits if visit.asker.public in self.keys_of(patient.person.did)]
        for question in (*own[-3:], *patient.retrievals[-1:]):
            ask_all(world, ward, question, within_ms=600)

    def _retrieve(self, world: "World", ward: "Ward", patient: _Guarded, held: Guardianship) -> None:
        if patient.retrievals:
            ask_some(world, ward, world.random.choice(patient.retrievals))

    # A healed world

    def demand(self, world: "World", ward: "Ward") -> None:
        """Liveness (F-23): a lost key is replaced after the delay and not before, and its box keys are had back; once
        guardians freeze the new key nobody honest gives them any more (F-25)."""
        patient = self._patients(ward)[0]
        ward.enter(world, patient.person)
        held = self._named(world, ward, patient)
        if world.random.random() < 0.3:
            held = self._outlast(world, ward, patient)
        pending = [each for each in patient.retrievals if each.recovery == held.pending]
        is_beyond = held.vetoes >= VETOES
        count = GUARDIANS if is_beyond else THRESHOLD
        retrieval = pending[0] if pending else self._recover(world, ward, patient, is_beyond, count)
        finish = RecoveryFinalize(patient.person.did, retrieval.recovery)
        ward.wait_until(
            world, "a recovery is final", lambda: _is_final(world, retrieval), lambda: _carried(world, finish)
        )
        ward.wait_until(
            world,
            "a recovered patient has its keys back",
            lambda: retrieval.is_open,
            lambda: ask_all(world, ward, retrieval),
        )
        patient.frozen_ms = max(world.wall_ms + HOUR_MS, patient.frozen_ms + 1)
        data = freeze_bytes(world.consortium.founding.chain, patient.person.did, patient.frozen_ms)
        frozen = Freeze(patient.person.did, Millis(patient.frozen_ms), patient.approvals(data, THRESHOLD))
        ward.await_refusals(world, retrieval, _carried(world, frozen), Code.E_FROZEN)

    def _outlast(self, world: "World", ward: "Ward", patient: _Guarded) -> Guardianship:
        """A thief vetoes as often as it can (F-25)."""

        def held() -> Guardianship:
            state = some_state(world)
            found = None if state is None else guardian_state.guardianship_of(patient.person.did, state)
            assert found is not None, "guardians were named"
            return found

        def is_over() -> bool:
            return held().vetoes >= VETOES or patient.is_beyond(held().pending)

        def provoke() -> None:
            if held().pending is None:
                self._recover(world, ward, patient, is_beyond=False, count=THRESHOLD)
            else:
                self._veto(world, ward, patient, held())

        ward.wait_until(world, "a thief has no veto left", is_over, provoke)
        return held()

    def _named(self, world: "World", ward: "Ward", patient: _Guarded) -> Guardianship:
        def held() -> Guardianship | None:
            state = some_state(world)
            assert state is not None, "all run in a healed world"
            _look(patient, state)
            return guardian_state.guardianship_of(patient.person.did, state)

        ward.wait_until(
            world, "guardians are named", lambda: held() is not None, lambda: self._name(world, ward, patient)
        )
        found = held()
        assert found is not None
        return found


def _look(patient: _Guarded, state: StateView) -> None:
    """The patient's wallet finds which of its keys counts."""
    identity = directory.identity_of(patient.person.did, state)
    for key in (each.asker for each in patient.retrievals):
        if identity is not None and key.public == identity.key and key is not patient.person.key:
            patient.person.key = key
            patient.keys.append(key)


def _is_final(world: "World", retrieval: Retrieval) -> bool:
    state = some_state(world)
    recovery = None if state is None else guardian_state.recovery_of(retrieval.recovery, state)
    return recovery is not None and recovery.progress == "final"


def _carried(world: "World", operation: Record) -> TransactionId | None:
    """What guardians have signed, anybody may hand in."""
    members: Sequence[SigningKey] = world.consortium.accounts[1:]
    running = [node.index for node in world.nodes if node.engine is not None]
    at = world.random.choice(running or [0])
    return world.submit_signed(at, world.random.choice(members), [operation])
