"""Checkpoints by the number of transactions: what is flushed at once is bounded, and headers alone tell where."""

from functools import cache

from msgspec.structs import replace

from p2pledger.chain.batch import batch_id, parse_batch, seal
from p2pledger.chain.block import Header, is_checkpoint, unsettled_after
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import parse, sign
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.ports import AppendBlock, PutBody
from p2pledger.engine.proposals import Selection, build
from p2pledger.gossip import PooledBatch
from p2pledger.primitives.ids import Height, Millis, Nonce
from p2pledger.primitives.limits import CHECKPOINT_TRANSACTIONS
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

CONSORTIUM = found(4, Parameters())
FOUNDING = CONSORTIUM.founding
GENESIS = FOUNDING.header
INTERVAL = FOUNDING.parameters.checkpoint_interval
BATCH, BATCHES = 325, 4
"""Transactions in each batch of a block, and batches."""
SOME_BATCH = b"some batch".ljust(32)


def block(parent: Header, transactions: int) -> Header:
    """The next header with so many."""
    return replace(
        parent,
        height=Height(parent.height + 1),
        batches=(SOME_BATCH,) if transactions else (),
        unsettled=unsettled_after(parent, INTERVAL) + transactions,
    )


def test_transactions_are_counted_from_the_last_checkpoint_on() -> None:
    """Each kind of checkpoint starts anew, and nothing else does."""
    first = block(GENESIS, 7)
    second = block(first, CHECKPOINT_TRANSACTIONS - 8)
    assert (first.unsettled, second.unsettled) == (7, CHECKPOINT_TRANSACTIONS - 1)
    assert not is_checkpoint(second, False, INTERVAL)
    third = block(second, 1)
    assert is_checkpoint(third, False, INTERVAL)
    assert block(third, 5).unsettled == 5
    quiet = block(second, 0)
    assert quiet.unsettled == CHECKPOINT_TRANSACTIONS - 1
    assert is_checkpoint(quiet, False, INTERVAL)
    assert not is_checkpoint(block(quiet, 0), True, INTERVAL)
    assert block(quiet, 5).unsettled == block(block(quiet, 0), 5).unsettled == 5
    regular = replace(second, height=Height(INTERVAL))
    assert is_checkpoint(regular, False, INTERVAL)
    assert block(regular, 5).unsettled == 5


class Chain:
    """A ledger, and an executor that goes along with it."""

    def __init__(self) -> None:
        self.ledger = MemoryLedgerStore(FOUNDING.chain, GENESIS.hash)
        self.state, self.executor = executor_of(self.ledger)
        self.flushed: list[int] = []

    def append(self, batches: list[PooledBatch]) -> Header:
        """Build, execute and keep the next block; flush where that may be done."""
        header = build(self.executor.last, Selection(batches), self.executor, FOUNDING, WALL_START_MS)
        self.executor.apply(header, [(batch.batch, batch.transactions) for batch in batches])
        kept = [PutBody(batch.id, batch.data) for batch in batches]
        self.ledger.apply([*kept, AppendBlock(CommittedRecord(header, None))])
        flush = self.executor.take_flush()
        if flush is not None:
            self.state.flush(flush)
            self.executor.flushed(flush.height)
            self.flushed.append(flush.height)
        return header


def executor_of(ledger: MemoryLedgerStore) -> tuple[MemoryStateStore, Executor]:
    state = MemoryStateStore()
    state.flush(genesis_flush(RegisterApplication(), FOUNDING))
    return state, Executor(FOUNDING, RegisterApplication(), ledger, state)


@cache
def blocks(count: int) -> list[list[PooledBatch]]:
    """The batches of so many blocks, of one account."""
    found = [pooled(number) for number in range(BATCHES * count)]
    return [found[start : start + BATCHES] for start in range(0, len(found), BATCHES)]


def pooled(number: int) -> PooledBatch:
    until, nonces = Millis(WALL_START_MS + 60_000), range(BATCH * number + 1, BATCH * (number + 1) + 1)
    sender = CONSORTIUM.accounts[0]
    signed = [sign(FOUNDING.chain, sender, Nonce(nonce), until, [Put(b"%d" % nonce, b"v")]) for nonce in nonces]
    raw = seal(FOUNDING.chain, CONSORTIUM.nodes[0], number + 1, signed)
    return PooledBatch(batch_id(raw), parse_batch(raw), [parse(data) for data in signed], raw, 0)


def test_a_busy_chain_settles_without_an_empty_block() -> None:
    """The block that fills the measure is flushed, and the next one lists its state root and counts anew."""
    chain = Chain()
    headers = [chain.append(batches) for batches in blocks(5)]
    assert [header.unsettled for header in headers] == [1_300, 2_600, 3_900, 1_300, 2_600]
    assert chain.flushed == [3]
    assert [root.height for root in headers[3].state_roots] == [3]


def test_who_executes_the_chain_again_settles_at_the_same_heights() -> None:
    """After a restart, and from another group of blocks: the header says it, not what was executed in one go."""
    chain = Chain()
    for batches in blocks(5):
        chain.append(batches)
    chain.append([])
    assert chain.flushed == [3, 6]
    state, again = executor_of(chain.ledger)
    again.recover(Height(5))
    assert (state.height(), again.checkpoint, again.last.unsettled) == (3, 3, 2_600)
    again = Executor(FOUNDING, RegisterApplication(), chain.ledger, state)
    again.recover(Height(6))
    assert state.height() == 6
    assert again.state_roots == {height: root for height, root in chain.executor.state_roots.items() if height >= 3}
