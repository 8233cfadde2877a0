"""Deposit keys on disk: whole or not at all, for their owner's eyes only, and never replaced."""

from pathlib import Path

import pytest

from p2pledger.primitives.errors import ConfigError, InvalidInput, StoreError
from p2pledger.primitives.ids import ChainId, NodeId
from p2pledger.storage.deposit_files import DepositFiles

CHAIN, NODE = ChainId(b"c" * 32), NodeId(b"n" * 32)


@pytest.fixture
def files(tmp_path: Path) -> DepositFiles:
    return DepositFiles(tmp_path / "deposits", CHAIN, NODE)


def test_what_was_written_is_there_after_a_start(files: DepositFiles) -> None:
    files.write(1, b"1" * 32)
    files.write(12, b"2" * 32)
    assert DepositFiles(files.folder, CHAIN, NODE).load() == {1: b"1" * 32, 12: b"2" * 32}
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {
        "deposit-1": 0o600,
        "deposit-12": 0o600,
    }


def test_a_key_is_never_replaced(files: DepositFiles) -> None:
    """What was sealed to it waits for it."""
    files.write(1, b"1" * 32)
    with pytest.raises(InvalidInput, match="already exists"):
        files.write(1, b"2" * 32)
    assert files.load() == {1: b"1" * 32}


def test_what_a_crash_left_half_written_goes(files: DepositFiles) -> None:
    half = files.folder / ".deposit-1.0011223344556677"
    half.write_bytes(b"half")
    assert files.load() == {}
    assert not half.exists()


def test_a_damaged_or_renamed_file_stops_the_node(files: DepositFiles) -> None:
    files.write(1, b"1" * 32)
    path = files.folder / "deposit-1"
    path.rename(files.folder / "deposit-2")
    with pytest.raises(StoreError, match="is deposit key 1"):
        files.load()
    data = bytearray((files.folder / "deposit-2").read_bytes())
    data[-1] ^= 1
    (files.folder / "deposit-2").write_bytes(data)
    with pytest.raises(StoreError):
        files.load()


@pytest.mark.parametrize("other", [(ChainId(b"d" * 32), NODE), (CHAIN, NodeId(b"m" * 32))], ids=["chain", "node"])
def test_a_foreign_file_stops_the_node(files: DepositFiles, other: tuple[ChainId, NodeId]) -> None:
    files.write(1, b"1" * 32)
    with pytest.raises(StoreError, match="is deposit key 1 of node"):
        DepositFiles(files.folder, *other).load()


def test_a_key_that_others_can_read_is_refused(files: DepositFiles) -> None:
    files.write(1, b"1" * 32)
    (files.folder / "deposit-1").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        files.load()
