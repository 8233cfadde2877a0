"""Writes the figures of a run into docs/benchmarks.md, below its method, with the plots beside it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from bench import tables
from bench.goals import judge_all
from bench.report import write_report
from bench.run import ENVIRONMENT, Results, load_results
from p2pledger.primitives.errors import InvalidInput

PAGE = Path("docs/benchmarks.md")
PLOTS = Path("docs/benchmarks")
MARK = "<!-- Below this line `python -m bench publish` writes. -->\n"
ALT = {
    "latency-throughput": "Latency against throughput, open loop",
    "latency-cdf": "Distribution of latencies",
    "scaling": "Throughput and processor time by number of validators",
    "fault-time-line": "Throughput second by second through faults",
    "growth": "Processor time outside verification by length of the chain",
    "cpu-phases": "Processor time of a validator by phase",
    "systems": "Peak throughput beside other systems",
}
ENVIRONMENT_SHOWN = ("cpu", "cores_usable", "memory_bytes", "kernel", "filesystem", "python", "load_before")


def publish(folder: Path, root: Path) -> Path:
    """Replace the results in `root`/docs/benchmarks.md by those of a run; its path.

    Raises InvalidInput for a page without the mark, OSError and msgspec.ValidationError for a folder without results.
    """
    page, plots = root / PAGE, root / PLOTS
    method, mark, _ = page.read_text().partition(MARK)
    if not mark:
        raise InvalidInput(f"{page} lacks the line {MARK.strip()!r} below which results are written")
    results = load_results(folder)
    environment = json.loads((folder / ENVIRONMENT).read_text())
    write_report(folder)
    shutil.rmtree(plots, ignore_errors=True)
    plots.mkdir()
    drawn = [name for name in ALT if (folder / "plots" / f"{name}.svg").exists()]
    for name in drawn:
        shutil.copy(folder / "plots" / f"{name}.svg", plots / f"{name}.svg")
    page.write_text(method + mark + results_text(results, environment, drawn))
    return page


def results_text(results: Results, environment: Mapping[str, object], plots: list[str]) -> str:
    """The part of the page below the mark."""
    points = results.points
    state = "" if environment.get("commit_is_clean") else ", with changes that were not committed"
    parts = [
        f"\n## {results.title or results.scenario}\n",
        f"    python -m bench run {results.scenario} --seed {environment['seed']}\n",
        f"Started {environment['started']} at commit `{str(environment['commit'])[:12]}`{state}, on:\n",
        *(f"- {name}: {_shown(environment[name])}" for name in ENVIRONMENT_SHOWN if name in environment),
        "\nOne run is one sample. Load processes share the processors with the validators.\n",
        *(f"- broken off: {text}" for text in results.failed),
        *(f"- left out: {text}" for text in results.missing),
    ]
    sections = (
        ("Goals", tables.goals(judge_all(points))),
        ("Caliper's table", tables.caliper(points)),
        ("Latency, ms", tables.latencies(points)),
        ("Resources of a validator", tables.resources(points)),
        ("CPU by phase, µs per transaction and validator", tables.phases(points)),
    )
    parts += [f"\n### {title}\n\n{tables.markdown(table).rstrip()}" for title, table in sections]
    parts += [f"\n{one.name}: {one.caveat}." for one in points if one.caveat]
    dry = [one.name for one in points if one.ran_dry]
    if dry:
        parts.append(f"\nRan out of signed transactions, so their window is shorter: {', '.join(dry)}.")
    if plots:
        parts.append("\n### Plots")
        parts += [f"\n![{ALT[name]}](benchmarks/{name}.svg)" for name in plots]
    return "\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
