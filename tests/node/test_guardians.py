"""F-23 to F-25 with real nodes, by the commands that people type: a lost wallet, its guardians, and another key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pledger.client.keyring import Wallet
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.primitives.errors import Rejected
from tests.node.health import PATIENCE_S
from tests.node.readers import active_key, sharing_comes
from tests.node.test_privacy import SAMPLES
from tests.node.test_wallet import Terminal

pytestmark = pytest.mark.process

RULES = {"timeout_ms": 500, "checkpoint_interval": 2, "recovery_delay_min_ms": 1_000, "recovery_long_ms": 2_000}
PEOPLE = ("aunt", "brother", "cousin")


class Family(Terminal):
    """A patient's family, each with a wallet that no chain knows."""

    def owner(self, wallet: str) -> list[object]:
        return [*self.network, "--wallet", self.folder / wallet]

    async def wallets(self, *names: str) -> None:
        for name in names:
            await self.types("wallet", "init", self.folder / name, "--no-passphrase")

    async def agree(self, delay: str, *more: object) -> None:
        """The patient invites everybody, they accept, and two are enough."""
        for name in PEOPLE:
            invitation, acceptance = self.folder / f"{name}.invitation", self.folder / f"{name}.acceptance"
            await self.types("guardian", "invite", *self.owner("patient"), "--to", invitation)
            await self.types("guardian", "accept", invitation, *self.owner(name), "--to", acceptance)
        accepted = [self.folder / f"{name}.acceptance" for name in PEOPLE]
        named = ["--needed", 2, "--delay", delay, "--cards", self.folder / "cards"]
        await self.types("guardian", "set", *accepted, *self.owner("patient"), *named, *more)

    def card(self, name: str) -> Path:
        return self.folder / "cards" / f"{name}.card"

    async def approved(self, request: Path, *names: str) -> list[Path]:
        made = []
        for name in names:
            target = self.folder / f"{name}.{request.stem}.approval"
            await self.types(
                "guardian", "approve", request, self.card(name), *self.owner(name), "--yes", "--to", target
            )
            made.append(target)
        return made

    async def finalizes(self, wallet: str) -> Any:
        """As soon as the delay is over."""
        status = 4
        while status == 4:
            done = await trio.run_process(
                [*self.command("recovery", "finalize", *self.owner(wallet)), "--output", "json"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            status = done.returncode
            assert status in (0, 4), done.stderr.decode()
            assert status == 0 or b"the delay is not over" in done.stderr or b"E_TIMELOCK" in done.stderr


@pytest.fixture
async def family(consortium: Callable[..., Cluster], tmp_path: Path) -> Family:
    cluster = consortium(4, params=RULES)
    await cluster.start()
    await cluster.wait_ready()
    folder = tmp_path / "family"
    folder.mkdir(mode=0o700)
    return Family(cluster, folder)


async def test_guardians_recover_a_lost_wallet_and_a_veto_stops_them(family: Family) -> None:
    """F-23, F-24, F-25: two custodians in one command; veto, freeze, delay; the old key is dead, the new consents."""
    first, second = family.cluster.names[:2]
    with trio.fail_after(8 * PATIENCE_S):
        await family.wallets("patient", "new", *PEOPLE)
        pids = {name: await family.registers(family.folder / "patient", name) for name in (first, second)}
        await family.agree("2s", "--without-boxes")
        rows = await family.types("guardian", "status", *family.owner("patient"))
        assert {row["organisation"]: (row["pid"], row["needed"]) for row in rows} == {
            name: (pid, "2 of 3") for name, pid in pids.items()
        }

        request = family.folder / "request"
        await family.types("recovery", "request", family.card("copy"), *family.owner("new"), "--to", request)
        (alone,) = await family.approved(request, "aunt")
        await family.types("recovery", "start", request, alone, *family.owner("new"), expect=4)
        (other,) = await family.approved(request, "cousin")
        await family.types("recovery", "start", request, alone, other, *family.owner("new"))
        rows = await family.types("guardian", "status", family.card("brother"), *family.owner("brother"))
        assert all("the present key can veto" in row["recovery"] for row in rows) and len(rows) == 2
        await family.types("recovery", "veto", *family.owner("patient"), "--yes")
        await family.types("recovery", "finalize", *family.owner("new"), expect=2)

        until = ["--until", "2099-01-01T00:00:00Z"]
        await family.types("guardian", "freeze", family.card("aunt"), *family.owner("aunt"), *until, expect=2)
        frozen = family.folder / "aunt.freeze"
        soon = ["--until", _tomorrow()]
        await family.types("guardian", "freeze", family.card("aunt"), *family.owner("aunt"), *soon, "--to", frozen)
        await family.types("guardian", "freeze", family.card("brother"), *family.owner("brother"), "--with", frozen)
        wants = ["--actor", f"organisation:{second}", "--purpose", "TREAT", "--everything", "--for", "1d"]
        consent = ["consent", "grant", "--at", first, *wants, "--to"]
        await family.types(*consent, family.folder / "thief.card", *family.owner("patient"), expect=4)

        await family.wallets("newer")
        request = family.folder / "again"
        await family.types("recovery", "request", family.card("copy"), *family.owner("newer"), "--to", request)
        approvals = await family.approved(request, "aunt", "brother")
        await family.types("recovery", "start", request, *approvals, *family.owner("newer"))
        await family.finalizes("newer")
        await family.types("wallet", "who", *family.owner("patient"), expect=6)
        rows = await family.types("wallet", "who", *family.owner("newer"))
        assert {row["id"] for row in rows} == set(pids.values())
        await family.types(*consent, family.folder / "consent.card", *family.owner("newer"))


async def test_old_records_open_with_the_recovered_wallet(family: Family) -> None:
    """F-23: what was sealed to the lost wallet opens with the shares of three validators, while the fourth is down."""
    cluster, folder = family.cluster, family.folder
    first = cluster.names[0]
    home = ["--home", cluster.member(first).home, *family.network]
    with trio.fail_after(8 * PATIENCE_S):
        await family.wallets("patient", "new", *PEOPLE)
        pid = await family.registers(folder / "patient", first)
        bundle = next(path for path in (SAMPLES / "bundles").iterdir() if path.name.startswith("Fidel_Bins"))
        (batch,) = await family.types("record", "ingest", bundle, "--patient", pid, *home)
        await sharing_comes(cluster, cluster.names)
        await active_key(cluster, cluster.wallet(first))
        await family.agree("2s")

        request = folder / "request"
        await family.types("recovery", "request", family.card("aunt"), *family.owner("new"), "--to", request)
        approvals = await family.approved(request, "brother", "cousin")
        await family.types("recovery", "start", request, *approvals, *family.owner("new"))
        await family.types("recovery", "open", family.card("copy"), *family.owner("new"), expect=4)
        await family.finalizes("new")
        await cluster.stop(cluster.names[3])
        (opened,) = await family.types("recovery", "open", family.card("copy"), *family.owner("new"))
        assert (opened["box keys"], opened["wrong shares of"]) == (1, [])
        await family.types("recovery", "open", family.card("copy"), *family.owner("patient"), expect=6)

    organisation = cluster.wallet(first).organisation
    batch_id, new = bytes.fromhex(batch["batch"]), Wallet.load(folder / "new")
    vault = cluster.member(first).home / "vault"
    (old,) = new.former_boxes(organisation)
    ref = Vault(vault, old).manifest(batch_id).ref(3)
    custodian = cluster.wallet(first).custodian.box
    assert Vault(vault, old).open_record(ref) == Vault(vault, custodian).open_record(ref)
    with pytest.raises(Rejected):
        Vault(vault, new.at(organisation).box).manifest(batch_id)


def _tomorrow() -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
