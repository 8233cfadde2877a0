"""The access log as CSV for spreadsheets: a row for each decision, with names and what could be opened."""

import csv
import io
from collections.abc import Sequence

from p2pledger.client import words
from p2pledger.client.disclosures import PART2_NOTICE, PART2_NOTICE_REFERENCE, Named
from p2pledger.client.times import instant

COLUMNS = (
    *("line", "when", "recipient", "organisation", "person", "key", "purpose", "decision", "basis", "description"),
    *("records", "reason", "labels", "exempt", "consent", "part2_notice", "height", "transaction", "access"),
    *("released", "released_records", "released_by", "first_reported"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(rows: Sequence[Named]) -> bytes:
    """UTF-8, RFC 4180. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in _values(row)] for row in rows)
    return text.getvalue().encode()


def _values(row: Named) -> list[object]:
    line = row.line
    is_part2 = row.is_part2 and row.is_allowed
    return [
        line.sequence,
        instant(line.time_ms),
        row.recipient,
        line.organisation.hex(),
        None if line.actor is None else line.actor.hex(),
        line.reader.hex(),
        line.purpose,
        words.decision(line.decision),
        row.basis,
        row.description,
        "; ".join(row.records) or line.n_records,
        row.reason,
        " ".join(row.labels),
        (row.exemption or "no") if row.is_allowed else None,
        row.consent_reference,
        f"{PART2_NOTICE} ({PART2_NOTICE_REFERENCE})" if is_part2 else None,
        line.height,
        line.transaction.hex(),
        line.access_id.hex(),
        *_released(row),
    ]


def _released(row: Named) -> list[object]:
    """Whether, of how many records, by how many validators, and when the first of them said so."""
    found = row.release
    if found is None:
        return [None] * 4
    if found.first_ms is None:
        return [row.released, 0, f"0 of {found.of}", None]
    by = f"{found.validators} of {found.of}"
    return [found.verdict, found.records, by, instant(found.first_ms)]


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
