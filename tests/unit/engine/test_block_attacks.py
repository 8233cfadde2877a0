"""Blocks, histories, batches and relays that somebody forged: each is taken without the one rule that it breaks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger import sync
from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Header
from p2pledger.engine import proposals
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.proposals import OriginWindows, Verdict, judge
from p2pledger.execution.windows import Window
from p2pledger.messages import RangeReply, SyncBlock
from p2pledger.primitives import limits
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Height, Millis
from p2pledger.sim.application import RegisterApplication
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from tests.attack import Check, Without
from tests.scenarios.stage import Stage
from tests.unit.engine.test_proposals import (
    FOUNDING,
    GENESIS,
    NOW,
    block,
    bodies,
    pooled,
    windows,
)


@pytest.fixture
def executor() -> Executor:
    state = MemoryStateStore()
    state.flush(genesis_flush(RegisterApplication(), FOUNDING))
    return Executor(FOUNDING, RegisterApplication(), MemoryLedgerStore(FOUNDING.chain, GENESIS.hash), state)


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except InvalidInput:
        return True
    return False


# Proposed blocks (P3)


@pytest.mark.attack("T17")
@pytest.mark.parametrize(
    ("check", "change"),
    [
        (Check(proposals.structure_fault, "if header.version"), {"version": 2}),
        (Check(proposals.structure_fault, "if (header.chain, header.epoch"), {"chain": bytes(32)}),
        (Check(proposals.structure_fault, "if (header.chain, header.epoch"), {"epoch": 1}),
        (Check(proposals.structure_fault, "if header.parent != parent.hash"), {"parent": bytes(32)}),
        (
            Check(proposals.structure_fault, "header.validators_hash != founding.validators.hash"),
            {"validators_hash": bytes(32)},
        ),
        (
            Check(proposals.structure_fault, "header.next_validators_hash is not None"),
            {"next_validators_hash": bytes(32)},
        ),
        (Check(proposals._contents, "if header.transaction_root"), {"transaction_root": bytes(32)}),
        (Check(proposals._contents, "if header.unsettled"), {"unsettled": 0}),
        (Check(proposals._contents, "if header.unsettled"), {"unsettled": limits.CHECKPOINT_TRANSACTIONS}),
        (Check(proposals._roots, "header.effects_roots != effects"), {"effects_roots": (bytes(32),)}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_field_of_a_header_is_checked(
    executor: Executor, without: Without, check: Check, change: dict[str, Any]
) -> None:
    batch = pooled(0, 1)
    forged = replace(block(executor, batch), **change)

    def verdict() -> Verdict:
        return judge(forged, GENESIS, bodies(batch), windows(), executor, FOUNDING, NOW).verdict

    with without(*check):
        assert verdict() is Verdict.GOOD
    assert verdict() is Verdict.BAD


@pytest.mark.attack("T17")
def test_roots_of_heights_that_are_not_executed_are_waited_for(executor: Executor, without: Without) -> None:
    """A header may not state what nobody can have computed."""
    forged = replace(block(executor), executed_height=Height(1))

    def verdict() -> Verdict:
        return judge(forged, GENESIS, [], windows(), executor, FOUNDING, NOW).verdict

    with without(proposals._roots, "if not max("):
        assert verdict() is Verdict.WAIT
    assert verdict() is Verdict.BAD


@pytest.mark.attack("T35")
def test_a_node_with_other_parameters_proposes_nothing_that_others_accept(executor: Executor, without: Without) -> None:
    """What decides validity is in the genesis; a header names its hash."""
    forged = replace(block(executor), parameters_hash=replace(FOUNDING.parameters, window=8).hash)

    def verdict() -> Verdict:
        return judge(forged, GENESIS, [], windows(), executor, FOUNDING, NOW).verdict

    with without(proposals.structure_fault, "if header.parameters_hash"):
        assert verdict() is Verdict.GOOD
    assert verdict() is Verdict.BAD


@pytest.mark.attack("T22")
@pytest.mark.parametrize(
    ("check", "wall_ms", "verdict"),
    [
        (Check(proposals.judge, "if header.time_ms < max("), NOW + 3_600_000, Verdict.BAD),
        (Check(proposals.judge, "if header.time_ms > wall_ms + drift"), NOW - 3_600_000, Verdict.WAIT),
    ],
    ids=["behind", "ahead"],
)
def test_block_time_stays_within_the_drift_of_our_clock(
    executor: Executor, without: Without, check: Check, wall_ms: int, verdict: Verdict
) -> None:
    """P3: an hour that a primary adds or holds back would end or prolong consents."""
    header = block(executor)

    def judged() -> Verdict:
        return judge(header, GENESIS, [], windows(), executor, FOUNDING, wall_ms).verdict

    with without(*check):
        assert judged() is Verdict.GOOD
    assert judged() is verdict


@pytest.mark.attack("T17")
def test_a_batch_stands_in_the_chain_once(executor: Executor, without: Without) -> None:
    """Twice would stop every node at execution."""
    batch = pooled(0, 1)
    used = Window().use(1)
    assert used is not None
    header = block(executor, batch)

    def verdict() -> Verdict:
        stands = windows(n0=used)
        return judge(header, GENESIS, bodies(batch), stands, executor, FOUNDING, NOW).verdict

    with without(proposals._contents, "if not seen.use(batch)"):
        assert verdict() is Verdict.GOOD
    assert verdict() is Verdict.BAD


@pytest.mark.attack("T17")
def test_a_block_names_a_batch_once(executor: Executor, without: Without) -> None:
    batch = pooled(0, 1)
    doubled = replace(block(executor, batch), batches=(batch.id, batch.id))
    with without(proposals.structure_fault, "if len(set(header.batches))"):
        assert proposals.structure_fault(doubled, GENESIS, FOUNDING) == ""
    assert proposals.structure_fault(doubled, GENESIS, FOUNDING) == "it names a batch twice"


@pytest.mark.attack("T17")
def test_a_block_has_a_largest_size(executor: Executor, without: Without, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller limit stands for a larger block."""
    batch = pooled(0, 1)
    header = block(executor, batch)
    monkeypatch.setattr(limits, "BLOCK_BYTES_MAX", 10)

    def verdict() -> Verdict:
        return judge(header, GENESIS, bodies(batch), OriginWindows({}), executor, FOUNDING, NOW).verdict

    with without(proposals._contents, "if len(ids) > limits.BLOCK_TRANSACTIONS_MAX or"):
        assert verdict() is Verdict.GOOD
    assert verdict() is Verdict.BAD


# Histories (P21)


def history(stage: Stage, *headers: Header, bodies: tuple[bytes, ...] = ()) -> RangeReply:
    certificate = stage.certificate("commit", headers[-1])
    return RangeReply(tuple(SyncBlock(header, bodies) for header in headers), (), certificate)


def genuine(stage: Stage) -> RangeReply:
    return history(stage, *stage.chain_of(3))


def with_a_gap(stage: Stage) -> RangeReply:
    first, _, third = stage.chain_of(3)
    return history(stage, first, third)


def not_from_our_tip(stage: Stage) -> RangeReply:
    stranger = replace(stage.genesis, time_ms=Millis(1))
    return history(stage, *stage.chain_of(3, stranger))


def with_other_bodies(stage: Stage) -> RangeReply:
    return history(stage, *stage.chain_of(2), bodies=(b"forged",))


def with_half_of_the_bodies(stage: Stage) -> RangeReply:
    """A peer that serves headers and keeps the rest."""
    (header,) = stage.chain_of(1)
    return history(stage, replace(header, batches=(batch_id(b"kept back"),)))


def without_a_quorum(stage: Stage) -> RangeReply:
    """A liar alone signs a history of its own."""
    reply = genuine(stage)
    lone = reply.certificate.votes[0]
    return replace(reply, certificate=replace(reply.certificate, votes=(lone,) * 3))


def certified_by_prepares(stage: Stage) -> RangeReply:
    """Prepared is not committed: a later view may have decided otherwise."""
    reply = genuine(stage)
    return replace(reply, certificate=stage.certificate("prepare", reply.blocks[-1].header))


def certified_elsewhere(stage: Stage) -> RangeReply:
    """A forged block before a genuine certificate of another one."""
    reply = genuine(stage)
    return replace(reply, certificate=stage.certificate("commit", stage.block(variant=5)))


def with_a_tail_that_is_not_linked(stage: Stage) -> RangeReply:
    forged, committed = stage.block(variant=9), stage.chain_of(2)
    blocks = (SyncBlock(forged, ()),)
    return RangeReply(blocks, (committed[1],), stage.certificate("commit", committed[1]))


@pytest.mark.attack("T25")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(sync.check_range, "raise InvalidInput(f'synced block {header.height} does not"), with_a_gap),
        (Check(sync.check_range, "raise InvalidInput(f'synced block {header.height} does not"), not_from_our_tip),
        (Check(sync.check_range, "if certificate.kind != 'commit' or"), certified_by_prepares),
        (Check(sync.check_range, "if certificate.kind != 'commit' or"), certified_elsewhere),
        (Check(sync.check_range, "check_certificate("), without_a_quorum),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_forged_history_is_refused(without: Without, check: Check, forged: Callable[[Stage], RangeReply]) -> None:
    shown(without, check, forged)


@pytest.mark.attack("T24")
@pytest.mark.parametrize("forged", [with_other_bodies, with_half_of_the_bodies])
def test_blocks_come_with_their_bodies(without: Without, forged: Callable[[Stage], RangeReply]) -> None:
    shown(without, Check(sync.check_range, "if tuple((batch_id(body)"), forged)


def shown(without: Without, check: Check, forged: Callable[[Stage], RangeReply]) -> None:
    stage = Stage("a")
    reply = forged(stage)

    def taken() -> bool:
        return not is_refused(lambda: sync.check_range(reply, stage.genesis, stage.chain, stage.founding.validators))

    with without(*check):
        assert taken()
    assert not taken()


@pytest.mark.attack("T25")
def test_a_tail_must_be_linked_to_its_range(without: Without) -> None:
    """The certificate of a descendant vouches for a block only through every hash between them."""
    stage = Stage("a")
    reply = with_a_tail_that_is_not_linked(stage)
    validators = stage.founding.validators
    with without(sync.check_range, "raise InvalidInput(f'header {header.height} behind"):
        assert len(sync.check_range(reply, stage.genesis, stage.chain, validators)) == 1
    with pytest.raises(InvalidInput, match="behind a synced range does not follow"):
        sync.check_range(reply, stage.genesis, stage.chain, validators)


def test_a_genuine_history_is_taken() -> None:
    stage = Stage("a")
    reply = genuine(stage)
    taken = sync.check_range(reply, stage.genesis, stage.chain, stage.founding.validators)
    assert all(child.header.parent == parent.header.hash for parent, child in pairwise(taken))
