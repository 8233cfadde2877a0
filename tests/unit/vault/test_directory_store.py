"""The folder of files behind a vault: killed at any step, changed by hand, opened to others."""

import subprocess
import sys
from pathlib import Path

import pytest

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, ConfigError, Rejected
from p2pledger.vault.objects import DirectoryStore

DATA = b"a sealed record" * 1000
NAME = sha256(DATA)
BATCH = b"b" * 16

KILLED = """
import os, signal, sys
from pathlib import Path
from p2pledger.primitives.crypto import sha256
from p2pledger.vault.objects import DirectoryStore

store, steps, left = DirectoryStore(Path(sys.argv[1])), int(sys.argv[2]), [0]

def counted(function):
    def wrapped(*arguments, **options):
        if left[0] == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] += 1
        return function(*arguments, **options)
    return wrapped

for name in ("open", "mkdir", "write", "fsync", "replace", "rename", "link", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
data = b"a sealed record" * 1000
store.put(sha256(data), data)
store.put(b"b" * 16, b"manifest" * 1000)
store.replace(b"b" * 16, b"another one" * 1000)
"""
"""Puts an object and a manifest and replaces the manifest; kills itself before the n-th call that touches the disk."""


def test_a_process_killed_at_any_step_leaves_whole_objects_or_none(tmp_path: Path) -> None:
    """F-09: every place to die at; what the next attempt finds is whole, and it completes the work."""
    steps, left_behind = 0, 0
    while True:
        root = tmp_path / str(steps)
        status = subprocess.run([sys.executable, "-c", KILLED, str(root), str(steps)], check=False).returncode
        if status == 0:
            break
        assert status == -9
        store = DirectoryStore(root)
        assert not store.has(NAME) or store.get(NAME) == DATA
        assert not store.has(BATCH) or store.get(BATCH) in (b"manifest" * 1000, b"another one" * 1000)
        assert store.has(NAME) or not store.has(BATCH), "the manifest is written last"
        left_behind += any(path.name.startswith(".") for path in root.rglob("*"))
        store.put(NAME, DATA)
        store.replace(BATCH, b"whole")
        store.delete(NAME)
        store.delete(BATCH)
        assert [path for path in root.rglob("*") if path.is_file()] == [], "nothing of it is left beside its name"
        steps += 1
    assert steps >= 15 and left_behind >= 3


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """F-36: whoever reads is told both hashes, and putting the content again mends it."""
    store = DirectoryStore(tmp_path / "vault")
    store.put(NAME, DATA)
    path = tmp_path / "vault" / "objects" / NAME.hex()[:2] / NAME.hex()
    path.write_bytes(b"A" + DATA[1:])
    with pytest.raises(Rejected, match="was changed: its hash is") as refused:
        store.get(NAME)
    assert refused.value.code == Code.E_COMMIT_MISMATCH
    assert store.has(NAME)
    store.put(NAME, DATA)
    assert store.get(NAME) == DATA


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """F-36."""
    (tmp_path / "vault").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        DirectoryStore(tmp_path / "vault")
