"""F-29: an approved pruning takes operations and events out of old blocks, and nothing that proofs need.

A real engine over real LMDB stores.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from p2pledger.chain.block import Header
from p2pledger.chain.pruned import AnyBatch, PrunedBatch, check_batches
from p2pledger.client.keyring import Wallet
from p2pledger.engine.catchup import range_reply
from p2pledger.engine.ports import LedgerStore, LedgerWrite, PutPruned, StateFlush
from p2pledger.execution.contract import Pruning
from p2pledger.health.application import HealthApplication
from p2pledger.health.pruning_operations import Prune
from p2pledger.messages import RangeReply
from p2pledger.node.home import Home
from p2pledger.node.resync import stopped
from p2pledger.primitives.errors import Code, InvalidInput, StoreError
from p2pledger.primitives.ids import Height
from p2pledger.primitives.merkle import root_of_hashes
from p2pledger.sync import check_range
from tests.unit.node.lone import Lone, lone_node
from tests.unit.node.pruned import PEOPLE, approve, home_that_lived, horizon


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return home_that_lived(tmp_path_factory.mktemp("pruning") / "consortium")


@pytest.fixture
def home(lived: Home, tmp_path: Path) -> Home:
    """A copy for each test."""
    shutil.copytree(lived.layout.root, tmp_path / "home")
    return Home.load(tmp_path / "home", {})


@pytest.fixture
def node(home: Home) -> Iterator[Lone]:
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        yield node


def batches(ledger: LedgerStore, header: Header) -> list[AnyBatch]:
    """What the ledger keeps of a block's transactions."""
    found: list[AnyBatch] = []
    for key in header.batches:
        kept = ledger.body(key) or ledger.pruned(key)
        assert kept is not None
        found.append(kept)
    return found


def header(node: Lone, height: int) -> Header:
    record = node.ledger.block(Height(height))
    assert record is not None
    return record.header


def is_pruned(node: Lone, height: int) -> bool:
    """Whether the operations of a height and the events of its receipts are gone; both or neither."""
    operations = {
        one.operations is None
        for batch in batches(node.ledger, header(node, height))
        if isinstance(batch, PrunedBatch)
        for one in batch.transactions
    }
    events = {executed.events is None for executed in node.engine.executor.receipts_at(Height(height))}
    assert events == operations or (not operations and True not in events)
    return True in operations


def did(person: int, home: Home) -> bytes:
    return Wallet(person.to_bytes(32, "big")).at(home.card.organisation).did


def place_of(node: Lone, person: int) -> int:
    """The height of a registration."""
    wanted = did(person, node.home)
    for height in range(1, node.ledger.tip() + 1):
        for batch in batches(node.ledger, header(node, height)):
            if isinstance(batch, bytes) and wanted in batch:
                return height
    raise AssertionError(person)


def test_up_to_the_horizon_everything_goes_and_above_it_nothing(node: Lone) -> None:
    """F-29: operations and events of every block up to it, also after a restart; and all of it still verifies."""
    last = horizon(node)
    assert approve(node, Prune(last, (), None)) == Code.OK
    busy = [height for height in range(1, node.ledger.tip() + 1) if not header(node, height).is_empty]
    pruned = [height for height in busy if is_pruned(node, height)]
    assert pruned == [height for height in busy if height <= last]
    assert pruned
    parent = node.home.founding.header
    for height in range(1, node.ledger.tip() + 1):
        block = header(node, height)
        assert block.parent == parent.hash
        check_batches(node.home.founding.chain, block, batches(node.ledger, block))
        leaves = node.engine.executor.effects_leaves(Height(height))
        assert node.engine.executor.effects_roots.get(Height(height), root_of_hashes(leaves)) == root_of_hashes(leaves)
        parent = block


def test_a_node_starts_again_with_pruned_blocks_and_goes_on(home: Home) -> None:
    """What is pruned lies below what a start executes again."""
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        assert approve(node, Prune(horizon(node), (), None)) == Code.OK
        state = dict(node.engine.executor.state.scan(b""))
    with lone_node(home, 20_000_000) as node:
        node.perform(node.engine.start())
        assert dict(node.engine.executor.state.scan(b"")) == state
        node.register(PEOPLE + 1)
        assert not node.stops


def test_one_person_alone_can_be_taken_out(node: Lone) -> None:
    """What names the subject goes, wherever it stands; the neighbours stay."""
    place, neighbour = place_of(node, 3), place_of(node, 4)
    assert approve(node, Prune(horizon(node), (), did(3, node.home))) == Code.OK  # type: ignore[arg-type]
    assert is_pruned(node, place)
    assert not is_pruned(node, neighbour)


def test_kinds_narrow_it_and_prunings_follow_each_other(node: Lone) -> None:
    """Of another kind: nothing. A second pruning goes on where the first one ended."""
    last, place = horizon(node), place_of(node, 3)
    assert approve(node, Prune(last, (30,), None), 1) == Code.OK
    assert not is_pruned(node, place)
    assert approve(node, Prune(last, (2, 30), None), 2) == Code.OK
    assert is_pruned(node, place)


def test_it_is_refused_too_near_the_tip_and_out_of_order(node: Lone) -> None:
    """E_HORIZON, E_FORMAT; nothing is pruned."""
    assert approve(node, Prune(Height(horizon(node) + 1), (), None), 1) == Code.E_HORIZON
    assert approve(node, Prune(Height(0), (), None), 2) == Code.E_HORIZON
    assert approve(node, Prune(Height(1), (2, 2), None), 3) == Code.E_FORMAT
    assert not any(is_pruned(node, height) for height in range(1, node.ledger.tip() + 1))


def test_a_crash_between_bodies_and_flush_is_made_good(home: Home) -> None:
    """The operations are gone, the events not yet: after the restart they go too."""
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        place = place_of(node, 3)
        node.holds_flushes = True
        assert approve(node, Prune(horizon(node), (), None)) == Code.OK
        (executed,) = node.engine.executor.receipts_at(Height(place))
        assert executed.events is not None
        assert node.ledger.body(header(node, place).batches[0]) is None
    with lone_node(home, 20_000_000) as node:
        node.perform(node.engine.start())
        while not is_done(node):
            node.register(PEOPLE + 1 + node.engine.executor.executed)
        assert is_pruned(node, place)


def is_done(node: Lone) -> bool:
    number, upto = node.engine.executor.forgotten
    found = HealthApplication().pruning(1, node.engine.executor.state)
    return found is not None and number == 1 and upto == found.horizon


def test_whoever_lags_behind_the_horizon_is_told_what_to_do(node: Lone) -> None:
    """P21: a range with pruned blocks is refused by its own rule, never executed."""
    founding = node.home.founding
    assert approve(node, Prune(horizon(node), (), None)) == Code.OK
    reply = range_reply(node.ledger, Height(1))
    assert isinstance(reply, RangeReply)
    with pytest.raises(InvalidInput, match=r"was pruned by its sender.*snapshot install"):
        check_range(reply, founding.header, founding.chain, founding.validators)


def test_resync_says_that_it_cannot(home: Home) -> None:
    """What is gone cannot be executed again; the state store stays as it was."""
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        assert approve(node, Prune(horizon(node), (), None)) == Code.OK
    with (
        stopped(home, HealthApplication()) as dead,
        pytest.raises(StoreError, match=r"pruned, .*snapshot install"),
    ):
        dead.rebuild(lambda what, done, total: None)
    with lone_node(home, 20_000_000) as node:
        node.perform(node.engine.start())
        assert not node.stops


def test_what_is_left_of_a_batch_is_held_to_the_block(node: Lone) -> None:
    """Another body, another signature, another operation, one transaction less: each is found."""
    place, chain = place_of(node, 3), node.home.founding.chain
    block = header(node, place)
    assert approve(node, Prune(horizon(node), (), None)) == Code.OK
    left = node.ledger.pruned(block.batches[0])
    assert left is not None
    (one,) = left.transactions
    other = node.ledger.pruned(header(node, place_of_next(node, place)).batches[0])
    assert other is not None
    forgeries = [
        PrunedBatch(left.origin, left.sequence, left.transactions_hash, left.signature, other.transactions),
        PrunedBatch(left.origin, left.sequence, left.transactions_hash, left.signature, ()),
        PrunedBatch(left.origin, left.sequence + 1, left.transactions_hash, left.signature, left.transactions),
        PrunedBatch(
            left.origin,
            left.sequence,
            left.transactions_hash,
            left.signature,
            (type(one)((one.signatures[1], one.signatures[0]), one.body, None),),
        ),
        PrunedBatch(
            left.origin,
            left.sequence,
            left.transactions_hash,
            left.signature,
            (type(one)(one.signatures, one.body, b"\x90"),),
        ),
    ]
    check_batches(chain, block, [left])
    for forged in forgeries:
        with pytest.raises(InvalidInput):
            check_batches(chain, block, [forged])
    with pytest.raises(InvalidInput):
        check_batches(chain, block, [])


def place_of_next(node: Lone, height: int) -> int:
    return next(at for at in range(height + 1, node.ledger.tip()) if not header(node, at).is_empty)


def test_bodies_go_before_events_and_both_with_one_flush(node: Lone, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a crash leaves nothing half done that is not found again."""
    order: list[str] = []
    apply, flush = node.ledger.apply, node.state.flush

    def applied(writes: Sequence[LedgerWrite]) -> None:
        order.extend("body" for write in writes if isinstance(write, PutPruned))
        apply(writes)

    def flushed(taken: StateFlush) -> None:
        order.extend(["events"] if taken.forgetting is not None else [])
        flush(taken)

    monkeypatch.setattr(node.ledger, "apply", applied)
    monkeypatch.setattr(node.state, "flush", flushed)
    assert approve(node, Prune(horizon(node), (), None)) == Code.OK
    assert order == ["body"] * (len(order) - 1) + ["events"]
    assert len(order) > 2


def test_what_a_scope_covers() -> None:
    """By kind, by subject, by both; bytes that are no operations only where all kinds are meant."""
    everything = Pruning(1, Height(1), frozenset(), None)
    assert everything.covers(b"\x91\x91\x1e", ())
    assert everything.covers(b"junk", ())
    accesses = Pruning(1, Height(1), frozenset({30}), None)
    assert accesses.covers(b"\x91\x91\x1e", ())
    assert not accesses.covers(b"\x91\x91\x1f", ())
    assert not accesses.covers(b"junk", ())
    subject = Pruning(1, Height(1), frozenset({30}), b"pid")
    assert subject.covers(b"\x91\x91\x1e", (b"some", b"a pid here"))
    assert not subject.covers(b"\x91\x91\x1e", (b"some",))
    assert not subject.covers(b"\x91\x91\x1f", (b"pid",))
