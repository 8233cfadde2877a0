"""A chain that validators already have when they start: blocks made, executed and stored offline, then put into homes.

Everything is real but the agreement: signed transactions in signed batches, headers with their roots, commit
certificates of a quorum, the executor with the health contracts, and both LMDB stores of every validator. Nobody checks
a signature on the way, which is why two million transactions take minutes and not an hour.

`python -m bench.history HOME...` is the process that does it: it takes transactions on stdin while another one signs.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import msgpack
import trio

from p2pledger.chain.batch import batch_id, parse_batch, seal
from p2pledger.chain.block import Header
from p2pledger.chain.transaction import Transaction, parse
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.consensus.messages import Certificate, Commit, statement
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutBody
from p2pledger.engine.proposals import Selection, build
from p2pledger.gossip import PooledBatch
from p2pledger.health.application import HealthApplication
from p2pledger.node.home import Home
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, P2PLedgerError, Unavailable
from p2pledger.primitives.ids import View
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.sign_floor import SignFloor
from p2pledger.storage.state_store import LmdbStateStore

BLOCK = limits.BLOCK_TRANSACTIONS_TARGET
"""Transactions of a block, as under load: so the chain has as many blocks, and as many checkpoints, as a real one."""

_VIEW = View(0)


class History:
    """Entered as a context, it writes into the stores of homes that have never run; left, their nodes can start.

    The homes are those of all members of one consortium.
    """

    def __init__(self, homes: Sequence[Path]) -> None:
        self._homes = [Home.load(home, {}) for home in homes]
        self._founding = self._homes[0].founding
        self._stack = ExitStack()
        self._sequence = 0
        self.written = 0
        """Transactions of all blocks."""

    def __enter__(self) -> "History":
        founding, application = self._founding, HealthApplication()
        with self._stack as stack:
            self._ledgers = []
            for home in self._homes:
                home.data.mkdir(mode=0o700, exist_ok=True)
                ledger = LmdbLedgerStore(
                    home.ledger, founding.chain, home.node, founding.header.hash, home.config.node.map_gib << 30
                )
                stack.callback(ledger.close)
                self._ledgers.append(ledger)
            first = self._homes[0]
            self._state = LmdbStateStore(first.state, founding.chain, first.config.node.map_gib << 30)
            stack.callback(self._state.close)
            self._state.flush(genesis_flush(application, founding))
            self._executor = Executor(founding, application, self._ledgers[0], self._state)
            stack.callback(self._executor.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._stack:
            if error is None:
                self._append([])  # quiet: the first empty block is a checkpoint, so that nothing is executed again
                for home, ledger in zip(self._homes, self._ledgers, strict=True):
                    SignFloor(home.layout.sign_floor).adopt(ledger.identity, ledger.tip())
        if error is None:
            for home in self._homes[1:]:
                shutil.copytree(self._homes[0].state, home.state, ignore=shutil.ignore_patterns("lock.mdb"))

    def extend(self, transactions: Iterable[bytes]) -> Iterator[int]:
        """Put these onto the chain, in order; how many are there, after each block.

        Raises Unavailable where the contracts refuse one.
        """
        items = iter(transactions)
        while block := list(islice(items, BLOCK)):
            self._append(block)
            yield self.written

    def _append(self, transactions: list[bytes]) -> None:
        size = limits.BATCH_SEAL_TRANSACTIONS
        chosen = Selection([self._batch(transactions[at : at + size]) for at in range(0, len(transactions), size)])
        executor = self._executor
        header = build(executor.last, chosen, executor, self._founding, time.time_ns() // 1_000_000)
        record = CommittedRecord(header, self._certificate(header))
        writes: list[LedgerWrite] = [PutBody(pooled.id, pooled.data) for pooled in chosen.batches]
        for ledger in self._ledgers:
            ledger.apply([*writes, AppendBlock(record)])
        effects = executor.apply(header, [(pooled.batch, pooled.transactions) for pooled in chosen.batches])
        refused = [done.receipt for done in effects.receipts if done.receipt.code != Code.OK]
        if refused or len(effects.receipts) != len(transactions):
            codes = sorted({receipt.code for receipt in refused})
            raise Unavailable(f"block {header.height}: {len(refused)} of {len(transactions)} refused, codes {codes}")
        flush = executor.take_flush()
        if flush is not None:
            self._state.flush(flush)
            executor.flushed(flush.height)
        self.written += len(transactions)

    def _batch(self, transactions: list[bytes]) -> PooledBatch:
        """Sealed by each validator's node in turn."""
        turn, origin = divmod(self._sequence, len(self._homes))
        self._sequence += 1
        data = seal(self._founding.chain, self._homes[origin].keys.node, turn + 1, transactions)
        parsed: list[Transaction] = [parse(one) for one in transactions]
        return PooledBatch(batch_id(data), parse_batch(data), parsed, data, 0)

    def _certificate(self, header: Header) -> Certificate:
        """By the validators of the lowest seats."""
        founding = self._founding
        place = header.epoch, _VIEW, header.height
        signatures = {}
        for home in self._homes:
            vote = Commit(header.epoch, _VIEW, header.height, header.hash, home.validator)
            signatures[home.validator] = home.keys.consensus.sign(statement(founding.chain, vote))
        return build_certificate("commit", place, header.hash, signatures, founding.validators)


async def write_history(
    homes: Sequence[Path], transactions: Iterable[bytes], progress: Callable[[int], None] = lambda done: None
) -> int:
    """Have a process put these onto the chain of all homes while we make them; how many there are.

    Raises Unavailable where it fails. It does not outlive the call.
    """
    command = [sys.executable, "-m", "bench.history", *map(str, homes)]
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    written, words = 0, b""

    async def listen(stream: trio.abc.ReceiveStream) -> None:
        nonlocal written
        rest = b""
        async for data in stream:
            *lines, rest = (rest + bytes(data)).split(b"\n")
            if lines:
                written = int(lines[-1])
                progress(written)

    async def keep(stream: trio.abc.ReceiveStream) -> None:
        nonlocal words
        async for data in stream:
            words = (words + bytes(data))[-2_000:]

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, process.stdout)
            nursery.start_soon(keep, process.stderr)
            with suppress(trio.BrokenResourceError):  # what it died of stands on its stderr
                items = iter(transactions)
                while block := list(islice(items, BLOCK)):
                    await process.stdin.send_all(b"".join(map(msgpack.packb, block)))
            await process.stdin.aclose()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise Unavailable(f"no history: status {process.returncode}\n{words.decode(errors='replace')}")
    return written


def main() -> int:
    """Write what comes on stdin; says how many transactions are on the chain, a line after each block."""
    with History([Path(home) for home in sys.argv[1:]]) as history:
        unpacker = msgpack.Unpacker(sys.stdin.buffer, read_size=1 << 16)
        for written in history.extend(unpacker):
            print(written, flush=True)
    os.sync()  # gigabytes that are still to be written would be measured otherwise
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (P2PLedgerError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
