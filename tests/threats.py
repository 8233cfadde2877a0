"""Which test shows which attack, and without which check: read from the tests themselves, written into docs/attacks.md.

To write the document anew: `python -m tests.threats`.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
THREATS = ROOT / "docs" / "threats.md"
DOCUMENT = ROOT / "docs" / "attacks.md"

REASONS = {
    "T26": "What comes over the network is executed. A snapshot is a file that an operator installs; tests/unit/node/"
    "test_snapshot.py falsifies each of its parts, and every one is refused with nothing changed.",
    "T28": "A crash is no choice of an attacker, and no single check answers it. Processes are killed at any moment in "
    "tests/unit/storage/test_kill.py, at every boundary between effects in the simulator, and in "
    "tests/node/test_crashes.py.",
    "T29": "A loss of power cannot be staged in a test. The flags that it depends on are asserted at every start: "
    "tests/unit/storage/test_ledger_on_disk.py `test_the_flags_are_the_safe_ones`.",
    "T30": "A disk decides by itself when it is full. That the first failed write is final is shown in "
    "tests/unit/storage/test_ledger_on_disk.py and tests/system/test_disk.py.",
    "T34": "A wrong clock is refused by the rule of T22, by every other node; timers do not read it. Whole nodes with "
    "wrong clocks: tests/system/test_clock.py.",
    "T71": "There is no decision to switch off: a session has no other custodian's copies in its hands. Shown in "
    "tests/unit/vault/test_replicas.py `test_a_replica_serves_copies_to_their_owner_alone`.",
    "T93": "A crash is no choice of an attacker. A process is killed after each step of an erasure in "
    "tests/unit/client/test_erasure.py, and what it has begun ends in the same.",
}
"""Rows without an attack test, and why."""

HEADING = """# Attacks and the checks that refuse them

Written by `python -m tests.threats` from the tests; a test compares. For each row of [threats.md](threats.md), the
tests that show the attack succeed with one check switched off, and then refused with it on. `tests/attack.py`
switches off exactly one decision of the production code, named here by its function and the beginning of its
statement, and fails the test unless something went through only because that decision was off, and the very same
decision refused afterwards. Where a precaution is no code of ours (a trust store, a setting), the victim is set up
without it, and the precaution stands in words. Other tests show the same refusals end to end, over connections and
between processes.
"""


@dataclass(frozen=True)
class Shown:
    """An attack test."""

    rows: tuple[str, ...]
    path: str
    name: str
    checks: tuple[str, ...]


@cache
def shown_attacks() -> tuple[Shown, ...]:
    """All tests with the mark and a row, in the order of their files."""
    return tuple(_shown_attacks())


def _shown_attacks() -> Iterator[Shown]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                rows = [row for mark in node.decorator_list for row in _rows(mark)]
                if rows:
                    where = str(path.relative_to(ROOT))
                    yield Shown(tuple(rows), where, node.name, tuple(dict.fromkeys(_checks(node))))


def _rows(mark: ast.expr) -> list[str]:
    if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "pytest.mark.attack":
        return []
    return [argument.value for argument in mark.args if isinstance(argument, ast.Constant)]


def _checks(test: ast.AST) -> Iterator[str]:
    for node in ast.walk(test):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        match ast.unparse(node.func):
            case "without" | "Check" if len(node.args) == 2:
                function, decision = node.args
                assert isinstance(decision, ast.Constant), f"a check is named in so many words: {ast.unparse(node)}"
                yield f"`{ast.unparse(function)}`: `{decision.value}`"
            case "without.setup":
                assert isinstance(node.args[0], ast.Constant), "a precaution is named in so many words"
                yield str(node.args[0].value)


def threat_rows() -> list[str]:
    """The rows of docs/threats.md, T5–T10 counted one by one."""
    rows: list[int] = []
    for first, last in re.findall(r"^\| T(\d+)(?:–T(\d+))? \|", THREATS.read_text(), re.MULTILINE):
        rows += range(int(first), int(last or first) + 1)
    return [f"T{row}" for row in sorted(rows)]


def document() -> str:
    """docs/attacks.md as it should be."""
    of_row: dict[str, list[Shown]] = defaultdict(list)
    for shown in shown_attacks():
        for row in shown.rows:
            of_row[row].append(shown)
    parts = [HEADING]
    for row in threat_rows():
        parts.append(f"\n## {row}\n\n")
        if row in REASONS:
            parts.append(f"{REASONS[row]}\n")
        for shown in of_row[row]:
            parts.append(f"- {shown.path} `{shown.name}`; without\n")
            parts += [f"  - {check}\n" for check in shown.checks]
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
