"""`python -m bench.growth [--transactions N]`: what a checkpoint costs a state store that holds N transactions already.

A store filled at random as the minimal workload fills it, two new keys a transaction, without contracts, receipts and
agreement: it takes minutes. Figures are bytes in write calls and microseconds of processor time for each transaction of
one flush; `stall` is how long the driver's thread brings the tree up to date, `held` the process's memory without the
map afterwards: what LMDB has once used for changed pages it keeps.
"""

import argparse
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from p2pledger.engine.ports import StateFlush
from p2pledger.primitives import limits
from p2pledger.primitives.ids import Bytes32, ChainId, Height
from p2pledger.state.tree import Nodes
from p2pledger.storage.state_store import LmdbStateStore

FLUSHES = (1_000, limits.CHECKPOINT_TRANSACTIONS, 5_000, 20_000)
PATIENTS = 1_000
VALUE_BYTES = 175
"""Of a record batch with one compartment."""


class Filled:
    """A state store and its tree."""

    def __init__(self, folder: Path) -> None:
        self._chance = random.Random(1)
        self._patients = [self._chance.randbytes(16) for _ in range(PATIENTS)]
        self._store = LmdbStateStore(folder, ChainId(Bytes32(bytes(32))), 16 << 30)
        self._store.flush(StateFlush(Height(0), {b"\x10": b""}, (), (), {}, ()))
        self._snapshot = self._store.snapshot()
        self._nodes = Nodes(self._snapshot.tree)
        self.transactions = 0

    def flush(self, transactions: int) -> str:
        """One checkpoint with so many more; what it cost each."""
        height = Height(self._store.height() + 1)
        writes: dict[bytes, bytes | None] = {}
        for _ in range(transactions):
            batch = self._chance.randbytes(16)
            writes[b"\x20" + batch] = self._chance.randbytes(VALUE_BYTES)
            writes[b"\x21" + self._chance.choice(self._patients) + batch] = b""
        written, moments = _written(), [time.thread_time()]
        self._nodes.note(writes)
        moments.append(time.thread_time())
        _, records = self._nodes.settle(self._snapshot.tree)
        moments.append(time.thread_time())
        self._store.flush(StateFlush(height, writes, (), (), records, ()))
        moments.append(time.thread_time())
        note, settle, store = (1e6 * (after - before) / transactions for before, after in pairwise(moments))
        self._snapshot.close()
        self._snapshot = self._store.snapshot()
        self.transactions += transactions
        size, charged = ((after - before) / transactions for before, after in zip(written, _written(), strict=True))
        stall_ms = settle * transactions / 1e3
        return (
            f"{self.transactions:9,} transactions, {transactions:6,} in the flush: {size:7,.0f} bytes "
            f"({charged:,.0f} charged), "
            f"tree {note + settle:5.1f}, flush {store:5.1f} us a transaction, stall {stall_ms:5.0f} ms, "
            f"held {_held_mib()} MiB"
        )


def _written() -> tuple[int, int]:
    """(bytes in write calls, what the kernel charges for them) of this process; `procfs.Usage` says how they differ."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"]), int(fields["write_bytes"])


def _held_mib() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) // 1024


def main() -> None:
    """Fill, then measure flushes of several sizes."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--transactions", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        filled = Filled(Path(name) / "state")
        while filled.transactions < arguments.transactions:
            filled.flush(min(limits.CHECKPOINT_TRANSACTIONS, arguments.transactions - filled.transactions))
        for transactions in FLUSHES:
            for _ in range(2):
                print(filled.flush(transactions), flush=True)


if __name__ == "__main__":
    main()
