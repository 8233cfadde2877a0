"""The sign floor notices a journal that forgot (T31, T32)."""

import os
from pathlib import Path

import pytest

from p2pledger.consensus.journal import ViewRecord
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import Epoch, Height, View
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore
from p2pledger.storage.sign_floor import Mark, SignFloor
from tests.interfaces.chains import CHAIN, GENESIS, NODE, chain_of, commit_of, fill, prepare, vote

MINE, OTHER = b"m" * 16, b"o" * 16


def floor_at(path: Path, height: int, view: int = 0, epoch: int = 0) -> SignFloor:
    floor = SignFloor(path)
    floor.adopt(MINE, Height(0))
    floor.raise_to(Height(height), View(view), Epoch(epoch))
    return SignFloor(path)


def standing(view: int, epoch: int = 0) -> ViewRecord:
    return ViewRecord(Epoch(epoch), View(view), True, Height(0), GENESIS, None)


def test_a_first_start_has_no_floor(tmp_path: Path) -> None:
    """A key that never signed may begin with an empty journal, and only with that."""
    floor = SignFloor(tmp_path / "floor")
    assert (floor.exists, floor.ever) == (False, None)
    floor.check(MINE, Height(0))
    with pytest.raises(ConfigError, match="is missing, but the journal stands at height 4"):
        floor.check(MINE, Height(4))


def test_its_own_journal_passes_at_and_above_the_floor(tmp_path: Path) -> None:
    """The floor lags behind the journal, never before it."""
    floor = floor_at(tmp_path / "floor", 10, 3)
    assert floor.exists
    for tip, view in ((10, 3), (11, 3), (500, 7)):
        floor.check(MINE, Height(tip), standing(view))
    floor.check(MINE, Height(10), standing(0, epoch=1))


@pytest.mark.parametrize(
    ("identity", "tip", "view", "why"),
    [
        (OTHER, 10, 3, "is not the one that this key signs with"),
        (MINE, 9, 3, "stands at height 9, but had reached 10"),
        (MINE, 10, 2, "stands in epoch 0 view 2, but had reached epoch 0 view 3"),
    ],
)
def test_a_journal_that_forgot_is_refused(tmp_path: Path, identity: bytes, tip: int, view: int, why: str) -> None:
    """Foreign, or an old copy; the operator reads what to do."""
    floor = floor_at(tmp_path / "floor", 10, 3)
    with pytest.raises(ConfigError, match=why + ".*--accept-resign-risk"):
        floor.check(identity, Height(tip), standing(view))


def test_an_emptied_journal_would_sign_again_and_is_refused(tmp_path: Path) -> None:
    """The whole story with real parts: votes, data folder deleted, start again with the same key."""
    store = LmdbLedgerStore(tmp_path / "ledger", CHAIN, NODE, GENESIS)
    floor = SignFloor(tmp_path / "floor")
    floor.adopt(store.identity, store.tip())
    fill(store, 2)
    store.apply([vote(prepare(3, b"x" * 32))])
    floor.raise_to(store.tip(), View(0))
    store.close()
    for file in (tmp_path / "ledger").iterdir():
        file.unlink()

    emptied = LmdbLedgerStore(tmp_path / "ledger", CHAIN, NODE, GENESIS)
    emptied.apply([vote(prepare(3, b"y" * 32))])  # the attack: nothing in the journal contradicts it
    with pytest.raises(ConfigError, match="is not the one that this key signs with"):
        SignFloor(tmp_path / "floor").check(emptied.identity, emptied.tip())


def test_a_restored_backup_is_refused(tmp_path: Path) -> None:
    """P19: same identity, lower tip: the votes in between are forgotten."""
    store = MemoryLedgerStore(CHAIN, GENESIS, MINE)
    (first, bodies), (second, more) = chain_of(2)
    store.apply(commit_of(first, bodies))
    backup = store.copied()
    store.apply(commit_of(second, more))
    floor = floor_at(tmp_path / "floor", store.tip())
    backup.apply([vote(prepare(2, b"y" * 32))])  # the attack: another vote for a height that is long committed
    with pytest.raises(ConfigError, match="stands at height 1, but had reached 2: an old copy"):
        floor.check(backup.identity, backup.tip())
    floor.check(store.identity, store.tip())


def test_accepting_the_risk_adopts_the_journal_and_forgets_nothing(tmp_path: Path) -> None:
    """The new journal passes from then on; what the key may have signed is still known (P20)."""
    floor = floor_at(tmp_path / "floor", 10, 3)
    floor.adopt(OTHER, Height(0))
    again = SignFloor(tmp_path / "floor")
    again.check(OTHER, Height(0), standing(0))
    assert again.ever == Mark(Height(10), Epoch(0), View(3))
    again.raise_to(Height(4), View(1))
    assert again.ever == Mark(Height(10), Epoch(0), View(3))
    with pytest.raises(ConfigError, match="had reached 4"):
        again.check(OTHER, Height(3))
    with pytest.raises(ConfigError, match="is not the one"):
        again.check(MINE, Height(10))


def test_it_only_grows(tmp_path: Path) -> None:
    """Height and view each on their own; a new epoch begins with view 0 and is higher."""
    path = tmp_path / "floor"
    floor = floor_at(path, 10, 3)
    for height, epoch, view in ((5, 0, 1), (20, 0, 0), (4, 1, 0), (4, 0, 9)):
        floor.raise_to(Height(height), View(view), Epoch(epoch))
    assert floor.ever == SignFloor(path).ever == Mark(Height(20), Epoch(1), View(0))


def test_the_file_is_private_whole_and_alone(tmp_path: Path) -> None:
    """What a crash left of an earlier attempt is replaced; nothing but the floor remains."""
    path = tmp_path / "floor"
    (tmp_path / "floor.new").write_bytes(b"half")
    floor_at(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["floor"]


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 80])
def test_a_damaged_floor_is_no_floor_to_trust(tmp_path: Path, damage: bytes) -> None:
    """Neither taken as absent nor repaired."""
    path = tmp_path / "floor"
    floor_at(path, 10)
    path.write_bytes(damage)
    with pytest.raises(ConfigError, match="is damaged"):
        SignFloor(path)


def test_a_floor_that_cannot_be_written_stops_the_node(tmp_path: Path) -> None:
    """And what was not written does not count."""
    folder = tmp_path / "keys"
    folder.mkdir()
    floor = floor_at(folder / "floor", 10)
    (folder / "floor").unlink()
    folder.rmdir()
    with pytest.raises(StoreError, match="cannot be written"):
        floor.raise_to(Height(11), View(0))
    assert floor.ever == Mark(Height(10), Epoch(0), View(0))
