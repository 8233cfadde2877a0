"""The results page: the method stays, everything below the mark is a run's."""

import json
from pathlib import Path

import msgspec
import pytest

from bench.publish import MARK, publish
from bench.run import ENVIRONMENT, RESULTS, Results
from p2pledger.primitives.errors import InvalidInput
from tests.unit.bench.points import point


def run_in(folder: Path) -> Path:
    results = Results("steady", "Peak", [point()], ["etcd: not there"], False, ["stage far n=4: gone"])
    folder.mkdir()
    (folder / RESULTS).write_bytes(msgspec.json.encode(results))
    environment = {"cpu": "A processor", "commit": "c" * 40, "commit_is_clean": False, "seed": 7, "started": "today"}
    (folder / ENVIRONMENT).write_text(json.dumps(environment))
    return folder


def checkout(root: Path, page: str) -> Path:
    (root / "docs").mkdir()
    (root / "docs" / "benchmarks.md").write_text(page)
    return root


def test_a_run_replaces_the_one_before_and_keeps_the_method(tmp_path: Path) -> None:
    """With the command, the commit and its state, the machine, and what is missing."""
    root = checkout(tmp_path, f"# Method\n\n{MARK}\nold figures\n")
    text = publish(run_in(tmp_path / "run"), root).read_text()
    assert text.startswith(f"# Method\n\n{MARK}")
    assert "old figures" not in text
    for words in ("python -m bench run steady --seed 7", "cccccccccccc", "not committed", "A processor", "today"):
        assert words in text
    for words in ("etcd: not there", "stage far n=4: gone", "| B1 |", "| steady n=4 peak |"):
        assert words in text
    assert publish(tmp_path / "run", root).read_text() == text


def test_a_page_without_the_mark_is_left_alone(tmp_path: Path) -> None:
    """Somebody has rewritten it: nothing of theirs is lost."""
    root = checkout(tmp_path, "# Method\n")
    with pytest.raises(InvalidInput, match="lacks the line"):
        publish(run_in(tmp_path / "run"), root)
    assert (root / "docs" / "benchmarks.md").read_text() == "# Method\n"
