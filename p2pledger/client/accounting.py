"""The accounting of disclosures that 45 CFR 164.528 gives a patient a right to, from a proven access log (F-14).

What is in it, and what is not, is decided here; `client.report` writes it down. A permission counts as a disclosure,
because a reader can have the records from elsewhere; what validators report of released keys stands beside it. Denials
disclosed nothing. What is exempt is listed apart
and flagged, because a patient may want to see it all the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pledger.client.disclosures import Exemption, Named
from p2pledger.client.times import day, years_before
from p2pledger.primitives.errors import InvalidInput

YEARS_BACK = 6
ORAL_MS_MAX = 30 * 86_400_000
"""A suspension that an agency asked for orally ends after 30 days, 164.528(a)(2)(ii)."""
_SUSPENSION = "p2pledger/accounting-suspension/1"
_TEXT_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Suspension:
    """An agency's statement that an accounting would impede its activities, 164.528(a)(2)."""

    agency: bytes
    """The organisation whose disclosures are left out."""
    stated_ms: int
    until_ms: int
    is_oral: bool
    document: str
    """Where the custodian keeps the statement."""

    @staticmethod
    def load(text: str) -> "Suspension":
        """The statement in a JSON text; raises InvalidInput naming the rule that it breaks."""
        try:
            parts: Mapping[str, Any] = json.loads(text)
            if parts["format"] != _SUSPENSION:
                raise InvalidInput(f"not a suspension: format {parts['format']!r}, this version reads {_SUSPENSION!r}")
            agency, document = bytes.fromhex(parts["agency"]), parts["document"]
            stated, until, is_oral = parts["stated_ms"], parts["until_ms"], parts["oral"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"not a suspension of an accounting: {error}") from error
        if type(stated) is not int or type(until) is not int or type(is_oral) is not bool or len(agency) != 16:
            raise InvalidInput("a suspension has an agency of 16 bytes, stated_ms and until_ms, and says if it is oral")
        if not isinstance(document, str) or not 0 < len(document) <= _TEXT_MAX:
            raise InvalidInput("a suspension names the document that the custodian keeps of it (164.528(a)(2)(i))")
        if not stated < until:
            raise InvalidInput(f"a suspension from {stated} ms to {until} ms: it names for how long (164.528(a)(2)(i))")
        if is_oral and until - stated > ORAL_MS_MAX:
            days = (until - stated) / 86_400_000
            raise InvalidInput(f"an oral suspension of {days:g} days; at most 30 without a writing (164.528(a)(2)(ii))")
        return Suspension(agency, stated, until, is_oral, document)

    def holds(self, row: Named, now_ms: int) -> bool:
        """Whether this line must not be accounted for now."""
        return row.line.organisation == self.agency and self.stated_ms <= now_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class Entry:
    """Disclosures to one recipient for one purpose: one, or the summary of several, 164.528(b)(2) and (3)."""

    rows: tuple[Named, ...]
    """Oldest first."""
    address: str | None
    exemption: Exemption | None

    @property
    def first(self) -> Named:
        return self.rows[0]

    @property
    def dates(self) -> str:
        """The date; of several the first and the last, and how many there were."""
        first, last = day(self.rows[0].line.time_ms), day(self.rows[-1].line.time_ms)
        return first if len(self.rows) == 1 else f"{first} to {last}, {len(self.rows)} times"

    @property
    def descriptions(self) -> tuple[str, ...]:
        """What was disclosed, each description once."""
        return tuple(dict.fromkeys(row.description for row in self.rows))

    @property
    def records(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record for row in self.rows for record in row.records))

    @property
    def released(self) -> str:
        """Whether keys were released; of several disclosures for how many."""
        if len(self.rows) == 1:
            return self.first.released
        found = sum(row.release is not None and row.release.is_open for row in self.rows)
        return f"for {found} of {len(self.rows)} accesses"

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.reason for row in self.rows if row.reason is not None))

    @property
    def consents(self) -> tuple[str, ...]:
        """References of the consents under which records of 42 CFR Part 2 went out."""
        found = (row.consent_reference or row.basis for row in self.rows if row.is_part2)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Accounting:
    """One patient's accounting over a period."""

    pid: bytes
    custodian: str
    chain: bytes
    height: int
    """Up to which the log is proven complete."""
    proven_ms: int
    made_ms: int
    from_ms: int
    entries: tuple[Entry, ...]
    """What must be accounted for."""
    exempt: tuple[Entry, ...]

    @property
    def has_part2(self) -> bool:
        return any(entry.consents for entry in (*self.entries, *self.exempt))


@dataclass(frozen=True, slots=True)
class Proven:
    """The log that an accounting is made from."""

    pid: bytes
    custodian: str
    chain: bytes
    height: int
    proven_ms: int
    rows: Sequence[Named] = field(repr=False)


def account(
    proven: Proven,
    made_ms: int,
    *,
    from_ms: int | None = None,
    addresses: Mapping[str, str] | None = None,
    suspensions: Sequence[Suspension] = (),
) -> Accounting:
    """The accounting as of `made_ms`; without `from_ms` six years back. Raises InvalidInput for an empty period."""
    start = years_before(made_ms, YEARS_BACK) if from_ms is None else from_ms
    if start >= made_ms:
        raise InvalidInput(f"an accounting from {start} ms, made at {made_ms} ms, has no period")
    rows = [
        row
        for row in proven.rows
        if row.is_allowed
        and start <= row.line.time_ms <= made_ms
        and not any(suspension.holds(row, made_ms) for suspension in suspensions)
    ]
    entries = _summed(rows, addresses or {})
    return Accounting(
        pid=proven.pid,
        custodian=proven.custodian,
        chain=proven.chain,
        height=proven.height,
        proven_ms=proven.proven_ms,
        made_ms=made_ms,
        from_ms=start,
        entries=tuple(entry for entry in entries if entry.exemption is None),
        exempt=tuple(entry for entry in entries if entry.exemption is not None),
    )


def _summed(rows: Sequence[Named], addresses: Mapping[str, str]) -> list[Entry]:
    """Repeated disclosures to one recipient for one purpose on one basis as one entry, in the order of the first."""
    groups: dict[tuple[Any, ...], list[Named]] = {}
    for row in rows:
        groups.setdefault((row.recipient, row.line.purpose, row.exemption, row.is_part2), []).append(row)
    return [Entry(tuple(group), addresses.get(group[0].recipient), group[0].exemption) for group in groups.values()]
