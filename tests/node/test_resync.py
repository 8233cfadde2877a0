"""A node of a real cluster whose state store was damaged: it halts, is resynchronised, and takes part again (P22)."""

import json
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from p2pledger.demo.cluster import Cluster
from p2pledger.execution import keys
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from tests.node.health import agree, height, hospital, load, reaches, register

pytestmark = pytest.mark.process


async def test_a_damaged_state_store_halts_its_node_until_it_is_resynchronised(consortium):
    """P22 with real processes: statuses 1 and 78, a journal that stays, and a vote that counts again at the end."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster, cluster.names[:3]) as at:
        victim = cluster.names[3]
        await cluster.stop(victim)
        damage(cluster.homes[victim])
        for _ in range(3):
            await register(cluster, at.wallet, "practitioner", cluster.names[:3])
        await cluster.start(victim)
        assert await cluster.wait_end(victim) == 1
        assert any(event.get("event") == "node_stopped_itself" for event in cluster.events(victim))

        await cluster.start(victim)
        assert await cluster.wait_end(victim) == 78
        assert f"p2pledger resync --home {cluster.homes[victim]}" in cluster.member(victim).last_words(1)

        shown = resync(cluster, victim)
        assert shown["halt"] == "lifted"
        await cluster.start(victim)
        await cluster.wait_ready(victim)

        cluster.kill(cluster.names[2])  # now nothing is decided without the one that was halted
        async with load(at, 20) as running:
            await running.more(40)
        assert {receipt.code for receipt in running.receipts} == {Code.OK}
        await cluster.start(cluster.names[2])
        await cluster.wait_ready(cluster.names[2])
        await reaches(cluster, cluster.names, await height(cluster, victim))
    await agree(cluster, running.receipts)


def damage(home: Path) -> None:
    """Another number for the next account than was stored."""
    with lmdb.open(str(home / "data" / "state"), max_dbs=8) as environment:
        table = environment.open_db(b"state", create=False)
        with environment.begin(write=True) as txn:
            assert txn.replace(keys.NEXT_ACCOUNT, encode(1000), db=table) is not None


def resync(cluster: Cluster, name: str) -> dict[str, object]:
    command = [sys.executable, "-m", "p2pledger", "resync", "--home", str(cluster.homes[name]), "--yes"]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, check=True, timeout=60)
    shown: dict[str, object] = json.loads(done.stdout)
    return shown
