"""Who takes more than its share of a port, or is not who it says: each gets it without the one rule against it."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from p2pledger.network import authentication, certificates, connection, frame
from p2pledger.network.api import Challenge, Hello
from p2pledger.network.authentication import check_hello, make_hello
from p2pledger.network.budget import Rates
from p2pledger.network.clients import ClientServer, ClientSettings
from p2pledger.network.frame import FrameDecoder, encode_frame
from p2pledger.network.link import Link, LinkCounters, LinkEvent, LinkSettings, PeerHello, encode_hello
from p2pledger.network.link import check_hello as check_peer_hello
from p2pledger.network.lobby import Lobby, MeteredStream
from p2pledger.network.outbox import Outbox
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, NodeId
from tests.attack import Check, Without
from tests.network.forgery import mint, self_signed_ca
from tests.network.stage import CHAIN, OTHER_CHAIN
from tests.network.test_clients import ALICE, BOB, NODE, serving, to
from tests.network.test_peers import A, B, bodies_of, linked

# Frames (T1)


@pytest.mark.attack("T1")
@pytest.mark.parametrize("length", [1001, 2**31, 2**32 - 1])
def test_a_length_above_the_limit_is_refused_from_its_four_bytes(without: Without, length: int) -> None:
    """Without the limit the decoder waits for four gigabytes, and keeps them."""
    prefix = length.to_bytes(4, "big")
    with without(frame.check_length, "if length > bytes_max"):
        patient = FrameDecoder(1000)
        assert patient.feed(prefix) == []
        assert patient.feed(b"\1" + bytes(999)) == []
        assert len(patient._rest) == 1004  # and so on
    with pytest.raises(InvalidInput, match=str(length)):
        FrameDecoder(1000).feed(prefix)


@pytest.mark.attack("T1")
def test_a_frame_of_length_0_is_refused(without: Without) -> None:
    """A flood of them would be frames without a tag: here it reads its tag beyond its own end."""
    empty = bytes(4)
    with without(frame.check_length, "if length == 0"), pytest.raises(IndexError):
        FrameDecoder(1000).feed(empty)
    with pytest.raises(InvalidInput, match="length 0"):
        FrameDecoder(1000).feed(empty)


# Time and room for strangers (T2, T3)


async def dripping(seconds: float) -> float:
    """How long a visitor holds its place who sends a byte every second, at most an hour."""
    lobby = Lobby(4, seconds)
    began = trio.current_time()
    with trio.move_on_after(3600):
        try:
            async with lobby.visit("10.0.0.1"):
                await trio.sleep_forever()
        except Unavailable:
            pass
    return trio.current_time() - began


@pytest.mark.attack("T2")
async def test_a_handshake_that_drips_loses_its_place(without: Without, autojump_clock: MockClock) -> None:
    with without.setup("a deadline for the handshake"):
        assert await dripping(float("inf")) == 3600
    assert await dripping(5.0) == 5


@pytest.mark.attack("T2")
async def test_a_link_without_a_complete_frame_ends(without: Without, autojump_clock: MockClock) -> None:
    """A frame that never ends holds a link open for ever where silence has no limit."""

    async def held_s(silence_s: float) -> float:
        near, far = memory_stream_pair()
        link = Link(A.node, A.node, near, LinkSettings(silence_s=silence_s), LinkCounters())
        send, receive = trio.open_memory_channel[LinkEvent](10)
        began = trio.current_time()
        with trio.move_on_after(600):
            async with receive, send, trio.open_nursery() as nursery:
                nursery.start_soon(drip, far)
                await link.run(send)
                nursery.cancel_scope.cancel()
        return trio.current_time() - began

    async def drip(far: trio.abc.Stream) -> None:
        for byte in encode_frame(bytes(10_000)):
            await far.send_all(bytes([byte]))
            await trio.sleep(1)

    with without.setup("a limit to silence"):
        assert await held_s(float("inf")) == 600
    assert await held_s(30) == 30


@pytest.mark.attack("T2")
async def test_a_stranger_sends_no_more_than_4_kib(without: Without) -> None:
    near, far = memory_stream_pair()
    metered, unmetered = MeteredStream(near, 4096), MeteredStream(near, 4096)
    with without.setup("the meter before the handshake is over"):
        unmetered.trust()
        await far.send_all(bytes(100_000))
        assert len(await unmetered.receive_some(50_000)) == 50_000
    assert len(await metered.receive_some(50_000)) == 4096
    with pytest.raises(InvalidInput, match="more than 4096 bytes"):
        await metered.receive_some(50_000)


@pytest.mark.attack("T3")
async def test_silent_visitors_do_not_fill_the_house(without: Without, nursery: trio.Nursery) -> None:
    """Without the bound each of a hundred holds a task, a buffer and a file descriptor."""

    async def held() -> int:
        lobby = Lobby(3, seconds=1000)

        async def visit() -> None:
            try:
                async with lobby.visit("10.0.0.1"):
                    await trio.sleep_forever()
            except Unavailable:
                pass

        async with trio.open_nursery() as visitors:
            for _ in range(100):
                visitors.start_soon(visit)
                await wait_all_tasks_blocked()
            count = len(lobby)
            visitors.cancel_scope.cancel()
        return count

    with without(Lobby.visit, "if len(self._visitors) >= self.visitors_max"):
        assert await held() == 100
    assert await held() == 3


# Seats at the client port (T3)


async def sessions_of(accounts: list[SigningKey], settings: ClientSettings) -> int:
    """How many of these get a session at the same time."""
    async with serving(settings=settings) as (_, port), AsyncExitStack() as open_ones:
        held = 0
        for account in accounts:
            try:
                await open_ones.enter_async_context(to(port, account))
                held += 1
            except Unavailable:
                pass
        return held


STRANGERS = [SigningKey(sha256(bytes([i]))) for i in range(6)]


@pytest.mark.attack("T3")
@pytest.mark.parametrize(
    ("check", "settings", "accounts"),
    [
        (
            Check(ClientServer._seat, "if len(self.sessions) >= settings.sessions_max"),
            ClientSettings(sessions_max=2),
            STRANGERS,
        ),
        (
            Check(ClientServer._seat, "if self._per_account[session.account] >="),
            ClientSettings(sessions_per_account_max=2),
            [ALICE] * 6,
        ),
        (
            Check(ClientServer._seat, "if session.role == STRANGER and"),
            ClientSettings(strangers_max=2),
            STRANGERS,
        ),
    ],
    ids=["all", "one account", "keys that cost nothing"],
)
async def test_nobody_takes_all_the_seats(
    without: Without, check: Check, settings: ClientSettings, accounts: list[SigningKey]
) -> None:
    with without(*check):
        assert await sessions_of(accounts, settings) == 6
    assert await sessions_of(accounts, settings) == 2


# Who is there (T4)


@pytest.mark.attack("T4")
@pytest.mark.parametrize(
    ("check", "hello"),
    [
        (Check(check_peer_hello, "if hello.version != WIRE_VERSION"), A.hello(version=999)),
        (Check(check_peer_hello, "if hello.chain != chain"), A.hello(chain=OTHER_CHAIN)),
        (Check(check_peer_hello, "if hello.node != proven"), B.hello()),
    ],
    ids=["another version", "another chain", "reflected"],
)
def test_a_peers_hello_says_language_chain_and_node(without: Without, check: Check, hello: PeerHello) -> None:
    data = encode_hello(hello)[5:]
    with without(*check):
        assert check_peer_hello(data, CHAIN, A.node) == hello
    with pytest.raises(PeerFault):
        check_peer_hello(data, CHAIN, A.node)


CHALLENGE = Challenge(CHAIN, bytes(range(32)))


def in_anothers_name() -> Hello:
    mine = make_hello(CHALLENGE, NODE.node, BOB, bytes(32))
    return Hello(AccountKey(ALICE.public), mine.nonce, mine.signature)


def to_another_challenge() -> Hello:
    return make_hello(Challenge(CHAIN, bytes(32)), NODE.node, ALICE, bytes(32))


def for_another_node() -> Hello:
    return make_hello(CHALLENGE, NodeId(B.node), ALICE, bytes(32))


def for_another_chain() -> Hello:
    return make_hello(Challenge(OTHER_CHAIN, CHALLENGE.nonce), NODE.node, ALICE, bytes(32))


@pytest.mark.attack("T4", "T12")
@pytest.mark.parametrize("hello", [in_anothers_name, to_another_challenge, for_another_node, for_another_chain])
def test_a_client_signs_for_one_connection_to_one_node(without: Without, hello: Callable[[], Hello]) -> None:
    data = encode(hello())
    with without(authentication.check_hello, "not verify(hello.account, statement, hello.signature)"):
        assert check_hello(data, CHALLENGE, NODE.node) == ALICE.public
    with pytest.raises(Rejected) as refused:
        check_hello(data, CHALLENGE, NODE.node)
    assert refused.value.code is Code.E_SIG


@pytest.mark.attack("T4")
async def test_a_client_of_another_chain_does_not_stay(without: Without) -> None:
    """It would sign transactions for a chain that is not its own."""
    async with serving() as (_, port):
        with without(connection._authenticate, "if challenge.chain != chain"):
            async with to(port, chain=OTHER_CHAIN) as deceived:
                assert deceived.is_open
        with pytest.raises(PeerFault):
            async with to(port, chain=OTHER_CHAIN):
                pass


# Certificates (T36)


@pytest.mark.attack("T36")
@pytest.mark.parametrize(
    ("check", "certificate"),
    [
        (Check(certificates.check_certificate, "if constraints.value.ca or"), self_signed_ca(A.key)),
        (Check(certificates.check_certificate, "if [name.value for name in names] !="), mint(A.key, A.key, "Somebody")),
        (Check(certificates.check_certificate, "key.verify("), A.certificate[:-1] + bytes([A.certificate[-1] ^ 1])),
    ],
    ids=["a CA", "under another name", "with a changed signature"],
)
def test_a_registered_certificate_is_the_nodes_own(without: Without, check: Check, certificate: bytes) -> None:
    """A member that registered a CA could mint the others' certificates."""
    with without(*check):
        certificates.check_certificate(certificate, A.node)
    with pytest.raises(InvalidInput):
        certificates.check_certificate(certificate, A.node)


# Floods from those who are known (T27)


@pytest.mark.attack("T27")
async def test_a_peer_above_its_rate_is_not_read_for_a_while(without: Without, nursery: trio.Nursery) -> None:
    async def throttled(rates: Rates) -> int:
        async with trio.open_nursery() as mesh:
            ours, theirs = await linked(mesh, rates=rates)
            for _ in range(200):
                ours.send(B.node, b"flood")
            await bodies_of(theirs, 200)
            mesh.cancel_scope.cancel()
        return theirs.counters.throttled

    with without.setup("a budget for each link"):
        assert await throttled(Rates(bytes_per_s=1e9, frames_per_s=1e9)) == 0
    assert await throttled(Rates(bytes_per_s=1e9, frames_per_s=2000, burst_s=0.05)) > 0


@pytest.mark.attack("T27")
def test_a_peer_that_does_not_read_does_not_fill_our_memory(without: Without) -> None:
    def waiting() -> int:
        outbox = Outbox(1_000)
        for _ in range(100):
            outbox.push(bytes(100))
        return outbox.size

    with without(Outbox.push, "if self.size + len(frame) > self.bytes_max"):
        assert waiting() == 10_000
    assert waiting() == 1_000
