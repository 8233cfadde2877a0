"""docs/model.md tells of every question that TLC is asked, and of answers that were the expected ones."""

import pytest

from tests.model.case import FOLDER, Case, load_all
from tests.model.run import PAGE
from tests.model.tlc import parse

CASES = load_all()
ASKED = [case for case in CASES if case.name != "sample"]


def rows() -> dict[str, list[str]]:
    table = PAGE.read_text().split("| model | module ")[1]
    lines = (line for line in table.splitlines() if line.startswith("| `"))
    cells = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)
    return {row[0].strip("`"): row for row in cells}


def test_the_table_lists_exactly_these() -> None:
    assert list(rows()) == [case.name for case in ASKED]
    assert "sample.cfg" in PAGE.read_text()


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_each_was_answered_as_expected(case: Case) -> None:
    """With its own scope and module, and as many states as an exhaustive search has."""
    _, module, scope, states, distinct, _, _, found = rows()[case.name]
    assert (module, scope, found) == (case.module, case.scope, case.expect)
    assert int(states.replace(",", "")) >= int(distinct.replace(",", "")) > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_sets_the_constants_of_its_module_one_a_line(case: Case) -> None:
    """TLC 2.15 reads no more than one a line, and a name in the list of safe ones has no broken rule."""
    assert (FOLDER / f"{case.module}.tla").exists()
    assert {"Heights", "Fork", "Trunk", "Branches", "Replicas", "Variant"} <= case.constants.keys()
    if case.name.startswith("unsafe-"):
        assert case.constants["Variant"] == f'"{case.name.removeprefix("unsafe-")}"'
        assert case.is_short
        assert case.rules


def test_values_of_tla_are_read() -> None:
    text = '<< "Vote",\n   TRUE, (r1 :> <<1, left>> @@\n  r2 :> <<-1, trunk>>), {2, 1}, {}, <<>> >>'
    assert parse(text) == ["Vote", True, {"r1": [1, "left"], "r2": [-1, "trunk"]}, {"set": [1, 2]}, {"set": []}, []]
