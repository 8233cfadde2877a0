"""Four real nodes, each in its own network namespace: links can be cut in one direction, as real networks do.

    bridge p2pl-br   10.74.20.254
      p2pl-0 .. p2pl-3   10.74.20.1 .. 10.74.20.4

Rules of nftables inside a namespace decide what its node hears.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from p2pledger.node.ceremony import create_consortium, default_members, render_config
from p2pledger.node.config import Address

N = 4
BRIDGE = "p2pl-br"
PATIENCE_S = 60.0
"""Only a test that fails waits for so long."""
_GET = (
    "import sys, urllib.request as r, urllib.error as e\n"
    "try: print(r.urlopen(sys.argv[1], timeout=5).read().decode())\n"
    "except (OSError, e.URLError): sys.exit(1)"
)


def sh(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; with `check` it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done


def address(index: int) -> str:
    """Where member `index` lives."""
    return f"10.74.20.{index + 1}"


class Consortium:
    """The homes, the namespaces and whatever runs in them; leaving the context ends and removes all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Consortium":
        made = create_consortium(
            self.folder,
            default_members(N),
            name="System test",
            created_ms=int(time.time() * 1000),
            parameters={"heartbeat_ms": "500", "timeout_ms": "500", "timeout_cap_ms": "2000"},
        )
        self.homes = [member.home for member in made]
        for index, member in enumerate(made):
            peers = {other.name: Address(address(i), 7420) for i, other in enumerate(made) if i != index}
            own = Address(address(index), 7420), Address("127.0.0.1", 7421), Address("127.0.0.1", 7422)
            (member.home / "config.toml").write_text(render_config(own, peers))
        self._remove()
        sh("ip", "link", "add", BRIDGE, "type", "bridge")
        sh("ip", "addr", "add", "10.74.20.254/24", "dev", BRIDGE)
        sh("ip", "link", "set", BRIDGE, "up")
        for index in range(N):
            self._add_namespace(index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index in list(self._running):
            self.kill(index)
        self._remove()

    def _add_namespace(self, index: int) -> None:
        name, outside = f"p2pl-{index}", f"p2pl-v{index}"
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", outside, "master", BRIDGE, "up")
        self.inside(index, "ip", "addr", "add", f"{address(index)}/24", "dev", "eth0")
        self.inside(index, "ip", "link", "set", "eth0", "up")
        self.inside(index, "ip", "link", "set", "lo", "up")
        self.inside(index, "nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }")

    def _remove(self) -> None:
        """Also what an earlier, interrupted run left; only names of ours."""
        for index in range(N):
            sh("ip", "netns", "del", f"p2pl-{index}", check=False)
            sh("ip", "link", "del", f"p2pl-v{index}", check=False)
        sh("ip", "link", "del", BRIDGE, check=False)

    def inside(self, index: int, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a member's namespace; it must succeed."""
        return sh("ip", "netns", "exec", f"p2pl-{index}", *command)

    # Nodes

    def start(self, *indexes: int, prefix: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> None:
        """Start nodes; `prefix` is a command that starts them differently (faketime)."""
        for index in indexes:
            self._running[index] = self._spawn(index, prefix, environ or {})

    def start_second(self, index: int) -> int:
        """Start another daemon on the home of a running one; its exit status."""
        return self._spawn(index, (), {}).wait(timeout=PATIENCE_S)

    def _spawn(self, index: int, prefix: tuple[str, ...], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", f"p2pl-{index}", *prefix]
        command += [sys.executable, "-m", "p2pledger", "start", "--home", str(self.homes[index])]
        with (self.folder / f"{index}.log").open("ab") as log:
            # A group of its own, because a prefix may be the parent of the node that a signal is meant for.
            return subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environ}, start_new_session=True
            )

    def stop(self, index: int) -> int:
        """SIGTERM; the exit status."""
        process = self._running.pop(index)
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(timeout=PATIENCE_S)

    def kill(self, index: int) -> None:
        """SIGKILL."""
        process = self._running.pop(index)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=PATIENCE_S)

    def get(self, index: int, path: str) -> str | None:
        """A page of a node's ops port; None while it says no."""
        url = f"http://127.0.0.1:7422{path}"
        command = ("ip", "netns", "exec", f"p2pl-{index}", sys.executable, "-c", _GET, url)
        done = sh(*command, check=False)
        return done.stdout if done.returncode == 0 else None

    def height(self, index: int) -> int:
        """The node's committed height by its own metrics; -1 while it does not answer."""
        for line in (self.get(index, "/metrics") or "").splitlines():
            if line.startswith("p2pledger_consensus_height "):
                return int(float(line.split()[1]))
        return -1

    def chain(self, index: int) -> str:
        return str(json.loads(self.get(index, "/version") or "{}").get("chain"))

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Ask again until it holds; every question costs a process start, which is pause enough."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            ended = {i: process.returncode for i, process in self._running.items() if process.poll() is not None}
            assert not ended, f"waiting until {what}: nodes ended {ended}\n{self.logs(*ended)}"
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s until {what}\n{self.logs(*range(N))}"

    def started_at(self, index: int) -> datetime:
        """The time of a node's first log line, by its own clock."""
        first = (self.folder / f"{index}.log").read_text().splitlines()[0]
        return datetime.fromisoformat(json.loads(first)["timestamp"])

    def logs(self, *indexes: int) -> str:
        """The last lines of these nodes."""
        return "\n".join((self.folder / f"{i}.log").read_text()[-2_000:] for i in indexes)

    def until_height(self, wanted: int, *indexes: int) -> None:
        """Until all of these nodes have committed `wanted`."""
        self.until(f"height {wanted} at {indexes}", lambda: all(self.height(i) >= wanted for i in indexes))

    # Networks

    def deafen(self, index: int, *others: int) -> None:
        """From now on `index` hears nothing from `others`; what it says still reaches them."""
        for other in others:
            self.inside(index, "nft", f"add rule inet cut in ip saddr {address(other)} drop")

    def heal(self) -> None:
        """Everybody hears everybody again."""
        for index in range(N):
            self.inside(index, "nft", "flush chain inet cut in")
