"""Transactions of one account on their way: signed with the next nonce, sent, and followed to their receipts.

`submit` believes proofs only. A node that stays silent, breaks off or shows a wrong one is passed over, and the
identical bytes go through f + 1 others, at least one of them honest; the nonce makes sure that they execute once.
`submit_all` sends hundreds in one request and believes the node that it asks, unless proofs are wanted.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.client.asking import FAULTS, Asker, reason
from p2pledger.client.bulk import Sending, Told, Word, requests
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_receipt
from p2pledger.network.api import Accepted, AccountReply, AwaitReceipt, GetAccount, ReceiptReply, Submit
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, ProofError, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import Millis, Nonce

_ID = 0
"""Of a request, until the connection sets it."""
_ANCHORS_MAX = 8
_PROOFS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction, with its proof."""

    executed: Executed
    evidence: ReceiptEvidence = field(repr=False)

    @property
    def code(self) -> int:
        return self.executed.receipt.code


Outcome: TypeAlias = Receipt | Word
"""Of a transaction that was sent with others: proven, or told by one node; or why there is neither."""
Settled = Callable[[int, Outcome], None]


class Submitter(Asker):
    """What `LedgerClient` submits with; any number of its calls may run at the same time."""

    def __init__(
        self, founding: Founding, links: Links, account: SigningKey, patience: Patience, now_s: Callable[[], float]
    ) -> None:
        super().__init__(founding, links, account, patience)
        self._now_s = now_s
        self._nonce: int | None = None
        self._nonce_lock = trio.Lock()
        self._anchors: deque[Anchor] = deque(maxlen=_ANCHORS_MAX)
        """Checked already: the receipts of one block come with one anchor, and signatures are what takes time."""
        self._in_flight = trio.Semaphore(limits.NONCE_WINDOW - 1)  # beyond it nonces would leave the window

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
            return await self._decided_somewhere(transaction, failures)
        raise self._unproven(transaction, failures)

    def _unproven(self, transaction: Transaction, failures: list[str]) -> Unavailable:
        return Unavailable(
            f"no node proved a receipt of transaction {transaction.id.hex()} within {self._patience.total_s:g} s; "
            f"it may still execute until it expires; {'; '.join(dict.fromkeys(failures)) or 'all were busy'}"
        )

    async def submit_all(
        self, operations: Sequence[Sequence[Record]], *, prove: bool = False, told: Settled | None = None
    ) -> "list[Outcome]":
        """Sign and submit many transactions, each of some operations, hundreds in one request: their outcomes in order.

        A `Told` is what the node that was asked says: durable there, and **not proven**. With `prove`, proofs are
        fetched after it, and a transaction that was executed has a `Receipt`, as from `submit`. Neither is raised:
        what the chain refused has its code, what was not taken in is a Rejected, what nobody decided in time an
        Unavailable. `told` is called with each outcome as it becomes known.
        """
        outcomes: dict[int, Outcome] = {}

        def settle(place: int, outcome: Outcome) -> None:
            self._in_flight.release()
            if isinstance(outcome, Rejected) and outcome.code is Code.E_NONCE:
                self._nonce = None  # the account was used elsewhere; ask anew next time
            outcomes[place] = outcome
            if told is not None:
                told(place, outcome)

        async with trio.open_nursery() as nursery:
            start = 0
            while start < len(operations):
                width = await self._room_in_window(min(len(operations) - start, limits.BATCH_TRANSACTIONS_MAX))
                try:
                    signed = [parse(await self.sign(*each)) for each in operations[start : start + width]]
                except Unavailable as error:
                    for place in range(start, start + width):
                        settle(place, error)
                else:
                    first = start
                    nursery.start_soon(
                        self._decide, signed, prove, lambda at, one, first=first: settle(first + at, one)
                    )
                start += width
        return [outcomes[place] for place in range(len(operations))]

    async def _room_in_window(self, most: int) -> int:
        """How many more transactions may be under way, at least one; they are counted from now on."""
        await self._in_flight.acquire()
        count = 1
        while count < most and self._in_flight.value:
            self._in_flight.acquire_nowait()
            count += 1
        return count

    async def send_all(
        self, data: Sequence[bytes], *, prove: bool = False, told: Settled | None = None
    ) -> "list[Outcome]":
        """As `submit_all`, for bytes that are signed already: by others, or in an earlier life."""
        outcomes: dict[int, Outcome] = {}

        def settle(place: int, outcome: Outcome) -> None:
            outcomes[place] = outcome
            if told is not None:
                told(place, outcome)

        await self._decide([parse(one) for one in data], prove, settle)
        return [outcomes[place] for place in range(len(data))]

    async def _decide(self, transactions: Sequence[Transaction], prove: bool, settle: Settled) -> None:
        """Call `settle` once for each place."""
        unproven: list[tuple[int, Told]] = []

        def note(place: int, word: Word) -> None:
            if prove and isinstance(word, Told):
                unproven.append((place, word))
            else:
                settle(place, word)

        async def fetch_proofs() -> None:
            while unproven:
                place, told = unproven.pop()
                settle(place, await self._proven(told.node, transactions[place]))

        async with trio.open_nursery() as nursery:
            for places in requests(transactions):
                nursery.start_soon(Sending(self._links, self._patience, places, note).run)
        async with trio.open_nursery() as nursery:
            for _ in range(min(_PROOFS_AT_ONCE, len(unproven))):
                nursery.start_soon(fetch_proofs)

    async def _proven(self, node: Node, transaction: Transaction) -> "Receipt | Rejected | Unavailable":
        """From the node that says it was executed; where it cannot prove that, from others."""
        body, timeout_ms = transaction.body, int(self._patience.silence_s * 1000)
        try:
            question = AwaitReceipt(_ID, body.sender, body.nonce, True, timeout_ms)
            return self._believed(await self.ask_one(node, question, ReceiptReply), transaction)
        except FAULTS as error:
            failures = [reason(node, error)]
        with trio.move_on_after(self._patience.total_s):
            try:
                return await self._decided_somewhere(transaction, failures)
            except Rejected as rejected:
                return rejected
        return self._unproven(transaction, failures)

    async def _decided_somewhere(self, transaction: Transaction, failures: list[str]) -> Receipt:
        """The first proof of what one node at least was given already; until cancelled. Raises Rejected."""
        others = list(self._links.in_order())
        width = self.founding.validators.f + 1
        while True:
            for start in range(0, len(others), width):
                receipt = await self._first_decided(others[start : start + width], transaction, failures)
                if receipt is not None:
                    return receipt
            await trio.sleep(self._patience.busy_most_s)

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
