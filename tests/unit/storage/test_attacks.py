"""Stores that were exchanged, emptied or changed: each is taken without the one rule against it (T31, T32)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pledger.chain.batch import batch_id
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutBody
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import BlockHash, ChainId, Height, NodeId, View
from p2pledger.storage import environment, rules
from p2pledger.storage.environment import Environment
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore
from p2pledger.storage.sign_floor import SignFloor
from tests.attack import Check, Without
from tests.interfaces import chains
from tests.interfaces.chains import (
    CHAIN,
    GENESIS,
    NODE,
    append,
    certificate,
    chain_of,
    commit_of,
    fill,
    header,
    prepare,
    view_change,
    vote,
)
from tests.unit.storage.test_ledger_on_disk import closed_store, flip, opened
from tests.unit.storage.test_sign_floor import MINE, OTHER, floor_at, standing


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except (ConfigError, StoreError):
        return True
    return False


def height_of(path: Path, **named: bytes) -> int:
    store = LmdbLedgerStore(
        path,
        ChainId(named.get("chain", CHAIN)),
        NodeId(named.get("node", NODE)),
        BlockHash(named.get("genesis", GENESIS)),
        map_size=1 << 26,
    )
    store.close()
    return store.tip()


# What lies on the disk


@pytest.mark.attack("T31")
@pytest.mark.parametrize("named", [{"node": b"m" * 32}], ids=["node"])
def test_another_nodes_store_is_not_taken_up(tmp_path: Path, without: Without, named: dict[str, bytes]) -> None:
    """Its journal knows nothing of what this key has signed."""
    closed_store(tmp_path)
    with without(Environment._check_labels, "if found != wanted"):
        assert height_of(tmp_path, **named) == 3
    assert is_refused(lambda: height_of(tmp_path, **named))


@pytest.mark.attack("T31")
def test_a_chain_from_another_genesis_is_not_taken_up(tmp_path: Path, without: Without) -> None:
    closed_store(tmp_path)
    with without(LmdbLedgerStore._check_tail, "if header.chain != self._chain or"):
        assert height_of(tmp_path, genesis=b"g" * 32) == 3
    assert is_refused(lambda: height_of(tmp_path, genesis=b"g" * 32))


@pytest.mark.attack("T31")
@pytest.mark.parametrize("loss", ["missing", "empty"])
def test_an_emptied_store_of_a_node_that_has_signed_is_refused(tmp_path: Path, without: Without, loss: str) -> None:
    """LMDB opens a zero-length file as an empty database, silently."""
    data = closed_store(tmp_path)

    def emptied() -> LmdbLedgerStore:
        data.unlink()
        if loss == "empty":
            data.touch()
        return opened(tmp_path, may_create=False)

    with without(Environment.__init__, "if not may_create and"):
        store = emptied()
        assert (store.tip(), store.journal()) == (0, [])
        store.close()
    assert is_refused(emptied)


@pytest.mark.attack("T31")
def test_a_shortened_file_is_refused_before_it_is_read(tmp_path: Path, without: Without) -> None:
    """A lost page that is read ends the process by SIGBUS; this one is not read at the start."""
    data = closed_store(tmp_path, 30)
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size - 1)
    with without(Environment._check_length, "if found < wanted"):
        environment = opened_without_reading(tmp_path)
        environment.close()
    assert is_refused(lambda: opened_without_reading(tmp_path))


def opened_without_reading(path: Path) -> Environment:
    return Environment(path, {}, (), {}, 1 << 30)


@pytest.mark.attack("T31")
def test_a_flipped_bit_in_a_vote_is_noticed(tmp_path: Path, without: Without) -> None:
    """A changed vote would let the node contradict the one it has sent; LMDB hands it out as it is."""
    data = closed_store(tmp_path)
    flip(data, encode(prepare(4, b"x" * 32)), offset=20)

    def journal() -> list[object]:
        store = opened(tmp_path)
        try:
            return list(store.journal())
        finally:
            store.close()

    with without(environment.unseal, "if sha256(data) != sealed[:32]"):
        assert journal() != [vote(prepare(4, b"x" * 32)).record]
    assert is_refused(journal)


@pytest.mark.attack("T31")
def test_a_flipped_bit_in_a_body_is_noticed(tmp_path: Path, without: Without) -> None:
    """It would be executed here, and served to others."""
    flip(closed_store(tmp_path), b"body 0 of 2")
    store = opened(tmp_path)
    wanted = batch_id(b"body 0 of 2")
    with without(LmdbLedgerStore.body, "if data is not None and"):
        assert store.body(wanted) != b"body 0 of 2"
    assert is_refused(lambda: store.body(wanted))


@pytest.mark.attack("T31")
def test_a_missing_block_is_noticed(tmp_path: Path, without: Without) -> None:
    store = opened(tmp_path)
    fill(store, 150)
    with store._environment.writing() as txn:
        txn.delete((2).to_bytes(8, "big"), db=store._environment.tables["blocks"])
    store.close()
    with without(LmdbLedgerStore._load, "if blocks != tip"):
        assert height_of(tmp_path) == 150
    assert is_refused(lambda: height_of(tmp_path))


# What is written into it


def without_its_bodies() -> list[LedgerWrite]:
    return [append(header(1, GENESIS, [b"kept back"]))]


def with_the_certificate_of_another() -> list[LedgerWrite]:
    return [AppendBlock(CommittedRecord(header(1, GENESIS), certificate(header(1, GENESIS, time_ms=9))))]


def a_body_under_anothers_id() -> list[LedgerWrite]:
    return [PutBody(batch_id(b"x"), b"y")]


def a_view_change_of_a_view_that_was_left() -> list[LedgerWrite]:
    return [chains.standing(2), vote(view_change(1))]


@pytest.mark.attack("T31")
@pytest.mark.parametrize(
    ("check", "writes"),
    [
        (Check(rules.Turn._append, "if missing"), without_its_bodies),
        (Check(rules.Turn._append, "if certificate is not None and"), with_the_certificate_of_another),
        (Check(rules.Turn._keep, "if batch_id(body.data) != body.id"), a_body_under_anothers_id),
        (
            Check(rules.Turn._vote, "if (message.epoch, message.view) < standing"),
            a_view_change_of_a_view_that_was_left,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_ledger_holds_nothing_that_it_could_not_serve(
    without: Without, check: Check, writes: Callable[[], list[LedgerWrite]]
) -> None:
    """Whatever the parts above it think, the store refuses what would make a chain unusable."""

    def attack() -> None:
        MemoryLedgerStore(CHAIN, GENESIS).apply(writes())

    with without(*check):
        attack()
    assert is_refused(attack)


# The sign floor


@pytest.mark.attack("T32")
@pytest.mark.parametrize(
    ("check", "identity", "tip", "view"),
    [
        (Check(SignFloor.check, "if identity != floor.identity"), OTHER, 10, 3),
        (Check(SignFloor.check, "if tip < floor.journal.height"), MINE, 9, 3),
        (Check(SignFloor.check, "if now is not None and"), MINE, 10, 2),
    ],
    ids=["emptied or foreign", "an old copy", "an old copy of one height"],
)
def test_a_journal_that_forgot_does_not_sign(
    tmp_path: Path, without: Without, check: Check, identity: bytes, tip: int, view: int
) -> None:
    """P19: it would vote again for what the key has voted on."""
    floor = floor_at(tmp_path / "floor", 10, 3)
    with without(*check):
        floor.check(identity, Height(tip), standing(view))
    assert is_refused(lambda: floor.check(identity, Height(tip), standing(view)))


@pytest.mark.attack("T32")
def test_a_lost_floor_is_no_first_start(tmp_path: Path, without: Without) -> None:
    """Else deleting one file would be enough to forget."""
    floor = SignFloor(tmp_path / "floor")
    with without(SignFloor.check, "if tip > 0"):
        floor.check(MINE, Height(4))
    assert is_refused(lambda: floor.check(MINE, Height(4)))


@pytest.mark.attack("T32")
def test_a_damaged_floor_is_not_read(tmp_path: Path, without: Without) -> None:
    """One flipped bit makes 10 a 2."""
    path = tmp_path / "floor"
    floor_at(path, 10)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\x0a")
    data[at] ^= 8
    path.write_bytes(bytes(data))
    with without(environment.unseal, "if sha256(data) != sealed[:32]"):
        ever = SignFloor(path).ever
        assert ever is not None and ever.height == 2
    assert is_refused(lambda: SignFloor(path))


@pytest.mark.attack("T32")
def test_a_restored_backup_does_not_sign(tmp_path: Path, without: Without) -> None:
    """The whole story: a backup from height 1, restored at height 2, takes another vote for height 2."""
    store = MemoryLedgerStore(CHAIN, GENESIS, MINE)
    (first, bodies), (second, more) = chain_of(2)
    store.apply(commit_of(first, bodies))
    backup = store.copied()
    store.apply(commit_of(second, more))
    floor = SignFloor(tmp_path / "floor")
    floor.adopt(MINE, Height(0))
    floor.raise_to(store.tip(), View(0))
    with without(SignFloor.check, "if tip < floor.journal.height"):
        floor.check(backup.identity, backup.tip())
        backup.apply([vote(prepare(2, b"y" * 32))])
    assert is_refused(lambda: floor.check(backup.identity, backup.tip()))
    assert is_refused(lambda: store.apply([vote(prepare(2, b"y" * 32))]))
