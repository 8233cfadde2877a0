"""P14, P20: who says two things is remembered with proof, and who cannot know what it said says nothing."""

from p2pledger.chain.genesis import Parameters
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import same_statement, slot
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import Now
from p2pledger.primitives.ids import Epoch, Height, ValidatorId, View
from p2pledger.sim.adversaries import Equivocator
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.sim.world import World


def test_an_equivocator_is_in_the_journal_of_those_who_saw_it_also_after_a_restart() -> None:
    """P14, P19: one pair of signed statements that exclude each other, about the liar and about nobody else."""
    parameters = Parameters(timeout_ms=300, timeout_cap_ms=2_400)
    consortium = found(4, parameters)
    liar = consortium.founding.validators.primary(Epoch(0), View(0))
    index = [key.public for key in consortium.consensus].index(liar)
    world = World(7, adversaries={index: Equivocator()}, parameters=parameters)
    for _ in range(100):
        world.submit((index + 1) % 4)
        world.run_until(world.now + 100)
    witnesses = [node for node in world.nodes if node.is_honest and node.engine and node.engine.evidence.kept]
    assert witnesses
    for node in witnesses:
        kept = [record for record in node.ledger.journal() if isinstance(record, EvidenceRecord)]
        assert [record.first.message.author for record in kept] == [liar]
        first, second = kept[0].first.message, kept[0].second.message
        assert slot(first) == slot(second) and not same_statement(first, second)
    witness = witnesses[0].index
    world.crash(witness)
    world.restart(witness)
    engine = world.nodes[witness].engine
    assert engine is not None and set(engine.evidence.kept) == {liar}


def test_a_key_with_a_lost_journal_stays_silent_and_the_others_go_on() -> None:
    """P20, T32: after --accept-resign-risk nothing is signed below what the key had reached."""
    world = World(8)
    node = world.nodes[0]
    node.engine = Engine(
        world.consortium.founding,
        world.application,
        node.key,
        ValidatorId(node.consensus.public),
        node.ledger,
        node.state,
        Now(0, WALL_START_MS),
        signed_up_to=(Height(500), View(0)),
    )
    said: list[ValidatorId] = []
    hear = world.observer.said
    world.observer.said = lambda signed: (said.append(signed.message.author), hear(signed))[1]  # type: ignore[method-assign]
    node.engine.start()
    for _ in range(20):
        world.submit(1)
        world.run_until(world.now + 200)
    assert node.engine.replica.recovery.is_silent
    assert ValidatorId(node.consensus.public) not in said
    assert min(world.heights()) >= 10
