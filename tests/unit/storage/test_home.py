"""The lock of a home."""

from pathlib import Path

import pytest

from p2pledger.primitives.errors import ConfigError
from p2pledger.storage.home import exclusive_lock


def test_one_at_a_time(tmp_path: Path) -> None:
    """Released when the block ends, by whatever means."""
    path = tmp_path / "lock"
    with exclusive_lock(path), pytest.raises(ConfigError, match="held by process"), exclusive_lock(path):
        raise AssertionError("held twice")
    with pytest.raises(ZeroDivisionError), exclusive_lock(path):
        raise ZeroDivisionError
    with exclusive_lock(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link would let two homes share a lock, or overwrite somebody's file."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be opened"), exclusive_lock(tmp_path / "lock"):
        raise AssertionError("a link was followed")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The operator reads which path."""
    missing = tmp_path / "nowhere" / "lock"
    with pytest.raises(ConfigError, match="nowhere/lock cannot be opened"), exclusive_lock(missing):
        raise AssertionError("there is no such folder")
