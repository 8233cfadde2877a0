"""`p2pledger sim`: consortia in a seed. Runs many, replays one, shrinks what failed."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from rich.progress import Progress

    from p2pledger.sim.plan import Plan
    from p2pledger.sim.runs import Kind, Tally

GROUPS = {
    "agreement": ("view", "new view", "tip", "primary_unfair", "proposal", "blocks_synced", "sync_", "equivocation"),
    "crashes": ("crash", "restart", "failed write", "disk", "stalled", "rollback"),
    "network": ("partition", "one-way", "isolated", "disconnect", "message_rejected"),
    "liars": ("lie of",),
    "clients": ("client", "answer"),
    "clocks": ("clock",),
}


@click.group()
def sim() -> None:
    """Run simulated consortia through faults and liars.

    No sockets, no clock, no keys of yours: whole clusters in one process, the same for the same seed on every machine.
    """


def _worlds(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which worlds a seed stands for."""
    from p2pledger.sim.plan import PROFILES
    from p2pledger.sim.runs import LAYERS

    options = [
        click.option("--nodes", default=4, show_default=True, type=click.IntRange(1, 50), help="Validators."),
        click.option("--byzantine", type=click.IntRange(0), help="Liars among them. [default: up to f, by chance]"),
        click.option("--profile", default="swarm", show_default=True, type=click.Choice(PROFILES)),
        click.option("--layer", default="engine", show_default=True, type=click.Choice(LAYERS), help="What is real."),
        click.option("--heights", default=20, show_default=True, type=click.IntRange(1), help="To be reached."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@sim.command()
@_worlds
@click.option("--seeds", default=100, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0), help="The first seed.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--messages", type=click.IntRange(1), help="Stop early, once so many messages were simulated.")
@click.option("--journal", type=click.Path(path_type=Path), help="Remember finished chunks here, and go on from them.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the summary to this JSON file, too.")
@with_session
def run(
    session: Session,
    nodes: int,
    byzantine: int | None,
    profile: str,
    layer: str,
    heights: int,
    seeds: int,
    first: int,
    jobs: int,
    messages: int | None,
    journal: Path | None,
    report: Path | None,
) -> None:
    """Run many seeds and show what they reached; status 1 if one breaks an invariant.

    Layers: `engine` is everything but sockets, disks and tasks; `core` replicas alone, several times as fast; `twins`
    drawn scenarios in which up to f replicas exist twice; `node` the real tasks over LMDB in virtual time.
    """
    from p2pledger.sim.plan import draw
    from p2pledger.sim.runs import Kind, Tally, run_many

    if layer != "engine" and (byzantine is not None or profile != "swarm"):
        raise InvalidInput(f"--byzantine and --profile are of layer `engine`; {layer!r} draws its own liars and faults")
    draw(first, nodes, profile, heights, byzantine)  # refuses what makes no sense before any worker starts
    kind = Kind(nodes, profile, byzantine, heights, layer)
    with _progress(seeds) as bar:

        def advance(tally: Tally) -> None:
            bar.update(bar.task_ids[0], advance=tally.seeds)
            for text in tally.failed.values():
                say(text)

        tally = run_many(
            kind,
            range(first, first + seeds),
            jobs,
            journal,
            advance,
            until=lambda total: messages is not None and total.messages >= messages,
        )
    summary = {
        "kind": kind.name,
        "seeds": tally.seeds,
        "failed": len(tally.failed),
        "distinct schedules": len(tally.traces),
        "messages": tally.messages,
        "heights": tally.heights,
        "simulated hours": round(tally.simulated_ms / 3_600_000, 2),
        "messages per core second": round(tally.messages_per_cpu_s),
        "cluster hours per core hour": round(tally.cluster_hours_per_hour, 1),
    }
    situations = _situations(tally.reached)
    if report:
        everything = summary | {"situations": dict(sorted(tally.reached.items())), "failures": tally.failed}
        report.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    if session.form == "table":
        session.show(summary)
        click.echo()
        session.show_all(situations, ["kind", "situation", "times"])
    else:
        session.show(summary | {"situations": dict(sorted(tally.reached.items()))})
    if tally.failed:
        raise click.exceptions.Exit(1)


def _progress(total: int) -> "Progress":
    """A bar on stderr where somebody watches, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    progress.add_task("seeds", total=total)
    return progress


def _situations(reached: Counter[str]) -> list[dict[str, object]]:
    """What was reached, sorted into kinds."""
    rows: list[dict[str, object]] = []
    for name, times in sorted(reached.items()):
        kind = next((group for group, starts in GROUPS.items() if name.startswith(starts)), "other")
        rows.append({"kind": kind, "situation": name, "times": times})
    return sorted(rows, key=lambda row: str(row["kind"]))


@sim.command()
@click.argument("seed")
@_worlds
@click.option("--trace", is_flag=True, help="Print every event (layers `engine` and `node`).")
@with_session
def replay(
    session: Session,
    seed: str,
    nodes: int,
    byzantine: int | None,
    profile: str,
    layer: str,
    heights: int,
    trace: bool,
) -> None:
    """Run one SEED again, or the scenario file of that name; status 1 if it breaks an invariant."""
    from p2pledger.sim.campaign import run_plan
    from p2pledger.sim.observer import InvariantBroken
    from p2pledger.sim.runs import Kind, Tally, run_chunk

    if layer != "engine":
        if not seed.isdecimal():
            raise InvalidInput(f"{seed!r} is no seed (a number); scenario files are of layer `engine`")
        kind, tally = Kind(nodes, profile, byzantine, heights, layer), Tally()
        if layer == "node" and trace:
            _replay_node(kind, int(seed), tally)
        else:
            tally = run_chunk(kind, [int(seed)])
        for text in tally.failed.values():
            say(text)
            raise click.exceptions.Exit(1)
        row = {"seed": int(seed), "height": tally.heights, "messages": tally.messages, "trace": min(tally.traces)}
        session.show(row)
        return
    plan = _plan(seed, nodes, byzantine, profile, heights)
    log: list[str] | None = [] if trace else None
    failure = None
    try:
        result = run_plan(plan, log=log)
    except InvariantBroken as broken:
        failure = broken
    for line in log or ():
        click.echo(line)
    if failure is not None:
        say(str(failure))
        raise click.exceptions.Exit(1)
    session.show(
        {
            "seed": plan.seed,
            "heights": result.heights,
            "messages": result.messages,
            "simulated s": result.simulated_ms / 1_000,
            "liars": ", ".join(f"{index}: {name}" for index, name in sorted(plan.liars.items())),
            "trace": result.trace,
        }
    )


def _replay_node(kind: "Kind", seed: int, tally: "Tally") -> None:
    """A schedule of whole nodes with every event, also if it fails."""
    from p2pledger.sim.observer import InvariantBroken
    from p2pledger.sim.runs import run_node

    events: list[str] = []
    try:
        run_node(kind, seed, tally, events)
    except InvariantBroken as broken:
        tally.failed[seed] = str(broken)
    click.echo("\n".join(events))


@sim.command()
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(4, 10), help="Validators; f exist twice.")
@click.option("--views", default=2, show_default=True, type=click.IntRange(1, 8), help="Of each scenario.")
@click.option("--phases", default=1, show_default=True, type=click.IntRange(1, 2), help="Partitions in each view.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0), help="The place to begin at.")
@click.option("--scenarios", type=click.IntRange(1), help="How many. [default: all that are left]")
@with_session
def twins(session: Session, nodes: int, views: int, phases: int, first: int, scenarios: int | None) -> None:
    """Run all scenarios of so many views, up to symmetry, in which f validators exist twice."""
    from itertools import islice

    from p2pledger.sim.observer import InvariantBroken
    from p2pledger.sim.runs import Tally, run_twins
    from p2pledger.sim.twins import count, enumerate_scenarios

    f = (nodes - 1) // 3
    left = max(0, count(nodes, f, views, phases) - first)
    wanted = left if scenarios is None else min(scenarios, left)
    tally = Tally()
    with _progress(wanted) as bar:
        every = enumerate_scenarios(nodes, f, views, phases)
        for place, scenario in enumerate(islice(every, first, first + wanted), first):
            try:
                run_twins(scenario, tally)
            except InvariantBroken as broken:
                same = f"--nodes {nodes} --views {views} --phases {phases} --first {place} --scenarios 1"
                say(f"{broken}\nreplay with: p2pledger sim twins {same}")
                raise click.exceptions.Exit(1) from broken
            bar.update(bar.task_ids[0], advance=1)
    session.show({"scenarios": wanted, "of": left + first, "failed": 0, "messages": tally.messages})


@sim.command()
@click.argument("seed")
@_worlds
@click.option("--attempts", default=150, show_default=True, type=click.IntRange(1), help="Runs to spend.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Where to write it. [default: stdout]")
@with_session
def shrink(
    session: Session,
    seed: str,
    nodes: int,
    byzantine: int | None,
    profile: str,
    layer: str,
    heights: int,
    attempts: int,
    target: Path | None,
) -> None:
    """Find a smaller plan that fails like SEED and save it as a scenario file."""
    from p2pledger.sim.shrink import shrunk

    if layer != "engine":
        raise InvalidInput(f"layer {layer!r} has no plans to shrink; only `engine` has")
    smaller = shrunk(_plan(seed, nodes, byzantine, profile, heights), attempts)
    if target is None:
        click.echo(smaller.to_json(), nl=False)
    else:
        target.write_text(smaller.to_json(), encoding="utf-8")
        say(f"written: {target}; run it with: p2pledger sim replay {target}")


def _plan(seed: str, nodes: int, byzantine: int | None, profile: str, heights: int) -> "Plan":
    """The plan of a seed, or of a scenario file."""
    from p2pledger.sim.plan import Plan, draw

    if seed.isdecimal():
        return draw(int(seed), nodes, profile, heights, byzantine)
    try:
        return Plan.from_json(Path(seed).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{seed!r} is neither a seed (a number) nor a readable scenario file: {error}") from error
