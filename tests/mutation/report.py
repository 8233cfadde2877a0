"""The scores of modules, docs/mutation.md, and the explanations of the mutants that no test kills."""

import tomllib
from collections import Counter
from collections.abc import Iterable

from tests.mutation.mutants import ROOT, Mutant

SURVIVORS = ROOT / "tests" / "mutation" / "survivors.toml"
PAGE = ROOT / "docs" / "mutation.md"
KINDS = ("equivalent", "observability", "cost", "elsewhere", "unreachable")


def explanations() -> dict[str, str]:
    """Name of a mutant to why no test kills it."""
    by_function = tomllib.loads(SURVIVORS.read_text())
    return {f"{where}: {change}": why for where, changes in by_function.items() for change, why in changes.items()}


def unexplained(mutants: Iterable[Mutant], survived: Iterable[Mutant]) -> list[str]:
    """What is wrong with the explanations, after a run of these mutants."""
    ran, alive, known = {it.name for it in mutants}, {it.name for it in survived}, explanations()
    missing = [f"survived without an explanation: {name}" for name in sorted(alive - known.keys())]
    stale = [f"explained, but killed: {name}" for name in sorted((known.keys() & ran) - alive)]
    return missing + stale


def table(mutants: Iterable[Mutant], survived: Iterable[Mutant]) -> str:
    """A line for each module, and the sum."""
    total = Counter(mutant.module for mutant in mutants)
    alive = Counter(mutant.module for mutant in survived)
    rows = ["| module | mutants | killed | survived | score |", "|---|---:|---:|---:|---:|"]
    rows += [_row(module, total[module], alive[module]) for module in total]
    return "\n".join([*rows, _row("**all**", total.total(), alive.total())])


def _row(name: str, total: int, alive: int) -> str:
    killed = total - alive
    return f"| {name} | {total} | {killed} | {alive} | {100 * killed / total:.1f} % |"


def write(mutants: Iterable[Mutant], survived: Iterable[Mutant]) -> None:
    """The page, with the table between its marks replaced."""
    head, mark, _ = PAGE.read_text().partition("<!-- scores -->\n")
    assert mark, f"{PAGE} has no mark for the scores"
    PAGE.write_text(f"{head}{mark}\n{table(mutants, survived)}\n")
