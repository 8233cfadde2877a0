"""`python -m bench.micro release [--rounds 10]`: what a released record costs, against its bounds.

Two kinds of figures. The arithmetic of one record, for 4 and 16 validators, is the median processor time of many calls
in one thread. The rest is from a ward with four real validators: processor time of whole processes, and wall time,
which is worth something only on a quiet machine and is printed with its load.
"""

import argparse
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.micro.shares import Row, Table, record_row, record_sealing_rate
from bench.micro.ward import Allergies, Opened, Released, open_ward

RECORDS = 182


@dataclass(frozen=True, slots=True)
class Bound:
    """What is wanted of one figure."""

    name: str
    unit: str
    is_met: Callable[[float, float], bool]
    """le or ge."""
    bound: float

    def line(self, value: float) -> str:
        """A row of the table."""
        sign = "≤" if self.is_met is operator.le else "≥"
        word = "met" if self.is_met(value, self.bound) else "missed"
        return f"| {self.name} | {value:,.2f} {self.unit} | {sign} {self.bound:g} {self.unit} | {word} |"


CAPSULE = Bound("capsule", "B", operator.le, 200)
SEALING = Bound("sealing of a record of 1 MiB, the slower cipher", "MB/s", operator.ge, 50)
READER_4 = Bound("reader, processor time a record, n = 4", "ms", operator.le, 3)
READER_16 = Bound("reader, processor time a record, n = 16", "ms", operator.le, 10)
SHARE = Bound("validator, processor time of a share", "ms", operator.le, 1.2)
VALIDATOR = Bound("validator, processor time of its whole process a record", "ms", operator.le, 1.2)
CHART_CPU = Bound("chart of 182 records, processor time of all five processes over two processors", "s", operator.le, 1)
CHART_WALL = Bound("chart of 182 records, wall time", "s", operator.le, 1)
FINALITY = Bound("7 records: finality of the request ÷ shares and opening, wall time", "", operator.ge, 1)
PROCESSORS = 2
"""On which four validators and the reader are to open a chart in time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that is judged."""

    four: Row
    sixteen: Row
    sealing: float
    released: Released
    opened: Opened
    allergies: Allergies


def judged(figures: Figures) -> Iterable[tuple[Bound, float]]:
    """Each bound with its figure."""
    four, sixteen, opened, allergies = figures.four, figures.sixteen, figures.opened, figures.allergies
    yield CAPSULE, four["capsule, bytes"]
    yield SEALING, figures.sealing
    yield SHARE, four["check and release (validator)"] / 1e3
    yield VALIDATOR, figures.released.whole_s * 1e3
    yield READER_4, four["open (reader)"] / 1e3
    yield READER_16, sixteen["open (reader)"] / 1e3
    yield CHART_CPU, (opened.reader_s + opened.validators_s) / PROCESSORS
    yield CHART_WALL, opened.wall_s
    yield FINALITY, allergies.finality_s / allergies.opening_s


def report(figures: Figures) -> list[str]:
    """The table, and what its figures are made of."""
    released, opened, allergies = figures.released, figures.opened, figures.allergies
    return [
        "| figure | measured | bound | |",
        "|---|---|---|---|",
        *(bound.line(value) for bound, value in judged(figures)),
        "",
        f"a record at a validator: {released.whole_s * 1e3:.2f} ms, of it the share {released.shares_s * 1e3:.2f} ms",
        f"a chart: four validators {opened.validators_s:.2f} s, reader {opened.reader_s:.2f} s of processor time",
        f"7 records: receipt after {allergies.finality_s * 1e3:.0f} ms, open {allergies.opening_s * 1e3:.0f} ms later",
    ]


async def _in_the_ward(folder: Path, rounds: int) -> tuple[Released, Opened, Allergies]:
    async with open_ward(folder) as ward:
        return await ward.release(rounds), await ward.chart(rounds), await ward.allergies(max(10, rounds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; the load goes with it."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro release", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds: int = parser.parse_args(arguments).rounds
    before = os.getloadavg()[0]
    four, sixteen = [record_row(*Table(n).long_term(), 50) for n in (4, 16)]
    with tempfile.TemporaryDirectory() as folder:
        found = trio.run(_in_the_ward, Path(folder) / "consortium", rounds)
    lines = report(Figures(four, sixteen, record_sealing_rate(), *found))
    print("\n".join([*lines, f"{os.cpu_count()} processors, load {before:.1f} before, {rounds} rounds"]))
