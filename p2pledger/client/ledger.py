"""A ledger as its clients see it: several nodes, of which some may be silent, slow or lying.

Nothing is believed that a quorum has not signed: receipts, logs and state values come with proofs that lead back to
the genesis. A node that stays silent, breaks off or shows a wrong proof is passed over, and the identical bytes go
through f + 1 others, at least one of them honest; the nonce makes sure that they execute once.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import time

import trio
from msgspec.structs import replace

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.client.asking import FAULTS, Asker, reason
from p2pledger.client.export import of_reply, write_export
from p2pledger.client.guarding import Guarding, read_guarding
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.client.shares import Heard, ask_all
from p2pledger.client.verify import VerifiedLog, check_log_reply, checked_state, proven_line, proven_page, proven_state
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_receipt
from p2pledger.execution.evidence import Caught, decode_caught
from p2pledger.execution.keys import caught
from p2pledger.health.break_glass import BrokenGlass, decode_broken_glass
from p2pledger.health.consent import Consent, decode_consent
from p2pledger.health.erasure import Erasure, decode_erasure
from p2pledger.health.log import EMPTY
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import ReleaseRequest
from p2pledger.network.api import (
    Accepted,
    AccountReply,
    AwaitReceipt,
    BlockReply,
    ConsentsReply,
    ErasuresReply,
    GetAccount,
    GetBlock,
    GetConsents,
    GetErasures,
    GetGuardians,
    GetLine,
    GetLog,
    GetOrganisations,
    GetReviews,
    GetShares,
    GetState,
    GetStatus,
    GuardiansReply,
    Judge,
    JudgeReply,
    LineReply,
    LogReply,
    OrganisationsReply,
    ReceiptReply,
    ReviewsReply,
    SharesReply,
    StateReply,
    StatusReply,
    Submit,
)
from p2pledger.network.transport import TLS_OVER_TCP, Transport
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, ProofError, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import Height, Millis, Nonce, ValidatorId

_ID = 0
"""Of a request, until the connection sets it."""
_ANCHORS_MAX = 8


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction, with its proof."""

    executed: Executed
    evidence: ReceiptEvidence = field(repr=False)

    @property
    def code(self) -> int:
        return self.executed.receipt.code


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a key is on the chain now."""

    role: str
    """`organisation`, the kind of the identity, or `stranger`."""
    identity: bytes | None
    """The organisation's id or the identity's did; None for a stranger."""


@asynccontextmanager
async def open_ledger(
    founding: Founding,
    nodes: Sequence[Node],
    account: SigningKey,
    patience: Patience | None = None,
    now_s: Callable[[], float] = time,
    transport: Transport = TLS_OVER_TCP,
) -> "AsyncIterator[LedgerClient]":
    """A client of these nodes in the name of `account`. Connections are made when they are needed.

    What the body raises comes out as it is.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        links = Links(nursery, founding.chain, nodes, account, transport)
        try:
            yield LedgerClient(founding, links, account, patience or Patience(), now_s)
        except Exception as error:  # a nursery would wrap it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class LedgerClient(Asker):
    """Submits and asks. Made by `open_ledger`; any number of its calls may run at the same time."""

    def __init__(
        self, founding: Founding, links: Links, account: SigningKey, patience: Patience, now_s: Callable[[], float]
    ) -> None:
        super().__init__(founding, links, account, patience)
        self._now_s = now_s
        self._nonce: int | None = None
        self._nonce_lock = trio.Lock()
        self._anchors: deque[Anchor] = deque(maxlen=_ANCHORS_MAX)
        """Checked already: the receipts of one block come with one anchor, and signatures are what takes time."""
        self._once: dict[bytes, tuple[Height, bytes | None]] = {}
        self._in_flight = trio.Semaphore(limits.NONCE_WINDOW - 1)  # beyond it nonces would leave the window

    # Submitting

    async def submit(self, *operations: Record, cosigners: Sequence[SigningKey] = ()) -> Receipt:
        """Sign, submit and wait for the proven receipt.

        Raises Refused(code) where the chain executed it and said no, Rejected(code) where a node did not take it in,
        Unavailable where nobody proved a receipt in time: it may still execute until it expires.
        """
        async with self._in_flight:
            try:
                receipt = await self.send(await self.sign(*operations, cosigners=cosigners))
            except Rejected as error:
                if error.code is Code.E_NONCE:  # the account was used elsewhere; ask anew next time
                    self._nonce = None
                raise
        if receipt.code != Code.OK:
            raise Refused(Code(receipt.code) if receipt.code in Code.__members__.values() else Code.E_INTERNAL)
        return receipt

    async def sign(self, *operations: Record, cosigners: Sequence[SigningKey] = ()) -> bytes:
        """A signed transaction with our next nonce."""
        nonce = await self.next_nonce()
        return sign(self.founding.chain, self._account, nonce, self.expiry(), operations, cosigners)

    def expiry(self) -> Millis:
        """When a transaction that is signed now should expire."""
        return Millis(int((self._now_s() + self._patience.expiry_s) * 1000))

    async def next_nonce(self) -> Nonce:
        """A nonce that this client has not used; the first time the nodes are asked."""
        async with self._nonce_lock:
            if self._nonce is None:
                self._nonce = await self._ask_nonce()
            nonce, self._nonce = self._nonce, self._nonce + 1
        return Nonce(nonce)

    async def _ask_nonce(self) -> int:
        """The highest answer of f + 1 nodes: too low a one would collide, and one of them is honest."""
        answers = []
        failure: Exception | None = None
        for node in self._links.in_order():
            try:
                answers.append((await self.ask_one(node, GetAccount(_ID), AccountReply)).next_nonce)
            except FAULTS as error:
                failure = error
            if len(answers) > self.founding.validators.f:
                break
        if not answers:
            raise Unavailable(f"no node tells our next nonce: {failure}")
        return max(1, *answers)

    async def send(self, data: bytes) -> Receipt:
        """Submit signed bytes and wait for the proven receipt, whatever its code; for those signed elsewhere too.

        Raises Rejected(code, detail) and Unavailable, as `submit` does.
        """
        transaction = parse(data)
        failures: list[str] = []
        first = self._links.preferred
        with trio.move_on_after(self._patience.total_s):
            try:
                return await self._decided_at(first, transaction, is_repeated=False)
            except Rejected:
                raise
            except FAULTS as error:
                failures.append(reason(first, error))
                if self._links.preferred is first:  # of all that fail at one node, one passes it over
                    self._links.pass_over()
            others = list(self._links.in_order())
            width = self.founding.validators.f + 1
            while True:
                for start in range(0, len(others), width):
                    receipt = await self._first_decided(others[start : start + width], transaction, failures)
                    if receipt is not None:
                        return receipt
                await trio.sleep(self._patience.busy_most_s)
        raise Unavailable(
            f"no node proved a receipt of transaction {transaction.id.hex()} within {self._patience.total_s:g} s; "
            f"it may still execute until it expires; {'; '.join(dict.fromkeys(failures)) or 'all were busy'}"
        )

    async def _first_decided(
        self, nodes: Sequence[Node], transaction: Transaction, failures: list[str]
    ) -> Receipt | None:
        """The identical bytes through several nodes at once; the first proof wins. Raises Rejected if all say so."""
        receipts: list[Receipt] = []
        rejected: list[Rejected] = []

        async def at(node: Node) -> None:
            try:
                receipts.append(await self._decided_at(node, transaction, is_repeated=True))
                nursery.cancel_scope.cancel()
            except Rejected as error:
                rejected.append(error)
            except FAULTS as error:
                failures.append(reason(node, error))

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(at, node)
        if receipts:
            return receipts[0]
        if rejected and len(rejected) == len(nodes):
            raise rejected[0]
        return None

    async def _decided_at(self, node: Node, transaction: Transaction, *, is_repeated: bool) -> Receipt:
        """Through one node. A repeated transaction may be in the chain already: its nonce is then no objection."""
        with trio.fail_after(self._patience.silence_s):
            try:
                await self._take_in(node, transaction)
            except Rejected as error:
                if error.code not in (Code.E_NONCE, Code.E_DUP):
                    raise
                if not is_repeated and not await self._is_decided(node, transaction):
                    raise
            timeout_ms = int(self._patience.silence_s * 1000)
            question = AwaitReceipt(_ID, transaction.body.sender, transaction.body.nonce, True, timeout_ms)
            reply = await self.patiently(node, question, ReceiptReply)
        return self._believed(reply, transaction)

    async def _is_decided(self, node: Node, transaction: Transaction) -> bool:
        """Whether the nonce was used by this very transaction, as for one sent again that nobody proved in time."""
        body = transaction.body
        reply = await self._links.call(node, AwaitReceipt(_ID, body.sender, body.nonce, False, 0))
        return isinstance(reply, ReceiptReply) and reply.executed.receipt.transaction == transaction.id

    async def _take_in(self, node: Node, transaction: Transaction) -> None:
        reply = await self.patiently(node, Submit(_ID, transaction.data), Accepted)
        if reply.transaction != transaction.id:
            raise ProofError(f"{node} accepted transaction {reply.transaction.hex()}, not {transaction.id.hex()}")

    def _believed(self, reply: ReceiptReply, transaction: Transaction) -> Receipt:
        if reply.evidence is None:
            raise ProofError(f"receipt of transaction {transaction.id.hex()} without its proof")
        anchor = reply.evidence.anchor
        is_anchored = anchor in self._anchors
        executed = check_receipt(reply.evidence, self.founding.chain, self.founding.validators, is_anchored)
        if not is_anchored:
            self._anchors.append(anchor)
        if executed.receipt.transaction != transaction.id:
            raise ProofError(
                f"nonce {transaction.body.nonce} was used by transaction {executed.receipt.transaction.hex()}, "
                f"not by {transaction.id.hex()}"
            )
        return Receipt(executed, reply.evidence)

    # Asking

    async def standing(self) -> Standing:
        """Who this account is, as f + 1 nodes say alike, of which one is honest; all of them where fewer are named.

        What a proof says is as old as the last checkpoint; this is of now. Raises Unavailable where they do not agree.
        """
        return await self.alike(GetAccount(_ID), AccountReply, lambda reply: Standing(reply.role, reply.identity))

    async def guarding(self, pid: bytes, salt: bytes | None = None, recovery: bytes | None = None) -> Guarding:
        """Who guards a patient, as f + 1 nodes say; `salt`: of a guardian who asks. Raises Rejected, Unavailable."""
        return await self.alike(GetGuardians(_ID, pid, salt, recovery), GuardiansReply, read_guarding)

    async def status(self, node: Node | None = None) -> StatusReply:
        """How a node sees itself and the others; not proven."""
        if node is not None:
            return await self.ask_one(node, GetStatus(_ID), StatusReply)
        return await self.told(GetStatus(_ID), StatusReply)

    async def block(self, height: int = 0) -> BlockReply:
        """A committed block, 0 for the newest; as the node says."""
        return await self.told(GetBlock(_ID, Height(height)), BlockReply)

    async def consents(self, pid: bytes) -> list[Consent]:
        """A patient's consents, ended ones too; as the node says."""
        reply = await self.told(GetConsents(_ID, pid), ConsentsReply)
        return [decode_consent(data) for data in reply.consents]

    async def organisations(self) -> dict[bytes, tuple[str, str]]:
        """(public name, kind) of every organisation: the founders' from the genesis, others as f + 1 nodes say.

        With fewer nodes to ask, as all of them say. Raises what went wrong at the last node, where none answers.
        """
        answers: list[set[tuple[bytes, str, str]]] = []
        failure: Exception = Unavailable("no node to ask")
        for node in self._links.in_order():
            try:
                reply = await self.ask_one(node, GetOrganisations(_ID), OrganisationsReply)
                answers.append(set(reply.organisations))
            except FAULTS as error:
                failure = error
            if len(answers) > self.founding.validators.f:
                break
        if not answers:
            raise failure
        named = {identifier: (name, kind) for identifier, name, kind in set.intersection(*answers)}
        return {**named, **{card.organisation: (card.name, card.kind) for card in self.founding.genesis.cards}}

    async def reviews(self) -> list[BrokenGlass]:
        """Emergency accesses without a review, the first due first; as the node says, members only."""
        reply = await self.told(GetReviews(_ID), ReviewsReply)
        return [decode_broken_glass(data) for data in reply.uses]

    async def shares(self, request: ShareRequest, enough: int | None = None) -> Heard:
        """What all nodes say to a reader of an allowed access, at most until `enough` have sent shares."""
        question = GetShares(_ID, request)
        return await ask_all(
            list(self.nodes), lambda node: self.ask_one(node, question, SharesReply), self.founding, request, enough
        )

    async def judge(self, request: ReleaseRequest, node: Node | None = None) -> Code:
        """What a node would say to `shares` now: of a member organisation to its own node. E_INTERNAL: none we know."""
        question = Judge(_ID, request)
        asked = self.told(question, JudgeReply) if node is None else self.ask_one(node, question, JudgeReply)
        reply = await asked
        return Code(reply.code) if reply.code in Code.__members__.values() else Code.E_INTERNAL

    async def erasures(self, pid: bytes | None = None) -> list[Erasure]:
        """Requests for erasure about a patient, or for members all that are not finished; as the node says."""
        reply = await self.told(GetErasures(_ID, pid), ErasuresReply)
        return [decode_erasure(data) for data in reply.erasures]

    async def log(self, pid: bytes) -> VerifiedLog:
        """A patient's access log, verified to be complete up to a checkpoint."""
        return check_log_reply(await self._whole_log(pid), self.founding, pid)

    async def export_log(self, pid: bytes) -> bytes:
        """The access log as a file that verifies without us."""
        return write_export(of_reply(await self._whole_log(pid), self.founding), self.founding.chain)

    async def line(self, pid: bytes, sequence: int) -> LineReply:
        """One line of a log with the proof of its receipt, verified. Raises Rejected(E_NOT_FOUND), Unavailable."""
        return await self.ask(
            GetLine(_ID, pid, sequence), LineReply, partial(proven_line, self.founding, pid, sequence)
        )

    async def _whole_log(self, pid: bytes) -> LogReply:
        """All pages as one reply, with the proof of the last one; each from the first node whose page verifies."""
        lines: list[bytes] = []
        releases: list[bytes] = []
        reached = EMPTY
        while True:
            check = partial(proven_page, self.founding, pid, reached)
            question = GetLog(_ID, pid, reached.count + 1, reached.releases + 1)
            reply, page = await self.ask(question, LogReply, check)
            lines += reply.lines
            releases += reply.releases
            if page.is_last:
                return replace(reply, lines=tuple(lines), releases=tuple(releases))
            reached = page.reached

    async def state(self, key: bytes) -> tuple[Height, bytes | None]:
        """(checkpoint, value) of a state key with its proof verified; members only."""
        found = await self.ask(GetState(_ID, key), StateReply, partial(proven_state, self.founding, key))
        if key in self._once:
            self._once[key] = found
        return found

    async def once_proven(self, key: bytes) -> tuple[Height, bytes | None]:
        """As `state`; what it found is remembered until somebody asks `state` again.

        For values that seldom change, where a change shows by itself.
        """
        known = self._once.get(key)
        if known is None:
            known = await self.state(key)
            if known[1] is not None:
                self._once[key] = known
        return known

    async def proven(self, key: bytes) -> StateReply:
        """As `state`, with the proof, verified: for whoever hands it on."""
        return await self.ask(GetState(_ID, key), StateReply, partial(checked_state, self.founding, key))

    async def evidence(self, validator: ValidatorId) -> tuple[Height, Caught | None]:
        """(checkpoint, what the chain held against a validator there), proven either way; members only."""
        height, value = await self.state(caught(validator))
        return height, None if value is None else decode_caught(value)
