"""The demonstration as a newcomer runs it: its exit status tells, and it leaves nothing behind."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from p2pledger.demo.search import files_with, memory_has

pytestmark = pytest.mark.process

KEPT = (
    "7 records open, as committed to on the chain",
    "an eighth record: the hospital's vault refuses, E_SCOPE",
    "and so do the validators, E_EXPIRED",
    "the new wallet opens all 182 old records",
    "no byte of it is in any home, backup or wallet any more",
    "6 pairs of shares tried",
    "4 triples tried",
)
"""What must be in the story, in its words."""


def test_the_demonstration_keeps_all_its_promises_and_cleans_up(tmp_path: Path) -> None:
    """One command, real processes, every claim checked, status 0, no process or file left. F-01: a request, its answer,
    and the records; F-10: stolen homes are combined, and searched, with the memory of the nodes, for the secret."""
    environ = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "p2pledger", "demo"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    assert "promises held" in done.stdout
    for promise in KEPT:
        assert promise in done.stdout, promise
    assert list(tmp_path.iterdir()) == []
    processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in command for command in processes)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Else it would be no proof that it finds nothing: bytes in a file, and in the memory of another process."""
    there, elsewhere = secrets.token_bytes(32), secrets.token_bytes(32)
    (tmp_path / "deep").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "deep" / "file").write_bytes(bytes(70_000) + there + bytes(5))
    assert files_with([tmp_path], [elsewhere, there]) == {tmp_path / "deep" / "file"}
    assert files_with([tmp_path], [elsewhere]) == set()

    holder = "import sys; held = sys.stdin.buffer.read(32); print('.', flush=True); sys.stdin.buffer.read(1)"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(there)
        process.stdin.flush()
        process.stdout.readline()
        assert memory_has(process.pid, [elsewhere, there]) == [False, True]
        process.stdin.close()
