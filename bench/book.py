"""What a load process writes down about each transaction, and the plan that it is given."""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgspec

from bench.town import KINDS, Planned, packed

NEVER = -1.0
OPEN_CODE = -1
"""Of a transaction that nobody has answered."""
TARGET_CODE = -2
"""Of one that an external system has refused."""


class LanePlan(msgspec.Struct, frozen=True):
    """An organisation's session: with whose key, at which nodes, the first one preferred."""

    number: int
    seed: bytes
    nodes: tuple[tuple[str, int, bytes], ...]


class ClientPlan(msgspec.Struct, frozen=True):
    """What one load process has to do."""

    index: int
    is_open: bool
    in_flight: int
    """Of this process, in a closed loop."""
    until_s: float
    """After the start nothing new is sent."""
    drain_s: float
    proofs: float
    out: str
    seed: int
    home: str = ""
    """A member's home, for its genesis; empty for an external system."""
    lanes: tuple[LanePlan, ...] = ()
    command: tuple[str, ...] = ()
    """An external system's: it gets transactions as lines of JSON and answers in lines."""


class Item(NamedTuple):
    """One transaction of a plan."""

    number: int
    kind: int
    lane: int
    account: bytes
    nonce: int
    data: bytes
    due_s: float
    """After the start; 0 in a closed loop."""


def write_plan(path: Path, plan: ClientPlan, items: Sequence[tuple[int, Planned, float]]) -> None:
    """The plan and its transactions, in the order they are sent: (number, transaction, due)."""
    with path.open("wb") as file:
        file.write(msgspec.msgpack.encode(plan))
        for number, planned, due_s in items:
            file.write(packed(number, planned))
            file.write(msgspec.msgpack.encode(due_s))


def read_plan(path: Path) -> tuple[ClientPlan, list[Item]]:
    """What `write_plan` has written."""
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, max_buffer_size=2**31 - 1)
        plan = msgspec.convert(next(unpacker), ClientPlan)
        return plan, [Item._make((*one, next(unpacker))) for one in unpacker]


class Row(NamedTuple):
    """What became of a transaction; times in seconds after the start, NEVER where it did not happen."""

    number: int
    kind: str
    lane: int
    due_s: float
    sent_s: float
    done_s: float
    """When the client had the durable answer."""
    proven_s: float
    """When it had verified the proof, where it asked for one."""
    code: int
    """0: done; above: the ledger's code; OPEN_CODE: nobody answered."""
    retries: int
    """How often a node said that it was busy."""

    @property
    def is_done(self) -> bool:
        return self.code == 0


class Book:
    """The moments of all transactions of one process, by their place in its plan."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        count = len(items)
        self.due = array("d", [item.due_s for item in items])
        self.sent = array("d", [NEVER]) * count
        self.done = array("d", [NEVER]) * count
        self.proven = array("d", [NEVER]) * count
        self.code = array("i", [OPEN_CODE]) * count
        self.retries = array("i", [0]) * count
        self.finished = 0

    def finish(self, place: int, code: int, now_s: float) -> bool:
        """The answer; False if there was one before."""
        if self.done[place] != NEVER:
            return False
        self.done[place] = now_s
        self.code[place] = code
        self.finished += 1
        return True

    def rows(self) -> Iterator[Row]:
        """All that were sent, or were due."""
        for place, item in enumerate(self.items):
            if self.sent[place] != NEVER or self.due[place] > 0:
                yield Row(
                    item.number,
                    KINDS[item.kind],
                    item.lane,
                    round(self.due[place], 6),
                    round(self.sent[place], 6),
                    round(self.done[place], 6),
                    round(self.proven[place], 6),
                    self.code[place],
                    self.retries[place],
                )

    def write(self, path: Path) -> None:
        """One line of JSON for each."""
        with path.open("w") as file:
            file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in self.rows())


def read_rows(path: Path) -> list[Row]:
    """What `Book.write` has written."""
    with path.open() as file:
        return [Row(*json.loads(line)) for line in file]


@dataclass
class ClientReport:
    """What a load process says of itself at its end."""

    cpu_s: float
    lateness_p99_s: float
    """Open loop: how much later than due a transaction was handed to its session, at the 99th percentile."""
    ran_dry_s: float
    """Closed loop: when the last signed transaction was sent; NEVER if there were always more."""
    fault: str = ""

    def to_json(self) -> str:
        return json.dumps({"report": self.__dict__})

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ClientReport":
        return ClientReport(**value)
