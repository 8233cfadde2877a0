"""Nodes killed with SIGKILL under load: what was acknowledged stays, and who comes back catches up."""

import pytest
import trio

from p2pledger.chain.transaction import parse
from p2pledger.client.ledger import Told
from p2pledger.primitives.errors import Code
from tests.node.health import agree, height, hospital, load, primary, reaches, receipt_at, until, view

pytestmark = pytest.mark.process


async def test_the_primary_killed_under_load_is_replaced_and_catches_up(consortium):
    """With more than 200 in flight: the others change view and go on; every acknowledged receipt is in every chain."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at:
        dead = await primary(at)
        living = [name for name in cluster.names if name != dead]
        async with load(at, 300) as running:
            await running.more(600)
            assert running.in_flight >= 200
            cluster.kill(dead)
            acknowledged = len(running.receipts)

            async def moved_on() -> bool:
                return all([await view(cluster, name) > 0 for name in living])

            await until(moved_on, "a view change at all living nodes")
            await running.more(600)
            await cluster.start(dead)
            await cluster.wait_ready(dead)
            await running.more(300)
        assert running.unanswered == 0
        assert {receipt.code for receipt in running.receipts} == {Code.OK}
        assert len(running.receipts) > acknowledged
        await reaches(cluster, [dead], max([await height(cluster, name) for name in living]))
    await agree(cluster, running.receipts)


async def test_each_node_in_turn_killed_and_restarted_under_load(consortium):
    """One missing at a time never stops the others, and nobody who comes back has another history."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at, load(at, 50) as running:
        await running.more(50)
        for name in cluster.names:
            cluster.kill(name)
            await running.more(100)
            reached = max([await height(cluster, other) for other in cluster.running])
            await cluster.start(name)
            await cluster.wait_ready(name)
            await reaches(cluster, [name], reached)
    assert running.unanswered == 0
    await agree(cluster, running.receipts)


async def test_all_killed_at_once_keep_what_was_acknowledged(consortium):
    """A power cut for everybody: after it, each receipt that a client has ever seen is proven again, word for word."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at, load(at, 200) as running:
        await running.more(500)
        cluster.kill(*cluster.names)
        acknowledged = list(running.receipts)
        await cluster.start()
        await cluster.wait_ready()
        await running.more(200)
    for name, nonce in zip(cluster.names, (1, 50, 150, 300), strict=True):
        reply = await receipt_at(cluster, name, at.wallet, nonce)
        same = [
            each for each in acknowledged if each.executed.receipt.transaction == reply.executed.receipt.transaction
        ]
        assert [each.executed for each in same] == [reply.executed]
    await agree(cluster, running.receipts)


async def test_what_was_submitted_in_bulk_through_a_node_that_is_killed_is_decided_once(consortium):
    """The node that took them in dies with hundreds undecided: another gets the identical bytes, each place has one
    outcome, and what was told before is what is proven after."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at:
        asked, outcomes, told, first = cluster.names[0], [], [], trio.Event()
        signed = [await at.ledger.sign(at.operation()) for _ in range(600)]

        def note(place: int, _: object) -> None:
            told.append(place)
            first.set()

        async def submit() -> None:
            outcomes.extend(await at.ledger.send_all(signed, told=note))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            await first.wait()
            cluster.kill(asked)
        assert sorted(told) == list(range(len(signed)))
        assert [one.code for one in outcomes] == [Code.OK] * len(signed)
        ids = [parse(data).id for data in signed]
        assert [one.executed.receipt.transaction for one in outcomes] == ids
        assert {one.node.key for one in outcomes if isinstance(one, Told)} > {cluster.address(asked).key}
        await cluster.start(asked)
        await cluster.wait_ready(asked)
        proven = await at.ledger.send_all(signed, prove=True)
    assert [one.executed for one in proven] == [one.executed for one in outcomes]
    await agree(cluster, proven)
