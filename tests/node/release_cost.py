"""`python -m tests.node.release_cost [--records 182] [--rounds 5]`: what a released record costs a running validator.

Four real processes with a joint key; a reader asks all of them for a chart, again and again. Processor time of each
validator's whole process, so TLS, judging, entries and consensus beside it are in it.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import trio

from p2pledger.demo.cluster import Cluster
from tests.node.readers import chart_of, sharing_comes

SHARES = 'p2pledger_node_cpu_seconds_total{phase="release"}'
TICKS = os.sysconf("SC_CLK_TCK")


def _spent_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def _measure(folder: Path, records: int, rounds: int) -> None:
    with Cluster.create(folder, 4, params={"checkpoint_interval": 2}) as cluster:
        await cluster.start()
        await cluster.wait_ready()
        await sharing_comes(cluster, cluster.names)
        chart = await chart_of(cluster, records)
        pids = [member.process.pid for member in cluster.members.values() if member.process is not None]
        await chart.hear()
        before = [_spent_s(pid) for pid in pids]
        computed = [
            await cluster.metric(name, 'p2pledger_node_cpu_seconds_total{phase="release"}') for name in cluster.names
        ]
        began_s = time.perf_counter()
        for _ in range(rounds):
            heard = await chart.hear()
            assert len(heard.replies) == 4, heard.failures
        took_s = time.perf_counter() - began_s
        whole = [(_spent_s(pid) - spent) / rounds / records for pid, spent in zip(pids, before, strict=True)]
        after = [
            await cluster.metric(name, 'p2pledger_node_cpu_seconds_total{phase="release"}') for name in cluster.names
        ]
        shares = [(now - then) / rounds / records for now, then in zip(after, computed, strict=True)]
        opening_s = time.thread_time()
        for index in range(records):
            assert chart.opened(heard.replies[:3], index).content_key == chart.content_keys[index]
        opening_s = time.thread_time() - opening_s
    machine = f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    print(f"{records} records, {rounds} rounds, four validators on {machine}")
    whole_ms, shares_ms = sum(whole) / 4 * 1e3, sum(shares) / 4 * 1e3
    print(f"processor time of a validator for a record: {whole_ms:.2f} ms, of it shares {shares_ms:.2f} ms")
    print(f"shares of all records from all validators: {took_s / rounds:.2f} s; opening them: {opening_s:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=182)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_measure, Path(folder) / "cluster", chosen.records, chosen.rounds)


if __name__ == "__main__":
    main()
