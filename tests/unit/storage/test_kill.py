"""SIGKILL at any moment: what was acknowledged is there, and nothing is half there (T28, T32)."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pledger.consensus.journal import BlockRecord, JournalRecord, VoteRecord
from p2pledger.primitives.errors import ConfigError
from p2pledger.primitives.ids import Height
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import LmdbLedgerStore
from tests.interfaces.chains import CHAIN, GENESIS, NODE, commit, ids, prepare
from tests.unit.storage.writer import STEPS, block_at, bodies_of

CYCLES = 20
SEED = 28


@contextmanager
def writer(home: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.storage.writer", str(home)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_after(home: Path, acknowledgements: int) -> tuple[str, int]:
    """The last acknowledgement of a writer that was killed while it worked on the turns after these many."""
    with writer(home) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledgements)]
        process.kill()
        lines += process.stdout.readlines()  # what it had said before the signal came
    complete = [line for line in lines if line.endswith("\n")]
    step, height = complete[-1].split()
    return step, int(height)


def check_store(store: LmdbLedgerStore, step: str, height: int) -> None:
    """The store stands at the acknowledged turn or after it, exactly between two turns."""
    tip = store.tip()
    parent = GENESIS
    for number in range(1, tip + 1):
        record = store.block(Height(number))
        assert record is not None
        assert record.header == block_at(number, parent)
        parent = record.header.hash
        assert [store.body(batch) for batch in record.header.batches] == bodies_of(number)
    coming = block_at(tip + 1, parent)
    possible: list[list[JournalRecord]] = [
        [],
        [BlockRecord(coming), VoteRecord(prepare(tip + 1, coming.hash))],
        [BlockRecord(coming), VoteRecord(prepare(tip + 1, coming.hash)), VoteRecord(commit(tip + 1, coming.hash))],
    ]
    journal = store.journal()
    assert journal in possible
    done = possible.index(journal)
    kept = [store.body(batch) for batch in ids(bodies_of(tip + 1))]
    assert kept == (bodies_of(tip + 1) if done else [None, None])
    if step in STEPS:
        assert 3 * tip + done >= 3 * (height - 1) + STEPS.index(step) + 1, f"{step} {height} was acknowledged"


def test_what_was_acknowledged_outlives_the_process(tmp_path: Path) -> None:
    """Twenty times: votes and blocks without end, SIGKILL, reopen, look at everything."""
    chance = random.Random(SEED)
    reached, tip = ("open", 0), 0
    for _ in range(CYCLES):
        reached = killed_after(tmp_path, chance.randrange(1, 60))
        with exclusive_lock(tmp_path / "lock"):
            store = LmdbLedgerStore(tmp_path / "ledger", CHAIN, NODE, GENESIS)
            check_store(store, *reached)
            assert store.tip() >= tip
            tip = store.tip()
            store.close()
    assert tip > CYCLES


def test_a_second_daemon_on_one_home_is_refused(tmp_path: Path) -> None:
    """The lock names who runs, and ends with that process, however it ends."""
    with writer(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open 0\n"
        refusal = pytest.raises(ConfigError, match=f"held by process {process.pid}: a second daemon")
        with refusal, exclusive_lock(tmp_path / "lock"):
            raise AssertionError("two daemons on one home")
    with exclusive_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().strip().isdigit()
