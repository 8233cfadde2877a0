"""Many seeds on all cores: chunks of seeds are pure functions, so a long run can stop and go on where it was."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

from p2pledger.primitives.errors import InvalidInput
from p2pledger.sim import campaign, core, twins, whole
from p2pledger.sim.observer import InvariantBroken

CHUNK = 25
LAYERS = ("engine", "core", "twins", "node")
"""What is real: engines with their contracts; replicas alone; replicas of which some exist twice; whole nodes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Which worlds are drawn: seeds of equal kinds are equal runs. Profile and liars are of engines only."""

    nodes: int = 4
    profile: str = "swarm"
    byzantine: int | None = None
    heights: int = 20
    layer: str = "engine"

    @property
    def name(self) -> str:
        """As it stands in a journal of finished chunks."""
        if self.layer != "engine":
            return f"{self.layer}, {self.nodes} nodes"
        liars = "up to f" if self.byzantine is None else self.byzantine
        return f"{self.nodes} nodes, {self.profile}, {liars} liars, {self.heights} heights"


@dataclass(slots=True)
class Tally:
    """What some seeds showed, added up."""

    seeds: int = 0
    messages: int = 0
    simulated_ms: int = 0
    cpu_s: float = 0.0
    """Spent by the workers, each on one core."""
    heights: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    traces: set[str] = field(default_factory=set)
    """Distinct fault schedules: digests of event logs, shortened."""

    def add(self, other: "Tally") -> None:
        """Take another tally in."""
        self.seeds += other.seeds
        self.messages += other.messages
        self.simulated_ms += other.simulated_ms
        self.cpu_s += other.cpu_s
        self.heights += other.heights
        self.reached.update(other.reached)
        self.failed.update(other.failed)
        self.traces |= other.traces

    @property
    def messages_per_cpu_s(self) -> float:
        """Simulated messages per second of one core."""
        return self.messages / self.cpu_s if self.cpu_s else 0.0

    @property
    def cluster_hours_per_hour(self) -> float:
        """Simulated time of a whole cluster per time of one core."""
        return self.simulated_ms / 1_000 / self.cpu_s if self.cpu_s else 0.0


def run_chunk(kind: Kind, seeds: Sequence[int]) -> Tally:
    """Run these seeds one after another; failures are collected, not raised."""
    tally = Tally()
    began = process_time()
    for seed in seeds:
        tally.seeds += 1
        try:
            _run_one(kind, seed, tally)
        except InvariantBroken as broken:
            tally.failed[seed] = str(broken)
    tally.cpu_s = process_time() - began
    return tally


def run_twins(scenario: twins.Scenario, tally: Tally) -> None:
    """One scenario; raises InvariantBroken."""
    outcome = twins.run_scenario(scenario)
    tally.messages += outcome.messages
    tally.heights += outcome.height
    tally.traces.add(hashlib.sha256(repr(scenario).encode()).hexdigest()[:16])


def run_node(kind: Kind, seed: int, tally: Tally, events: list[str] | None = None) -> None:
    """One schedule of whole nodes; raises InvariantBroken."""
    outcome = whole.run_seed(seed, kind.nodes, events)
    tally.messages += outcome.frames
    tally.simulated_ms += int(outcome.virtual_s * 1_000)
    tally.heights += max(outcome.heights)
    tally.reached.update(outcome.reached)
    tally.traces.add(outcome.trace[:16])


def _run_one(kind: Kind, seed: int, tally: Tally) -> None:
    if kind.layer == "twins":
        run_twins(twins.draw(seed, kind.nodes), tally)
        return
    if kind.layer == "node":
        run_node(kind, seed, tally)
        return
    result: campaign.Result | core.Result
    if kind.layer == "core":
        result = core.run_seed(seed, kind.nodes)
    else:
        result = campaign.run_seed(seed, kind.nodes, kind.heights, kind.profile, kind.byzantine)
    tally.messages += result.messages
    tally.simulated_ms += result.simulated_ms
    tally.heights += max(result.heights)
    tally.reached.update(result.reached)
    tally.traces.add(result.trace[:16])


def run_many(
    kind: Kind,
    seeds: range,
    jobs: int = 1,
    journal: Path | None = None,
    progress: Callable[[Tally], object] = lambda _: None,
    until: Callable[[Tally], bool] = lambda _: False,
) -> Tally:
    """Run a range of seeds, `jobs` processes at a time; `progress` hears every finished chunk.

    With a `journal`, finished chunks are appended to that file and skipped when it is given again. `until` ends the run
    early. Raises InvalidInput if the journal is not one.
    """
    total = Tally()
    done = _finished(journal, kind) if journal else {}
    todo = []
    for first in range(seeds.start, seeds.stop, CHUNK):
        chunk = range(first, min(first + CHUNK, seeds.stop))
        earlier = done.get((chunk.start, chunk.stop))
        if earlier is None:
            todo.append(chunk)
        else:
            total.add(earlier)
            progress(earlier)
    for chunk, tally in _run_chunks(kind, todo, jobs):
        if journal:
            _append(journal, kind, chunk, tally)
        total.add(tally)
        progress(tally)
        if until(total):
            break
    return total


def _run_chunks(kind: Kind, chunks: list[range], jobs: int) -> Iterator[tuple[range, Tally]]:
    if jobs == 1:
        for chunk in chunks:
            yield chunk, run_chunk(kind, chunk)
        return
    with ProcessPoolExecutor(jobs) as pool:
        running: dict[Future[Tally], range] = {pool.submit(run_chunk, kind, chunk): chunk for chunk in chunks}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # not waiting, an executor dies before it has cancelled


def _append(journal: Path, kind: Kind, chunk: range, tally: Tally) -> None:
    line: dict[str, Any] = {
        "kind": kind.name,
        "first": chunk.start,
        "beyond": chunk.stop,
        "seeds": tally.seeds,
        "messages": tally.messages,
        "simulated_ms": tally.simulated_ms,
        "cpu_s": round(tally.cpu_s, 3),
        "heights": tally.heights,
        "reached": dict(sorted(tally.reached.items())),
        "failed": {str(seed): text for seed, text in tally.failed.items()},
        "traces": sorted(tally.traces),
    }
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _finished(journal: Path, kind: Kind) -> dict[tuple[int, int], Tally]:
    """The chunks of this kind that the journal holds; a line that was cut off by a kill does not count."""
    if not journal.exists():
        return {}
    found: dict[tuple[int, int], Tally] = {}
    lines = journal.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if line["kind"] == kind.name:
                found[line["first"], line["beyond"]] = _tally(line)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise InvalidInput(f"{journal}: line {number} is no finished chunk ({error})") from error
    return found


def _tally(line: dict[str, Any]) -> Tally:
    return Tally(
        line["seeds"],
        line["messages"],
        line["simulated_ms"],
        line["cpu_s"],
        line["heights"],
        Counter(line["reached"]),
        {int(seed): text for seed, text in line["failed"].items()},
        set(line["traces"]),
    )
