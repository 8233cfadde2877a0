"""Networks of real processes over TLS: they finalise, and agree, in every size and shape that a quorum can live in."""

from itertools import pairwise

import pytest
import trio

from p2pledger.client.ledger import open_ledger
from p2pledger.client.patience import Patience
from p2pledger.consensus.anchor import check_receipt
from p2pledger.primitives.errors import Code, Unavailable
from tests.node.health import agree, height, hospital, load, quiet, reaches, receipt_at

pytestmark = pytest.mark.process


async def test_four_nodes_finalise_what_a_member_submits_and_agree_on_everything(consortium):
    """Proven receipts through one node; any other node proves the same ones; blocks, effects and states are equal."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at, load(at, 20) as running:
        await running.more(200)
    assert {receipt.code for receipt in running.receipts} == {Code.OK}
    assert running.unanswered == 0
    last = max(running.receipts, key=lambda receipt: receipt.executed.receipt.height)
    for name in cluster.names:
        await reaches(cluster, [name], last.executed.receipt.height + 1)
        # the physician's registration was another account's, so our own nonces begin at 1
        reply = await receipt_at(cluster, name, at.wallet, 1)
        check_receipt(reply.evidence, cluster.founding.chain, cluster.founding.validators)
        assert reply.executed in [receipt.executed for receipt in running.receipts]
    await agree(cluster, running.receipts)


@pytest.mark.parametrize("members", [1, 10])
async def test_other_sizes_finalise_too(consortium, members):
    """One node alone is a ledger; ten agree with three that may be faulty."""
    cluster = consortium(members, params={"timeout_ms": 2_000})
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster) as at, load(at, 10) as running:
        await running.more(30)
    await reaches(cluster, cluster.names, max(receipt.executed.receipt.height for receipt in running.receipts))
    await agree(cluster, running.receipts)


def _six_cut(names):
    """Seven in a mesh without the six links along their row: nobody reaches its neighbour directly."""
    return list(pairwise(names))


@pytest.mark.parametrize("shape", ["line", "mesh_with_six_cut"])
async def test_what_enters_at_one_end_is_final_everywhere(consortium, shape):
    """Seven validators whose messages must be carried by others; a client that knows the last of them only."""
    cluster = consortium(7, params={"timeout_ms": 2_000})
    cluster.connect(cluster.line() if shape == "line" else cluster.mesh(without=_six_cut(cluster.names)))
    await cluster.start()
    await cluster.wait_ready()
    async with hospital(cluster, nodes=[cluster.names[-1]]) as at, load(at, 10) as running:
        await running.more(40)
    await reaches(cluster, cluster.names, max(receipt.executed.receipt.height for receipt in running.receipts))
    links = {name: await cluster.metric(name, "p2pledger_p2p_links") for name in cluster.names}
    assert sum(links.values()) == 2 * (6 if shape == "line" else 15), "the network has another shape than it should"
    await agree(cluster, running.receipts)


async def test_without_a_quorum_nothing_is_decided_and_nothing_is_lost(consortium):
    """Two of four are stopped: what is submitted waits. They come back: it is decided within seconds."""
    cluster = consortium(4, params={"checkpoint_interval": 2})
    alone = {"P2PLEDGER_RELEASE__BEGIN": "manual"}  # from the quiet on nobody but the test submits anything
    await cluster.start(environ=alone)
    await cluster.wait_ready()
    staying, leaving = cluster.names[:2], cluster.names[2:]
    impatient = Patience(silence_s=1.0, total_s=3.0)
    async with hospital(cluster, staying) as at:
        before = await at.issue()
        await quiet(cluster, cluster.names)
        await cluster.stop(*leaving)
        frozen = [await height(cluster, name) for name in staying]
        waiting = [await at.ledger.sign(at.operation()) for _ in range(5)]
        async with open_ledger(cluster.founding, cluster.addresses(staying), at.wallet.account, impatient) as hasty:
            for data in waiting[:2]:
                with pytest.raises(Unavailable):
                    await hasty.send(data)
        assert [await height(cluster, name) for name in staying] == frozen, "two of four decided something"
        await cluster.start(*leaving, environ=alone)
        await cluster.wait_ready()
        with trio.fail_after(20):
            after = [await at.ledger.send(data) for data in waiting]
        assert {receipt.code for receipt in after} == {Code.OK}
    await agree(cluster, [before, *after])
