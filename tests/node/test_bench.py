"""The benchmark harness from end to end, for a second each: its figures mean nothing here, its promises do."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.run import load_results

pytestmark = pytest.mark.process

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "ok": True}), flush=True)
"""


def processes_of(folder: Path) -> list[str]:
    """Command lines that name this folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in lines if str(folder) in line]


def test_a_run_measures_reports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """One validator, a closed and an open loop, an external system behind a command; tables, raw data, report."""
    echo, out = tmp_path / "echo.py", tmp_path / "out"
    echo.write_text(ECHO)
    command = [sys.executable, "-m", "bench", "run", "smoke", "--out", str(out)]
    command += ["--external", f"{sys.executable} {echo}", "--time-scale", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = load_results(out)
    assert results.is_complete
    assert [one.name for one in results.points] == ["one n=1 peak", "one n=1 half", "external peak"]
    peak, half, external = results.points
    assert all(one.succ > 0 and one.fail == 0 for one in results.points)
    assert half.load == 0.5 and half.proof_latency is not None and half.proof_latency.count > 0
    (validator,) = peak.validators
    assert validator is not None
    assert validator.checks_per_signature == 1.0
    assert peak.floor_before is not None and peak.floor_before.verifies_per_s > 0
    assert external.validators == []
    with gzip.open(out / "raw" / "one-n1-half.jsonl.gz", "rt") as file:
        head, *rows = map(json.loads, file)
    assert head["columns"][0] == "number"
    assert len(rows) >= half.succ
    assert json.loads((out / "environment.json").read_text())["seed"] == 1
    assert "## Caliper's table" in (out / "report.md").read_text()
    assert not (out / "work").exists()
    assert processes_of(tmp_path) == []
    command = [sys.executable, "-m", "bench", "compare", str(out), str(out)]
    same = subprocess.run(command, capture_output=True, text=True, check=False)
    assert same.returncode == 0, same.stdout + same.stderr
    assert "0 worse" in same.stdout


def _listens_to_ctrl_c() -> None:
    """Whoever starts tests in the background may have them ignore it, and their children with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_stops_everything_that_it_started(tmp_path: Path) -> None:
    """Ctrl-C while validators run: status 130, no process left, what was measured is kept."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bench", "run", "smoke", "--out", str(out)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_listens_to_ctrl_c,  # noqa: PLW1509 -- no threads here
    )
    deadline = time.monotonic() + 60
    while not any("p2pledger start" in line for line in processes_of(tmp_path)):
        assert running.poll() is None and time.monotonic() < deadline, "no validator was started"
        os.sched_yield()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert processes_of(tmp_path) == []
    assert not load_results(out).is_complete
