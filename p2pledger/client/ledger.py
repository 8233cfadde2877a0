"""A client of the ledger: hands transactions in, waits for their receipts, and believes only what it can verify.

It knows the signed genesis and nothing else. Every receipt comes with a proof against a header that a quorum has
committed. When a node is silent, the identical bytes go through f + 1 others; the nonce makes them execute once.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_anchor, check_receipt
from p2pledger.network import api
from p2pledger.network.connection import ClientConnection, connect
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, PeerFault, ProofError, Rejected, Unavailable, Unreachable
from p2pledger.primitives.ids import AccountKey, Height, Millis, NodeId, Nonce

T = TypeVar("T", bound=Record)

EXPIRY_MS = 10 * 60 * 1000
ATTEMPT_S = 5.0
"""How long one node may be silent before others are asked."""
DECISION_S = 60.0
BACKOFF_S = (0.05, 0.1, 0.2, 0.4, 0.8)
IN_FLIGHT_MAX = 900
"""Below the nonce window of 1,024, so that none of ours falls out of it."""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node listens for clients, and the key that must answer there."""

    host: str
    port: int
    node: NodeId


@dataclass
class LedgerClient:
    """One account's view of the ledger through any of its nodes. Made by `open_ledger`."""

    founding: Founding
    nodes: Sequence[NodeAddress]
    account: SigningKey
    role: str = "stranger"
    _nursery: trio.Nursery | None = None
    _connections: dict[int, ClientConnection] = field(default_factory=dict)
    _opening: dict[int, trio.Lock] = field(default_factory=dict)
    _preferred: int = 0
    _next_nonce: int = 1
    _slots: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(IN_FLIGHT_MAX))
    _anchors: set[bytes] = field(default_factory=set)
    """Hashes of anchors that were checked: many receipts share one."""

    # Transactions

    async def submit(self, operations: Sequence[Record], cosigners: Sequence[SigningKey] = ()) -> Executed:
        """Sign, hand in, and return the proven outcome. Raises Rejected, Unavailable, ProofError."""
        async with self._slots:
            return await self.decide(self.signed(operations, cosigners))

    def signed(self, operations: Sequence[Record], cosigners: Sequence[SigningKey] = ()) -> bytes:
        """A transaction with this account's next nonce."""
        expires = Millis(time.time_ns() // 1_000_000 + EXPIRY_MS)
        return sign(self.founding.chain, self.account, self.take_nonce(), expires, operations, cosigners)

    def take_nonce(self) -> Nonce:
        """The next nonce of this account; each is used once."""
        nonce = Nonce(self._next_nonce)
        self._next_nonce += 1
        return nonce

    async def decide(self, data: bytes) -> Executed:
        """The proven outcome of a signed transaction, through as many nodes as it takes.

        Raises Rejected when the rules turn it away, Unavailable when nobody decides it in time.
        """
        transaction = parse(data)
        last: Exception = Unavailable("no node was asked")
        with trio.move_on_after(DECISION_S):
            attempt = 0
            while True:
                index = (self._preferred + attempt) % len(self.nodes)
                try:
                    executed = await self._attempt(index, transaction)
                except (Unavailable, PeerFault) as error:
                    last = error
                    attempt += 1
                    await trio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1])
                    continue
                self._preferred = index
                return executed
        raise Unavailable(f"transaction {transaction.id.hex()} is not decided after {DECISION_S:.0f} s: {last}")

    async def _attempt(self, index: int, transaction: Transaction) -> Executed:
        """Through one node; raises Unavailable when another should be tried."""
        reply = await self._call(index, api.Submit(0, transaction.data))
        if isinstance(reply, api.Failure) and reply.code == Code.E_BUSY:
            raise Unavailable(reply.detail)
        is_maybe_decided = isinstance(reply, api.Failure) and reply.code == Code.E_NONCE
        if isinstance(reply, api.Failure) and not is_maybe_decided:
            raise Rejected(Code(reply.code), reply.detail)
        body = transaction.body
        wait = api.AwaitReceipt(0, body.sender, body.nonce, True, int(ATTEMPT_S * 1000))
        answer = await self._call(index, wait, ATTEMPT_S + 2)
        if not isinstance(answer, api.ReceiptReply) or answer.evidence is None:
            raise Unavailable(f"node {self.nodes[index].node.hex()} has no receipt yet")
        executed = self._check(answer.evidence)
        if executed.receipt.transaction != transaction.id:
            raise Rejected(
                Code.E_NONCE,
                f"nonce {body.nonce} was used by transaction {executed.receipt.transaction.hex()}, not this one",
            )
        return executed

    def _check(self, evidence: ReceiptEvidence) -> Executed:
        """Believe a receipt; signatures of an anchor that was checked before are not checked again."""
        validators = self.founding.validators
        key = sha256(encode(evidence.anchor))
        executed = check_receipt(evidence, self.founding.chain, validators, is_anchored=key in self._anchors)
        self._anchors.add(key)
        return executed

    # Reading

    async def status(self, index: int | None = None) -> api.StatusReply:
        """What a node says of itself and its consortium; not proven."""
        return _expect(await self._any(api.GetStatus(0), index), api.StatusReply)

    async def block(self, height: Height, index: int | None = None) -> api.BlockReply:
        """A committed block; height 0 = the tip."""
        return _expect(await self._any(api.GetBlock(0, height), index), api.BlockReply)

    async def receipt(self, account: AccountKey, nonce: Nonce, timeout_ms: int = 1_000) -> Executed:
        """The proven receipt of a decided transaction; raises Unavailable if there is none in time."""
        reply = await self._any(api.AwaitReceipt(0, account, nonce, True, timeout_ms), None)
        found = _expect(reply, api.ReceiptReply)
        if found.evidence is None:
            raise ProofError("the node answered without a proof")
        return self._check(found.evidence)

    async def log(self, pid: bytes) -> api.LogReply:
        """A patient's access log with its proof, as the node sends it; `client.export` checks it."""
        return _expect(await self._retried(api.GetLog(0, pid)), api.LogReply)

    async def consents(self, pid: bytes) -> tuple[bytes, ...]:
        """State values of a patient's consents; not proven."""
        return _expect(await self._any(api.GetConsents(0, pid), None), api.ConsentsReply).consents

    async def state(self, key: bytes) -> api.StateReply:
        """A raw value of the state with its proof; member organisations only."""
        return _expect(await self._retried(api.GetState(0, key)), api.StateReply)

    def check_anchor(self, anchor: Anchor) -> None:
        """Raises ProofError unless a quorum committed it."""
        check_anchor(anchor, self.founding.chain, self.founding.validators)

    async def refresh_nonce(self) -> None:
        """Ask the chain for the highest nonce used, as after a registration or with a second device."""
        reply = _expect(await self._any(api.GetAccount(0), None), api.AccountReply)
        self._next_nonce = max(self._next_nonce, reply.next_nonce)
        self.role = reply.role

    async def _retried(self, request: api.Request) -> api.Reply:
        """Ask again while the answer is `not yet`: a checkpoint's proof needs one more block."""
        for pause in (*BACKOFF_S, *BACKOFF_S[-1:] * 10):
            reply = await self._any(request, None)
            if not (isinstance(reply, api.Failure) and reply.code == Code.E_BUSY):
                return reply
            await trio.sleep(pause)
        return reply

    # Connections

    async def _any(self, request: api.Request, index: int | None) -> api.Reply:
        """From a given node, or from the first that answers."""
        if index is not None:
            return await self._call(index, request)
        last: Exception | None = None
        for offset in range(len(self.nodes)):
            at = (self._preferred + offset) % len(self.nodes)
            try:
                reply = await self._call(at, request)
            except (Unavailable, PeerFault) as error:
                last = error
                continue
            self._preferred = at
            return reply
        raise Unreachable(f"none of {len(self.nodes)} nodes answers: {last}")

    async def _call(self, index: int, request: api.Request, timeout_s: float = ATTEMPT_S) -> api.Reply:
        connection = await self._connection(index)
        with trio.move_on_after(timeout_s):
            return await connection.call(request)
        raise Unavailable(f"node {self.nodes[index].node.hex()} did not answer within {timeout_s:.0f} s")

    async def _connection(self, index: int) -> ClientConnection:
        lock = self._opening.setdefault(index, trio.Lock())
        async with lock:
            known = self._connections.get(index)
            if known is not None and known.is_open:
                return known
            assert self._nursery is not None, "use open_ledger"
            connection: ClientConnection | Exception = await self._nursery.start(self._keep, index)
            if isinstance(connection, Exception):
                raise connection
            self._connections[index] = connection
            return connection

    async def _keep(
        self, index: int, *, task_status: trio.TaskStatus[ClientConnection | Exception] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One connection for as long as it lasts; a failure to connect is the caller's to handle."""
        address = self.nodes[index]
        is_started = False
        try:
            async with connect(
                address.host, address.port, address.node, self.account, self.founding.chain
            ) as connection:
                is_started = True
                task_status.started(connection)
                await connection.wait_closed()
        except (Unavailable, PeerFault, Rejected) as error:
            if not is_started:
                task_status.started(error)


@asynccontextmanager
async def open_ledger(
    founding: Founding, nodes: Sequence[NodeAddress], account: SigningKey
) -> AsyncIterator[LedgerClient]:
    """A client over these nodes, in the order of preference. Raises Unreachable if none answers."""
    assert nodes, "a client needs at least one node"
    client = LedgerClient(founding, nodes, account)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        client._nursery = nursery
        try:
            await client.refresh_nonce()
            yield client
        except Exception as error:  # a nursery would wrap it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _expect(reply: api.Reply, kind: type[T]) -> T:
    if isinstance(reply, kind):
        return reply
    if isinstance(reply, api.Failure):
        if reply.code == Code.E_BUSY:
            raise Unavailable(reply.detail)
        raise Rejected(Code(reply.code), reply.detail)
    raise ProofError(f"the node answered with {type(reply).__name__} instead of {kind.__name__}")
