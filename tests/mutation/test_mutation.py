"""The tool counts honestly, and every explanation of a survivor is about a mutant that there is."""

import ast
from types import FunctionType

import pytest

from tests.mutation import report
from tests.mutation.mutants import Mutant, modules, mutants_of
from tests.mutation.operators import changes
from tests.mutation.planting import function_of

ALL = {mutant.name: mutant for module in modules() for mutant in mutants_of(module)}


def said(source: str) -> list[str]:
    """What may be changed in one statement, its parts left out."""
    (statement,) = ast.parse(source).body
    return [change for change, _ in changes(statement.value if isinstance(statement, ast.Expr) else statement)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("a == b", ["a == b -> a != b"]),
        ("a and b", ["and -> or in a and b", "drop a of a and b", "drop b of a and b"]),
        ("not a", ["not a -> a"]),
        ("3", ["3 -> 4", "3 -> 2"]),
        ("True", ["True -> False"]),
        ("max(a, b)", ["max(a, b) -> min(a, b)"]),
        ("sorted(a, key=b)", ["sorted(a, key=b) -> list(a)"]),
        ("a + b", ["a + b -> a - b"]),
        ("Code.E_DUP", ["Code.E_DUP -> Code.E_INTERNAL"]),
        ("raise Refused(x)", ["drop raise Refused(x)"]),
        ("a.b = c", ["drop a.b = c"]),
        ("a = c", []),
        ("a += 1", ["drop a += 1", "a += 1 -> a -= 1"]),
        ("if a:\n    b()", ["if not: if a:"]),
        ("if a < b:\n    c()", []),
        ("a(b)", []),
        ("assert_never(a)", []),
    ],
)
def test_small_changes(source: str, expected: list[str]) -> None:
    assert said(source) == expected


def test_every_mutant_has_a_name_of_its_own_and_another_code() -> None:
    """A mutant is planted in the function that it names, and is not the function that was there."""
    assert len(ALL) == sum(len(mutants_of(module)) for module in modules())
    for mutant in mutants_of("consensus.tally"):
        assert mutant.code().co_code + repr(mutant.code().co_consts).encode() != _genuine(mutant)


def _genuine(mutant: Mutant) -> bytes:
    code = function_of(mutant).__code__
    return code.co_code + repr(code.co_consts).encode()


def test_every_function_with_mutants_is_found() -> None:
    """Methods, properties and functions alike; an unknown one would never be planted."""
    for mutant in {mutant.where: mutant for mutant in ALL.values()}.values():
        assert isinstance(function_of(mutant), FunctionType)


def test_no_explanation_is_about_a_mutant_that_is_not_there() -> None:
    """Whoever changes a function looks at the explanations of its survivors again."""
    known = report.explanations()
    assert sorted(known.keys() - ALL.keys()) == []
    for name, why in known.items():
        kind, _, reason = why.partition(": ")
        assert kind in report.KINDS and reason, f"{name}: {why}"


def test_what_is_wrong_with_explanations_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A survivor without one, and one without a survivor."""
    first, second, third = mutants_of("consensus.tally")[:3]
    monkeypatch.setattr(report, "explanations", lambda: {first.name: "equivalent: x", second.name: "equivalent: x"})
    wrong = report.unexplained([first, second, third], [first, third])
    assert wrong == [f"survived without an explanation: {third.name}", f"explained, but killed: {second.name}"]


def test_the_score_counts_the_killed() -> None:
    mutants = mutants_of("health.purposes")[:4]
    assert report.table(mutants, mutants[:1]).splitlines()[-1] == "| **all** | 4 | 3 | 1 | 75.0 % |"
