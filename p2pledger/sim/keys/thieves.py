"""Readers that want what is not theirs. Whatever validators answer them, the observer has judged before it arrives."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2pledger.health import release
from p2pledger.health.commitments import RecordRef
from p2pledger.health.release import ReleaseRequest
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ChainId
from p2pledger.sim.clinic import hospital_of
from p2pledger.sim.keys.holder import Answer
from p2pledger.sim.keys.one_time_charts import newest_dealt_to
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret

if TYPE_CHECKING:
    from p2pledger.sim.keys.questions import Chart, Visit
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.world import World


class ReplayingReader:
    """Heard somebody else's question, and asks it in its own name; it hopes for shares that it can open."""

    def act(self, world: "World", ward: "Ward") -> None:
        if not ward.visits:
            return
        visit, thief = world.random.choice(ward.visits), world.random.choice(ward.visits)
        if thief.asker.public != visit.asker.public:
            _ask(world, ward, visit.release, thief.asker.public, type(self).__name__)


class SwappingReader:
    """May open one record, and asks for another by exchanging a part of its question."""

    def act(self, world: "World", ward: "Ward") -> None:
        if not ward.visits:
            return
        visit = world.random.choice(ward.visits)
        swaps: list[Callable[[World, Ward, Visit], ReleaseRequest | None]] = [
            self._another_record,
            self._another_capsule,
            self._another_patient,
            self._another_chain,
            self._another_epoch,
            self._another_scope,
        ]
        changed = world.random.choice(swaps)(world, ward, visit)
        if changed is not None and changed != visit.release:
            _ask(world, ward, changed, visit.asker.public, type(self).__name__)

    def _another_record(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest:
        """Of the same chart, which was not asked for."""
        return replace(visit.release, openings=(visit.chart.opening((visit.index + 1) % len(visit.chart.capsules)),))

    def _another_capsule(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest:
        (own,) = visit.release.openings
        other = visit.chart.capsules[(visit.index + 1) % len(visit.chart.capsules)]
        return replace(visit.release, openings=(replace(own, capsule=other),))

    def _another_patient(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest | None:
        others = [chart for chart in ward.charts if chart.pid != visit.chart.pid]
        if not others:
            return None
        return replace(visit.release, openings=(world.random.choice(others).opening(visit.index),))

    def _another_chain(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest | None:
        """A capsule for a record of the same name on another chain, sealed to this chain's key."""
        (own,) = visit.release.openings
        key = ward.newest_key(world) if own.key_epoch else newest_dealt_to(world)
        if key is None:
            return None
        ref = RecordRef(own.batch_id, visit.index)
        elsewhere = ChainId(sha256(b"another chain"))
        label = release.label_of(ref, visit.chart.pid, hospital_of(world), elsewhere, own.key_epoch)
        capsule = key.wrap(world.random.randbytes(32), label, seeded(world.random.randbytes(32)))
        return replace(visit.release, openings=(replace(own, capsule=capsule),))

    def _another_epoch(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest:
        (own,) = visit.release.openings
        return replace(visit.release, openings=(replace(own, key_epoch=own.key_epoch + 1),))

    def _another_scope(self, world: "World", ward: "Ward", visit: "Visit") -> ReleaseRequest:
        """As many records as the chain was told, but others."""
        index = (visit.index + 1) % len(visit.chart.capsules)
        scope = (RecordRef(visit.chart.batch_id, index),)
        return replace(visit.release, scope=scope, openings=(visit.chart.opening(index),))


class CapsuleMover:
    """A custodian that commits to a foreign capsule under a record of a patient of its own (I-4): the chain allows the
    access, and no validator has a share for that label."""

    def __init__(self) -> None:
        self._moved: Chart | None = None

    def act(self, world: "World", ward: "Ward") -> None:
        key = ward.newest_key(world)
        if key is None or not ward.charts:
            return
        if self._moved is None:
            self._moved = self._commit(world, ward, key)
        else:
            world.observer.reached[f"lie of {type(self).__name__}"] += 1
            ward.visit_chart(world, self._moved)

    def _commit(self, world: "World", ward: "Ward", key: LongTerm) -> "Chart":
        victim = ward.charts[0]
        mine = ward.sealed(world, key, ward.another_pid(victim.pid), is_known=False)
        mine.capsules[:] = victim.capsules
        mine.key_epoch = victim.key_epoch
        mine.leaves[:] = [
            replace(leaf, capsule=sha256(capsule)) for leaf, capsule in zip(mine.leaves, mine.capsules, strict=True)
        ]
        world.submit_signed(0, world.consortium.accounts[0], [ward.batch(world, mine)])
        return mine


class KeySubstituter:
    """Puts a key of its own into somebody else's request, under that one's proof of possession (I-5)."""

    def act(self, world: "World", ward: "Ward") -> None:
        if not ward.visits:
            return
        visit = world.random.choice(ward.visits)
        mine = BoxSecret(seed := world.random.randbytes(32))
        world.observer.releases.knows_reader(seed, mine.public)
        access_id = sha256(seed)[:16]
        stolen = replace(visit.asked, access_id=access_id, reader_eph_x25519=mine.public)
        at = world.random.randrange(world.n)
        world.submit_signed(at, visit.asker, [stolen])
        changed = replace(visit.release, access_id=access_id)
        world.at(800, partial(_ask, world, ward, changed, visit.asker.public, type(self).__name__))


Thief = ReplayingReader | SwappingReader | CapsuleMover | KeySubstituter


def _ask(world: "World", ward: "Ward", request: ReleaseRequest, asker: bytes, name: str) -> None:
    reached = world.observer.reached
    reached[f"lie of {name}"] += 1

    def hear(answer: Answer | Code) -> None:
        reached[f"{name} is told {answer.name if isinstance(answer, Code) else 'OK'}"] += 1

    for node in world.random.sample(range(world.n), 2):
        world.at(world.random.randint(1, 50), partial(ward.holders[node].ask, request, asker, hear))
