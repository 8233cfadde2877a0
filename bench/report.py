"""The report of a run: report.md with its tables, the goals, the environment, and plots where matplotlib is there."""

import json
from pathlib import Path

from bench import tables
from bench.goals import judge_all
from bench.plots import draw_all
from bench.run import ENVIRONMENT, Results, load_results

NO_MATPLOTLIB = (
    "No plots: matplotlib is not installed (python -m pip install --require-hashes -r requirements/bench.txt)."
)


def write_report(folder: Path) -> Path:
    """Write report.md and plots/ into a run's folder; its path. Raises OSError and msgspec.ValidationError."""
    results = load_results(folder)
    environment = json.loads((folder / ENVIRONMENT).read_text())
    try:
        plots = draw_all(results.points, folder / "plots")
        pictures = "\n\n".join(f"![{name}](plots/{name}.svg)" for name in plots)
    except ImportError:
        pictures = NO_MATPLOTLIB
    path = folder / "report.md"
    path.write_text(_text(results, environment, pictures))
    return path


def _text(results: Results, environment: dict[str, object], pictures: str) -> str:
    points = results.points
    parts = [f"# {results.title or results.scenario}\n"]
    if not results.is_complete:
        parts.append("**This run was broken off; what follows was measured before.**\n")
    parts += [f"- broken off: {text}" for text in results.failed]
    parts += [f"- left out: {text}" for text in results.missing]
    parts += [f"- {one.name}: {one.caveat}" for one in points if one.caveat]
    dry = [one.name for one in points if one.ran_dry]
    if dry:
        parts.append(f"- ran out of signed transactions, so the window is shorter: {', '.join(dry)}")
    failed = [(one.name, one.fail_reasons) for one in points if one.fail_reasons]
    parts += [
        f"- failed at {name}: {', '.join(f'{n} {why}' for why, n in why_not.items())}" for name, why_not in failed
    ]
    sections = (
        ("Caliper's table", tables.caliper(points)),
        ("Latency, ms", tables.latencies(points)),
        ("Resources of a validator", tables.resources(points)),
        ("CPU by phase, µs per transaction and validator", tables.phases(points)),
        ("Goals", tables.goals(judge_all(points))),
    )
    for title, table in sections:
        parts.append(f"\n## {title}\n\n{tables.markdown(table)}")
    parts.append(f"## Plots\n\n{pictures}\n\n## Environment\n")
    parts += [f"- {name}: {_shown(value)}" for name, value in environment.items()]
    return "\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
