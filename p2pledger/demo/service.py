"""A member's vault service as a process of its own, beside its node."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from p2pledger.demo.cluster import POLL_S, READY_S_MAX, Cluster, ProcessFailed
from p2pledger.node.config import ENV_PREFIX
from p2pledger.node.home import Layout
from p2pledger.primitives.ids import NodeId
from p2pledger.vault.connection import VaultAddress


@dataclass(frozen=True, slots=True)
class Served:
    """A vault service that is starting, or runs."""

    name: str
    layout: Layout
    node: NodeId
    process: subprocess.Popen[bytes]

    async def address(self) -> VaultAddress:
        """Where it listens, as soon as it does; raises ProcessFailed."""
        with trio.move_on_after(READY_S_MAX):
            while self.process.poll() is None:
                if self.layout.vault_ports.exists():
                    port = int(json.loads(self.layout.vault_ports.read_text())["vault"])
                    return VaultAddress(self.name, "127.0.0.1", port, self.node)
                await trio.sleep(POLL_S)
        said = (self.layout.root / "vault.log").read_text(errors="replace")[-2_000:]
        raise ProcessFailed(f"the vault service of {self.name!r} did not come up:\n{said}")


@contextmanager
def vault_service(cluster: Cluster, name: str) -> Iterator[Served]:
    """Serve a member's vault at any free port; the process does not outlive the block."""
    layout = cluster.member(name).layout
    layout.vault_ports.unlink(missing_ok=True)
    environ = {f"{ENV_PREFIX}VAULT__{key}": "127.0.0.1:0" for key in ("LISTEN", "OPS_LISTEN")}
    with (layout.root / "vault.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 -- this very interpreter, with arguments of our own
            [
                sys.executable,
                "-m",
                "p2pledger",
                "vault",
                "serve",
                "--home",
                str(layout.root),
                "--organisation-keys",
                str(layout.office),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        yield Served(name, layout, cluster.address(name).key, process)
    finally:
        process.kill()
        process.wait()
