"""Other systems in the same run, on the same machine, with the same bytes: started here, loaded by the same clients.

Each is reached through a command that takes transactions as lines of JSON (bench/lanes.py, CommandLane), and so is any
external system. None of them checks a signature, and all tolerate crashes only: README.md says what that means.
"""

import glob
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.baselines.servers import Servers, etcd, postgres
from bench.book import ClientPlan
from bench.load import Due, run_load
from bench.scenario import Baseline, Point, Scenario
from bench.show import Show
from bench.summary import PointResult, client_figures, window_of
from bench.town import Planned, Town
from p2pledger.demo.cluster import Cluster
from p2pledger.primitives.errors import Unavailable

SERVERS = 3
IN_FLIGHT = 2_000
INSTALL = {
    "etcd": "apt-get install etcd-server",
    "postgres": "apt-get install postgresql",
    "pysyncobj": "python -m pip install --require-hashes -r requirements/bench.txt",
    "grpc": "python -m pip install --require-hashes -r requirements/bench.txt",
    "asyncpg": "python -m pip install --require-hashes -r requirements/bench.txt",
}
CAVEATS = {
    "pysyncobj": "3 nodes, crash faults only, no signatures; its journal is a memory map that is not synced",
    "etcd": "3 nodes, crash faults only, no signatures, no TLS; fsync on; gRPC from Python",
    "postgres": "1 server, no replication, no signatures, no TLS; synchronous_commit and fsync on",
    "external": "whatever the command does",
}


def _program(name: str) -> str:
    """Where a server's program is; raises Unavailable with the command that installs it."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    if found is None:
        package = "etcd" if name == "etcd" else "postgres"
        raise Unavailable(f"{name} is not installed: {INSTALL[package]}")
    return found


def _require_module(name: str) -> None:
    if find_spec(name) is None:
        raise Unavailable(f"the Python package {name} is not installed: {INSTALL[name]}")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def run_baseline(
    name: Baseline, scenario: Scenario, folder: Path, points: list[PointResult], missing: list[str], show: Show
) -> None:
    """Append its result to `points`, or to `missing` what must be installed first."""
    folder.mkdir(parents=True)
    try:
        match name:
            case "pysyncobj":
                _require_module("pysyncobj")
                points.append(await _run(name, scenario, folder, show, Servers(), _pysyncobj_commands(folder)))
            case "etcd":
                _require_module("grpc")
                async with etcd(_program("etcd"), folder, free_ports(2 * SERVERS)) as servers:
                    command = (sys.executable, "-m", "bench.baselines.etcd_client", *servers.endpoints)
                    points.append(await _run(name, scenario, folder, show, servers, [command] * 2))
            case "postgres":
                _require_module("asyncpg")
                async with postgres(_program("initdb"), _program("postgres"), free_ports(1)[0]) as servers:
                    command = (sys.executable, "-m", "bench.baselines.postgres_client", *servers.endpoints)
                    points.append(await _run(name, scenario, folder, show, servers, [command] * 2))
    except Unavailable as error:
        show.step(f"{name}: left out, {error}")
        missing.append(f"{name}: {error}")


def _pysyncobj_commands(folder: Path) -> list[tuple[str, ...]]:
    """Each load process starts one of the nodes and hands its own transactions in there."""
    ports = [str(port) for port in free_ports(SERVERS)]
    module = (sys.executable, "-m", "bench.baselines.pysyncobj_node")
    return [(*module, str(me), str(folder / f"node-{me}"), *ports) for me in range(SERVERS)]


async def run_external(command: tuple[str, ...], scenario: Scenario, folder: Path, show: Show) -> PointResult:
    """The workload of the scenario's first stage against the system behind a command, one load process."""
    folder.mkdir(parents=True)
    return await _run("external", scenario, folder, show, Servers(), [command])


async def _run(
    name: str,
    scenario: Scenario,
    folder: Path,
    show: Show,
    servers: Servers,
    commands: Sequence[tuple[str, ...]],
) -> PointResult:
    """A closed loop through these commands, one for each load process."""
    point = Point(name="peak", duration_s=scenario.baseline_seconds, warm_up_s=scenario.baseline_seconds / 5)
    seconds = point.warm_up_s + point.duration_s
    planned = _payloads(scenario, folder, int(point.pool_tps * seconds))
    items: list[list[Due]] = [[] for _ in commands]
    for number, one in enumerate(planned):
        items[number % len(commands)].append((number, one, 0.0))
    shares = [
        (
            ClientPlan(
                index=index,
                is_open=False,
                in_flight=IN_FLIGHT // len(commands),
                until_s=seconds,
                drain_s=point.drain_s,
                proofs=0.0,
                out=str(folder / f"client-{index}.jsonl"),
                seed=scenario.seed,
                command=command,
            ),
            items[index],
        )
        for index, command in enumerate(commands)
    ]
    show.step(f"{name}: {CAVEATS[name]}")
    before_s = servers.cpu_s()
    with show.bar(f"{name}: closed loop, {seconds:g} s", len(planned)) as progress:
        loaded = await run_load(folder / "clients", shares, progress=progress)
    spent_s = servers.cpu_s() - before_s
    window, ran_dry = window_of(point, loaded.reports)
    figures = client_figures(loaded.rows, window, False, {})
    done = sum(row.is_done for row in loaded.rows)
    cost = f"{1e6 * spent_s / done:.0f}" if spent_s and done else "not measured"
    result = PointResult(
        stage=name,
        n=0,
        point=point.name,
        workload=scenario.stages[0].workload if scenario.stages else "minimal",
        operations=1,
        loop="closed",
        wanted_rate=None,
        load=None,
        faults=[],
        validators=[],
        floor_before=None,
        floor_after=None,
        client_cpu_cores=sum(report.cpu_s for report in loaded.reports) / loaded.elapsed_s,
        client_lateness_p99_s=0.0,
        ran_dry=ran_dry,
        relay_cpu_s=0.0,
        executed_before=0,
        caveat=f"{CAVEATS[name]}; CPU of its servers, us per transaction: {cost}",
        **figures,  # type: ignore[arg-type]
    )
    show.step(f"  {result.throughput:,.0f} tx/s, {result.succ} done, {result.fail} failed")
    return result


def _payloads(scenario: Scenario, folder: Path, count: int) -> list[Planned]:
    """What a ledger would get, signed under a genesis of their own."""
    cluster = Cluster.create(folder / "payloads", 4)
    stage = scenario.stages[0] if scenario.stages else None
    workload = stage.workload if stage else "minimal"
    patients = stage.patients if stage else 100
    wallets = [cluster.wallet(name) for name in cluster.names]
    town = Town(cluster.founding, wallets, 4, patients, scenario.seed, time.time_ns() // 1_000_000)
    town.stock(workload, count, 0.0)
    return list(town.plan(workload, count, 0.0))
