"""The floor, measured in the same run on the same processors: bare verification, and bare durable writes.

With n validators every transaction is verified n times. So n processes that do nothing but verify, on the processors
that the validators use, set the transactions a second that no ledger with these signatures can pass there.
`python -m bench.floor SECONDS START` is one such process.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import trio

from bench.arithmetic import median
from bench.procfs import confine
from p2pledger.primitives.crypto import SigningKey, verify

MESSAGE_BYTES = 180
"""A transaction's body, which is what its signatures cover: 176 bytes without cosigners."""
FSYNCS = 40


class Floor(msgspec.Struct, frozen=True):
    """What the machine could do at that moment."""

    processes: int
    verifies_per_s: float
    """Of all loops together."""
    verify_us: float
    """Processor time of one."""
    fsync_ms: float
    """Median of 4 KiB, written and synced, on the disk of the stores."""

    @property
    def tps(self) -> float:
        """Transactions of one signature a second that `processes` validators could pass if they did nothing else."""
        return self.verifies_per_s / self.processes


def loop(seconds: float) -> tuple[int, float]:
    """(verifications, their processor seconds)."""
    key = SigningKey(bytes(32))
    message = bytes(MESSAGE_BYTES)
    signature = key.sign(message)
    before = _cpu_s()
    count, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        for _ in range(64):
            assert verify(key.public, message, signature)
        count += 64
    return count, _cpu_s() - before


def fsync_ms(folder: Path) -> float:
    """The median time of a small durable write in this folder."""
    path = folder / "fsync.probe"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - began))
    path.unlink()
    return median(times)


async def measure(processes: int, seconds: float, cores: tuple[int, ...], folder: Path) -> Floor:
    """Run the loops at the same time, then the probe of the disk."""
    start = time.monotonic() + 0.5 + 0.1 * processes
    counts: list[int] = []
    spent: list[float] = []

    async def one() -> None:
        command = [sys.executable, "-m", "bench.floor", str(seconds), str(start)]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        try:
            confine(process.pid, cores)
            assert process.stdout is not None
            count, cpu_s = json.loads(bytes(await process.stdout.receive_some(200)))
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        counts.append(count)
        spent.append(cpu_s)

    async with trio.open_nursery() as nursery:
        for _ in range(processes):
            nursery.start_soon(one)
    return Floor(processes, sum(counts) / seconds, 1e6 * sum(spent) / sum(counts), fsync_ms(folder))


def mean_floor(before: Floor, after: Floor) -> Floor:
    """The floor around a load: the mean of both."""
    return Floor(
        before.processes,
        (before.verifies_per_s + after.verifies_per_s) / 2,
        (before.verify_us + after.verify_us) / 2,
        (before.fsync_ms + after.fsync_ms) / 2,
    )


def _cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    time.sleep(max(0.0, float(sys.argv[2]) - time.monotonic()))
    print(json.dumps(loop(float(sys.argv[1]))), flush=True)
