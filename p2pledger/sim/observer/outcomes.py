"""What became of transactions: submitted, signed, executed once, equal everywhere, and kept once they were answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from p2pledger.sim.observer.blocks import Founding, Header, Receipt, Transaction, read_batch, read_receipt
from p2pledger.sim.observer.encoding import Unreadable, leaf, merkle_root, state_root
from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.ledgers import Chain, Life

OK, E_NONCE = 0, 5
"""Codes of receipts; with E_NONCE no nonce is used up."""
NONCES_AHEAD = 1024
"""Nonces of a sender below and above its highest one that may still be used."""
CHECKPOINT_TRANSACTIONS = 3_000
"""As many after a checkpoint make another one."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the first honest node that executed a height told."""

    root: bytes
    raw: tuple[bytes, ...]
    receipts: tuple[Receipt, ...]


@dataclass(slots=True)
class _Sender:
    """Which nonces of an account were used."""

    highest: int = 0
    is_known: bool = False
    """It has an account for certain; before, a failed transaction uses nothing up."""


class Outcomes:
    """The history of transactions, in the order of the chain: one pass judges it (I7).

    The chain is one order of all transactions. It agrees with time, since a block is judged when it is first told of:
    whatever stands in it, or before it, must have been submitted by then, so nothing that is submitted after an answer
    can stand before what was answered.
    """

    def __init__(self, founding: Founding) -> None:
        self._founding = founding
        self._submitted: set[bytes] = set()
        self._bodies: dict[bytes, bytes] = {}
        self._ordered: set[bytes] = set()
        self._used: dict[tuple[bytes, int], bool] = {}
        """(sender, nonce) of what was executed; False: perhaps without using the nonce up."""
        self._senders: dict[bytes, _Sender] = {key: _Sender(is_known=True) for key in founding.accounts}
        self._reached = 0
        """The highest height that anybody told of."""
        self._unsettled = 0
        """Transactions after the last checkpoint below the next height to be told of."""
        self._skipped: dict[int, list[Transaction]] = {}
        self._by_height: dict[int, _Outcome] = {}
        self._listed: dict[int, bytes] = {}
        self._listed_states: dict[int, bytes] = {}
        self._state_roots: dict[int, bytes] = {}
        self._leaves: dict[int, bytes] = {}
        self.executed: dict[bytes, tuple[int, int]] = {}
        """Where each transaction stands that has a receipt; the last one if E_NONCE came first."""
        self.duties: list[bytes] = []
        """Operations that validators' nodes have successfully sent, not yet looked at."""
        self.told: list[tuple[Header, list[tuple[Transaction, Receipt]]]] = []
        """What heights came to, not yet looked at."""
        self.answered: dict[bytes, tuple[int, int]] = {}

    # Facts

    def submit(self, transaction: Transaction) -> None:
        """A client handed a transaction to a node, perhaps not for the first time."""
        self._submitted.add(transaction.id)

    def store(self, body: bytes) -> None:
        """An honest node made a batch durable."""
        batch = sha256(body).digest()
        if batch not in self._ordered:
            self._bodies.setdefault(batch, body)

    def list_roots(self, header: Header, executed_before: int) -> None:
        """A committed header says what earlier heights amounted to (6, I8)."""
        for height, root in enumerate(header.effects_roots, executed_before + 1):
            self._listed[height] = root
            known = self._by_height.get(height)
            if known is not None and known.root != root:
                raise InvariantBroken(f"6, I8: header {header.height} lists another effects root for height {height}")
        for height, root in header.state_roots:
            self._listed_states[height] = root
            if self._state_roots.get(height, root) != root:
                raise InvariantBroken(f"6, I8: header {header.height} lists another state root for height {height}")

    def execute(self, life: Life, chain: Chain, height: int, root: bytes, raw: tuple[bytes, ...]) -> None:
        """An honest node told what a height came to. Raises InvariantBroken (5, 6, I2, I6, I8)."""
        if height <= life.executed:
            raise InvariantBroken(f"I6: node {life.index} executes height {height} after {life.executed}")
        life.executed = height
        known = self._by_height.get(height)
        if known is not None:
            if (known.root, known.raw) != (root, raw):
                raise InvariantBroken(f"6, I8: node {life.index} has other effects of height {height} than others")
            return
        if self._listed.get(height, root) != root:
            raise InvariantBroken(f"6, I8: the effects root of height {height} is not the one that a header lists")
        receipts = tuple(read_receipt(each) for each in raw)
        self._by_height[height] = _Outcome(root, raw, receipts)
        for index, receipt in enumerate(receipts):
            if (receipt.height, receipt.index) != (height, index):
                raise InvariantBroken(f"5: receipt {index} of height {height} says {receipt.height}/{receipt.index}")
        for earlier in range(self._reached + 1, height):
            self._skip(chain.header(earlier))
        self._reached = max(self._reached, height)
        self._replay(chain.header(height), receipts)

    def _skip(self, header: Header) -> None:
        """Whoever executed it so far crashed before it told: what stands in it may have been executed."""
        self._skipped[header.height] = self._transactions(header)
        for transaction in self._skipped[header.height]:
            self._used.setdefault((transaction.sender, transaction.nonce), False)

    def _replay(self, header: Header, receipts: Sequence[Receipt]) -> None:
        """Go through the block: everything in it has one receipt now or had one before, and nothing else has."""
        at = 0
        done: list[tuple[Transaction, Receipt]] = []
        self.told.append((header, done))
        skipped = self._skipped.pop(header.height, None)
        for transaction in self._transactions(header) if skipped is None else skipped:
            if at < len(receipts) and receipts[at].transaction == transaction.id:
                self._check_first(transaction, receipts[at])
                done.append((transaction, receipts[at]))
                at += 1
            elif (transaction.sender, transaction.nonce) not in self._used:
                raise InvariantBroken(
                    f"5: transaction {transaction.id.hex()[:8]} in block {header.height} has no receipt"
                )
        if at < len(receipts):
            raise InvariantBroken(f"5: receipt {at} of height {header.height} is for nothing that stands in the block")

    def _transactions(self, header: Header) -> list[Transaction]:
        found: list[Transaction] = []
        for batch in header.batches:
            body = self._bodies.pop(batch, None)
            if body is None or batch in self._ordered:
                raise InvariantBroken(f"5: batch {batch.hex()[:8]} of block {header.height} stands twice, or nowhere")
            self._ordered.add(batch)
            try:
                found += read_batch(body)
            except Unreadable as error:
                raise InvariantBroken(f"5: block {header.height} holds what cannot be read: {error}") from error
        if merkle_root([leaf(each.id) for each in found]) != header.transaction_root:
            raise InvariantBroken(f"5: the transaction root of block {header.height} is not that of its batches")
        self._unsettled += len(found)
        if header.unsettled != self._unsettled:
            raise InvariantBroken(
                f"6: block {header.height} counts {header.unsettled} transactions since the last checkpoint, there are "
                f"{self._unsettled}"
            )
        is_full = header.height % self._founding.checkpoint_interval == 0 or self._unsettled >= CHECKPOINT_TRANSACTIONS
        self._unsettled = 0 if is_full or not header.batches else self._unsettled
        for each in found:
            if each.chain != self._founding.chain or not each.is_signed():
                raise InvariantBroken(f"5, I2: transaction {each.id.hex()[:8]} is executed and not properly signed")
            if each.id not in self._submitted and each.sender not in self._founding.nodes:
                raise InvariantBroken(f"5, I2: transaction {each.id.hex()[:8]} was never submitted")
        return found

    def _check_first(self, transaction: Transaction, receipt: Receipt) -> None:
        place = (transaction.sender, transaction.nonce)
        sender = self._senders.setdefault(transaction.sender, _Sender())
        used = self._used.get(place)
        if receipt.code == E_NONCE:
            far = not sender.highest - NONCES_AHEAD < transaction.nonce <= sender.highest + NONCES_AHEAD
            if sender.is_known and not far:
                raise InvariantBroken(f"5: transaction {transaction.id.hex()[:8]} is refused a nonce that is free")
        elif used:
            raise InvariantBroken(f"5, I2: transaction {transaction.id.hex()[:8]} was executed twice")
        else:
            sender.is_known = sender.is_known or receipt.code == OK
            self._used[place] = sender.is_known
            sender.highest = max(sender.highest, transaction.nonce)
        if receipt.code == OK and transaction.sender in self._founding.nodes:
            self.duties.append(transaction.operations)
        here = (receipt.height, receipt.index)
        if self.executed.setdefault(transaction.id, here) != here:
            if transaction.id in self.answered:
                raise InvariantBroken(f"9, I5: answered transaction {transaction.id.hex()[:8]} is present twice")
            self.executed[transaction.id] = here

    def answer(self, life: Life, transaction: bytes, raw: bytes) -> None:
        """A node told a client what became of its transaction. Raises InvariantBroken (9, I5, I7)."""
        receipt = read_receipt(raw)
        if receipt.height > life.tip:
            raise InvariantBroken(f"9, I5: node {life.index} answers from block {receipt.height} above {life.tip}")
        outcome = self._by_height.get(receipt.height)
        if receipt.transaction != transaction or outcome is None or raw not in outcome.raw[receipt.index :][:1]:
            raise InvariantBroken(f"I7: node {life.index} answers {transaction.hex()[:8]} what is not in the chain")
        self.answered[transaction] = (receipt.height, receipt.index)

    def flush(
        self,
        life: Life,
        height: int,
        root: bytes | None,
        writes: Mapping[bytes, bytes | None],
        leaves: Sequence[tuple[int, bytes]],
    ) -> None:
        """A node made its state at a height durable. Raises InvariantBroken (6, I8)."""
        if height == 0:
            life.state.clear()
        for key, value in writes.items():
            if value is None:
                life.state.pop(key, None)
            else:
                life.state[key] = value
        if height > life.tip:
            raise InvariantBroken(f"I6: node {life.index} flushes height {height}, its ledger ends at {life.tip}")
        for at, hashes in leaves:
            self._check_leaves(life, at, hashes)
        if root is None:
            return
        for other in (self._state_roots.setdefault(height, root), self._listed_states.get(height, root)):
            if other != root:
                raise InvariantBroken(f"6, I8: node {life.index} has another state root at height {height}")
        if state_root(life.state) != root:
            raise InvariantBroken(f"6, I8: the state of node {life.index} at height {height} has another root")

    def _check_leaves(self, life: Life, height: int, hashes: bytes) -> None:
        if self._leaves.setdefault(height, hashes) is not hashes:
            if self._leaves[height] != hashes:
                raise InvariantBroken(f"6, I8: node {life.index} keeps other effects of height {height}")
            return
        parts = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
        outcome = self._by_height.get(height)
        if outcome is None:
            return
        if merkle_root(parts) != outcome.root or parts[: len(outcome.receipts)] != [r.leaf for r in outcome.receipts]:
            raise InvariantBroken(f"6, I8: the effects tree of height {height} is not what was told of it")

    # The end

    def missing_at(self, life: Life) -> list[bytes]:
        """Answered transactions that a node has not executed."""
        return [transaction for transaction, (height, _) in self.answered.items() if height > life.executed]
