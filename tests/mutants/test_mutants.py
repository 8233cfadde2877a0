"""Every rule of docs/protocol.md and of docs/threshold.md is missed when it is taken away (docs/mutants.md).

So are those promises of docs/promises.md for which there are mutants.
"""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest

from tests.mutants.mutant import LINES_MAX, ROOT, Mutant, load_all
from tests.mutants.report import NOT_IN_FORCE, budget, page, rows_in, short

MUTANTS = load_all()
CHUNK = 12
CHUNKS = [MUTANTS[start : start + CHUNK] for start in range(0, len(MUTANTS), CHUNK)]
IN_FORCE = set(re.findall(r"^- \*\*(P\d+b?) ", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE)) - set(
    NOT_IN_FORCE
)
INVARIANTS = set(re.findall(r"^- \*\*(I-\d+)\*\* ", (ROOT / "docs/threshold.md").read_text(), re.MULTILINE))
"""What must hold of shares of keys."""
PROMISES = set(re.findall(r"^\| (F-\d+) \|", (ROOT / "docs/promises.md").read_text(), re.MULTILINE))
"""Of the health layer; not each of them is a rule that a few lines could take away."""

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@cache
def functions(file: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every test function in a file."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@each_mutant
def test_it_is_small_and_fits_the_present_tree(mutant: Mutant) -> None:
    """One to five lines, each hunk at exactly one place, and the result is Python."""
    assert 1 <= mutant.lines <= LINES_MAX
    assert (mutant.seeds is None) == bool(mutant.without_seeds), "seeds, or why there are none"
    for file, text in mutant.patched().items():
        compile(text, file, "exec")


@each_mutant
def test_its_tests_notice_what_it_does_and_not_that_it_is_there(mutant: Mutant) -> None:
    """A test that switches a check off by its text fails as soon as the text is gone, whatever it was good for."""
    for test in mutant.tests:
        file, name = test.split("::")
        assert "without" not in [argument.arg for argument in functions(file)[name].args.args], test


@each_mutant
def test_its_tests_cite_its_rules(mutant: Mutant) -> None:
    """The rules are in force, and a test that must fail says which of them it is about."""
    assert set(mutant.rules) <= IN_FORCE | INVARIANTS | PROMISES
    said = ""
    for test in mutant.tests:
        file, name = test.split("::")
        assert name in functions(file), f"{test} does not exist"
        said += ast.get_docstring(functions(file)[name]) or ""
    for rule in mutant.rules:
        assert re.search(rf"\b{rule}\b", said), f"no cited test says that it is about {rule}"


def test_every_rule_has_a_mutant() -> None:
    assert {rule for mutant in MUTANTS for rule in mutant.rules} - PROMISES == IN_FORCE | INVARIANTS
    assert (len(IN_FORCE), len(INVARIANTS)) == (23, 7)


def test_the_table_lists_exactly_these() -> None:
    """docs/mutants.md is of these mutants, with their tests and budgets; every one was killed when it was written."""
    text = (ROOT / "docs/mutants.md").read_text()
    rows = rows_in(text)
    assert [row[:3] for row in rows] == [
        (mutant.name, " ".join(mutant.rules), "<br>".join(f"`{short(test)}`" for test in mutant.tests))
        for mutant in MUTANTS
    ]
    assert text == page(rows)
    for row, mutant in zip(rows, MUTANTS, strict=True):
        seeds, allowed, invariant = row[3:]
        if mutant.seeds is None:
            assert (seeds, allowed, invariant) == ("–", "–", mutant.without_seeds)
        else:
            assert allowed == budget(mutant.seeds)
            assert 1 <= int(seeds) <= mutant.seeds.beyond - mutant.seeds.first


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: f"{chunk[0].name}..{chunk[-1].name}")
def test_what_it_removes_is_missed(chunk: list[Mutant]) -> None:
    """P1 to P24, I-1 to I-10: every cited test fails where its rule is removed. `make mutants` runs the seeds, too."""
    command = [sys.executable, "-m", "tests.mutants.run", "--cited", *(mutant.name for mutant in chunk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
