"""One stage: a consortium is founded, people are entered, each point is loaded and measured, everything is stopped."""

import gzip
import json
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import trio

from bench.arithmetic import arrivals, median
from bench.book import NEVER, ClientPlan, LanePlan, Row
from bench.faults import FaultLine
from bench.floor import Floor, mean_floor
from bench.floor import measure as measure_floor
from bench.history import write_history
from bench.load import SAMPLE_S, Due, run_load
from bench.scenario import Point, Stage, Workload
from bench.show import Show
from bench.summary import CatchUp, PointResult, Window, client_figures, validator_figures, window_of
from bench.town import Planned, Town
from bench.validators import SETTLE_S, Counters, Sample, Validators
from p2pledger.primitives.errors import Unavailable

STOCK_IN_FLIGHT = 2_000
CATCH_UP_S_MAX = 600.0
QUIET_TRIES = 40


class StageRun:
    """Runs one stage with n validators. Results are yielded point by point, so that none is lost by a later failure."""

    def __init__(self, stage: Stage, n: int, folder: Path, raw: Path, seed: int, floor_s: float, show: Show) -> None:
        self.stage = stage
        self.n = n
        self._folder = folder
        self._raw = raw
        self._seed = seed
        self._floor_s = floor_s
        self._show = show
        self._done: dict[str, float] = {}
        """Throughput of the points so far."""
        self._executed = 0
        """Transactions on the chain; counted here, because a validator that starts again counts from 0."""

    async def run(self, keep: list[PointResult]) -> None:
        """Append the result of each point to `keep` as soon as it is there."""
        stage, n = self.stage, self.n
        self._show.step(f"{stage.name}: {n} validator{'s' if n > 1 else ''}")
        self._folder.mkdir(parents=True)
        with Validators(self._folder / "consortium", stage, n, self._seed) as self._validators:
            await self._found()
            await self._validators.start()
            idle = await self._quiet_counters()
            self._rss_idle = int(median([one.rss_bytes for one in idle if one is not None]))
            for number, point in enumerate(stage.points):
                keep.append(await self._point(number, point))
            await self._validators.stop()

    async def _found(self) -> None:
        """Put the people, and whatever else is to be there before, onto the chain of validators that do not run yet."""
        stage, cluster = self.stage, self._validators.cluster
        now_ms = time.time_ns() // 1_000_000
        lanes = max(stage.senders, self.n)
        self._town = Town(cluster.founding, self._validators.wallets(), lanes, stage.patients, self._seed, now_ms)
        planned = chain(self._town.entering(), self._town.plan("minimal", stage.prefill, 0.0))
        began = time.monotonic()
        with self._show.bar(f"people, and {stage.prefill:,} transactions", stage.prefill) as progress:
            homes = list(cluster.homes.values())
            self._executed = await write_history(homes, (one.data for one in planned), progress)
        if stage.prefill:
            self._show.step(f"  {stage.prefill:,} transactions prefilled in {time.monotonic() - began:.0f} s")

    # A point

    async def _point(self, number: int, point: Point) -> PointResult:
        stage, validators = self.stage, self._validators
        workload = point.workload or stage.workload
        rng = random.Random(self._seed * 1_000 + number)
        rate = self._rate(point)
        seconds = point.warm_up_s + point.duration_s
        dues = None if rate is None else arrivals(rate, seconds, point.arrivals, rng)
        count = int(point.pool_tps * seconds) if dues is None else len(dues)
        await self._send_all(self._town.stock(workload, count, stage.zipf), "consents to revoke")
        planned = self._sign(point, workload, count)
        away = await self._take_one_away() if point.catch_up else None
        before_floor = await self._floor()
        before = await self._quiet_counters()
        line = FaultLine(validators, point.faults, point.warm_up_s)
        samples: list[Sample] = []
        window = Window(point.warm_up_s, seconds)
        relay_before = validators.relay_cpu_s()
        name = f"{stage.name}-n{self.n}-{point.name}"
        with self._show.bar(f"{point.name}: {point.loop} loop, {seconds:g} s", count) as progress:
            loaded = await run_load(
                self._folder / "clients",
                self._shares(point, planned, dues),
                cores=stage.client_cores,
                progress=progress,
                meanwhile=[_sampling(validators, window, samples), line.run],
            )
        relay_cpu_s = validators.relay_cpu_s() - relay_before
        after = await self._quiet_counters()
        after_floor = await self._floor()
        catch_up = None if away is None else await self._catch_up(away)
        await line.repair()
        sent = {row.number for row in loaded.rows if row.sent_s != NEVER}
        self._town.take_back(one for number, one in enumerate(planned) if number not in sent)
        self._keep_raw(name, loaded.rows, samples, loaded.start)
        window, ran_dry = window_of(point, loaded.reports)
        operations = {place: one.operations for place, one in enumerate(planned)}
        figures = client_figures(loaded.rows, window, point.loop == "open", operations)
        done = [planned[row.number].signatures for row in loaded.rows if row.is_done]
        result = PointResult(
            stage=stage.name,
            n=self.n,
            point=point.name,
            workload=workload,
            operations=point.operations,
            loop=point.loop,
            wanted_rate=rate,
            load=point.load,
            faults=line.notes,
            validators=validator_figures(
                before,
                after,
                samples,
                sum(done) / max(1, len(done)),
                mean_floor(before_floor, after_floor).verify_us,
            ),
            floor_before=before_floor,
            floor_after=after_floor,
            client_cpu_cores=sum(report.cpu_s for report in loaded.reports) / loaded.elapsed_s,
            client_lateness_p99_s=max(report.lateness_p99_s for report in loaded.reports),
            ran_dry=ran_dry,
            relay_cpu_s=relay_cpu_s,
            executed_before=self._executed,
            settings=dict(stage.settings),
            one_way_ms=stage.wan.one_way_ms if stage.wan else 0.0,
            distance=validators.distance,
            rss_idle_bytes=self._rss_idle,
            catch_up=catch_up,
            **figures,  # type: ignore[arg-type]
        )
        self._done[point.name] = result.throughput
        self._executed += len(done)
        self._show.step(f"  {result.name}: {result.throughput:,.0f} tx/s, {result.succ} done, {result.fail} failed")
        return result

    def _rate(self, point: Point) -> float | None:
        """Transactions a second of an open loop; raises Unavailable where the point that it is relative to had none."""
        if point.loop == "closed" or point.rate is not None:
            return point.rate
        closed = next(one.name for one in self.stage.points if one.loop == "closed") if point.of is None else point.of
        base = self._done[closed]
        if not base or point.load is None:
            raise Unavailable(f"point {point.name} is relative to {closed}, where no transaction was done")
        return point.load * base

    def _sign(self, point: Point, workload: Workload, count: int) -> list[Planned]:
        plan = self._town.plan(workload, count, self.stage.zipf, point.operations, point.payload_bytes)
        return self._collected(plan, count, f"{point.name}: signing")

    def _collected(self, plan: Iterator[Planned], count: int, what: str) -> list[Planned]:
        planned = []
        with self._show.bar(what, count) as progress:
            for one in plan:
                planned.append(one)
                if not len(planned) % 500:
                    progress(len(planned))
        return planned

    def _shares(
        self, point: Point, planned: Sequence[Planned], dues: Sequence[float] | None
    ) -> list[tuple[ClientPlan, list[Due]]]:
        """Each process has whole lanes, so that a sender's nonces are one process's business."""
        clients = min(self.stage.clients, len(self._town.lanes))
        items: list[list[Due]] = [[] for _ in range(clients)]
        for number, one in enumerate(planned):
            items[one.lane % clients].append((number, one, 0.0 if dues is None else dues[number]))
        return [
            (self._client_plan(index, clients, point, point.warm_up_s + point.duration_s, point.in_flight), mine)
            for index, mine in enumerate(items)
        ]

    def _client_plan(self, index: int, clients: int, point: Point, until_s: float, in_flight: int) -> ClientPlan:
        cluster = self._validators.cluster
        addresses = [(node.host, node.port, bytes(node.key)) for node in cluster.addresses()]
        lanes = []
        for number, lane in enumerate(self._town.lanes):
            first = number % self.n
            if number % clients == index:
                lanes.append(LanePlan(number, lane.sender.key.seed, tuple(addresses[first:] + addresses[:first])))
        return ClientPlan(
            index=index,
            is_open=point.loop == "open",
            in_flight=max(1, in_flight // clients),
            until_s=until_s,
            drain_s=point.drain_s,
            proofs=point.proofs,
            out=str(self._folder / "clients" / f"client-{index}.jsonl"),
            seed=self._seed + index,
            home=str(cluster.member(cluster.names[0]).home),
            lanes=tuple(lanes),
        )

    # Around the load

    async def _send_all(self, planned: Sequence[Planned], what: str) -> None:
        """Unmeasured, as fast as it goes; raises Unavailable unless nearly all are done."""
        if not planned:
            return
        point = Point(name="unmeasured", drain_s=60.0)
        clients = min(self.stage.clients, len(self._town.lanes))
        shares: list[tuple[ClientPlan, list[Due]]] = []
        for index in range(clients):
            mine = [(number, one, 0.0) for number, one in enumerate(planned) if one.lane % clients == index]
            shares.append((self._client_plan(index, clients, point, 600.0, STOCK_IN_FLIGHT), mine))
        with self._show.bar(what, len(planned)) as progress:
            loaded = await run_load(self._folder / "clients", shares, cores=self.stage.client_cores, progress=progress)
        done = sum(row.is_done for row in loaded.rows)
        if done < 0.99 * len(planned):
            raise Unavailable(f"{what}: {done} of {len(planned)} transactions are done")
        self._executed += done

    async def _floor(self) -> Floor:
        return await measure_floor(self.n, self._floor_s, self.stage.validator_cores, self._folder)

    async def _quiet_counters(self) -> list[Counters | None]:
        """When all that run have executed and stored the same, or after a while.

        Stored: the state is written every hundred blocks, and when the chain goes quiet. A load pays for its own.
        """
        for _ in range(QUIET_TRIES):
            seen = await self._validators.all_counters()
            alive = [one for one in seen if one is not None]
            if len({one.height for one in alive}) <= 1 and not any(one.unflushed for one in alive):
                break
        return seen

    async def _take_one_away(self) -> int:
        primary = await self._validators.primary()
        seat = next(seat for seat in range(self.n) if seat != primary or self.n == 1)
        await self._validators.stop_some([seat])
        return seat

    async def _catch_up(self, seat: int) -> CatchUp:
        """From its first own counters until it has the others' height. Raises Unavailable if it never does."""
        validators = self._validators
        others = [one for one in await validators.all_counters() if one is not None]
        wanted = max(one.height for one in others)
        await validators.cluster.start(validators.names[seat])
        first: Counters | None = None
        began = time.monotonic()
        while time.monotonic() - began < CATCH_UP_S_MAX:
            seen = await validators.counters(seat)
            if seen is not None and first is None:
                first, began = seen, time.monotonic()
            if seen is not None and first is not None and seen.height >= wanted:
                await trio.sleep(SETTLE_S)
                last = await validators.counters(seat) or seen
                return CatchUp(
                    last.executed - first.executed, time.monotonic() - began - SETTLE_S, last.cpu_s - first.cpu_s
                )
            await trio.sleep(0.1)
        raise Unavailable(f"validator {seat} did not reach height {wanted} within {CATCH_UP_S_MAX:g} s")

    def _keep_raw(self, name: str, rows: Sequence[Row], samples: Sequence[Sample], start: float) -> None:
        self._raw.mkdir(exist_ok=True)
        with gzip.open(self._raw / f"{name}.jsonl.gz", "wt", compresslevel=3) as file:
            file.write(json.dumps({"columns": Row._fields, "never": NEVER}) + "\n")
            file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        with (self._raw / f"{name}-samples.jsonl").open("w") as samples_file:
            for sample in samples:
                line = {"at_s": round(sample.at - start, 3), "validators": sample.usages}
                samples_file.write(msgspec.json.encode(line).decode() + "\n")


def _sampling(
    validators: Validators, window: Window, samples: list[Sample]
) -> Callable[[float], Coroutine[None, None, None]]:
    async def run(start: float) -> None:
        await trio.sleep(max(0.0, start + window.start_s - time.monotonic()))
        while time.monotonic() < start + window.end_s:
            samples.append(validators.sample())
            await trio.sleep(SAMPLE_S)
        samples.append(validators.sample())

    return run
