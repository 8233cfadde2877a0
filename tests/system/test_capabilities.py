"""What the other system tests rest on. A capability that disappears fails here, by its name, and is never skipped."""

import subprocess
import time

import pytest

from tests.system.conftest import sh

pytestmark = pytest.mark.system


def test_network_namespaces_and_packet_filters() -> None:
    """ip netns, and nftables inside one."""
    sh("ip", "netns", "add", "p2pl-probe")
    try:
        sh("ip", "netns", "exec", "p2pl-probe", "nft", "add table inet probe")
        assert "probe" in sh("ip", "netns", "exec", "p2pl-probe", "nft", "list", "tables")
        assert "eth0" not in sh("ip", "netns", "exec", "p2pl-probe", "ip", "link")
    finally:
        sh("ip", "netns", "del", "p2pl-probe")


def test_faketime_moves_the_wall_clock_and_leaves_the_monotonic_one() -> None:
    """Timers are monotonic; only with this separation does a test of a stepped clock mean anything."""
    code = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run(
        ["faketime", "-f", "+30d", "python3", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    wall, monotonic = map(float, done.stdout.split())
    assert abs(wall - time.time() - 30 * 86_400) < 600
    assert abs(monotonic - time.monotonic()) < 600
