"""The runner proves something: what changes nothing survives, and what merely breaks the program is no proof."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutant import ROOT, PatchError, load

TEST = "tests/unit/engine/test_sync.py::test_who_sent_what_does_not_verify_comes_last"
COUNTS = "        self.faults[node] = self.faults.get(node, 0) + 1"
RETRY = "RETRY_MS = 1_000"


def patch(old: str, new: str) -> str:
    return f"""# rules: P21
# stands for: nothing
# scenario: {TEST}
--- a/p2pledger/sync.py
+++ b/p2pledger/sync.py
@@ -1,1 +1,1 @@
-{old}
+{new}
"""


def outcome(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "it.patch").write_text(text)
    command = [sys.executable, "-m", "tests.mutants.run", "--folder", str(folder), "--cited"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (COUNTS, COUNTS.replace("+ 1", "+ 2"), 1),
        (COUNTS, COUNTS + " +", 1),
        (RETRY, "RETRY_MS = no_such_name", 1),
        (COUNTS, COUNTS.replace("+ 1", "+ 0"), 0),
    ],
    ids=["equivalent", "no Python", "not importable", "defect"],
)
def test_only_a_failing_test_kills(tmp_path: Path, old: str, new: str, status: int) -> None:
    """A suite that cannot even be collected says nothing about the rule."""
    done = outcome(tmp_path, patch(old, new))
    assert done.returncode == status, done.stdout + done.stderr
    assert ("it SURVIVES" in done.stdout) == bool(status)


def test_a_patch_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """Nothing is planted by guessing."""
    path = tmp_path / "it.patch"
    path.write_text(patch("RETRY_MS = 999", "RETRY_MS = 1"))
    with pytest.raises(PatchError, match="stands 0 times"):
        load(path).patched()
    path.write_text("# rules: P21\n")
    with pytest.raises(PatchError, match="lacks"):
        load(path)
