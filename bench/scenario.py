"""Scenario files: what is started, which load it gets, what happens meanwhile.

A scenario is one or several stages. A stage founds a consortium of n validators, enters people, gives it the load of
its points one after the other, and stops it; with several n it is run once for each. Every mistake in a file raises
InvalidInput that names the path in it.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from p2pledger.primitives.errors import InvalidInput

SCENARIOS = Path(__file__).parent / "scenarios"

Workload = Literal["minimal", "health"]
Baseline = Literal["pysyncobj", "etcd", "postgres"]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class Fault(_Table, frozen=True):
    """Something that happens to validators during a point."""

    at_s: float
    """After the measured window has begun; negative: so long before, in the warm-up."""
    do: Literal["crash", "restart", "pause", "resume", "slow", "cut", "heal"]
    """`pause` stops the process (SIGSTOP); `slow` stops it for half of every 100 ms; `cut` takes its links away (only
    with the relays of `wan` or `relays`); `restart`, `resume` and `heal` end what came before."""
    who: str = "backup"
    """`primary`, `backup` (one that is not primary), `f` (as many backups as may fail), `all`, or a seat like `2`."""


class Point(_Table, frozen=True):
    """One load, measured in one window."""

    name: Slug
    loop: Literal["closed", "open"] = "closed"
    """`closed`: so many transactions are under way all the time, for the peak. `open`: transactions are due at given
    times, whether earlier ones are done or not."""
    in_flight: Count = 2_000
    """Of a closed loop."""
    rate: Positive | None = None
    """Transactions a second of an open loop."""
    load: Positive | None = None
    """Instead of a rate: a multiple of the throughput of `of`."""
    of: Slug | None = None
    """An earlier point of the stage; None: its first closed one."""
    arrivals: Literal["even", "poisson"] = "poisson"
    warm_up_s: NotNegative = 3.0
    duration_s: Positive = 10.0
    drain_s: NotNegative = 15.0
    """How long the last transactions may take before they count as failed."""
    workload: Workload | None = None
    """None: the stage's."""
    operations: Annotated[int, Meta(ge=1, le=64)] = 1
    """In one transaction; an access request travels alone whatever this says."""
    payload_bytes: Annotated[int, Meta(ge=0, le=4_096)] = 0
    """About how many bytes of compartments each record batch names beyond the first; 0: one compartment."""
    proofs: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The share of transactions whose receipt the client also has proven, and verifies."""
    pool_tps: Positive = 6_000.0
    """A closed loop gets at most so many signed transactions a second; more would only be signed in vain."""
    catch_up: bool = False
    """A backup is stopped before the load and started after it; measured is how it catches up."""
    faults: tuple[Fault, ...] = ()


class Wan(_Table, frozen=True):
    """Delays on the links between validators, emulated by relay processes; clients are beside their node."""

    one_way_ms: NotNegative
    jitter_ms: NotNegative = 0.0
    """Each piece of data is delayed by up to so much more, in order."""


class Stage(_Table, frozen=True, kw_only=True):
    """One consortium and what it goes through."""

    name: Slug
    n: tuple[Annotated[int, Meta(ge=1, le=16)], ...] = (4,)
    workload: Workload = "minimal"
    points: Annotated[tuple[Point, ...], Meta(min_length=1)]
    clients: Annotated[int, Meta(ge=1, le=16)] = 2
    """Load processes."""
    senders: Annotated[int, Meta(ge=1, le=32)] = 16
    """Organisations that send; founders are among them. An account has at most 1,023 transactions under way."""
    patients: Annotated[int, Meta(ge=1, le=100_000)] = 400
    zipf: Annotated[float, Meta(ge=0, le=3)] = 0.0
    """Exponent of the law by which patients are drawn; 0: all alike."""
    prefill: Annotated[int, Meta(ge=0)] = 0
    """So many transactions of the minimal workload are on the chain before the validators start (bench/history.py)."""
    wan: Wan | None = None
    relays: bool = False
    """Links go through relays even without delay, so that they can be cut."""
    settings: dict[str, str | int] = {}
    """Of every node, such as `"verify.threads" = 2`."""
    parameters: dict[str, str | int] = {}
    """Of the genesis, such as `timeout_ms = 1000`."""
    validator_cores: tuple[int, ...] = ()
    """Processors that validators, and the loops of the floor, may use; empty: all."""
    client_cores: tuple[int, ...] = ()


class Scenario(_Table, frozen=True):
    """A file."""

    name: Slug
    title: str = ""
    seed: int = 1
    stages: tuple[Stage, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    baseline_seconds: Positive = 10.0
    floor_seconds: Positive = 2.0
    """How long the verify loops run, before each loaded point and after it."""


def load(path: Path) -> Scenario:
    """The scenario in a file, or the shipped one of that name. Raises InvalidInput."""
    shipped = SCENARIOS / f"{path.stem}.toml"
    if not path.exists() and shipped.exists():
        path = shipped
    try:
        return parse(path.read_text(), str(path))
    except OSError as error:
        raise InvalidInput(f"scenario {path} cannot be read: {error.strerror}") from error


def parse(text: str, source: str) -> Scenario:
    """The scenario in a text. Raises InvalidInput."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
        scenario = msgspec.convert(data, Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"{source}: {error}") from error
    _check(scenario, source)
    return scenario


def _check(scenario: Scenario, source: str) -> None:
    if not scenario.stages and not scenario.baselines:
        raise InvalidInput(f"{source}: a scenario has at least one stage or baseline")
    _check_distinct([stage.name for stage in scenario.stages], f"{source}: stages")
    for stage in scenario.stages:
        where = f"{source}: stage {stage.name}"
        _check_distinct([point.name for point in stage.points], f"{where}: points")
        earlier: dict[str, Point] = {}
        for point in stage.points:
            _check_point(point, earlier, f"{where}, point {point.name}", bool(stage.wan or stage.relays))
            earlier[point.name] = point


def _check_distinct(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise InvalidInput(f"{what} {', '.join(names)}: each name once")


def _check_point(point: Point, earlier: dict[str, Point], where: str, has_relays: bool) -> None:
    if point.loop == "open" and (point.rate is None) == (point.load is None):
        raise InvalidInput(f"{where}: an open loop has either rate or load, here {point.rate} and {point.load}")
    if point.loop == "closed" and (point.rate or point.load):
        raise InvalidInput(f"{where}: a closed loop has in_flight, no rate or load")
    if point.load is not None:
        named = earlier.get(point.of) if point.of else next((p for p in earlier.values() if p.loop == "closed"), None)
        if named is None:
            raise InvalidInput(f"{where}: load is a multiple of {point.of or 'a closed point'}, and none stands before")
    if any(fault.do in ("cut", "heal") for fault in point.faults) and not has_relays:
        raise InvalidInput(f"{where}: links are cut at relays; the stage needs relays = true or wan")
    for fault in point.faults:
        if fault.at_s < -point.warm_up_s:
            raise InvalidInput(
                f"{where}: fault at {fault.at_s:g} s, before the load; the warm-up is {point.warm_up_s:g} s"
            )
        if fault.who not in ("primary", "backup", "f", "all") and not fault.who.isdigit():
            raise InvalidInput(f"{where}: fault of {fault.who!r}; known are primary, backup, f, all, or a seat from 0")


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The same with all durations, and the moments of faults, multiplied: for a first look. Raises InvalidInput."""
    if factor <= 0:
        raise InvalidInput(f"a time scale of {factor:g}; it must be above 0")

    def point_scaled(point: Point) -> Point:
        return msgspec.structs.replace(
            point,
            warm_up_s=point.warm_up_s * factor,
            duration_s=point.duration_s * factor,
            faults=tuple(msgspec.structs.replace(fault, at_s=fault.at_s * factor) for fault in point.faults),
        )

    return msgspec.structs.replace(
        scenario,
        floor_seconds=scenario.floor_seconds * factor,
        baseline_seconds=scenario.baseline_seconds * factor,
        stages=tuple(
            msgspec.structs.replace(
                stage, points=tuple(map(point_scaled, stage.points)), prefill=int(stage.prefill * factor)
            )
            for stage in scenario.stages
        ),
    )
