"""A campaign over one small module, from the command line as `make mutation` calls it."""

import subprocess
import sys

from tests.mutation.mutants import ROOT


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.mutation.run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_test_kills_what_it_notices_and_nothing_else() -> None:
    """All mutants of `covers` but those that its tests cannot tell from it; a test of something else kills none."""
    judged = ["health.purposes", "--tests", "tests/unit/health/test_purposes.py"]
    done = campaign(*judged)
    assert done.returncode == 0, done.stdout + done.stderr
    total, killed, survived = _sums(done.stdout)
    assert killed > survived and total == killed + survived
    done = campaign(*judged[:2], "tests/unit/health/test_purposes.py::test_the_table_is_the_shipped_terminology")
    assert _sums(done.stdout) == (total, 0, total)


def _sums(table: str) -> tuple[int, int, int]:
    (row,) = (line for line in table.splitlines() if line.startswith("| **all**"))
    total, killed, survived = (int(cell) for cell in row.split("|")[2:5])
    return total, killed, survived


def test_attack_tests_judge_the_function_after_their_attack() -> None:
    """Several of them switch off checks of one function: each leaves the mutant as it was."""
    attacks = ["tests/scenarios/test_door_attacks.py", "tests/scenarios/test_doors.py"]
    done = campaign("consensus.verification", "--functions", "verify_message", "--tests", *attacks)
    _, _, survived = _sums(done.stdout)
    assert survived == 0, done.stdout + done.stderr


def test_tests_that_fail_anyway_judge_nothing() -> None:
    done = campaign("health.purposes", "--tests", "tests/unit/health/no_such_test.py")
    assert done.returncode == 1
    assert "must pass before they can judge" in done.stderr
