"""Bad input over real TLS: a named refusal with the value and the rule, a counter, and nobody else is disturbed."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from p2pledger.chain.transaction import assemble, build_body, sign
from p2pledger.client.ledger import open_ledger
from p2pledger.health.operations import CredentialRevoke
from p2pledger.network.api import (
    Accepted,
    AwaitReceipt,
    BlockReply,
    Challenge,
    Failure,
    GetBlock,
    GetConsents,
    GetLog,
    Reply,
    Submit,
    Welcome,
)
from p2pledger.network.authentication import make_hello
from p2pledger.network.connection import connect
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import receive_first
from p2pledger.network.tls import ALPN_CLIENT, handshake, pinning_client_context
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import Height, Nonce
from tests.node.health import Hospital, hospital, register, until

pytestmark = pytest.mark.process

CHAIN_OF_OTHERS = sha256(b"the chain of others")


class FutureOperation(Record, frozen=True, tag=99):
    """An operation that this version does not know."""

    value: int


class Bad:
    """Bytes that are not to be let in, one kind a method: (bytes, code, words of the refusal)."""

    def __init__(self, at: Hospital, nonce: int, executed: bytes) -> None:
        self.chain = at.cluster.founding.chain
        self.key = at.wallet.account
        self.nonce = nonce
        self.operation = at.operation()
        self.expiry = at.ledger.expiry()
        self.executed = executed

    def _signed(self, **changed: object) -> bytes:
        given = {
            "chain": self.chain,
            "sender": self.key,
            "nonce": self.nonce,
            "expires_ms": self.expiry,
            "operations": [self.operation],
        }
        return sign(**(given | changed))  # type: ignore[arg-type]

    def truncated(self):
        return self._signed()[:-1], Code.E_FORMAT, ["not a Envelope", "truncated"]

    def with_a_byte_too_many(self):
        return self._signed() + b"\0", Code.E_FORMAT, ["trailing"]

    def deeply_nested(self):
        return b"\x91" * 60_000, Code.E_FORMAT, ["not a Envelope"]

    def not_canonical(self):
        short = self._signed()
        assert short[0] == 0x93  # an array of three, which 0xdc 0x0003 says in two bytes more
        return b"\xdc\x00\x03" + short[1:], Code.E_FORMAT, [str(len(short) + 2), "not in its canonical spelling"]

    def with_operations_exchanged(self):
        body, _ = build_body(self.chain, self.key.public, self.nonce, self.expiry, [self.operation])
        other = encode((CredentialRevoke(self.operation.subject, "physician"),))
        return (
            assemble(body, other, [self.key.sign(body)]),
            Code.E_FORMAT,
            [sha256(other).hex(), sha256(encode((self.operation,))).hex()],
        )

    def signed_by_another(self):
        body, operations = build_body(self.chain, self.key.public, self.nonce, self.expiry, [self.operation])
        forged = assemble(body, operations, [SigningKey(secrets.token_bytes(32)).sign(body)])
        return forged, Code.E_SIG, [self.key.public.hex(), "does not verify"]

    def for_another_chain(self):
        return self._signed(chain=CHAIN_OF_OTHERS), Code.E_CHAIN, [CHAIN_OF_OTHERS.hex(), self.chain.hex()]

    def replayed(self):
        return self.executed, Code.E_NONCE, ["nonce 1 is used"]

    def with_a_nonce_far_ahead(self):
        return self._signed(nonce=1_000_000), Code.E_NONCE, ["nonce 1000000", "outside the window"]

    def expired(self):
        return self._signed(expires_ms=1_000), Code.E_TX_EXPIRED, ["expired at 1000"]

    def expiring_in_a_year(self):
        late = self.expiry + 365 * 24 * 3600 * 1000
        return self._signed(expires_ms=late), Code.E_TX_EXPIRED, [str(late), "more than a day ahead"]

    def of_an_unknown_sender(self):
        stranger = SigningKey(secrets.token_bytes(32))
        return self._signed(sender=stranger), Code.E_UNKNOWN_SENDER, [stranger.public.hex(), "no account"]

    def of_an_unknown_kind(self):
        return self._signed(operations=[FutureOperation(1)]), Code.E_UNKNOWN_KIND, ["99"]

    def without_operations(self):
        return self._signed(operations=[]), Code.E_FORMAT, ["without operations"]

    def of_too_many_operations(self):
        many = [self.operation] * (limits.OPERATIONS_MAX + 1)
        return self._signed(operations=many), Code.E_TOO_LARGE, ["65 operations", "64"]


BAD = [name for name in vars(Bad) if not name.startswith("_")]


async def test_bad_transactions_are_refused_by_name_and_counted_and_others_go_on(consortium):
    """Each with its code, the value and the rule; the same session and another client's are served all the while."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    name = cluster.names[0]
    address = cluster.address(name)
    async with (
        hospital(cluster) as at,
        connect(address.host, address.port, address.key, at.wallet.account, cluster.founding.chain) as attacker,
    ):
        executed = await at.ledger.sign(at.operation())
        await at.ledger.send(executed)
        bad = Bad(at, 500, executed)
        expected: dict[Code, int] = {}
        for kind in BAD:
            data, code, words = getattr(bad, kind)()
            reply = await attacker.call(Submit(0, data))
            assert isinstance(reply, Failure), f"{kind}: {reply}"
            assert (Code(reply.code), [word for word in words if word not in reply.detail]) == (code, []), (kind, reply)
            expected[code] = expected.get(code, 0) + 1
            assert (await at.issue()).code == Code.OK, f"nothing is finalised after one {kind}"
        counted = await cluster.ops(name, "/metrics")
        for code, times in expected.items():
            assert f'p2pledger_admission_rejected_total{{code="{code.name}"}} {float(times)}' in counted
        assert isinstance(await attacker.call(Submit(0, await at.ledger.sign(at.operation()))), Accepted)
    await cluster.stop()


@asynccontextmanager
async def raw_session(cluster, name: str, account: SigningKey) -> AsyncIterator[trio.SSLStream]:
    """A session whose bytes we write ourselves."""
    address = cluster.address(name)
    stream = trio.SSLStream(
        await trio.open_tcp_stream(address.host, address.port), pinning_client_context(), https_compatible=True
    )
    try:
        await handshake(stream, lambda key: key == address.key, ALPN_CLIENT)
        challenge = decode(Challenge, await receive_first(stream, Tag.HELLO), 4096)
        hello = make_hello(challenge, address.key, account, secrets.token_bytes(32))
        await stream.send_all(encode_frame(encode(hello), Tag.HELLO))
        decode(Welcome, await receive_first(stream, Tag.HELLO), 4096)
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def last_word(stream: trio.SSLStream) -> Failure:
    """What the node says before it closes the session."""
    decoder = FrameDecoder(limits.CLIENT_FRAME_BYTES_MAX)
    bodies: list[bytes] = []
    with trio.fail_after(30):
        while data := await stream.receive_some(65_536):
            bodies += decoder.feed(bytes(data))
    reply = decode(Reply, bodies[-1], limits.CLIENT_FRAME_BYTES_MAX)
    assert isinstance(reply, Failure)
    return reply


SPOILT = {
    "a frame beyond the limit": ((64 * 1024**2).to_bytes(4, "big"), [str(64 * 1024**2), "1048576"]),
    "a frame of length 0": (bytes(4), ["length 0"]),
    "an unknown tag": (b"\0\0\0\2\x63x", ["tag 99"]),
    "no request at all": (encode_frame(b"\xc1"), ["not a request"]),
    "a request of an unknown kind": (encode_frame(encode((99, 1))), ["not a request", "99"]),
    "a deeply nested request": (encode_frame(b"\x91" * 100_000), ["not a request"]),
    "a transaction beyond the limit": (
        encode_frame(encode((10, 1, bytes(limits.TRANSACTION_BYTES_MAX + 1)))),
        ["not a request", "65536"],
    ),
    "a request spelled otherwise": (encode_frame(b"\x92\x0c\xcd\x00\x01"), ["not a request"]),
}


async def test_streams_that_make_no_sense_end_their_own_session_only(consortium):
    """A last word that names the rule, one more in the counter, and other sessions of the same account live on."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    name = cluster.names[0]
    async with hospital(cluster) as at:
        for kind, (data, words) in SPOILT.items():
            async with raw_session(cluster, name, at.wallet.account) as stream:
                await stream.send_all(data)
                reply = await last_word(stream)
            assert reply.code == Code.E_FORMAT, (kind, reply)
            assert [word for word in words if word not in reply.detail] == [], (kind, reply)
            assert (await at.issue()).code == Code.OK, f"nothing is finalised after {kind}"
        async with raw_session(cluster, name, at.wallet.account) as stream:
            await stream.send_all(encode_frame(bytes(100))[:50])  # and then silence: the frame never ends
            assert (await at.issue()).code == Code.OK
        assert (await at.issue()).code == Code.OK

        async def counted() -> bool:
            return await cluster.metric(name, "p2pledger_client_malformed_total") == len(SPOILT)

        await until(counted, "the count of malformed sessions")
    await cluster.stop()


async def test_a_patient_reads_its_own_log_and_nobody_elses(consortium):
    """E_ROLE for another's pid, in the log and in the consents, from every node; members may see both."""
    cluster = consortium(4)
    await cluster.start()
    await cluster.wait_ready()
    wallet = cluster.wallet(cluster.names[0])
    mine = await register(cluster, wallet, "patient")
    other = await register(cluster, wallet, "patient")
    async with open_ledger(cluster.founding, cluster.addresses(), mine.signing) as own:
        assert (await own.log(mine.did)).lines == ()
        assert await own.consents(mine.did) == []
        for ask in (own.log, own.consents):
            with pytest.raises(Rejected) as refusal:
                await ask(other.did)
            assert refusal.value.code is Code.E_ROLE
            assert other.did.hex() in refusal.value.detail
    for name in cluster.names:
        address = cluster.address(name)
        async with connect(address.host, address.port, address.key, mine.signing, cluster.founding.chain) as connection:
            for question in (GetLog(0, other.did), GetConsents(0, other.did)):
                reply = await connection.call(question)
                assert isinstance(reply, Failure)
                assert reply.code == Code.E_ROLE
            receipt = await connection.call(AwaitReceipt(0, other.account, Nonce(1), False, 1_000))
            assert isinstance(receipt, Failure) and receipt.code == Code.E_ROLE
            tip = await connection.call(GetBlock(0, Height(1)))
            assert isinstance(tip, BlockReply) and tip.transactions > 0 and tip.receipts == ()
    async with open_ledger(cluster.founding, cluster.addresses(), wallet.account) as custodian:
        assert (await custodian.log(other.did)).lines == ()
    await cluster.stop()
