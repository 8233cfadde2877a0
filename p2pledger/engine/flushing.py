"""When the state is written, and what of old blocks is taken out together with it (docs/decisions/0021-pruning.md).

An approved pruning is carried out in steps, one with each flush. A step first takes operations out of bodies, which is
durable before the flush begins, then the flush takes the events out of the same transactions' receipts and remembers
how far it has come. A crash between the two repeats the step, which finds the operations gone and does the rest. Only
heights that the state store holds durably are touched, so a restart never has to execute a pruned block.
"""

from collections.abc import Iterator

from p2pledger.chain.pruned import PrunedBatch, prunable
from p2pledger.engine.events import EngineEffect, Flush, Write
from p2pledger.engine.executor import Executor
from p2pledger.engine.ports import Forgetting, LedgerStore, PutPruned
from p2pledger.execution.contract import Application, Pruning
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, Height, TransactionId

STEP_HEIGHTS = 1_000
STEP_BYTES = 8 * 1024 * 1024
"""A step is one durable write, for which votes wait: some tens of milliseconds."""


class Flushing:
    """Flushes at checkpoints, each with the next step of what was approved."""

    def __init__(self, application: Application, executor: Executor, ledger: LedgerStore) -> None:
        self._application = application
        self._executor = executor
        self._ledger = ledger

    def due(self) -> Iterator[EngineEffect]:
        """What to write now; nothing between checkpoints, or while a flush is under way."""
        if not self._executor.may_flush:
            return
        step = self._step()
        writes: list[PutPruned] = []
        forgetting = None
        if step is not None:
            writes, forgetting = step
        flush = self._executor.take_flush(forgetting)
        assert flush is not None, "nothing has happened since it might be taken"
        yield from (Write(write) for write in writes)
        yield Flush(flush)

    def _step(self) -> tuple[list[PutPruned], Forgetting] | None:
        number, upto = self._executor.forgotten
        pruning = self._pruning(number)
        if pruning is None or upto >= pruning.horizon:
            number, upto = number + 1, Height(0)
            pruning = self._pruning(number)
        if pruning is None:
            return None
        last = min(pruning.horizon, self._executor.durable, upto + STEP_HEIGHTS)
        writes: list[PutPruned] = []
        places: list[tuple[Height, int]] = []
        size = 0
        for height in range(upto + 1, last + 1):
            upto = Height(height)
            found = self._prune(upto, pruning, places)
            writes += found
            size += sum(len(encode(write.left)) for write in found)
            if size > STEP_BYTES:
                break
        return writes, Forgetting(number, upto, places)

    def _pruning(self, number: int) -> Pruning | None:
        return self._application.pruning(number, self._executor.state) if number else None

    def _prune(self, height: Height, pruning: Pruning, places: list[tuple[Height, int]]) -> list[PutPruned]:
        """The batches of a height that lose something now; adds the receipts that do."""
        record = self._ledger.block(height)
        assert record is not None, f"block {height} is below the tip"
        receipts = {executed.receipt.transaction: executed for executed in self._executor.receipts_at(height)}
        writes: list[PutPruned] = []
        gone: set[TransactionId] = set()
        for key in record.header.batches:
            batch = self._batch(key)
            going: set[int] = set()
            for index, one in enumerate(batch.transactions):
                executed = receipts.get(one.id)
                events = () if executed is None else executed.known
                if one.operations is None:
                    gone.add(one.id)
                elif (executed is not None and executed.events is None) or pruning.covers(one.operations, events):
                    gone.add(one.id)
                    going.add(index)
            if going:
                writes.append(PutPruned(key, batch.without(going)))
        places += [
            (height, receipts[key].receipt.index) for key in sorted(gone & receipts.keys()) if receipts[key].events
        ]
        return writes

    def _batch(self, key: BatchId) -> PrunedBatch:
        left = self._ledger.pruned(key)
        if left is not None:
            return left
        data = self._ledger.body(key)
        if data is None:
            raise StoreError(f"ledger lacks the body of committed batch {key.hex()}")
        return prunable(data)
