"""P14, P20: who says two things is remembered with proof, and who cannot know what it said says nothing."""

from collections.abc import Iterable

from p2pledger.chain.genesis import Parameters
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import Prepare, Signed, same_statement, slot, statement
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import FromPeer, Now
from p2pledger.execution.evidence import Caught, caught
from p2pledger.messages import Agreement
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View
from p2pledger.sim.adversaries import Adversary, Equivocator, Silent
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


def seat_of(world: World, seat: int) -> int:
    """The index of the node that speaks for a seat."""
    validators = world.consortium.founding.validators
    return next(node.index for node in world.nodes if validators.index(node.validator) == seat)


def caught_by(world: World, liar: ValidatorId) -> set[Caught | None]:
    """What the executed states of the honest nodes hold against a validator."""
    return {caught(liar, node.engine.executor.state) for node in world.nodes if node.is_honest and node.engine}


def accuse(world: World, liar: int, witnesses: Iterable[int]) -> None:
    """Two PREPAREs of a seat for two blocks, shown to some nodes."""
    author = world.consortium.founding.validators.members[liar].id
    key = world.nodes[seat_of(world, liar)].consensus
    for fill in range(2):
        vote = Prepare(Epoch(0), View(0), Height(1), BlockHash(bytes([fill]) * 32), author)
        body = encode(Agreement(Signed(vote, key.sign(statement(world.consortium.founding.chain, vote)))))
        for index in witnesses:
            world.deliver(1, world.nodes[index], FromPeer(world.nodes[seat_of(world, liar)].id, body))


def test_evidence_is_committed_once_by_the_seat_after_the_liars() -> None:
    """P14: in a good network one offer is made, and every honest state holds the same proof."""
    world = World(9, adversaries={0: Adversary()})
    liar = world.consortium.founding.validators.index(world.nodes[0].validator)
    assert liar is not None
    accuse(world, liar, [1, 2, 3])
    world.run_until(5_000)
    (held,) = caught_by(world, world.nodes[0].validator)
    assert held is not None and held.node == world.nodes[seat_of(world, (liar + 1) % 4)].id
    assert (world.observer.reached["evidence_offered"], world.observer.reached["evidence committed"]) == (1, 1)


def test_evidence_is_committed_though_those_whose_turn_comes_first_are_silent_or_crash() -> None:
    """P14: with seven, the liar's next two neighbours fail; one witness alone is enough, also after its restart."""
    world = World(10, n=7)
    validators = world.consortium.founding.validators
    world = World(10, n=7, adversaries={seat_of(world, 0): Adversary(), seat_of(world, 1): Silent()})
    witness = seat_of(world, 4)
    accuse(world, 0, [seat_of(world, 1), witness])
    world.run_until(200)
    world.crash(witness)
    world.restart(witness)
    world.run_until(20_000)
    (held,) = caught_by(world, validators.members[0].id)
    assert held is not None and held.node == world.nodes[witness].id


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
    node.engine.start()
    for _ in range(20):
        world.submit(1)
        world.run_until(world.now + 200)
    assert node.engine.replica.recovery.is_silent
    assert not world.observer.has_spoken(node.validator)
    assert min(world.heights()) >= 10
