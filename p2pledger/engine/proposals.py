"""Builds blocks and judges them (P3), as functions of what a node holds; it decides, the engine fetches and waits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from p2pledger.chain.batch import Batch
from p2pledger.chain.block import PROTOCOL_VERSION, Header, transaction_root, unsettled_after
from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Transaction
from p2pledger.engine.executor import Executor
from p2pledger.execution.windows import Window
from p2pledger.gossip import BatchPool, PooledBatch
from p2pledger.primitives import limits
from p2pledger.primitives.ids import Height, Millis, NodeId


class Verdict(Enum):
    """What a replica may do with a proposed block."""

    GOOD = auto()
    BAD = auto()
    WAIT = auto()
    """For its time to come, or for a height to be executed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reason: str = ""


GOOD = Judgement(Verdict.GOOD)


@dataclass(slots=True)
class OriginWindows:
    """Which batch sequences stand in the chain up to some block: the executed windows moved on by the open blocks.

    Execution uses batches one by one, and each may push older sequences out of the window; so does this.
    """

    windows: dict[NodeId, Window]

    def admits(self, batch: Batch) -> bool:
        """Whether this batch may be ordered next."""
        return self.windows.get(batch.origin, Window()).use(batch.sequence) is not None

    def use(self, batch: Batch) -> bool:
        """It is ordered next; False if it must not be."""
        moved = self.windows.get(batch.origin, Window()).use(batch.sequence)
        if moved is not None:
            self.windows[batch.origin] = moved
        return moved is not None


def judge(
    header: Header,
    parent: Header,
    bodies: Sequence[tuple[Batch, Sequence[Transaction]]],
    windows: OriginWindows,
    executor: Executor,
    founding: Founding,
    wall_ms: int,
) -> Judgement:
    """Whether a block with all its bodies at hand may be prepared on top of `parent`."""
    bad = structure_fault(header, parent, founding) or _contents(header, parent, bodies, windows, founding)
    if bad:
        return Judgement(Verdict.BAD, bad)
    drift = founding.parameters.drift_ms
    if header.time_ms < max(parent.time_ms + 1, wall_ms - drift):
        return Judgement(Verdict.BAD, f"block time {header.time_ms} is behind its parent's or our clock by the drift")
    if header.time_ms > wall_ms + drift:
        return Judgement(Verdict.WAIT, f"block time {header.time_ms} is ahead of our clock by more than the drift")
    return _roots(header, parent, executor, founding)


def structure_fault(header: Header, parent: Header, founding: Founding) -> str:
    """What is wrong with a block whose bodies nobody needs to see; empty if nothing is."""
    if header.version != PROTOCOL_VERSION:
        return f"protocol version {header.version}, this is {PROTOCOL_VERSION}"
    if (header.chain, header.epoch, header.height) != (founding.chain, parent.epoch, parent.height + 1):
        return "chain, epoch or height does not follow the parent"
    if header.parent != parent.hash:
        return "does not name its parent"
    if header.validators_hash != founding.validators.hash or header.next_validators_hash is not None:
        return "validators are not those of the epoch"
    if header.parameters_hash != founding.parameters.hash:
        return "parameters are not those of the epoch"
    if len(set(header.batches)) != len(header.batches):
        return "it names a batch twice"
    return ""


def _contents(
    header: Header,
    parent: Header,
    bodies: Sequence[tuple[Batch, Sequence[Transaction]]],
    windows: OriginWindows,
    founding: Founding,
) -> str:
    seen = OriginWindows(dict(windows.windows))
    ids = []
    size = 0
    for batch, transactions in bodies:
        if not seen.use(batch):
            return (
                f"batch {batch.sequence} of {batch.origin.hex()} stands in the chain already, or is outside its window"
            )
        ids += [transaction.id for transaction in transactions]
        size += sum(len(data) for data in batch.transactions)
    if len(ids) > limits.BLOCK_TRANSACTIONS_MAX or size > limits.BLOCK_BYTES_MAX:
        return f"{len(ids)} transactions of {size} bytes are more than a block may hold"
    if header.transaction_root != transaction_root(ids):
        return "transaction root does not match the bodies"
    unsettled = unsettled_after(parent, founding.parameters.checkpoint_interval) + len(ids)
    if header.unsettled != unsettled:
        return f"{header.unsettled} transactions since the last checkpoint, by our count {unsettled}"
    return ""


def _roots(header: Header, parent: Header, executor: Executor, founding: Founding) -> Judgement:
    executed = header.executed_height
    if not max(parent.executed_height, header.height - founding.parameters.window) <= executed < header.height:
        return Judgement(Verdict.BAD, f"executed height {executed} is not allowed at height {header.height}")
    if executed > executor.executed:
        return Judgement(Verdict.WAIT, f"height {executed} is not executed here yet")
    effects, states = executor.roots_between(parent.executed_height, executed)
    if header.effects_roots != effects or header.state_roots != states:
        return Judgement(Verdict.BAD, "an effects root or state root is not ours")
    return GOOD


@dataclass(slots=True)
class Selection:
    """The batches for one block."""

    batches: list[PooledBatch] = field(default_factory=list)
    transactions: int = 0
    bytes: int = 0


def select(pool: BatchPool, windows: OriginWindows, target: int = limits.BLOCK_TRANSACTIONS_MAX) -> Selection:
    """Waiting batches in the order in which they came, up to `target` transactions and what a block may hold."""
    chosen = Selection()
    for pooled in pool.batches.values():
        if not windows.admits(pooled.batch):
            continue
        count, size = len(pooled.transactions), len(pooled.data)
        if chosen.transactions + count > limits.BLOCK_TRANSACTIONS_MAX or chosen.bytes + size > limits.BLOCK_BYTES_MAX:
            break
        if len(chosen.batches) == limits.BLOCK_BATCHES_MAX or chosen.transactions >= target:
            break
        windows.use(pooled.batch)
        chosen.batches.append(pooled)
        chosen.transactions += count
        chosen.bytes += size
    return chosen


def build(parent: Header, chosen: Selection, executor: Executor, founding: Founding, wall_ms: int) -> Header:
    """The header of the next block."""
    executed = executor.executed
    effects, states = executor.roots_between(parent.executed_height, executed)
    ids = [transaction.id for pooled in chosen.batches for transaction in pooled.transactions]
    return Header(
        version=PROTOCOL_VERSION,
        chain=founding.chain,
        epoch=parent.epoch,
        height=Height(parent.height + 1),
        parent=parent.hash,
        time_ms=Millis(max(parent.time_ms + 1, wall_ms)),
        validators_hash=founding.validators.hash,
        next_validators_hash=None,
        parameters_hash=founding.parameters.hash,
        batches=tuple(pooled.id for pooled in chosen.batches),
        transaction_root=transaction_root(ids),
        unsettled=unsettled_after(parent, founding.parameters.checkpoint_interval) + len(ids),
        executed_height=executed,
        effects_roots=effects,
        state_roots=states,
    )
