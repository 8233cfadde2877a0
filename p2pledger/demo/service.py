"""A member's vault service as a process of its own, beside its node."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pledger.demo.cluster import POLL_S, READY_S_MAX, Cluster, ProcessFailed
from p2pledger.node.config import ENV_PREFIX
from p2pledger.node.home import Layout
from p2pledger.vault.connection import VaultAddress


@dataclass(frozen=True, slots=True)
class Served:
    """A running vault service."""

    pid: int
    address: VaultAddress


@asynccontextmanager
async def vault_service(cluster: Cluster, name: str) -> AsyncIterator[Served]:
    """Serve a member's vault at any free port; the process does not outlive the block. Raises ProcessFailed."""
    layout = Layout(cluster.homes[name])
    layout.vault_ports.unlink(missing_ok=True)
    environ = {f"{ENV_PREFIX}VAULT__{key}": "127.0.0.1:0" for key in ("LISTEN", "OPS_LISTEN")}
    with (layout.root / "vault.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 -- this very interpreter, with arguments of our own
            [sys.executable, "-m", "p2pledger", "vault", "serve", "--home", str(layout.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        port = await _port_of(process, layout)
        card = next(card for card in cluster.founding.genesis.cards if card.name == name)
        yield Served(process.pid, VaultAddress(name, "127.0.0.1", port, card.node))
    finally:
        process.kill()
        process.wait()


async def _port_of(process: subprocess.Popen[bytes], layout: Layout) -> int:
    with trio.move_on_after(READY_S_MAX):
        while process.poll() is None:
            if layout.vault_ports.exists():
                return int(json.loads(layout.vault_ports.read_text())["vault"])
            await trio.sleep(POLL_S)
    said = (layout.root / "vault.log").read_text(errors="replace")[-2_000:]
    raise ProcessFailed(f"the vault service of {layout.root.name} did not come up:\n{said}")
