"""The client port over real TCP and TLS: who gets a session, what one session can do to others."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from p2pledger.chain.receipt import executed
from p2pledger.network import authentication
from p2pledger.network.api import (
    Accepted,
    AccountReply,
    AwaitReceipt,
    Challenge,
    ConsentsReply,
    Failure,
    GetAccount,
    GetConsents,
    GetStatus,
    Hello,
    Outcomes,
    Refusal,
    Reply,
    Request,
    Submit,
    SubmitMany,
    Welcome,
)
from p2pledger.network.budget import Rates
from p2pledger.network.clients import ClientConnection, ClientServer, ClientSettings, Decided, Session, Taker, connect
from p2pledger.network.frame import Tag, encode_frame
from p2pledger.network.lobby import receive_first
from p2pledger.network.tls import TlsStream, pinning_client_context
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, PeerFault, Refused, Rejected, StoreError, Unavailable
from p2pledger.primitives.ids import AccountKey, ChainId, Height, NodeId, Nonce, TransactionId
from tests.attack import Without
from tests.network.stage import CHAIN, HOST, OTHER_CHAIN, PATIENCE_S, Member, is_closed, member, tls_to

NODE, OTHER_NODE = member("node"), member("other node")
ALICE, BOB = SigningKey(sha256(b"alice")), SigningKey(sha256(b"bob"))


@dataclass
class Desk:
    """A handler whose answers show what arrived; AwaitReceipt waits until the test lets it go."""

    gate: trio.Event = field(default_factory=trio.Event)
    waiting: int = 0

    async def answer(self, session: Session, request: Request) -> Reply:
        match request:
            case Submit():
                return Accepted(request.id, TransactionId(sha256(request.transaction)))
            case AwaitReceipt():
                self.waiting += 1
                await self.gate.wait()
                raise Unavailable("no receipt within the time")
            case GetAccount():
                return AccountReply(request.id, session.role, Nonce(7), None)
            case GetStatus():
                raise Refused(Code.E_ROLE)
            case _:
                raise Rejected(Code.E_NOT_FOUND, "nothing of that kind")


def role_of(account: AccountKey) -> str:
    return "patient" if account == ALICE.public else "stranger"


@asynccontextmanager
async def serving(
    node: Member = NODE,
    handler: Callable[[Session, Request], Awaitable[Reply]] | None = None,
    settings: ClientSettings | None = None,
    taker: Taker | None = None,
) -> AsyncIterator[tuple[ClientServer, int]]:
    """A node's client port and where it is."""
    server = ClientServer(
        node.key,
        node.certificate,
        CHAIN,
        handler or Desk().answer,
        role_of,
        taker=taker,
        settings=settings or ClientSettings(),
    )
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.serve, HOST, 0)
        with trio.fail_after(PATIENCE_S):
            yield server, port
        nursery.cancel_scope.cancel()


def to(port: int, account: SigningKey = ALICE, node: Member = NODE, chain: ChainId = CHAIN):  # type: ignore[no-untyped-def]
    return connect(HOST, port, node.node, account, chain)


async def say_hello(stream: TlsStream, hello: Hello) -> Welcome | Failure:
    await stream.send_all(encode_frame(encode(hello), Tag.HELLO))
    answer: Welcome | Failure = decode(Welcome | Failure, await receive_first(stream, Tag.HELLO), 4096)  # type: ignore[arg-type]
    return answer


async def challenge_of(stream: TlsStream) -> Challenge:
    return decode(Challenge, await receive_first(stream, Tag.HELLO), 4096)


async def first_failure(stream: TlsStream) -> Failure:
    return decode(Failure, await receive_first(stream, Tag.MESSAGE), 4096)


async def enter(stream: TlsStream, account: SigningKey = ALICE) -> None:
    """Authenticate by hand, to misbehave afterwards."""
    hello = authentication.make_hello(await challenge_of(stream), NODE.node, account, bytes(32))
    assert isinstance(await say_hello(stream, hello), Welcome)


async def test_a_client_is_known_by_its_key_and_gets_replies() -> None:
    """Role from the node, replies by id, failures as replies."""
    async with serving() as (server, port), to(port) as alice, to(port, BOB) as bob:
        assert (alice.role, bob.role) == ("patient", "stranger")
        assert await alice.call(GetAccount(0)) == AccountReply(1, "patient", Nonce(7), None)
        assert await alice.call(Submit(0, b"tx")) == Accepted(2, TransactionId(sha256(b"tx")))
        assert await bob.call(GetStatus(0)) == Failure(1, Code.E_ROLE, "E_ROLE")
        assert await bob.call(GetConsents(0, bytes(16))) == Failure(2, Code.E_NOT_FOUND, "nothing of that kind")
        assert {session.account for session in server.sessions} == {ALICE.public, BOB.public}


async def test_replies_come_in_any_order() -> None:
    """A receipt that takes long does not hold up what is asked after it."""
    desk = Desk()
    async with serving(handler=desk.answer) as (_, port), to(port) as alice, trio.open_nursery() as nursery:
        replies: list[Reply] = []

        async def wait_for_receipt() -> None:
            replies.append(await alice.call(AwaitReceipt(0, AccountKey(ALICE.public), Nonce(1), False, 1000)))

        nursery.start_soon(wait_for_receipt)
        while not desk.waiting:
            await alice.call(GetAccount(0))
        assert not replies
        desk.gate.set()
    [reply] = replies
    assert reply == Failure(reply.id, Code.E_BUSY, "no receipt within the time")


async def test_hundreds_of_calls_share_one_connection() -> None:
    async with serving() as (server, port), to(port) as alice, trio.open_nursery() as nursery:
        replies: dict[int, Reply] = {}

        async def submit(i: int) -> None:
            replies[i] = await alice.call(Submit(0, str(i).encode()))

        for i in range(600):
            nursery.start_soon(submit, i)
    assert {i: reply.transaction for i, reply in replies.items() if isinstance(reply, Accepted)} == {
        i: sha256(str(i).encode()) for i in range(600)
    }
    assert server.counters.requests == 600


async def test_beyond_its_requests_in_flight_a_client_is_not_read() -> None:
    """The 4th request waits outside until one of the three is answered; another client does not notice."""
    desk = Desk()
    settings = ClientSettings(in_flight_max=3)
    async with (
        serving(handler=desk.answer, settings=settings) as (_, port),
        to(port) as alice,
        to(port, BOB) as bob,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(alice.call, AwaitReceipt(0, AccountKey(ALICE.public), Nonce(1), False, 1000))
            while desk.waiting < 3:
                await bob.call(GetAccount(0))
            assert isinstance(await bob.call(GetAccount(0)), AccountReply)
            assert desk.waiting == 3
            desk.gate.set()
        assert desk.waiting == 10


@pytest.mark.attack("T4")
async def test_a_replayed_hello_is_refused(monkeypatch: pytest.MonkeyPatch, without: Without) -> None:
    """Without the server's nonce in the statement, Alice's recorded hello would open a session in her name."""
    real = authentication.hello_statement

    def without_nonce(chain: ChainId, server: NodeId, server_nonce: bytes, client_nonce: bytes) -> bytes:
        return real(chain, server, bytes(32), client_nonce)

    async def replay(port: int) -> Welcome | Failure:
        async with tls_to(port, pinning_client_context()) as first:
            recorded = authentication.make_hello(await challenge_of(first), NODE.node, ALICE, bytes(32))
            assert isinstance(await say_hello(first, recorded), Welcome)
        async with tls_to(port, pinning_client_context()) as second:
            await challenge_of(second)
            return await say_hello(second, recorded)

    async with serving() as (server, port):
        with without.setup("the server's nonce in the statement"), monkeypatch.context() as careless:
            careless.setattr(authentication, "hello_statement", without_nonce)
            assert await replay(port) == Welcome("patient")
        refused = await replay(port)
        assert isinstance(refused, Failure)
        assert refused.code == Code.E_SIG
        assert "not signed for this connection" in server.refusals[-1][1]


@pytest.mark.attack("T4")
async def test_a_hello_for_another_node_is_refused(monkeypatch: pytest.MonkeyPatch, without: Without) -> None:
    """A dishonest node relays the victim's challenge to its client: the answer names the dishonest node.

    Without the server's key in the statement the relayed signature would open a session in Alice's name.
    """
    real = authentication.hello_statement

    def without_server(chain: ChainId, server: NodeId, server_nonce: bytes, client_nonce: bytes) -> bytes:
        return real(chain, NodeId(bytes(32)), server_nonce, client_nonce)

    async def relay(port: int) -> Welcome | Failure:
        async with tls_to(port, pinning_client_context()) as stream:
            challenge = await challenge_of(stream)
            answer_to_the_dishonest = authentication.make_hello(challenge, OTHER_NODE.node, ALICE, bytes(32))
            return await say_hello(stream, answer_to_the_dishonest)

    async with serving() as (_, port):
        with without.setup("the server's key in the statement"), monkeypatch.context() as careless:
            careless.setattr(authentication, "hello_statement", without_server)
            assert await relay(port) == Welcome("patient")
        refused = await relay(port)
        assert isinstance(refused, Failure)
        assert refused.code == Code.E_SIG


async def test_a_hello_in_another_name_is_refused() -> None:
    """Bob's signature does not open Alice's session, and a key that is none opens nothing."""
    async with serving() as (_, port):
        for account in (ALICE.public, bytes(32), b"\1" + bytes(31)):
            async with tls_to(port, pinning_client_context()) as stream:
                hello = authentication.make_hello(await challenge_of(stream), NODE.node, BOB, bytes(32))
                refused = await say_hello(stream, Hello(AccountKey(account), hello.nonce, hello.signature))
            assert isinstance(refused, Failure)
            assert refused.code == Code.E_SIG


async def test_a_client_of_another_chain_is_told() -> None:
    """The client itself sees from the challenge that it would talk to the wrong chain."""
    async with serving() as (_, port):
        with pytest.raises(PeerFault, match=f"is of chain {CHAIN.hex()}, expected {OTHER_CHAIN.hex()}"):
            async with to(port, chain=OTHER_CHAIN):
                pass


async def test_a_wrong_pin_ends_before_anything_is_said() -> None:
    """Another node at the address is not the pinned one, member or not."""
    async with serving(OTHER_NODE) as (server, port):
        with pytest.raises(PeerFault, match=f"its key is {OTHER_NODE.node.hex()}"):
            async with to(port):
                pass
        async with to(port, node=OTHER_NODE) as connection:
            assert connection.is_open
        assert server.counters.sessions == 1


async def test_an_unreachable_node_is_unavailable() -> None:
    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unavailable, match=f"node at {HOST}:{port}: Connection refused"):
        async with to(port):
            pass


@pytest.mark.parametrize(
    ("nonsense", "why"),
    [
        (b"\xff\xff\xff\xff", "frame of 4294967295 bytes is longer than the limit of 1048576"),
        (b"\0\0\0\0", "frame of length 0"),
        (encode_frame(b"\xc1"), "not a request"),
        (encode_frame(b"\x92\xcc\x0c\x01"), "not a request"),  # GetStatus(1) with its tag spelled in two bytes
        (encode_frame(encode((12, 1, 1))), "not a request"),
        (encode_frame(encode((99, 1))), "not a request"),
        (encode_frame(encode(Failure(1, 0, ""))), "not a request"),
        (encode_frame(b"\x91" * 100_000), "not a request"),
        (encode_frame(encode((20, 1, (b"transaction",) * 501, 1))), "of length <= 500"),
        (encode_frame(encode((20, 1, (), 1))), "of length >= 1"),
        (encode_frame(encode((20, 1, (b"one", bytes(limits.TRANSACTION_BYTES_MAX + 1)), 1))), "length <= 65536"),
        (encode_frame(b"\x94\x14\x01\xdc\x00\x01\xc4\x01t\x01"), "not a request"),  # an array of one in three bytes
        (encode_frame(b"again", Tag.HELLO), "has no place here"),
    ],
)
async def test_a_malformed_request_ends_its_session_and_no_other(nonsense: bytes, why: str) -> None:
    """The culprit hears why; another client goes on over the same port."""
    async with serving() as (server, port), to(port, BOB) as bob:
        async with tls_to(port, pinning_client_context()) as stream:
            await enter(stream)
            await stream.send_all(nonsense)
            failure = await first_failure(stream)
            assert (failure.id, failure.code) == (0, Code.E_FORMAT)
            assert why in failure.detail
            assert await is_closed(stream)
        assert isinstance(await bob.call(GetAccount(0)), AccountReply)
        assert server.counters.malformed == 1


async def test_sessions_are_capped_in_all_and_for_each_account() -> None:
    """Nobody takes all seats: not one account, not many keys without an identity."""
    settings = ClientSettings(sessions_max=4, strangers_max=2, sessions_per_account_max=2)
    strangers = [SigningKey(sha256(bytes([i]))) for i in range(3)]
    async with serving(settings=settings) as (server, port):
        async with to(port), to(port):
            with pytest.raises(Unavailable, match="this account has 2 sessions already"):
                async with to(port):
                    pass
            async with to(port, strangers[0]), to(port, strangers[1]):
                with pytest.raises(Unavailable, match="this node serves 4 sessions already"):
                    async with to(port, strangers[2]):
                        pass
        while server.sessions:
            await trio.lowlevel.checkpoint()
        async with to(port, strangers[0]), to(port, strangers[1]):
            with pytest.raises(Unavailable, match="this node serves 2 unregistered keys already"):
                async with to(port, strangers[2]):
                    pass
            async with to(port) as alice:
                assert alice.is_open


async def test_a_flood_of_silent_connections_leaves_room() -> None:
    """T3: the lobby is small, and a client still gets through."""
    async with serving(settings=ClientSettings(pre_auth_max=3)) as (_, port):
        silent = [await trio.open_tcp_stream(HOST, port) for _ in range(10)]
        for stream in silent[:7]:
            assert await is_closed(stream)
        async with to(port) as alice:
            assert alice.role == "patient"
        for stream in silent:
            await stream.aclose()


async def test_a_broken_connection_fails_the_calls_under_way_and_later_ones() -> None:
    """Unavailable, not silence; the body of the connection goes on and may raise what it likes."""
    desk = Desk()
    connection: ClientConnection
    with pytest.raises(KeyError, match="the body's own"):
        async with serving(handler=desk.answer) as (_, port), to(port) as connection, trio.open_nursery() as nursery:

            async def lose() -> None:
                with pytest.raises(Unavailable, match="the connection to the node broke"):
                    await connection.call(AwaitReceipt(0, AccountKey(ALICE.public), Nonce(1), False, 1000))
                with pytest.raises(Unavailable, match="no connection to the node"):
                    await connection.call(GetAccount(0))

            nursery.start_soon(lose)
            while not desk.waiting:
                await trio.lowlevel.checkpoint()
            connection._outbox.push(b"\xff\xff\xff\xff")  # what the node ends a session for
        raise KeyError("the body's own")


async def test_what_the_body_raises_comes_out_unwrapped() -> None:
    """Callers of `connect` need not know that there is a nursery in it."""
    async with serving() as (_, port):
        with pytest.raises(Refused):
            async with to(port):
                raise Refused(Code.E_ROLE)


async def test_a_reply_beyond_the_limit_is_a_failure() -> None:
    async def generous(session: Session, request: Request) -> Reply:
        return ConsentsReply(request.id, (bytes(limits.CLIENT_REPLY_BYTES_MAX),))

    async with serving(handler=generous) as (_, port), to(port) as alice:
        reply = await alice.call(GetConsents(0, bytes(16)))
        assert isinstance(reply, Failure)
        assert reply.code == Code.E_TOO_LARGE


async def test_a_handlers_bug_costs_one_reply() -> None:
    """And the reply says nothing of the values in it, which could be a patient's."""

    async def buggy(session: Session, request: Request) -> Reply:
        raise KeyError("a secret")

    async with serving(handler=buggy) as (server, port), to(port) as alice:
        assert await alice.call(GetAccount(0)) == Failure(1, Code.E_INTERNAL, "this node made a mistake")
        assert await alice.call(GetAccount(0)) == Failure(2, Code.E_INTERNAL, "this node made a mistake")
        assert server.counters.handler_errors == 2


async def test_a_store_that_fails_stops_the_node() -> None:
    async def broken(session: Session, request: Request) -> Reply:
        raise StoreError("disk full")

    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="disk full"), flatten_subgroups=True):
        async with serving(handler=broken) as (_, port), to(port) as alice:
            with pytest.raises(Unavailable):
                await alice.call(GetAccount(0))
            await trio.sleep_forever()  # until the server's nursery is torn down


async def test_a_client_that_does_not_read_loses_its_session() -> None:
    """Replies waiting for one client are bounded in bytes."""

    async def large(session: Session, request: Request) -> Reply:
        return ConsentsReply(request.id, (bytes(900_000),))

    settings = ClientSettings(out_bytes_max=2_000_000)
    async with serving(handler=large, settings=settings) as (server, port):
        async with tls_to(port, pinning_client_context()) as stream:
            await enter(stream)
            await stream.send_all(b"".join(encode_frame(encode(GetConsents(i, bytes(16)))) for i in range(1, 50)))
            while server.sessions:
                await trio.lowlevel.checkpoint()
        assert server.counters.slow_readers == 1


# In bulk


@dataclass
class Counter:
    """Takes requests in bulk and leaves it to the test when they are answered."""

    taken: list[tuple[SubmitMany, Decided]] = field(default_factory=list)

    def take(self, session: Session, request: Request, decided: Decided) -> bool:
        if not isinstance(request, SubmitMany):
            return False
        self.taken.append((request, decided))
        return True

    async def has(self, count: int) -> None:
        while len(self.taken) < count:
            await trio.lowlevel.checkpoint()


def busy(*places: int) -> tuple[Refusal, ...]:
    return tuple(Refusal(place, Code.E_BUSY, "full") for place in places)


async def test_a_request_in_bulk_has_replies_until_the_last_and_keeps_its_slot_so_long() -> None:
    """With one slot, what is asked after it waits for its last reply."""
    counter = Counter()
    async with serving(settings=ClientSettings(in_flight_max=1), taker=counter.take) as (_, port), to(port) as alice:
        with alice.subscribe(SubmitMany(0, (b"one", b"two"), 1_000)) as replies:
            await counter.has(1)
            [(request, decided)] = counter.taken
            assert request.transactions == (b"one", b"two")
            decided(Outcomes(request.id, (), busy(1), False))
            assert await replies.receive() == Outcomes(request.id, (), busy(1), False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.call, GetAccount(0))
                await trio.testing.wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
                decided(Outcomes(request.id, (), busy(0), True))
                assert await replies.receive() == Outcomes(request.id, (), busy(0), True)


async def test_without_a_taker_nothing_is_taken_in_in_bulk() -> None:
    async with serving() as (_, port), to(port) as alice:
        with alice.subscribe(SubmitMany(0, (b"one",), 1_000)) as replies:
            reply = await replies.receive()
    assert isinstance(reply, Failure) and reply.code == Code.E_BUSY


async def test_each_transaction_of_a_request_counts_against_the_budget() -> None:
    """As much as a frame of its own: bulk is no way around it."""
    counter = Counter()
    rates = Rates(bytes_per_s=1e6, frames_per_s=10)
    settings = ClientSettings(member_rates=rates)
    async with serving(settings=settings, taker=counter.take) as (server, port), to(port) as alice:
        with alice.subscribe(SubmitMany(0, (b"t",) * 20, 1_000)):
            await counter.has(1)
            assert not server.counters.throttled
        with alice.subscribe(SubmitMany(0, (b"t",) * 20, 1_000)):
            await counter.has(2)
            while not server.counters.throttled:
                await trio.lowlevel.checkpoint()


async def test_outcomes_beyond_one_frame_come_in_several() -> None:
    """Each place once, and only the last of them is the last."""
    counter = Counter()
    large = executed(Height(1), 0, TransactionId(bytes(32)), Code.OK, [bytes(3_000_000)])
    async with serving(taker=counter.take) as (_, port), to(port) as alice:
        with alice.subscribe(SubmitMany(0, (b"t",) * 5, 1_000)) as replies:
            await counter.has(1)
            [(request, decided)] = counter.taken
            decided(Outcomes(request.id, tuple((place, large) for place in range(4)), busy(4), True))
            parts = [await replies.receive() for _ in range(2)]
    assert all(isinstance(part, Outcomes) for part in parts)
    told = [place for part in parts for place, _ in part.receipts] + [  # type: ignore[union-attr]
        one.place
        for part in parts
        for one in part.refusals  # type: ignore[union-attr]
    ]
    assert sorted(told) == list(range(5))
    assert [part.is_last for part in parts] == [False, True]  # type: ignore[union-attr]


async def test_a_session_that_ends_in_the_middle_hears_no_more_and_disturbs_nobody() -> None:
    counter = Counter()
    async with serving(taker=counter.take) as (server, port), to(port, BOB) as bob:
        async with to(port) as alice:
            with alice.subscribe(SubmitMany(0, (b"one",), 1_000)):
                await counter.has(1)
        while len(server.sessions) > 1:
            await trio.lowlevel.checkpoint()
        [(request, decided)] = counter.taken
        decided(Outcomes(request.id, (), busy(0), True))
        assert isinstance(await bob.call(GetAccount(0)), AccountReply)


async def test_who_does_not_read_its_outcomes_loses_its_session() -> None:
    counter = Counter()
    large = executed(Height(1), 0, TransactionId(bytes(32)), Code.OK, [bytes(900_000)])
    async with serving(settings=ClientSettings(out_bytes_max=2_000_000), taker=counter.take) as (server, port):
        async with tls_to(port, pinning_client_context()) as stream:
            await enter(stream)
            await stream.send_all(encode_frame(encode(SubmitMany(1, (b"t",) * 50, 1_000))))
            await counter.has(1)
            for place in range(50):
                counter.taken[0][1](Outcomes(1, ((place, large),), (), place == 49))
            while server.sessions:
                await trio.lowlevel.checkpoint()
        assert server.counters.slow_readers == 1
