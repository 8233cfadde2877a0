"""Whole nodes, their tasks, links, clients and LMDB, through a hundred schedules of faults in virtual time.

A failing schedule prints the line that replays it. What the instrument can see is shown with nodes that are broken on
purpose.
"""

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.engine.events import EngineEffect, Write
from p2pledger.engine.ports import LedgerWrite, PutJournal
from p2pledger.node.driver import Driver
from p2pledger.node.server import Server
from p2pledger.primitives.errors import Divergence
from p2pledger.sim.faults import AIMS
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.whole.machine import Hazards
from p2pledger.sim.whole.nodes import Trouble, draw, run_seed, run_trouble
from p2pledger.storage.ledger import LmdbLedgerStore

CHUNK = 10


@pytest.mark.parametrize("first", range(0, 100, CHUNK))
def test_whole_nodes_keep_every_invariant(first: int) -> None:
    """Agreement, certificates on the wire, nothing said before it is durable, nothing acknowledged ever lost."""
    reached: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        result = run_seed(seed)
        assert min(result.heights) > 0 and result.receipts >= 4
        reached.update(result.reached)
    for situation in ("restart", "kill at some await", "connection reset", "view_entered", "blocks_synced"):
        assert reached[situation], f"no schedule of {first}:{first + CHUNK} reached {situation!r}"


@pytest.mark.parametrize("aim", AIMS)
def test_nodes_killed_around_each_kind_of_write_go_on(aim: str) -> None:
    """Kills aim before the write, right after it and between the sends that follow; views change all the time."""
    _, parameters = draw(0, 4)
    trouble = Trouble(lasts_s=2.5, partitions=1.0, hazards=Hazards(aim=aim, kill_aimed=0.25, disk_fails=0.004))
    reached: Counter[str] = Counter()
    for seed in range(2):
        reached.update(run_trouble(seed, 4, trouble, replace(parameters, term_heights=7)).reached)
    assert any(name.startswith("kill ") for name in reached)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_other_sizes(n: int) -> None:
    """One validator alone, two that tolerate nothing, seven that tolerate two."""
    assert run_seed(5, n).receipts >= n


def test_the_same_seed_is_the_same_run_in_another_process() -> None:
    """Byte-identical logs of every event from two processes with different hash seeds."""
    command = [sys.executable, "-m", "p2pledger", "sim", "replay", "21", "--layer", "node", "--trace"]
    logs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True).stdout
        for hash_seed in ("1", "2")
    ]
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") > 500


# What it can see: nodes broken on purpose

UNQUIET = Trouble(lasts_s=3.0, partitions=1.0, kills=2.0, hazards=Hazards(aim="Commit", kill_aimed=0.1))


def _found(trouble: Trouble, seeds: range) -> str:
    """What the first seed that fails says."""
    _, parameters = draw(0, 4)
    for seed in seeds:
        try:
            run_trouble(seed, 4, trouble, parameters)
        except InvariantBroken as broken:
            return str(broken)
    return "nothing"


def test_a_node_that_speaks_before_it_has_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """P19 broken in the driver: statements are on the wire, or results told, while no store holds them."""

    async def hasty(self: Driver, effects: list[EngineEffect]) -> None:
        writes: list[LedgerWrite] = []
        while effects:
            writes += [effect.write for effect in effects if isinstance(effect, Write)]
            effects = [follow for effect in effects for follow in self._perform_one(effect)]
        if writes:
            await self._write(writes)

    assert _found(UNQUIET, range(2)) == "nothing"
    monkeypatch.setattr(Driver, "_perform", hasty)
    found = _found(UNQUIET, range(4))
    assert "was not durable before" in found or "durable is" in found


def test_a_journal_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """P19 broken in the store: votes are reported as written and are not there after a kill."""
    real = LmdbLedgerStore.apply

    def forgetful(self: LmdbLedgerStore, writes: list[LedgerWrite]) -> None:
        real(self, [write for write in writes if not isinstance(write, PutJournal)])

    monkeypatch.setattr(LmdbLedgerStore, "apply", forgetful)
    assert "9, I5: the journal of node" in _found(UNQUIET, range(4))


def test_a_node_whose_task_dies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ends with an error takes its node down, and nobody may mistake that for a kill."""
    real = Server.on_executed

    def breaks(self: Server, block: Any) -> None:
        if block.height == 5:
            raise Divergence("made up for this test")
        real(self, block)

    monkeypatch.setattr(Server, "on_executed", breaks)
    assert "made up for this test" in _found(Trouble(lasts_s=1.0), range(1))
