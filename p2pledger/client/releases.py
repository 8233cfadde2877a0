"""Was what was permitted also released? What validators have reported about each access of a patient (F-08).

An access is a permission. Its reader opens a record with the shares of t validators, and each of them reports how many
records it has released its shares for. Reports come after the release, so a checkpoint may lack the newest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from p2pledger.chain.validators import ValidatorSet
from p2pledger.client.times import instant
from p2pledger.health.log import LogLine
from p2pledger.health.release_log import ReleaseLine
from p2pledger.primitives.errors import Code


@dataclass(frozen=True, slots=True)
class Release:
    """What is reported of one access."""

    records: int
    """The most that one validator has released its shares for."""
    validators: int
    """How many validators report any."""
    of: int
    enough: int
    """Shares that it takes to open a record."""
    first_ms: int | None
    """Block time of the first report; the first share left before it. None: nothing is reported."""

    @property
    def is_open(self) -> bool:
        """Whether enough validators have released to open records."""
        return self.validators >= self.enough

    @property
    def verdict(self) -> str:
        """`yes`, `too few shares` or `no`."""
        return "yes" if self.is_open else "too few shares" if self.validators else "no"

    @property
    def text(self) -> str:
        """In words: whether, of how many records, by how many validators, and since when."""
        if self.first_ms is None:
            return "no"
        told = f"{self.records} record{'s' if self.records != 1 else ''}, {self.validators} of {self.of} validators"
        lacking = "" if self.is_open else f", {self.enough} needed"
        return f"{self.verdict}: {told}{lacking}, first reported {instant(self.first_ms)}"


@dataclass(frozen=True, slots=True)
class Releases:
    """What is reported of all accesses to a patient's records, and of recoveries of its keys."""

    of: int
    """Validators."""
    enough: int
    reports: Mapping[bytes, Mapping[bytes, ReleaseLine]] = field(default_factory=dict)
    """The newest by access and validator."""
    first_ms: Mapping[bytes, int] = field(default_factory=dict)

    @staticmethod
    def of_lines(lines: Sequence[ReleaseLine], validators: ValidatorSet) -> "Releases":
        """What these lines, oldest first, come to."""
        reports: dict[bytes, dict[bytes, ReleaseLine]] = {}
        first: dict[bytes, int] = {}
        for line in lines:
            reports.setdefault(line.access_id, {})[line.validator] = line
            first.setdefault(line.access_id, line.time_ms)
        return Releases(validators.n, validators.n - validators.f, reports, first)

    def about(self, access_id: bytes) -> Release:
        """What is reported of one access or recovery."""
        told = self.reports.get(access_id, {})
        records = max((line.records for line in told.values()), default=0)
        return Release(records, len(told), self.of, self.enough, self.first_ms.get(access_id))

    def of_line(self, line: LogLine) -> Release | None:
        """The same of a line of the access log; None for a denial, where there was nothing to release."""
        return self.about(line.access_id) if line.decision == Code.OK else None

    def told(self, line: LogLine) -> str:
        """In words, for a line of the access log."""
        found = self.of_line(line)
        if found is None:
            return "-"
        if not found.validators and line.basis == "owner":
            return "no: patients open their own records with their own keys"
        if line.basis == "btg" and not line.compartments:
            return "opened without the ledger, from an emergency summary"
        return found.text

    def recoveries(self, lines: Sequence[LogLine]) -> list[tuple[bytes, Release]]:
        """(id, what is reported) of everything that is no access in these lines: recoveries of old box keys (F-24)."""
        accesses = {line.access_id for line in lines}
        return [(name, self.about(name)) for name in self.reports if name not in accesses]


NOT_YET = "not yet proven"
"""Of a line that no checkpoint has yet."""
NOTHING_RELEASED = Releases(0, 0)
"""Of a log that no validator has reported about."""
