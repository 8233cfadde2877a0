"""`python -m tests.model.run [--short] [NAME...]` asks TLC every question of `cfg/` and compares the answers.

Status 1 if one is not as expected, 2 if Java or TLC is missing. `--write` puts the table into docs/model.md and the
traces of the unsafe variants, with random behaviours of the safe model, into `traces/`, from where
`test_traces.py` replays them against real replicas.
"""

import argparse
import json
import re
import sys

from tests.model.case import FOLDER, SAFE, Case, load, load_all
from tests.model.tlc import Outcome, Unusable, run, simulate

PAGE = FOLDER.parents[1] / "docs" / "model.md"
HEAD = ("model", "module", "states", "distinct", "depth", "s", "expected", "found")
SIMULATED = 60
SEED = 1


def row(outcome: Outcome) -> tuple[str, ...]:
    case = outcome.case
    counts = (f"{outcome.states:,}", f"{outcome.distinct:,}", str(outcome.depth) if outcome.depth else "–")
    return (case.name, case.module, *counts, f"{outcome.seconds:.0f}", case.expect, outcome.found)


def table(outcomes: list[Outcome]) -> str:
    """Plain text."""
    rows = [HEAD, *(row(outcome) for outcome in outcomes)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in rows)


def page(text: str, outcomes: list[Outcome]) -> str:
    """docs/model.md with this table in the place of its old one; rows of cases that were not asked stay."""
    new = {outcome.case.name: _line((*row(outcome)[:-2], outcome.case.scope, outcome.found)) for outcome in outcomes}
    old = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    names = [case.name for case in load_all()]
    lines = [(new | old | new)[name] for name in names if name in new | old]
    found = re.search(r"(\| model \|.*\n\|---.*\n)((?:\| `.*\n)*)", text)
    assert found is not None, "docs/model.md has no table"
    return text[: found.end(1)] + "".join(f"{line}\n" for line in lines) + text[found.end() :]


def _line(cells: tuple[str, ...]) -> str:
    name, module, states, distinct, depth, seconds, scope, found = cells
    return f"| `{name}` | {module} | {scope} | {states} | {distinct} | {depth} | {seconds} | {found} |"


def write(outcomes: list[Outcome]) -> None:
    """Table, traces and random behaviours."""
    PAGE.write_text(page(PAGE.read_text(), outcomes))
    folder = FOLDER / "traces"
    folder.mkdir(exist_ok=True)
    for outcome in outcomes:
        if outcome.case.name.startswith("unsafe-"):
            _store(outcome.case, [list(outcome.steps)])
    sample = load(FOLDER / "cfg" / "sample.cfg")
    _store(sample, list(simulate(sample, SIMULATED, SEED)))


def _store(case: Case, traces: list[list[object]]) -> None:
    text = ",\n  ".join(json.dumps(steps) for steps in traces)
    path = FOLDER / "traces" / f"{case.name}.json"
    path.write_text(f'{{"fork": {case.constants["Fork"]}, "traces": [\n  {text}\n]}}\n')


def _tell(text: str) -> None:
    """Progress, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.model.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="cases, by name (default: all)")
    parser.add_argument("--short", action="store_true", help="only those that take seconds")
    parser.add_argument("--workers", type=int, default=1, help="threads of TLC")
    parser.add_argument("--write", action="store_true", help="docs/model.md and traces/")
    asked = parser.parse_args()
    cases = [case for case in load_all() if case.name != "sample"]
    unknown = set(asked.names) - {case.name for case in cases}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))} in tests/model/cfg")
    cases = [
        case for case in cases if (case.name in asked.names or not asked.names) and (case.is_short or not asked.short)
    ]
    outcomes = []
    try:
        for number, case in enumerate(cases, 1):
            _tell(f"{number} of {len(cases)}: {case.name}")
            outcomes.append(run(case, asked.workers, _tell))
        _tell("")
        if asked.write:
            write(outcomes)
    except Unusable as error:
        print(f"tests.model.run: {error}", file=sys.stderr)
        return 2
    print(table(outcomes))
    wrong = [outcome for outcome in outcomes if not outcome.is_expected]
    for outcome in wrong:
        print(f"{outcome.case.name}: expected {outcome.case.expect}, found {outcome.found}", file=sys.stderr)
        for step in outcome.steps if outcome.case.expect == SAFE else ():
            print(f"  {json.dumps(step)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
