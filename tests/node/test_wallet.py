"""F-20, F-75: a patient's wallet against real nodes, by the commands that people type, through a loss and kills."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pledger.client.keyring import Wallet
from p2pledger.demo.cluster import Cluster
from tests.node.health import PATIENCE_S

pytestmark = pytest.mark.process

PASSPHRASE = "open sesame"


class Terminal:
    """Commands typed at a cluster; whoever sits there has no home of a member unless it is named."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        nodes = [f"{one.host}:{one.port}={one.key.hex()}" for one in cluster.addresses()]
        genesis = cluster.member(cluster.names[0]).layout.genesis
        self.network = ["--genesis", str(genesis), *(word for node in nodes for word in ("--node", node))]

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "p2pledger", *(str(argument) for argument in arguments)]

    async def types(self, *arguments: object, typed: str = "", expect: int = 0) -> Any:
        """The JSON on stdout of a command that ends as expected; prompts read what is typed."""
        done = await trio.run_process(
            [*self.command(*arguments), "--output", "json"],
            stdin=typed.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,  # without a terminal of its own, a prompt reads stdin
        )
        assert done.returncode == expect, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout.startswith((b"{", b"[")) else None

    async def killed(self, when: Callable[[], bool], *arguments: object) -> None:
        """The command, killed as soon as `when` holds, or at its end."""
        process = await trio.lowlevel.open_process(
            self.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not when():
            await trio.sleep(0.005)
        if process.poll() is None:
            process.kill()
        await process.wait()

    async def registers(self, wallet: Path, at: str) -> str:
        """A patient of a member; the pid."""
        draft, signed = self.folder / f"{at}.draft", self.folder / f"{at}.signed"
        person = [*self.network, "--wallet", wallet, "--at", at]
        home = ["--home", self.cluster.member(at).home, *self.network]
        await self.types("identity", "register", *person, "--to", draft)
        await self.types("tx", "sign", draft, *home, "--to", signed)
        shown = await self.types("tx", "submit", signed, *person)
        return str(shown["events"][0]["did"])


async def test_a_wallet_is_lost_restored_rotated_through_kills_and_used(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Ids stay through it all; the old keys end, and the new ones consent and revoke."""
    cluster = consortium(4, params={"timeout_ms": 500, "checkpoint_interval": 2})
    await cluster.start()
    await cluster.wait_ready()
    folder = tmp_path / "patient"
    folder.mkdir(mode=0o700)
    terminal, wallet = Terminal(cluster, folder), folder / "wallet"
    with trio.fail_after(8 * PATIENCE_S):
        await terminal.types("wallet", "init", wallet, "--no-passphrase")
        pids = {name: await terminal.registers(wallet, name) for name in cluster.names[:2]}
        words = (await terminal.types("wallet", "phrase", wallet))["phrase"]
        wallet.rename(folder / "lost")

        sealed, typed = folder / "sealed", f"{words}\n{PASSPHRASE}\n{PASSPHRASE}\n"
        found = await terminal.types("wallet", "restore", sealed, *terminal.network, typed=typed)
        assert {row["organisation"]: row["id"] for row in found} == pids
        owner = [*terminal.network, "--wallet", sealed]
        assert await terminal.types("wallet", "who", *owner, typed="wrong\n", expect=78) is None
        known = await terminal.types("wallet", "who", *owner, typed=f"{PASSPHRASE}\n")
        assert {row["id"] for row in known} == set(pids.values())

        found = await terminal.types(
            "wallet", "restore", wallet, *terminal.network, "--no-passphrase", typed=f"{words}\n"
        )
        owner = [*terminal.network, "--wallet", wallet]
        await terminal.killed(lambda: Wallet.load(wallet).pending is not None, "wallet", "rotate", *owner, "--yes")
        promised = Wallet.load(wallet).pending
        assert promised is not None
        await terminal.killed(lambda: bool(Wallet.load(wallet).moved), "wallet", "rotate", *owner, "--yes")
        if Wallet.load(wallet).pending is not None:
            rotated = await terminal.types("wallet", "rotate", *owner, "--yes")
            assert {row["organisation"]: row["id"] for row in rotated} == pids
        after = Wallet.load(wallet)
        assert (after.secret, after.pending) == (promised, None)
        assert {row["id"] for row in await terminal.types("wallet", "who", *owner)} == set(pids.values())
        await terminal.types("wallet", "who", *terminal.network, "--wallet", folder / "lost", expect=6)

        first = cluster.names[0]
        wants = ["--actor", f"organisation:{cluster.names[1]}", "--purpose", "TREAT", "--everything", "--for", "1d"]
        card = folder / "consent.card"
        await terminal.types("consent", "grant", *owner, "--at", first, *wants, "--to", card)
        (shown,) = await terminal.types("wallet", "consents", *owner, card)
        assert (shown["number"], shown["at"]) == (1, first) and shown["who"] == f"anybody of {cluster.names[1]}"
        await terminal.types("wallet", "revoke", 1, *owner, "--yes")
        (shown,) = await terminal.types("wallet", "consents", *owner)
        assert shown["now"].startswith("taken back")
