"""`python -m bench run --namespace`: real packets between validators are held back, in a network of the run's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.run import load_results

pytestmark = pytest.mark.system

SCENARIO = """
name = "far"
floor_seconds = 0.3
[[stages]]
name = "far"
senders = 4
patients = 8
wan = { one_way_ms = 30 }
[[stages.points]]
name = "light"
loop = "open"
rate = 20
warm_up_s = 1
duration_s = 3
"""


def test_no_answer_comes_before_the_packets_of_agreement_have_gone_their_way(tmp_path: Path) -> None:
    """PRE-PREPARE, PREPARE and COMMIT each cross 30 ms, so nothing is durable at a quorum within 90."""
    scenario, out = tmp_path / "far.toml", tmp_path / "out"
    scenario.write_text(SCENARIO)
    command = [sys.executable, "-m", "bench", "run", str(scenario), "--out", str(out), "--namespace"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (light,) = load_results(out).points
    assert light.distance == "queue"
    assert light.succ > 0 and light.fail == 0
    assert light.latency is not None and light.latency.min_s >= 0.09
    rules = subprocess.run(["iptables", "-S", "OUTPUT"], capture_output=True, text=True, check=True)
    assert "NFQUEUE --queue-num 0\n" not in rules.stdout, "the rules are the namespace's, not the machine's"
