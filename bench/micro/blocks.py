"""`python -m bench.micro minimal|ten|health`: a validator's own work on blocks, in one process, without a network.

What the big benchmark cannot tell apart on a busy machine: processor time of checking batches, of executing blocks, of
flushing state, and of executing a stored ledger again, each in microseconds a transaction and in verifications.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.floor import loop
from bench.scenario import Workload
from bench.town import Planned, Town
from p2pledger.chain.batch import batch_id, check_batch, parse_batch, seal
from p2pledger.chain.block import PROTOCOL_VERSION, Header, transaction_root, unsettled_after
from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Receipt
from p2pledger.client.keyring import OrganisationWallet
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.demo.cluster import Cluster
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutBody
from p2pledger.health.application import HealthApplication
from p2pledger.node.home import Layout, load_node_keys
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Height, Millis
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.state_store import LmdbStateStore

T = TypeVar("T")

LANES = 16
PATIENTS = 100
BATCH = 200
BLOCK = 200


class Spent:
    """Processor seconds of this thread by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, work: Callable[[], T]) -> T:
        began_s = time.thread_time()
        result = work()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.thread_time() - began_s
        return result


class Bench:
    """One validator's stores and executor, and the chain that it is given."""

    def __init__(self, folder: Path, founding: Founding, origin: SigningKey) -> None:
        self.founding = founding
        self.spent = Spent()
        self._origin = origin
        self.transactions = 0
        self._sequence = 0
        self._folder = folder
        node = founding.genesis.cards[0].node
        self.ledger = LmdbLedgerStore(folder / "ledger", founding.chain, node, founding.header.hash, 8 << 30)
        self.state = self.new_state("state")
        self.executor = Executor(founding, HealthApplication(), self.ledger, self.state)

    def new_state(self, name: str) -> LmdbStateStore:
        """A state store at height 0."""
        state = LmdbStateStore(self._folder / name, self.founding.chain, 8 << 30)
        state.flush(genesis_flush(HealthApplication(), self.founding))
        return state

    def run(self, transactions: Sequence[bytes]) -> list[Receipt]:
        """Seal, check, execute, append and flush one block of these."""
        self.transactions += len(transactions)
        batches = []
        for start in range(0, len(transactions), BATCH):
            self._sequence += 1
            chosen = transactions[start : start + BATCH]
            batches.append(seal(self.founding.chain, self._origin, self._sequence, chosen))
        bodies = []
        for data in batches:
            batch = self.spent("parse_batch", partial(parse_batch, data))
            bodies.append((batch, self.spent("check", partial(check_batch, self.founding.chain, batch))))
        header = self._header([batch_id(data) for data in batches], [t.id for _, ts in bodies for t in ts])
        writes: list[LedgerWrite] = [PutBody(batch_id(data), data) for data in batches]
        effects = self.spent("apply", lambda: self.executor.apply(header, bodies))
        self.spent("append", lambda: self.ledger.apply([*writes, AppendBlock(CommittedRecord(header, None))]))
        flush = self.executor.take_flush()
        if flush is not None:
            self.spent("flush", lambda: self.state.flush(flush))
            self.executor.flushed(flush.height)
        return [done.receipt for done in effects.receipts]

    def _header(self, batches: list[bytes], ids: list[bytes]) -> Header:
        last, executor = self.executor.last, self.executor
        effects, states = executor.roots_between(last.executed_height, executor.executed)
        return Header(
            version=PROTOCOL_VERSION,
            chain=self.founding.chain,
            epoch=last.epoch,
            height=Height(last.height + 1),
            parent=last.hash,
            time_ms=Millis(last.time_ms + 100),
            validators_hash=self.founding.validators.hash,
            next_validators_hash=None,
            parameters_hash=self.founding.parameters.hash,
            batches=tuple(batches),  # type: ignore[arg-type]
            transaction_root=transaction_root(ids),  # type: ignore[arg-type]
            unsettled=unsettled_after(last, self.founding.parameters.checkpoint_interval) + len(ids),
            executed_height=executor.executed,
            effects_roots=effects,
            state_roots=states,
        )

    def replay(self) -> float:
        """Processor seconds of executing the stored ledger again, from the genesis on."""
        executor = Executor(self.founding, HealthApplication(), self.ledger, self.new_state("again"))
        began_s = time.thread_time()
        executor.recover(self.ledger.tip())
        spent_s = time.thread_time() - began_s
        assert executor.effects_roots == self.executor.effects_roots
        return spent_s


def prepare(folder: Path) -> tuple[Bench, Town]:
    """A chain with its people on it."""
    cluster = Cluster.create(folder / "consortium", 4, name="Micro")
    founders: list[OrganisationWallet] = [cluster.wallet(name) for name in cluster.names]
    origin = load_node_keys(Layout(cluster.members[cluster.names[0]].home)).node
    bench = Bench(folder, cluster.founding, origin)
    town = Town(cluster.founding, founders, LANES, PATIENTS, 1, cluster.founding.header.time_ms)
    for planned in town.entering():
        run_all(bench, [planned])
    return bench, town


def measure(workload: Workload, operations: int, transactions: int) -> None:
    """Print microseconds a transaction by phase."""
    with tempfile.TemporaryDirectory() as name:
        bench, town = prepare(Path(name))
        stock = town.stock(workload, transactions, 0.0)
        planned: list[Planned] = list(town.plan(workload, transactions, 0.0, operations))
        run_all(bench, stock)
        bench.spent.seconds.clear()
        entered = bench.transactions
        before = loop(0.5)
        codes = run_all(bench, planned)
        replayed_s = bench.replay()
        after = loop(0.5)
    verify_us = 1e6 * (before[1] + after[1]) / (before[0] + after[0])
    lines = {name: 1e6 * spent_s / transactions for name, spent_s in bench.spent.seconds.items()}
    lines["check"] -= verify_us * sum(one.signatures for one in planned) / transactions
    lines["replay"] = 1e6 * replayed_s / (entered + transactions)
    print(f"{workload} x{operations}: {transactions} transactions, receipts by code {dict(codes)}")
    print(f"  {'verify':8} {verify_us:8.1f} us; `check` is without it, `replay` of the whole ledger")
    for phase, spent_us in lines.items():
        print(f"  {phase:8} {spent_us:8.1f} us/tx {spent_us / verify_us:6.2f} verifications")


def run_all(bench: Bench, planned: Sequence[Planned]) -> Counter[int]:
    """Run these in blocks; receipts by code."""
    codes: Counter[int] = Counter()
    for start in range(0, len(planned), BLOCK):
        codes.update(receipt.code for receipt in bench.run([one.data for one in planned[start : start + BLOCK]]))
    return codes


def main(given: Sequence[str] | None = None) -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("workload", nargs="?", default="minimal", choices=("minimal", "ten", "health"))
    parser.add_argument("--transactions", type=int, default=20_000)
    arguments = parser.parse_args(given)
    workload: Workload = "health" if arguments.workload == "health" else "minimal"
    measure(workload, 10 if arguments.workload == "ten" else 1, arguments.transactions)
