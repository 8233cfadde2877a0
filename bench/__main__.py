"""`python -m bench`: measures real clusters on this machine; README.md says what each figure means."""

import argparse
import math
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import msgspec

from bench import tables
from bench.compare import MARGIN, compare
from bench.goals import judge_all
from bench.publish import publish
from bench.report import write_report
from bench.run import load_results, start
from bench.scenario import SCENARIOS, load, scaled
from bench.show import Show
from bench.validators import NAMESPACE
from p2pledger.primitives.errors import InvalidInput, P2PLedgerError

RESULTS = Path("bench-results")


def run(arguments: argparse.Namespace) -> int:
    """Run a scenario, print its tables, write its report."""
    if arguments.namespace and NAMESPACE not in os.environ:
        _enter_namespace()
    scenario = load(Path(arguments.scenario))
    if arguments.time_scale != 1:
        scenario = scaled(scenario, arguments.time_scale)
    if arguments.seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=arguments.seed)
    out = Path(arguments.out) if arguments.out else RESULTS / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if out.exists():
        raise InvalidInput(f"{out} exists already; results are never mixed")
    signal.signal(signal.SIGTERM, _interrupt)  # ends as Ctrl-C does: everything that was started is stopped
    results = start(scenario, out, Show(), tuple(shlex.split(arguments.external or "")), arguments.minutes)
    report = write_report(out)
    for table in (tables.caliper(results.points), tables.latencies(results.points), tables.resources(results.points)):
        print(tables.plain(table))
    measured = [verdict for verdict in judge_all(results.points) if verdict.value is not None]
    if measured:
        print(tables.plain(tables.goals(measured)))
    for text in results.missing:
        print(f"left out: {text}")
    for text in results.failed:
        print(f"broken off: {text}")
    print(report)
    return 1 if results.failed else 0


def _enter_namespace() -> None:
    """Become the same command in a network namespace of its own, with nothing but loopback. Raises InvalidInput."""
    if os.geteuid() != 0:
        raise InvalidInput("--namespace needs root: only root makes network namespaces and leads packets into a queue")
    for program in ("unshare", "ip", "iptables"):
        if shutil.which(program) is None:
            raise InvalidInput(f"--namespace needs {program}: apt-get install util-linux iproute2 iptables")
    again = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-m", "bench", *sys.argv[1:]]
    os.execvpe("unshare", ["unshare", "-n", *again], {**os.environ, NAMESPACE: "1"})


def _interrupt(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a run again."""
    print(write_report(Path(arguments.folder)))
    return 0


def publish_run(arguments: argparse.Namespace) -> int:
    """Put a run's figures and plots into docs/."""
    print(publish(Path(arguments.folder), Path(arguments.root)))
    return 0


def judge_run(arguments: argparse.Namespace) -> int:
    """The goals table of a run; status 1 if a gate is missed."""
    verdicts = judge_all(load_results(Path(arguments.folder)).points)
    print(tables.plain(tables.goals(verdicts)))
    return 1 if any(verdict.word == "missed" for verdict in verdicts) else 0


def compare_runs(arguments: argparse.Namespace) -> int:
    """One line for each figure that two runs share; status 1 if any is worse."""
    lines, single = compare(load_results(Path(arguments.before)).points, load_results(Path(arguments.after)).points)
    for line in lines:
        print(line.text(arguments.margin))
    for name in single:
        print(f"alone   {name} is in one run only")
    words = [line.verdict(arguments.margin) for line in lines]
    print(f"{words.count('better')} better, {words.count('same')} the same, {words.count('worse')} worse")
    return 1 if "worse" in words or not words else 0


def list_scenarios(arguments: argparse.Namespace) -> int:
    """The scenarios that come with the source."""
    for path in sorted(SCENARIOS.glob("*.toml")):
        scenario = load(path)
        seconds = sum(
            (point.warm_up_s + point.duration_s) * len(stage.n) for stage in scenario.stages for point in stage.points
        )
        print(f"{path.stem:12} {scenario.title} ({seconds:.0f} s of load)")
    return 0


def main() -> int:
    """Parse, dispatch; failures are one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run a scenario, by path or by name")
    command.add_argument("scenario")
    command.add_argument("--out", help=f"a new folder for the results; default {RESULTS}/NAME-TIME")
    command.add_argument("--seed", type=int, help="instead of the scenario's")
    command.add_argument("--time-scale", type=float, default=1.0, help="multiplies all durations and prefills")
    command.add_argument("--minutes", type=float, default=math.inf, help="no stage begins after so many")
    command.add_argument("--external", metavar="COMMAND", help="also load the system behind this command; README.md")
    command.add_argument("--namespace", action="store_true", help="delay real packets; needs root; README.md")
    command.set_defaults(do=run)
    command = commands.add_parser("report", help="write tables and plots of a run again")
    command.add_argument("folder")
    command.set_defaults(do=report)
    command = commands.add_parser("goals", help="judge a run by the goals; status 1 if a gate is missed")
    command.add_argument("folder")
    command.set_defaults(do=judge_run)
    command = commands.add_parser("publish", help="put a run's figures and plots into docs/benchmarks.md")
    command.add_argument("folder")
    command.add_argument("--root", default=".", help="the checkout; default: the current folder")
    command.set_defaults(do=publish_run)
    command = commands.add_parser("compare", help="judge a run by an earlier one, by ratio")
    command.add_argument("before")
    command.add_argument("after")
    command.add_argument("--margin", type=float, default=MARGIN, help="ratios this close to 1 are the same")
    command.set_defaults(do=compare_runs)
    command = commands.add_parser("list", help="the scenarios that come with the source")
    command.set_defaults(do=list_scenarios)
    arguments = parser.parse_args()
    try:
        return int(arguments.do(arguments))
    except (P2PLedgerError, OSError, msgspec.ValidationError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput) else 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything that was started is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
