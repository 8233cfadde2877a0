"""What readers and recovered patients ask of validators: the questions, the shares that come, and what these open."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from p2pledger.health import deposits, joint_key
from p2pledger.health.commitments import RecordLeaf, prove_record
from p2pledger.health.operations import AccessRequest
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import RecordOpening, ReleaseRequest
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, ProofError
from p2pledger.primitives.ids import Bytes16
from p2pledger.sim.keys.holder import Answer, Reply
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.observer.releases import Ref
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.key_release import TooFewShares
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, OneTime
from p2pledger.threshold.sealing import BoxSecret

if TYPE_CHECKING:
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.world import World


@dataclass(slots=True)
class Chart:
    """One sealed batch of a patient."""

    pid: Bytes16
    batch_id: Bytes16
    capsules: list[bytes]
    content_keys: list[bytes]
    leaves: list[RecordLeaf]
    key_epoch: int

    def opening(self, index: int) -> RecordOpening:
        return RecordOpening(self.batch_id, prove_record(self.leaves, index), self.key_epoch, self.capsules[index])


@dataclass(slots=True, kw_only=True)
class Question:
    """A right to the shares of one capsule, as somebody has it or hopes for it, and what came of it."""

    asker: SigningKey
    secret: BoxSecret
    request: ShareRequest
    access: key_release.Access
    capsule: bytes
    label: Label
    ref: Ref
    """As the observer names the capsule."""
    shares: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)
    """By sharing and holder."""
    codes: list[Code] = field(default_factory=list)
    """What validators said instead."""
    is_open: bool = False
    blamed: set[int] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Visit(Question):
    """One access to a record: of the chain is asked first, and then of the validators."""

    chart: Chart
    index: int
    asked: AccessRequest

    @property
    def release(self) -> ReleaseRequest:
        """What it asks of the validators."""
        assert isinstance(self.request, ReleaseRequest)
        return self.request


def some_state(world: "World") -> StateView | None:
    """What somebody who asks around is shown: the state of an honest node that runs."""
    return next(
        (node.engine.executor.state for node in world.nodes if node.engine is not None and node.is_honest), None
    )


def ask(world: "World", ward: "Ward", question: Question, node: int) -> None:
    """One question over the network, and its answer back."""
    beside = (node + 1) % world.n  # where the reader is: what becomes of that link becomes of its questions
    is_linked = world.network.may_link(beside, node)
    asker, reply = question.asker.public, _hears(world, ward, question)
    for delay in world.network.deliveries(world.now, beside, node) if is_linked else [world.random.randint(1, 50)]:
        world.at(delay, partial(ward.holders[node].ask, question.request, asker, reply))


def ask_some(world: "World", ward: "Ward", question: Question) -> None:
    """As many as it pleases, at once."""
    for node in world.random.sample(range(world.n), world.random.randint(1, world.n)):
        ask(world, ward, question, node)


def ask_all(world: "World", ward: "Ward", question: Question, within_ms: int = 0) -> None:
    """Everybody, at once or while other things happen."""
    for node in range(world.n):
        later = partial(ask, world, ward, question, node)
        if within_ms:
            world.at(world.random.randint(0, within_ms), later)
        else:
            later()


def _hears(world: "World", ward: "Ward", question: Question) -> Reply:
    def hear(answer: Answer | Code) -> None:
        world.at(world.random.randint(1, 30), lambda: _heard(world, ward, question, answer))

    return hear


def _heard(world: "World", ward: "Ward", question: Question, answer: Answer | Code) -> None:
    reached = world.observer.reached
    kind = "release" if isinstance(question, Visit) else "recovery"
    if isinstance(answer, Code):
        question.codes.append(answer)
        reached[f"{kind} refused {answer.name}"] += 1
        return
    reached["shares released"] += 1
    question.shares.setdefault(answer.sharing, {})[answer.index] = answer.shares[0]
    _try(world, ward, question, answer.sharing)


def _try(world: "World", ward: "Ward", question: Question, sharing: tuple[int, int]) -> None:
    """Open with what has come of one sharing; whoever lied is named."""
    key = _key_of(world, sharing)
    if key is None:
        return
    shares = question.shares[sharing]
    try:
        opened = key.open(question.capsule, question.label, question.access, question.secret, shares)
    except TooFewShares as few:
        _blame(world, ward, question, sharing, few.wrong)
        return
    except (InvalidInput, ProofError) as error:
        raise InvariantBroken(f"I-3: {len(shares)} shares that do not open: {error}") from error
    _blame(world, ward, question, sharing, opened.wrong)
    world.observer.releases.opened(question.ref, opened.content_key)
    question.is_open = True


def _blame(world: "World", ward: "Ward", question: Question, sharing: tuple[int, int], wrong: Sequence[int]) -> None:
    """Nobody honest is ever blamed."""
    seats = sorted(node.validator for node in world.nodes)
    state = some_state(world)
    table = deposits.table_of(sharing[1], state) if state is not None and sharing[0] == ONE_TIME_EPOCH else None
    order = seats if table is None else table.holders
    bad = [holder.node.validator for holder in ward.holders if holder.node.index in ward.liars]
    liars = {order.index(validator) + 1 for validator in bad if validator in order}
    if set(wrong) - liars:
        raise InvariantBroken(f"I-9: a reader blames holders {wrong}, liars are {sorted(liars)}")
    world.observer.reached["liar named by the reader"] += len(set(wrong) - question.blamed)
    question.blamed |= set(wrong)


def _key_of(world: "World", sharing: tuple[int, int]) -> LongTerm | OneTime | None:
    state = some_state(world)
    if sharing[0] == ONE_TIME_EPOCH:
        table = None if state is None else deposits.table_of(sharing[1], state)
        return None if table is None else table.release
    for node in world.nodes:
        if node.engine is not None and node.is_honest:
            active = joint_key.active_key(sharing[0], node.engine.executor.state)
            if active is not None and active.key.share_epoch == sharing[1]:
                return LongTerm(active.key)
    return None
