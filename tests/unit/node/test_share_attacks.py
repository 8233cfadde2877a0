"""What readers try at the door of a node that holds a share: each attempt works without its one check.

The node's engine and share are those of a validator in a simulated consortium, its door is the real one.
"""

from collections.abc import Callable, Sequence

import pytest
import trio

from p2pledger.health.operations import ConsentRevoke
from p2pledger.health.release import ReleaseEntry, ReleaseRequest
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node.metrics import make_metrics
from p2pledger.node.release import Releasing
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Height
from p2pledger.sim import draw
from p2pledger.sim.campaign import go_through_faults
from p2pledger.sim.keys import erasures
from p2pledger.sim.keys.questions import Visit
from p2pledger.sim.keys.ward import Ward
from p2pledger.threshold.participant import seeded
from tests.attack import Without

NODE = 1


class Hospital:
    """A consortium with a joint key, seen through the door of one node."""

    def __init__(self) -> None:
        self.ward = Ward(goal=0)
        self.world = draw(1, 4, "calm", 20).world(None, self.ward)
        go_through_faults(self.world, 60, 20)
        self.world.heal()

    def visit(self) -> Visit:
        """An access that has just been allowed."""
        return self.ward.ready(self.world)

    async def ask(
        self, request: ReleaseRequest, account: bytes, meanwhile: Callable[[], object] = lambda: None
    ) -> Code:
        """What the node says; something may happen after the entries were written down."""
        node, holder = self.world.nodes[NODE], self.ward.holders[NODE]
        assert node.engine is not None

        async def write_down(entries: Sequence[ReleaseEntry]) -> None:
            meanwhile()
            await trio.lowlevel.checkpoint()

        async def next_block() -> None:
            self.world.run_until(self.world.now + 100)
            await trio.lowlevel.checkpoint()

        random = seeded(b"\1" * 32)
        releasing = Releasing(
            node.engine,
            lambda active: holder.keeper().holder(active),
            lambda table: None,
            write_down,
            next_block,
            node.moment,
            random,
            make_metrics(),
            Height(0),
            threads=0,
        )
        session = Session(AccountKey(account), "practitioner", "here")
        try:
            await releasing.shares(session, api.GetShares(1, request))
        except Rejected as refusal:
            return refusal.code
        return Code.OK


@pytest.fixture(scope="module")
def hospital() -> Hospital:
    return Hospital()


@pytest.mark.attack("T61")
async def test_somebody_elses_question_is_replayed(hospital: Hospital, without: Without) -> None:
    """I-5: what is heard of a question gives nobody the shares, sealed as they are to another's key."""
    visit = hospital.visit()
    thief = hospital.world.consortium.accounts[2].public
    with without(Releasing._demand_reader, "if asker != session.account"):
        assert await hospital.ask(visit.release, thief) == Code.OK
    assert await hospital.ask(visit.release, thief) == Code.E_ROLE
    assert await hospital.ask(visit.release, visit.asker.public) == Code.OK


@pytest.mark.attack("T66")
async def test_a_revocation_overtakes_a_release(hospital: Hospital, without: Without) -> None:
    """I-2: the block with the revocation comes between the entry and the share."""

    async def raced() -> Code:
        visit = hospital.visit()
        return await hospital.ask(visit.release, visit.asker.public, lambda: revoke(hospital, visit))

    with without(Releasing._released, "if self.engine.executor.executed != judged_at"):
        assert await raced() == Code.OK
    assert await raced() == Code.E_REVOKED


async def test_an_erasure_overtakes_a_release(hospital: Hospital) -> None:
    """I-2, F-26: the block with the custodian's decision comes between the entry and the share."""
    visit = hospital.visit()
    assert await hospital.ask(visit.release, visit.asker.public) == Code.OK
    raced = await hospital.ask(visit.release, visit.asker.public, lambda: erase(hospital, visit))
    assert raced == Code.E_ERASED


def erase(hospital: Hospital, visit: Visit) -> None:
    """Given up at the node before this returns."""
    world = hospital.world
    sent = erasures.erase(world, hospital.ward, visit.chart, (visit.index,))
    world.run_until(world.now + 3_000)
    assert sent is not None and world.observer.is_executed(sent)


def revoke(hospital: Hospital, visit: Visit) -> None:
    """Final at the node before this returns."""
    world = hospital.world
    assert visit.asked.basis is not None
    patient = hospital.ward.key_of(visit.asked.pid)
    sent = world.submit_signed(NODE, patient, [ConsentRevoke(visit.asked.basis, "withdrawn")])
    assert sent is not None
    world.run_until(world.now + 3_000)
    assert world.observer.is_executed(sent)


@pytest.mark.attack("T66")
async def test_a_share_is_made_of_a_sharing_that_ends_meanwhile(hospital: Hospital, without: Without) -> None:
    """I-10: it would leave after the others have deleted theirs."""

    async def raced() -> Code:
        visit = hospital.visit()
        return await hospital.ask(visit.release, visit.asker.public, lambda: refresh(hospital))

    with without(Releasing._released, "if held.key_epoch != ONE_TIME_EPOCH"):
        assert await raced() == Code.OK
    assert await raced() == Code.E_NO_SHARE


def refresh(hospital: Hospital) -> None:
    """A new sharing is active before this returns."""
    hospital.ward.goal += 1
    hospital.ward.await_key(hospital.world)
