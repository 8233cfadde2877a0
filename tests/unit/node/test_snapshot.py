"""A snapshot brings a node to where it could not execute itself; a falsified one changes nothing (F-29, F-40)."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client.keyring import Wallet
from p2pledger.health import keys as health_keys
from p2pledger.health.pruning_operations import Prune
from p2pledger.node import snapshot
from p2pledger.node.home import Home
from p2pledger.node.snapshot import Block, Head, Outcome, Part, Rows
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, ConfigError, ProofError
from p2pledger.primitives.ids import Height
from p2pledger.storage.environment import compacted
from p2pledger.storage.sign_floor import SignFloor
from tests.unit.cli.town import run
from tests.unit.node.lone import lone_node
from tests.unit.node.pruned import PEOPLE, approve, home_that_lived, horizon


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A node whose lower blocks were pruned, stopped."""
    home = home_that_lived(tmp_path_factory.mktemp("snapshot") / "consortium")
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        assert approve(node, Prune(horizon(node), (), None)) == Code.OK
    return home


@pytest.fixture(scope="module")
def file(pruned: Home) -> bytes:
    target = io.BytesIO()
    snapshot.save(pruned, target)
    return target.getvalue()


def copied(home: Home, folder: Path) -> Home:
    shutil.copytree(home.layout.root, folder)
    return Home.load(folder, {})


@pytest.fixture
def empty(pruned: Home, tmp_path: Path) -> Home:
    """The same member before its first start."""
    home = copied(pruned, tmp_path / "empty")
    shutil.rmtree(home.data)
    home.layout.sign_floor.unlink(missing_ok=True)
    return home


def content(home: Home) -> tuple[object, ...]:
    """State, tip and receipts as the node shows them after its start."""
    with lone_node(home, 20_000_000) as node:
        node.perform(node.engine.start())
        executor = node.engine.executor
        receipts = [executor.receipts_at(Height(height)) for height in range(1, executor.executed + 1)]
        leaves = [executor.effects_leaves(Height(height)) for height in range(1, executor.executed + 1)]
        return executor.executed, dict(executor.state.scan(b"")), receipts, leaves, executor.receipt(1, 1)


def test_a_new_node_becomes_what_the_old_one_is_and_takes_part(pruned: Home, empty: Home, file: bytes) -> None:
    """Same state, receipts and effects, without executing a single pruned block; then it proposes and votes."""
    saved = snapshot.install(empty, io.BytesIO(file))
    assert 0 < saved.checkpoint <= saved.tip
    assert content(empty) == content(pruned)
    with lone_node(empty, 30_000_000) as node:
        node.perform(node.engine.start())
        node.register(PEOPLE + 1)
        assert not node.stops


def test_a_lost_state_store_is_replaced_and_the_journal_stays(pruned: Home, file: bytes, tmp_path: Path) -> None:
    """The blocks and votes of the node itself remain; only the state is the file's."""
    home = copied(pruned, tmp_path / "home")
    with lone_node(home) as node:
        identity, journal = node.ledger.identity, node.ledger.journal()
    shutil.rmtree(home.state)
    home.layout.sign_floor.unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"sign floor .* is missing"):
        snapshot.install(home, io.BytesIO(file))
    with lone_node(home) as node:
        SignFloor(home.layout.sign_floor).adopt(node.ledger.identity, node.ledger.tip())
    shutil.rmtree(home.state)
    snapshot.install(home, io.BytesIO(file))
    with lone_node(home) as node:
        assert (node.ledger.identity, node.ledger.journal()) == (identity, journal)
    assert content(home) == content(pruned)


def test_who_kept_what_others_pruned_prunes_it_too(tmp_path: Path) -> None:
    """A node with whole blocks and another's pruned state takes out the same operations when it runs."""
    whole = home_that_lived(tmp_path / "consortium")
    ahead = copied(whole, tmp_path / "ahead")
    with lone_node(ahead, 10_000_000) as node:
        node.perform(node.engine.start())
        last = horizon(node)
        assert approve(node, Prune(last, (), None)) == Code.OK
    target = io.BytesIO()
    snapshot.save(ahead, target)
    with lone_node(whole) as node:
        SignFloor(whole.layout.sign_floor).adopt(node.ledger.identity, node.ledger.tip())
    snapshot.install(whole, io.BytesIO(target.getvalue()))
    with lone_node(whole, 20_000_000) as node:
        node.perform(node.engine.start())
        person = PEOPLE
        while node.engine.executor.forgotten[1] < last:
            person += 1
            node.register(person)
        for height in range(1, last + 1):
            record = node.ledger.block(Height(height))
            assert record is not None
            assert all(node.ledger.body(key) is None for key in record.header.batches)


def _without_a_row(parts: list[Part]) -> None:
    place = next(i for i, part in enumerate(parts) if isinstance(part, Rows))
    rows = parts[place]
    assert isinstance(rows, Rows)
    parts[place] = Rows(rows.rows[1:])


def _with_another_value(parts: list[Part]) -> None:
    for place, part in enumerate(parts):
        if isinstance(part, Rows):
            changed = [(key, value + b"x" if key[:1] == health_keys.IDENTITY else value) for key, value in part.rows]
            parts[place] = Rows(tuple(changed))


def _first_busy(parts: list[Part]) -> int:
    return next(i for i, part in enumerate(parts) if isinstance(part, Outcome) and part.receipts)


def _without_a_receipt(parts: list[Part]) -> None:
    place = _first_busy(parts)
    outcome = parts[place]
    assert isinstance(outcome, Outcome)
    parts[place] = replace(outcome, receipts=(), receipt_keys=())


def _with_another_code(parts: list[Part]) -> None:
    place = _first_busy(parts)
    outcome = parts[place]
    assert isinstance(outcome, Outcome)
    (executed,) = outcome.receipts
    parts[place] = replace(outcome, receipts=(replace(executed, receipt=replace(executed.receipt, code=5)),))


def _with_events_of_its_own(parts: list[Part]) -> None:
    place = _first_busy(parts)
    outcome = parts[place]
    assert isinstance(outcome, Outcome)
    parts[place] = replace(outcome, receipts=(replace(outcome.receipts[0], events=(b"\x90",)),))


def _indexed_elsewhere(parts: list[Part]) -> None:
    place = _first_busy(parts)
    outcome = parts[place]
    assert isinstance(outcome, Outcome)
    parts[place] = replace(outcome, receipt_keys=((1, 77),))


def _without_the_certificate(parts: list[Part]) -> None:
    place = max(i for i, part in enumerate(parts) if isinstance(part, Block))
    block = parts[place]
    assert isinstance(block, Block)
    parts[place] = replace(block, record=replace(block.record, certificate=None))


def _with_one_signature_less(parts: list[Part]) -> None:
    place = max(i for i, part in enumerate(parts) if isinstance(part, Block))
    block = parts[place]
    assert isinstance(block, Block) and block.record.certificate is not None
    bare = replace(block.record.certificate, votes=())
    parts[place] = replace(block, record=replace(block.record, certificate=bare))


def _without_a_block(parts: list[Part]) -> None:
    del parts[next(i for i, part in enumerate(parts) if isinstance(part, Block))]


def _of_another_time(parts: list[Part]) -> None:
    block = parts[1]
    assert isinstance(block, Block)
    header = replace(block.record.header, time_ms=block.record.header.time_ms + 1)
    parts[1] = replace(block, record=replace(block.record, header=header, certificate=None))


def _of_another_chain(parts: list[Part]) -> None:
    head = parts[0]
    assert isinstance(head, Head)
    parts[0] = replace(head, chain=bytes(32))


def _without_its_end(parts: list[Part]) -> None:
    del parts[-1]


MISDEEDS = [
    _without_a_row,
    _with_another_value,
    _without_a_receipt,
    _with_another_code,
    _with_events_of_its_own,
    _indexed_elsewhere,
    _without_the_certificate,
    _with_one_signature_less,
    _without_a_block,
    _of_another_time,
    _of_another_chain,
    _without_its_end,
]


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.__name__[1:])
def test_a_falsified_one_changes_nothing(misdeed: Callable[[list[Part]], None], empty: Home, file: bytes) -> None:
    """F-40: rows, receipts, events, certificates, blocks: each is held to the headers; ProofError, no file written."""
    parts = [part for _, part in snapshot.parts(io.BytesIO(file))]
    misdeed(parts)
    forged = io.BytesIO()
    for part in parts:
        data = encode(part)
        forged.write(len(data).to_bytes(4, "big") + data)
    forged.seek(0)
    with pytest.raises(ProofError):
        snapshot.install(empty, forged)
    assert not empty.ledger.exists() and not empty.state.exists()


def test_cut_short_or_no_snapshot_at_all(empty: Home, file: bytes) -> None:
    """Every length up to the second part, and junk."""
    for data in (b"", b"\0", b"junk and more", file[:100], file[:-1], file[: len(file) // 2]):
        with pytest.raises(ProofError):
            snapshot.install(empty, io.BytesIO(data))


def test_the_commands(pruned: Home, empty: Home, tmp_path: Path) -> None:
    """save, install, compact; a falsified file is status 5, a missing one 2."""
    target = tmp_path / "a.snapshot"
    run("snapshot", "save", target, "--home", pruned.layout.root)
    run("snapshot", "save", target, "--home", pruned.layout.root, expect=2)
    run("snapshot", "install", tmp_path / "none", "--home", empty.layout.root, expect=2)
    data = target.read_bytes()
    target.write_bytes(data[:-1])
    run("snapshot", "install", target, "--home", empty.layout.root, expect=5)
    target.write_bytes(data)
    run("snapshot", "install", target, "--home", empty.layout.root)
    run("compact", "--home", empty.layout.root)
    assert content(empty) == content(pruned)


def test_after_compacting_what_was_pruned_is_in_no_file(tmp_path: Path) -> None:
    """F-29: LMDB keeps freed pages; the copy has none of the operations that were taken out, and starts as before."""
    home = home_that_lived(tmp_path / "consortium")
    with lone_node(home, 10_000_000) as node:
        node.perform(node.engine.start())
        attestations = b"".join(path.read_bytes() for path in (home.ledger, home.state) for path in path.glob("*.mdb"))
        assert approve(node, Prune(horizon(node), (), None)) == Code.OK
        state = dict(node.engine.executor.state.scan(b""))
    operations = node.registration(3).envelope.operations
    assert operations in attestations
    before, after = compacted(home.ledger)
    compacted(home.state)
    assert after < before
    kept = b"".join(path.read_bytes() for path in home.data.rglob("*.mdb"))
    assert operations not in kept
    assert Wallet((3).to_bytes(32, "big")).at(home.card.organisation).did in kept  # the state has its identity still
    with lone_node(home, 20_000_000) as node:
        node.perform(node.engine.start())
        assert dict(node.engine.executor.state.scan(b"")) == state
