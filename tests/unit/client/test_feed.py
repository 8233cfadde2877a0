"""F-08, F-15: the event feed over real connections: complete, in order, each notice proven, whatever nodes do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from msgspec.structs import replace

from p2pledger.chain.receipt import Executed, ReceiptProof, executed
from p2pledger.client.feed import START, FeedPatience, Notice, open_feed
from p2pledger.client.links import Node
from p2pledger.consensus.anchor import check_receipt
from p2pledger.health.events import AccessDecided, ConsentGranted, ConsentRevoked, decode_event
from p2pledger.health.operations import ConsentRevoke
from p2pledger.health.topics import Topic
from p2pledger.network.api import Failure
from p2pledger.network.certificates import make_certificate
from p2pledger.network.clients import ClientServer, ClientSettings, Session
from p2pledger.network.connection import connect
from p2pledger.network.feed_api import Cursor, FeedReply, Subscribe
from p2pledger.node.feed import Feed
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Height
from p2pledger.state.view import StateView
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, WALD

ALL: tuple[Topic, ...] = ("access", "consent", "break-glass", "recovery")
QUICK = FeedPatience(silence_s=20.0, retry_first_s=0.001, retry_most_s=0.01)
Feeder = Callable[[Session, Subscribe, Cursor], Awaitable[FeedReply]]


@pytest.fixture
def chain() -> Chain:
    """A consent, three decisions of which one is a denial and one broken glass, and a revocation."""
    chain = Chain()
    chain.grant()
    chain.ask("first")
    chain.ask("second", purpose="HRESCH")
    chain.ask("third", purpose="BTG")
    chain.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn"))
    chain.tick()
    return chain


@dataclass
class Port:
    """A node's client port, and what kills it."""

    node: Node
    server: ClientServer
    scope: trio.CancelScope


@asynccontextmanager
async def serving(chain: Chain, *feeders: Feeder, settings: ClientSettings | None = None) -> AsyncIterator[list[Port]]:
    """A port for each feeder."""
    handler = HonestNode(chain).answer
    async with trio.open_nursery() as nursery:
        places = []
        for number, feeder in enumerate(feeders):
            own = key(f"port {number}")
            server = ClientServer(
                own, make_certificate(own), chain.chain, handler, lambda _: "", feeder=feeder, settings=settings
            )

            async def serve(
                server: ClientServer = server, *, task_status: trio.TaskStatus[tuple[int, trio.CancelScope]]
            ) -> None:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        port = await inner.start(server.serve, "127.0.0.1", 0)
                        task_status.started((port, scope))

            port, scope = await nursery.start(serve)
            places.append(Port(Node("127.0.0.1", port, server.node), server, scope))
        with trio.fail_after(30):
            yield places
        nursery.cancel_scope.cancel()


async def take(notices: AsyncIterator[Notice], count: int) -> list[Notice]:
    return [await anext(notices) for _ in range(count)]


def kinds(notices: Sequence[Notice]) -> list[type]:
    return [type(notice.event) for notice in notices]


async def test_a_patient_hears_everything_that_concerns_it_and_can_prove_it(chain: Chain) -> None:
    """F-08: from the first block on, in order, each event with a proof that leads to the founders' signatures."""
    async with (
        serving(chain, HonestNode(chain).next_page) as [port],
        open_feed(chain.founding, [port.node], PATIENT, ALL, patience=QUICK) as notices,
    ):
        found = await take(notices, 5)
    assert kinds(found) == [ConsentGranted, AccessDecided, AccessDecided, AccessDecided, ConsentRevoked]
    for notice in found:
        assert notice.evidence is not None
        executed = check_receipt(notice.evidence, chain.founding.chain, chain.founding.validators)
        assert executed.receipt.transaction == notice.transaction


async def test_kinds_are_chosen(chain: Chain) -> None:
    """F-15: whoever wants only broken glass hears of that, and of nothing else."""
    async with (
        serving(chain, HonestNode(chain).next_page) as [port],
        open_feed(chain.founding, [port.node], BERG, ["break-glass"], patience=QUICK) as notices,
    ):
        (glass,) = await take(notices, 1)
    assert isinstance(glass.event, AccessDecided) and glass.event.purpose == "BTG"


async def test_what_happens_later_comes_when_it_happens(chain: Chain) -> None:
    """The feed waits at the tip."""
    ahead = Cursor(Height(chain.height + 1), 0)
    async with (
        serving(chain, HonestNode(chain).next_page) as [port],
        open_feed(chain.founding, [port.node], PATIENT, ALL, ahead, patience=QUICK) as notices,
        trio.open_nursery() as nursery,
    ):
        found: list[Notice] = []

        async def listen() -> None:
            found.extend(await take(notices, 1))

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        chain.ask("later")
        chain.tick()
    assert kinds(found) == [AccessDecided]


async def test_any_place_is_one_to_go_on_from(chain: Chain) -> None:
    """From each notice's `next` come exactly those after it."""
    async with (
        serving(chain, HonestNode(chain).next_page) as [port],
        open_feed(chain.founding, [port.node], PATIENT, ALL, patience=QUICK) as notices,
    ):
        found = await take(notices, 5)
        for number, notice in enumerate(found[:-1]):
            async with open_feed(chain.founding, [port.node], PATIENT, ALL, notice.next, patience=QUICK) as rest:
                assert [one.place for one in await take(rest, 4 - number)] == [one.place for one in found[number + 1 :]]


async def test_others_hear_nothing(chain: Chain) -> None:
    """F-08: neither another patient nor a practitioner, whomever they ask about; nor a patient about everybody."""
    chain.register("neighbour", "patient", BERG, "Berg")
    chain.tick()
    feeder = HonestNode(chain).next_page
    async with serving(chain, feeder, feeder) as places:
        nodes = [port.node for port in places]
        for account, pid in [(DOCTOR, None), (DOCTOR, PID), (key("neighbour"), PID), (key("stranger"), None)]:
            async with open_feed(chain.founding, nodes, account, ALL, pid=pid, patience=QUICK) as notices:
                with pytest.raises(Rejected, match="E_ROLE"):
                    await anext(notices)


async def test_an_organisation_hears_of_all_or_of_one(chain: Chain) -> None:
    async with serving(chain, HonestNode(chain).next_page) as [port]:
        for pid in (None, PID):
            async with open_feed(chain.founding, [port.node], WALD, ["access"], pid=pid, patience=QUICK) as notices:
                assert len(await take(notices, 3)) == 3


@dataclass
class Told:
    """A chain at whose second height one transaction concerned two patients."""

    state: StateView
    executed: Height

    def receipts_at(self, height: Height) -> list[Executed]:
        events = [encode(ConsentGranted(id16(f"consent of {pid.hex()}"), pid)) for pid in (PID, id16("other"))]
        return [executed(height, 0, hash32("transaction"), Code.OK, events)] if height == 2 else []  # type: ignore[arg-type]


async def test_what_concerns_others_in_the_same_transaction_stays_out(chain: Chain) -> None:
    """F-29: a patient gets its own events of it, marked as not whole, and nobody else's; organisations get all."""
    feed = Feed(
        Told(chain.state, Height(2)), lambda: Height(2), chain.sealed, lambda _: ReceiptProof(1, ()), trio.sleep_forever
    )
    request = Subscribe(1, START, ALL, None)
    (item,) = (await feed.next_page(AccountKey(PATIENT.public), request, START)).items
    (event,) = map(decode_event, item.executed.events)
    assert isinstance(event, ConsentGranted) and event.pid == PID and not item.is_whole
    (item,) = (await feed.next_page(AccountKey(BERG.public), request, START)).items
    assert len(item.executed.events) == 2 and item.is_whole


async def test_a_quiet_chain_says_how_far_it_is(chain: Chain) -> None:
    """An empty page with the place to go on from, so that a client knows that its node lives."""
    feed = HonestNode(chain).feed
    feed.quiet_s = 0.01
    start = Cursor(Height(chain.height), 0)
    reply = await feed.next_page(AccountKey(PATIENT.public), Subscribe(1, start, ALL, None), start)
    assert (reply.items, reply.anchor, reply.next) == ((), None, Cursor(Height(chain.height + 1), 0))


async def test_a_node_that_dies_is_replaced_at_the_very_place(chain: Chain) -> None:
    """Nothing missing, nothing twice, whichever node tells it."""
    feeder = HonestNode(chain).next_page
    async with (
        serving(chain, feeder, feeder) as [first, second],
        open_feed(chain.founding, [first.node, second.node], PATIENT, ALL, patience=QUICK) as notices,
    ):
        before = await take(notices, 5)
        first.scope.cancel()
        chain.ask("later")
        chain.tick()
        (after,) = await take(notices, 1)
    assert {notice.node for notice in before} == {first.node} and after.node == second.node
    sequences = [one.event.sequence for one in [*before, after] if isinstance(one.event, AccessDecided)]
    assert sequences == [1, 2, 3, 4]


def lying(chain: Chain, change: Callable[[FeedReply], FeedReply]) -> Feeder:
    honest = HonestNode(chain)

    async def feed(session: Session, request: Subscribe, place: Cursor) -> FeedReply:
        return change(await honest.next_page(session, request, place))

    return feed


def _event_forged(reply: FeedReply) -> FeedReply:
    items = [replace(one, executed=replace(one.executed, events=one.executed.events * 2)) for one in reply.items]
    return replace(reply, items=tuple(items))


def _line_left_out(reply: FeedReply) -> FeedReply:
    if any(b"HRESCH" in event for item in reply.items for event in item.executed.events):
        return replace(reply, items=(), anchor=None)
    return reply


LIES: dict[str, Callable[[FeedReply], FeedReply]] = {
    "forged events": _event_forged,
    "no proof": lambda reply: replace(reply, anchor=None),
    "a line left out": _line_left_out,
    "twice": lambda reply: replace(reply, items=reply.items * 2),
    "backwards": lambda reply: replace(reply, next=Cursor(Height(0), 0)),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_node_is_left_for_an_honest_one(chain: Chain, lie: str) -> None:
    """What it told before its lie is proven; what it would leave out, the log's numbers show."""
    told: list[str] = []
    async with serving(chain, lying(chain, LIES[lie]), HonestNode(chain).next_page) as places:
        nodes = [port.node for port in places]
        async with open_feed(chain.founding, nodes, PATIENT, ["access"], patience=QUICK, told=told.append) as notices:
            found = await take(notices, 3)
    assert [one.event.sequence for one in found if isinstance(one.event, AccessDecided)] == [1, 2, 3]
    assert told, "the liar was not noticed"


async def test_what_every_node_leaves_out_is_a_gap_and_said(chain: Chain) -> None:
    """Pruned events are told by nobody: f + 1 nodes that agree on it are enough, and the reader hears of it."""
    told: list[str] = []
    liars = [lying(chain, _line_left_out) for _ in range(3)]
    async with serving(chain, *liars) as places:
        nodes = [port.node for port in places]
        async with open_feed(chain.founding, nodes, PATIENT, ["access"], patience=QUICK, told=told.append) as notices:
            found = await take(notices, 2)
    assert [one.event.sequence for one in found if isinstance(one.event, AccessDecided)] == [1, 3]
    assert "just before line 3 are not told by any of 2 nodes" in told[-1]


async def test_a_slow_reader_is_dropped_with_its_place_and_nobody_waits_for_it(chain: Chain) -> None:
    """Its session ends with a named failure; another subscriber of the same node hears everything meanwhile."""
    honest = HonestNode(chain)
    page = await honest.feed.next_page(AccountKey(PATIENT.public), Subscribe(1, START, ALL, None), START)

    async def endless(session: Session, request: Subscribe, place: Cursor) -> FeedReply:
        """News of a very busy chain for the one who does not read; the other gets what there is."""
        if request.topics == ALL:
            return await honest.next_page(session, request, place)
        await trio.lowlevel.checkpoint()
        return replace(page, id=request.id, next=Cursor(Height(place.height + 1), 0))

    settings = ClientSettings(feed_bytes_max=4096, feed_slow_s=0.2)
    async with (
        serving(chain, endless, settings=settings) as [port],
        connect(port.node.host, port.node.port, port.node.key, PATIENT, chain.chain) as connection,
        open_feed(chain.founding, [port.node], PATIENT, ALL, patience=QUICK) as notices,
    ):
        with connection.subscribe(Subscribe(0, START, ("access",), None)) as replies:
            while not port.server.counters.slow_readers:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(await take(notices, 5)) == 5
            *read, last = [reply async for reply in replies]
    assert isinstance(last, Failure) and last.code == Code.E_BUSY
    assert isinstance(read[-1], FeedReply)
    assert last.detail == f"the feed was not read for 0.2 s; subscribe anew from {read[-1].next} on"


async def test_a_session_has_so_many_feeds(chain: Chain) -> None:
    request = Subscribe(0, START, ALL, None)
    async with (
        serving(chain, HonestNode(chain).next_page, settings=ClientSettings(feeds_max=1)) as [port],
        connect(port.node.host, port.node.port, port.node.key, PATIENT, chain.chain) as connection,
    ):
        with connection.subscribe(request) as first:
            assert isinstance(await first.receive(), FeedReply)
        with connection.subscribe(request) as second:
            refusal = await second.receive()
    assert isinstance(refusal, Failure) and refusal.code == Code.E_BUSY


async def test_a_place_that_no_node_has_reached_is_refused(chain: Chain) -> None:
    """A mistyped height is an error, not silence for years."""
    async with serving(chain, HonestNode(chain).next_page) as [port]:
        far = Cursor(Height(10**9), 0)
        async with open_feed(chain.founding, [port.node], PATIENT, ALL, far, patience=QUICK) as notices:
            with pytest.raises(Rejected, match=r"1000000000:0 is far above the tip"):
                await anext(notices)


async def test_a_feed_needs_nodes_and_topics(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="at least one each"):
        async with open_feed(chain.founding, [], SigningKey(bytes(32)), ALL):
            raise AssertionError("there is no node to ask")
