"""The short campaign inside `make test`: 2,000 seeds of at least 20 heights, and proof that they went places.

Chunks run in any order on any number of workers. Whoever finishes the last chunk adds up what all of them reached and
demands the minimums: a campaign that never met a situation has not tested it.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from p2pledger.sim.campaign import run_seed
from p2pledger.sim.faults import AIMS

CHUNKS = [(4, first, first + 50) for first in range(0, 1_500, 50)] + [
    (7, first, first + 25) for first in range(0, 500, 25)
]
HEIGHTS = 20
REACHED_MIN = {
    "tip prepared again": 10,
    "new view with claims of two views": 10,
    "crash before a write": 10,
    "crash after a write": 10,
    "crash before a vote is sent": 10,
    "crash between sends": 10,
    "crash during recovery": 10,
    "restart with a journal": 10,
    "failed write, lost": 10,
    "failed write, kept": 10,
    "disk lost": 10,
    "lie of Equivocator": 10,
    "equivocation_seen": 10,
    "evidence committed": 10,
    "lie of Deceiver": 10,
    "proposal_refused": 10,
    "primary_unfair": 10,
    "sync_started": 10,
    "blocks_synced": 10,
    "partition": 10,
    "view_left": 10,
    "view_entered": 10,
} | {f"crash aimed at {aim}": 10 for aim in AIMS}


@pytest.fixture(scope="session")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "campaign"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize(("n", "first", "beyond"), CHUNKS)
def test_no_seed_breaks_an_invariant(n: int, first: int, beyond: int, tallies: Path) -> None:
    """Invariants 1 to 9 of docs/protocol.md hold in every world, and every world makes progress once it heals."""
    reached: Counter[str] = Counter()
    for seed in range(first, beyond):
        result = run_seed(seed, n, HEIGHTS)
        assert max(result.heights) >= HEIGHTS
        reached.update(result.reached)
    unfinished = tallies / f"{n}-{first}.part"
    unfinished.write_text(json.dumps(reached))
    unfinished.rename(tallies / f"{n}-{first}.json")
    _demand_minimums(tallies)


def _demand_minimums(tallies: Path) -> None:
    finished = list(tallies.glob("*.json"))
    if len(finished) < len(CHUNKS):
        return
    total: Counter[str] = Counter()
    for tally in finished:
        total.update(json.loads(tally.read_text()))
    missed = {name: total[name] for name, least in REACHED_MIN.items() if total[name] < least}
    assert not missed, f"the campaign hardly met these situations: {missed}"


def test_the_campaign_has_two_thousand_seeds() -> None:
    assert sum(beyond - first for _, first, beyond in CHUNKS) >= 2_000
    assert {n for n, _, _ in CHUNKS} == {4, 7}


@pytest.mark.parametrize(("seed", "n"), [(3, 4), (17, 4), (28, 4), (5, 7)])
def test_the_same_seed_gives_the_same_run_in_another_process(seed: int, n: int) -> None:
    """Every message in order, every height, every situation; whatever Python's hashes are."""
    command = [sys.executable, "-m", "p2pledger.sim", "--seed", str(seed), "--nodes", str(n)]
    runs = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        ).stdout
        for hash_seed in ("1", "4242")
    ]
    assert "trace" in runs[0]
    assert runs[0] == runs[1]
