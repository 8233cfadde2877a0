"""F-08: the feed of real nodes outlives their deaths: nothing is missing, nothing comes twice, wherever one goes on."""

import secrets

import pytest
import trio

from p2pledger.client.feed import START, FeedPatience, open_feed
from p2pledger.client.health import request_access
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.demo.cluster import Cluster
from p2pledger.health.events import AccessDecided
from tests.node.health import PATIENCE_S, Hospital, hospital, register

pytestmark = pytest.mark.process

WIDTH = 4


async def test_a_feed_goes_on_at_another_node_when_its_own_is_killed(consortium):
    """Requests all the while; one node is killed in the middle of the feed, the next, restarted, is killed later."""
    cluster: Cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    names = cluster.names
    told: list[str] = []
    heard: list[AccessDecided] = []
    async with hospital(cluster, names[2:]) as at:
        patient = await register(cluster, at.wallet, "patient", names[2:])
        with trio.fail_after(2 * PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask, at, patient.did)
                feed = open_feed(
                    cluster.founding,
                    cluster.addresses(names[:2]),
                    patient.signing,
                    ["access"],
                    START,
                    patience=FeedPatience(silence_s=30.0, retry_first_s=0.05, retry_most_s=0.5),
                    told=told.append,
                )
                async with feed as notices:
                    async for notice in notices:
                        assert isinstance(notice.event, AccessDecided) and notice.is_proven
                        heard.append(notice.event)
                        if len(heard) == 20:
                            cluster.kill(names[0])
                        if len(heard) == 40:
                            await cluster.start(names[0])
                            await cluster.wait_ready(names[0])
                            cluster.kill(names[1])
                        if len(heard) >= 80 and len(told) >= 2:  # what was on its way at the second death is told first
                            break
                nursery.cancel_scope.cancel()
    assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))

    async with open_ledger(cluster.founding, cluster.addresses([names[0]]), patient.signing) as ledger:
        lines = (await ledger.log(patient.did)).lines[: len(heard)]
    assert [line.access_id for line in lines] == [event.access_id for event in heard][: len(lines)]


async def _ask(at: Hospital, pid: bytes) -> None:
    """The physician asks and asks; without a credential and a consent each answer is a denial, and a line."""
    cluster = at.cluster

    async def work(ledger: LedgerClient) -> None:
        while True:
            request = request_access(
                at.physician,
                cluster.founding.chain,
                pid=pid,
                compartments=[secrets.token_bytes(16)],
                purpose="TREAT",
                not_after_ms=2**50,
            )
            await ledger.submit(request)

    async with (
        open_ledger(cluster.founding, cluster.addresses(cluster.names[2:]), at.physician.signing) as ledger,
        trio.open_nursery() as nursery,
    ):
        for _ in range(WIDTH):
            nursery.start_soon(work, ledger)
