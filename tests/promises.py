"""Which tests show which promise: read from the tests themselves, written into docs/promises.md.

A test counts for a row when its name or its docstring, or the docstring of its module, cites it (F-08). What is
promised and what is missing stands in tests/promises.toml. To write the document anew: `python -m tests.promises`.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "tests" / "promises.toml"
DOCUMENT = ROOT / "docs" / "promises.md"
_CITED = re.compile(r"F-\d\d")

HEADING = """# Promises and the tests that hold them

Written by `python -m tests.promises` from tests/promises.toml and from the tests that cite a row; a test compares.
A row *holds* when nothing of it is known to be missing, *partly* when something is, and is *not yet* there when
nothing stands behind it that could be tested as a whole. In the files named here, a test's docstring (or its module's)
cites the row: `grep -n F-08 FILE` finds it.

{count}

| row | promise | state | tests |
|---|---|---|---|
"""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row."""

    promise: str
    state: Literal["holds", "partly", "not yet"] = "holds"
    missing: str = ""


@cache
def promises() -> Mapping[str, Promise]:
    """All rows in their order; raises ValidationError where the file has another form."""
    return msgspec.convert(tomllib.loads(ROWS.read_text()), dict[str, Promise])


@cache
def citations() -> Mapping[str, tuple[str, ...]]:
    """Row -> files with tests that cite it, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for row in sorted(set(_citations(ast.parse(path.read_text())))):
            found[row].append(str(path.relative_to(ROOT)))
    return {row: tuple(found[row]) for row in found}


def _citations(module: ast.Module) -> Iterator[str]:
    yield from _CITED.findall(ast.get_docstring(module) or "")
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from _CITED.findall(f"{node.name.replace('_f_', ' F-')} {ast.get_docstring(node) or ''}")


def document() -> str:
    """docs/promises.md as it should be."""
    rows = promises()
    states = [promise.state for promise in rows.values()]
    count = (
        f"{len(states)} promises: {states.count('holds')} hold, {states.count('partly')} in part, "
        f"{states.count('not yet')} not yet."
    )
    return HEADING.format(count=count) + "".join(_line(row, promise) for row, promise in rows.items())


def _line(row: str, promise: Promise) -> str:
    state = promise.state if not promise.missing else f"{promise.state}: {promise.missing}"
    return f"| {row} | {promise.promise} | {state} | {'<br>'.join(citations().get(row, ()))} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
