"""Joint keys made by whole consortia that crash, lie in the agreement, and are cut apart: I-10, and one key for all."""

from collections.abc import Sequence
from random import Random

import pytest

from p2pledger.chain.validators import faults
from p2pledger.health import joint_key, key_duties
from p2pledger.health.application import HealthApplication
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import sha256
from p2pledger.sim import draw, run_plan
from p2pledger.sim.clinic import Clinic
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.workload import Workload
from p2pledger.sim.world import World
from p2pledger.state.view import StateView
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.group import Scalar, base_times
from p2pledger.threshold.participant import Participant
from p2pledger.threshold.sharing import combine


class KeyCeremonies(Workload):
    """At each turn some validator's node says what it owes, by what it has executed itself; then keys are refreshed."""

    def __init__(self) -> None:
        super().__init__(HealthApplication())
        self.shares: dict[tuple[bytes, int, int], bytes] = {}
        """What is on the validators' disks: (validator, key epoch, share epoch)."""
        self.publics: dict[int, bytes] = {}
        """The joint key of each key epoch, as first seen anywhere."""
        self.sharings: set[tuple[int, int]] = set()

    def operations(self, random: Random, round_: int) -> Sequence[Record]:
        """What any member may send once the world is well again: a batch for a patient that nobody has entered."""
        return Clinic().operations(random, round_)

    def submit(self, world: World, round_: int) -> None:
        node = world.nodes[world.random.randrange(world.n)]
        if node.engine is None:
            return
        state, validator = node.engine.executor.state, node.validator
        now = WALL_START_MS + world.now
        identifier = self._wanted(state, now)
        share = self.shares.get((validator, identifier.key_epoch, identifier.share_epoch - 1))
        if identifier.share_epoch and share is None:
            share = self._late(world, identifier, validator, state)
        participant = self._participant(world, identifier, validator, share)
        words = key_duties.answer(identifier, participant, validator, state, now)
        if words.share is not None:
            self.shares[validator, identifier.key_epoch, identifier.share_epoch] = words.share
        if words.operations:
            world.submit_signed(node.index, world.consortium.nodes[node.index], words.operations)

    def _late(self, world: World, following: CeremonyId, validator: bytes, state: StateView) -> bytes | None:
        """The share that t others did not wait for."""
        active = joint_key.active_key(following.key_epoch, state)
        assert active is not None
        ceremony = joint_key.ceremony_of(CeremonyId(following.key_epoch, active.key.share_epoch, 0), state)
        assert ceremony is not None
        participant = self._participant(world, ceremony.id, validator)
        share = key_duties.late_share(ceremony.id, participant, validator, state)
        if share is not None:
            self.shares[validator, following.key_epoch, active.key.share_epoch] = share
        return share

    def _participant(
        self, world: World, identifier: CeremonyId, validator: bytes, share: bytes | None = None
    ) -> Participant:
        return Participant(world.consortium.founding.chain, identifier, sha256(b"seed" + validator), share)

    def _wanted(self, state: StateView, now: int) -> CeremonyId:
        """The first key, then one refresh after the other."""
        active = joint_key.newest_key(state)
        return joint_key.next_key(state, now) if active is None else joint_key.next_sharing(active, state, now)

    def check(self, state: StateView) -> None:
        """One joint key for each epoch, at every node and through every refresh, and its shares on t disks at least."""
        active = joint_key.newest_key(state)
        if active is None:
            return
        key = active.key
        first = self.publics.setdefault(key.key_epoch, key.public)
        assert first == key.public, f"I-10: key epoch {key.key_epoch} has two keys"
        if (key.key_epoch, key.share_epoch) in self.sharings:
            return
        held = {
            index: Scalar(self.shares[validator, key.key_epoch, key.share_epoch])
            for index, validator in enumerate(active.holders, start=1)
            if (validator, key.key_epoch, key.share_epoch) in self.shares
        }
        assert len(held) >= key.threshold == len(active.holders) - faults(len(active.holders))
        some = dict(list(held.items())[: key.threshold])
        assert base_times(combine(some)) == key.public, "the shares are not those of the joint key"
        self.sharings.add((key.key_epoch, key.share_epoch))


@pytest.mark.parametrize("n", [4, 5])
def test_a_calm_consortium_makes_a_key_and_refreshes_it(n: int) -> None:
    ceremonies = KeyCeremonies()
    run_plan(draw(1, n, "calm", 150), ceremonies)
    assert {(1, 0), (1, 1)} <= ceremonies.sharings


def test_whatever_happens_there_is_one_key_and_t_shares_of_it() -> None:
    """And it is worth the time: among a few seeds some come to a key in spite of everything."""
    reached = set()
    for seed in range(3):
        ceremonies = KeyCeremonies()
        run_plan(draw(seed, 4, "nasty", 60), ceremonies)
        reached |= ceremonies.sharings
    assert (1, 0) in reached
