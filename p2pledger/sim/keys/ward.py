"""A clinic whose records are sealed to a joint key: custodians seal, readers ask, patients take back, keys are renewed.

The validators' part is `holder.KeyHolder`, that of those who lie `liars`. What must be true is judged outside, by
`observer/releases.py`; here readers check what they open, and a healed world must let them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2pledger.health import joint_key, keys, release
from p2pledger.health.commitments import RecordLeaf, RecordRef, record_root, scope_commit
from p2pledger.health.key_keeper import Wish
from p2pledger.health.log import LogLine
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    CompartmentCount,
    ConsentGrant,
    ConsentRevoke,
    IdentityResume,
    RecordBatch,
    sign_pop,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Bytes16, Millis, TransactionId
from p2pledger.sim.clinic import COMPARTMENTS, HOUR_MS, PATIENTS, Clinic, Person, hospital_of
from p2pledger.sim.keys import erasures
from p2pledger.sim.keys.guarded import Guarding
from p2pledger.sim.keys.holder import KeyHolder
from p2pledger.sim.keys.one_time_charts import Dealing
from p2pledger.sim.keys.questions import Chart, Question, Visit, ask_all, ask_some, some_state
from p2pledger.sim.keys.thieves import CapsuleMover, KeySubstituter, ReplayingReader, SwappingReader, Thief
from p2pledger.sim.observer import InvariantBroken
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.dkg import Ceremony, Phase
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, OneTime
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret

if TYPE_CHECKING:
    from p2pledger.sim.world import World

RECORDS = len(COMPARTMENTS)
"""In each batch: one for each compartment."""
BATCHES_MAX = 4
VISITS_MAX = 16
ERASURES_MAX = 4
OPEN_MS = 60_000
"""In a healed world a reader has what it may have within this, and the log is complete."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """A consent, and how a reader shows that it is meant."""

    grant: ConsentGrant
    opening: ActorOpening


class Ward(Clinic):
    """Drives one run, like every workload."""

    honest: type[KeyHolder] = KeyHolder
    """What those are who are judged; a test may put a broken one there."""

    def __init__(
        self,
        liars: Mapping[int, type[KeyHolder]] | None = None,
        harm: float = 0.0,
        restores: int | None = None,
        goal: int = 1,
        dies: str = "",
    ) -> None:
        """`liars`: nodes whose keys are in bad hands. `harm`: chance of a crash at each boundary of key duties.
        `restores`: a node that comes back from a crash with an old backup. `goal`: the last sharing to be made.
        `dies`: one of `holder.BOUNDARIES`, at which every node dies when it is there for the first time."""
        super().__init__()
        self.liars = dict(liars or {})
        self.harm, self.restores, self.goal, self.dies = harm, restores, goal, dies
        self.holders: list[KeyHolder] = []
        self.charts: list[Chart] = []
        self.visits: list[Visit] = []
        self.is_ending = False
        self.guarding = Guarding()
        self.dealing = Dealing()
        self._erasures = 0
        self.thieves: list[Thief] = [ReplayingReader(), SwappingReader(), CapsuleMover(), KeySubstituter()]

    # Lives

    def begin(self, world: "World") -> None:
        """Every node gets its key holder, honest or not."""
        faulty = {node.index for node in world.nodes if not node.is_honest}
        assert len(faulty | set(self.liars)) <= world.consortium.founding.validators.f, "more liars than there may be"
        lost = set() if self.restores is None else {self.restores}
        world.observer.releases.watch(faulty | set(self.liars) | lost)
        self.holders = [self.liars.get(node.index, self.honest)(world, self, node) for node in world.nodes]

    def crashed(self, world: "World", index: int) -> None:
        if self.holders:
            self.holders[index].crashed()

    def wish(self, state: StateView, node: int) -> Wish | None:
        """Which sharing the operator of a node wants begun: new shares up to the goal, by one first, in the end by all.

        In the middle of a run not before there were some accesses, so that shares of two sharings are about.
        """
        active = joint_key.newest_key(state)
        if active is None or active.key.share_epoch >= self.goal:
            return None
        is_first = node == active.key.share_epoch % len(active.holders) and len(self.visits) >= 4
        return Wish(active.key.key_epoch, active.key.share_epoch + 1) if is_first or self.is_ending else None

    # Steps

    def submit(self, world: "World", round_: int) -> None:
        if round_ < 2 * (PATIENTS + 4) or world.random.random() < 0.35:
            super().submit(world, round_)
            return
        if world.random.random() < 0.15:
            world.random.choice(self.thieves).act(world, self)
            return
        if world.random.random() < 0.35:
            self.guarding.act(world, self)
            return
        if world.random.random() < 0.25:
            self.dealing.act(world, self)
            return
        steps: list[Callable[[World], None]] = [self._seal, self._visit, self._chase, self._chase, self._race]
        if world.random.random() < 0.12:
            steps = [self._race_erasure]
        world.random.choice(steps)(world)

    def _ask(self, world: "World", at: int) -> None:
        """The clinic's readers ask for nothing that exists; those of the ward do."""
        self._visit(world)

    def newest_key(self, world: "World") -> LongTerm | None:
        """What somebody who asks around finds to be the newest key."""
        state = some_state(world)
        active = None if state is None else joint_key.newest_key(state)
        return None if active is None else LongTerm(active.key)

    def _seal(self, world: "World") -> None:
        """The hospital seals a batch of a patient and commits to its capsules."""
        key = self.newest_key(world)
        sealed = sum(chart.key_epoch != ONE_TIME_EPOCH for chart in self.charts)
        if key is None or sealed >= BATCHES_MAX:
            return
        chance = world.random
        pid = self.people[sealed % PATIENTS].did
        self.charts.append(chart := self.sealed(world, key, pid))
        world.submit_signed(chance.randrange(world.n), world.consortium.accounts[0], [self.batch(world, chart)])

    def batch(self, world: "World", chart: Chart) -> RecordBatch:
        """The commitment to a chart."""
        return RecordBatch(
            chart.batch_id,
            chart.pid,
            hospital_of(world),
            hospital_of(world),
            RECORDS,
            record_root(chart.leaves),
            tuple(CompartmentCount(handle, 1) for handle in COMPARTMENTS),
            (),
            (),
            (202601, 202612),
            1,
        )

    def sealed(
        self,
        world: "World",
        key: LongTerm | OneTime,
        pid: Bytes16,
        is_known: bool = True,
        spoil: Callable[[bytes], bytes] = lambda capsule: capsule,
    ) -> Chart:
        """A chart of fresh records under this key; the judge knows its keys, unless it will be committed to falsely.

        `spoil`: what a cheating writer makes of each capsule before it commits to it."""
        random = seeded(world.random.randbytes(32))
        batch_id = self.fresh()
        epoch = key.key.key_epoch if isinstance(key, LongTerm) else ONE_TIME_EPOCH
        chart = Chart(pid, batch_id, [], [], [], epoch)
        chain = world.consortium.founding.chain
        for index in range(RECORDS):
            label = release.label_of(RecordRef(batch_id, index), pid, hospital_of(world), chain, chart.key_epoch)
            content_key = random(32)
            capsule = spoil(key.wrap(content_key, label, random))
            place = (label.purpose, label.chain, label.custodian, pid, batch_id, index, label.key_epoch)
            if is_known:
                world.observer.releases.knows_record(place, capsule, content_key)
            chart.capsules.append(capsule)
            chart.content_keys.append(content_key)
            chart.leaves.append(
                RecordLeaf(
                    index,
                    sha256(content_key),
                    sha256(capsule),
                    sha256(capsule + b"object"),
                    hospital_of(world),
                    202603,
                    (COMPARTMENTS[index],),
                )
            )
        return chart

    def another_pid(self, pid: Bytes16) -> Bytes16:
        """Some other patient of the house."""
        return next(person.did for person in self.people[:PATIENTS] if person.did != pid)

    def _visit(self, world: "World") -> None:
        if self.charts and sum(visit.asked.basis is not None for visit in self.visits) < VISITS_MAX:
            self.visit_chart(world, world.random.choice(self.charts))

    def visit_chart(self, world: "World", chart: Chart) -> None:
        """A reader asks the chain for one record that a consent may cover, and binds a key to it."""
        fitting = [(grant, opening) for _, grant, opening in self._grants[-9:] if grant.pid == chart.pid]
        if not fitting:
            return
        grant, opening = world.random.choice(fitting)
        index = COMPARTMENTS.index((grant.compartments or COMPARTMENTS)[0])
        reader = next(person for person in self.people if person.did == opening.handle)
        request = self._request(world, _Ground(grant, opening), chart, index, reader.key)
        world.submit_signed(world.random.randrange(world.n), reader.key, [request])

    def own_visit(self, world: "World", key: SigningKey, pid: Bytes16) -> Visit | None:
        """A patient, or whoever has a key of its, asks for one of its own records (F-12)."""
        charts = [chart for chart in self.charts if chart.pid == pid]
        if not charts:
            return None
        request = self._request(world, None, world.random.choice(charts), world.random.randrange(RECORDS), key)
        world.submit_signed(world.random.randrange(world.n), key, [request])
        return self.visits[-1]

    def _request(
        self, world: "World", ground: "_Ground | None", chart: Chart, index: int, reader: SigningKey
    ) -> AccessRequest:
        """By this consent; by none, who asks is the patient itself."""
        chance, chain = world.random, world.consortium.founding.chain
        secret = BoxSecret(seed := chance.randbytes(32))
        world.observer.releases.knows_reader(seed, secret.public)
        access_id, salt = self.fresh(), chance.randbytes(32)
        ref = RecordRef(chart.batch_id, index)
        committed = scope_commit(salt, (ref,))
        span_ms = chance.choice([2_000, HOUR_MS, HOUR_MS])
        asked = AccessRequest(
            access_id=access_id,
            organisation=hospital_of(world),
            pid=chart.pid,
            basis=ground.grant.consent_id if ground else None,
            purpose=ground.grant.purposes[0] if ground else "PATRQT",
            actor_opening=ground.opening if ground else None,
            scope_commit=committed,
            n_records=1,
            compartments=(COMPARTMENTS[index],),
            labels=(),
            months=None,
            reader_eph_x25519=secret.public,
            pop=sign_pop(reader, chain, secret.public, access_id, committed),
            not_after_ms=Millis(world.wall_ms + span_ms),
        )
        world.observer.releases.knows_scope(access_id, [(chart.batch_id, index)])
        visit = Visit(
            asker=reader,
            secret=secret,
            request=release.ReleaseRequest(access_id, salt, (ref,), (chart.opening(index),)),
            access=key_release.Access(access_id, secret.public),
            capsule=chart.capsules[index],
            label=release.label_of(ref, chart.pid, hospital_of(world), chain, chart.key_epoch),
            ref=(chart.batch_id, index),
            chart=chart,
            index=index,
            asked=asked,
        )
        self.visits.append(visit)
        return asked

    def _chase(self, world: "World") -> None:
        """A reader asks validators for its shares: at once, again, or long after its right has ended."""
        if not self.visits:
            return
        recent = self.visits[-4:] if world.random.random() < 0.6 else self.visits
        ask_some(world, self, world.random.choice(recent))

    def _race(self, world: "World") -> None:
        """A patient takes a consent back while a reader's questions are under way."""
        if not self.visits:
            return
        visit = ([visit for visit in self.visits if visit.shares and visit.asked.basis] or self.visits)[-1]
        owner = next(person for person in self.people if person.did == visit.asked.pid)
        if world.random.random() < 0.5 and visit.asked.basis is not None:
            world.submit_signed(
                world.random.randrange(world.n), owner.key, [ConsentRevoke(visit.asked.basis, "withdrawn")]
            )
        for within_ms in (100, 300, 600):
            ask_all(world, self, visit, within_ms)

    def _race_erasure(self, world: "World") -> None:
        """A custodian gives a record up for erasure while a reader's questions are under way (F-26)."""
        if self.visits and self._erasures < ERASURES_MAX:
            self._erasures += 1
            visit = ([visit for visit in self.visits if visit.shares] or self.visits)[-1]
            erasures.erase(world, self, visit.chart, world.random.choice([(visit.index,)] * 4 + [()]))
            for within_ms in (100, 300, 600):
                ask_all(world, self, visit, within_ms)

    # A healed world

    def demand(self, world: "World") -> None:
        """Liveness: the key becomes active and renewed, t honest holders open a fresh record, and the log has it all;
        and no longer, once the consent is taken back."""
        visit = self.ready(world)
        self.wait_until(world, "a reader opens its record", lambda: visit.is_open, lambda: ask_all(world, self, visit))
        dealt = self.visit_again(world, self.dealing.deposited(world, self, visit.chart.pid))
        self.wait_until(
            world, "one-time shares open a record", lambda: dealt.is_open, lambda: ask_all(world, self, dealt)
        )
        self._erase(world, visit)
        self._take_back(world, visit, dealt)
        self.guarding.demand(world, self)
        self.wait_until(world, "every release is reported", world.observer.releases.is_settled)
        world.observer.releases.concluded()
        self._count_ceremonies(world)

    def ready(self, world: "World") -> Visit:
        """A key whose shares t honest validators hold, and an access that the chain allows."""
        self.await_key(world)
        return self._fresh_visit(world)

    def await_key(self, world: "World") -> None:
        """Until the last sharing is active that is wanted."""
        self.is_ending = True
        self.wait_until(world, "the joint key is active", lambda: self._has_reached_goal(world))
        self.wait_until(
            world, "the honest hold shares of it", lambda: self._honest_holders(world) >= self._needed(world)
        )

    def enter(self, world: "World", person: Person) -> None:
        """Register somebody, if it was not done before."""
        self._register(world, next(node.index for node in world.nodes if node.is_honest), person)

    def key_of(self, did: bytes) -> SigningKey:
        """Of one of the clinic's people."""
        return next(person.key for person in self.people if person.did == did)

    def _count_ceremonies(self, world: "World") -> None:
        """What came of complaints, for the campaign's counters."""
        engine = next(node.engine for node in world.nodes if node.is_honest and node.engine is not None)
        reached = world.observer.reached
        for _, data in engine.executor.state.scan(keys.CEREMONY):
            ceremony = decode(Ceremony, data, limits.CEREMONY_BYTES_MAX)
            reached["complaint justified"] += len(ceremony.justified)
            reached["dealer excluded"] += len(ceremony.excluded)
            reached["ceremony tried again"] += ceremony.id.attempt
            reached["resharing active"] += ceremony.id.share_epoch > 0 and ceremony.phase == Phase.ACTIVE

    def wait_until(
        self, world: "World", what: str, holds: Callable[[], bool], again: Callable[[], object] = lambda: None
    ) -> None:
        """Let time pass until it holds; where nothing moves, for as long as a phase of a ceremony may last."""
        limit = world.now + OPEN_MS
        while not holds():
            if world.now >= limit:
                raise InvariantBroken(f"7: not within {OPEN_MS} ms of healing: {what}")
            again()
            world.run_until(world.now + 1_500)
            if (world.now // 1_500) % 4 == 0:
                world.pass_time(limits.CEREMONY_PHASE_MS)

    def _has_reached_goal(self, world: "World") -> bool:
        key = self.newest_key(world)
        return key is not None and key.key.share_epoch >= self.goal

    def _needed(self, world: "World") -> int:
        key = self.newest_key(world)
        assert key is not None
        return key.threshold

    def _honest_holders(self, world: "World") -> int:
        key = self.newest_key(world)
        assert key is not None
        prefix = f"share-{key.key.key_epoch}-{key.key.share_epoch}-"
        return sum(bool(holder.disk.names(prefix)) for holder in self.holders if holder.node.index not in self.liars)

    def _fresh_visit(self, world: "World") -> Visit:
        """A patient who consents for an hour, and a reader whom nothing is wrong with."""
        honest = next(node.index for node in world.nodes if node.is_honest)
        person, reader = self.people[0], self.people[-1]
        self._register(world, honest, person)
        self._register(world, honest, reader)
        world.submit_signed(honest, world.consortium.accounts[0], [IdentityResume(reader.did)])
        world.run_until(world.now + 3_000)
        self._credential(world, honest, reader, HOUR_MS)
        opening, drawn = self._terms(world, person, reader)
        now = world.wall_ms
        grant = replace(
            drawn,
            valid_from_ms=Millis(now - HOUR_MS),
            valid_to_ms=Millis(now + HOUR_MS),
            max_uses=0,
            purposes=("TREAT",),
        )
        self._grants.append((person, grant, opening))
        world.submit_signed(honest, person.key, [grant])
        key = self.newest_key(world)
        assert key is not None
        self.charts.append(chart := self.sealed(world, key, person.did))
        world.submit_signed(honest, world.consortium.accounts[0], [self.batch(world, chart)])
        world.run_until(world.now + 6_000)
        index = COMPARTMENTS.index((grant.compartments or ())[0])
        request = self._request(world, _Ground(grant, opening), chart, index, reader.key)
        world.submit_signed(honest, reader.key, [replace(request, not_after_ms=Millis(world.wall_ms + HOUR_MS))])
        world.run_until(world.now + 3_000)
        return self.visits[-1]

    def visit_again(self, world: "World", chart: Chart) -> Visit:
        """The reader of the last visit asks for a record of another chart of that patient, by the same consent."""
        _, grant, opening = self._grants[-1]
        reader, index = self.people[-1], COMPARTMENTS.index((grant.compartments or ())[0])
        asked = self._request(world, _Ground(grant, opening), chart, index, reader.key)
        until = Millis(world.wall_ms + HOUR_MS)
        honest = next(node.index for node in world.nodes if node.is_honest)
        world.submit_signed(honest, reader.key, [replace(asked, not_after_ms=until)])
        world.run_until(world.now + 3_000)
        return self.visits[-1]

    def _erase(self, world: "World", visit: Visit) -> None:
        """The custodian erases the record (F-26): from the block of its decision on nobody honest gives anything."""
        done = erasures.erase(world, self, visit.chart, (visit.index,))
        for within_ms in (100, 300, 600):
            ask_all(world, self, visit, within_ms)
        self.await_refusals(world, visit, done, Code.E_ERASED)

    def _take_back(self, world: "World", visit: Visit, other: Visit) -> None:
        """After the revocation is final everywhere nobody honest gives anything any more (F-06).

        Meanwhile the reader asks for the record of `other`, so that its block comes between an entry and a share (I-2).
        """
        patient, grant, _ = self._grants[-1]
        honest = next(node.index for node in world.nodes if node.is_honest)
        assert visit.asked.basis == other.asked.basis == grant.consent_id
        done = world.submit_signed(honest, patient.key, [ConsentRevoke(grant.consent_id, "withdrawn")])
        for within_ms in (100, 300, 600):
            ask_all(world, self, other, within_ms)
        self.await_refusals(world, visit, done, Code.E_REVOKED)

    def await_refusals(self, world: "World", question: Question, done: TransactionId | None, code: Code) -> None:
        """Once a transaction is final everywhere, everybody honest who answers says no."""
        self.wait_until(
            world, f"{code.name} has a cause", lambda: done is not None and world.observer.is_executed(done)
        )
        world.run_until(world.now + 3_000)
        question.codes.clear()
        ask_all(world, self, question)
        fewest = world.n - len(self.liars) - world.consortium.founding.validators.f
        self.wait_until(world, f"every honest validator says {code.name}", lambda: question.codes.count(code) >= fewest)

    # What must be true

    def _judge(self, line: LogLine, state: StateView) -> None:
        """As in every clinic; and patients read their own (F-12), with a key that is or was theirs."""
        if line.decision == 0 and line.basis == "owner":
            assert line.purpose == "PATRQT" and line.reader in self.guarding.keys_of(line.pid), (
                "F-12: read as a patient"
            )
        else:
            super()._judge(line, state)
