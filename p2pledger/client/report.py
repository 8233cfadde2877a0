"""An accounting of disclosures as a document to hand over, in HTML and PDF (F-14). Both say the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from p2pledger.client import words
from p2pledger.client.accounting import Accounting, Entry
from p2pledger.client.disclosures import PART2_NOTICE, PART2_NOTICE_REFERENCE
from p2pledger.client.times import day, instant
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from fpdf import FPDF

TITLE = "Accounting of disclosures"
_COLUMNS = ("Date", "Recipient", "What was disclosed", "Purpose")
_WIDTHS = (22, 28, 32, 28)
_STYLE = (
    "body{font:11pt/1.45 sans-serif;max-width:62em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%;margin:.6em 0 1.6em}"
    "th,td{border:1px solid #888;padding:.35em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#eee}dt{font-weight:bold}small{color:#444}"
)


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    says: str
    rows: Sequence[tuple[str, ...]]
    """A cell has several lines."""


def to_html(accounting: Accounting) -> bytes:
    """One page that needs nothing beside it."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(accounting))
    body = "".join(_html_section(section) for section in _sections(accounting))
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in _notes(accounting))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{TITLE}</h1><p>45 CFR 164.528</p><dl>{facts}</dl>"
        f"{body}{notes}</body></html>\n"
    ).encode()


def _html_section(section: _Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2><p>{escape(section.says)}</p>"]
    if section.rows:
        head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell).replace(chr(10), '<br>')}</td>" for cell in row) + "</tr>"
            for row in section.rows
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return "".join(parts)


def to_pdf(accounting: Accounting, font: Path | None = None) -> bytes:
    """Pages to print. The built-in font writes Latin letters; others need a TrueType font.

    Raises InvalidInput that names the first text which the font cannot write, or the font file that is none.
    """
    pdf = _document(accounting, font)
    pdf.set_font(size=18)
    pdf.write(text=f"{TITLE}\n")
    pdf.set_font(size=10)
    pdf.write(text="45 CFR 164.528\n\n")
    for name, value in _facts(accounting):
        pdf.write(text=_printable(f"{name}: {value}\n", font))
    for section in _sections(accounting):
        pdf.ln()
        pdf.set_font(size=13)
        pdf.write(text=f"{section.heading}\n")
        pdf.set_font(size=10)
        pdf.write(text=f"{section.says}\n")
        if section.rows:
            pdf.set_font(size=8)
            with pdf.table(col_widths=_WIDTHS, text_align="LEFT", first_row_as_headings=True) as table:
                for cells in (_COLUMNS, *section.rows):
                    row = table.row()
                    for cell in cells:
                        row.cell(_printable(cell, font))
    pdf.ln()
    pdf.set_font(size=8)
    for note in _notes(accounting):
        pdf.write(text=f"{note}\n")
    return bytes(pdf.output())


def _document(accounting: Accounting, font: Path | None) -> "FPDF":
    from fontTools.ttLib import TTLibError
    from fpdf import FPDF
    from fpdf.errors import FPDFException

    class Document(FPDF):
        def footer(self) -> None:
            self.set_y(-12)
            self.set_font(size=8)
            self.cell(w=0, text=f"{TITLE}, pid {accounting.pid.hex()}, page {self.page_no()}", align="C")

    pdf = Document()
    pdf.set_title(TITLE)
    pdf.set_lang("en")
    pdf.set_creation_date(datetime.fromtimestamp(accounting.made_ms // 1000, UTC))
    family = "helvetica"
    if font is not None:
        try:
            family = "given"
            for style in ("", "B"):  # headings of tables are set in bold
                pdf.add_font(family, style, str(font))
        except (OSError, ValueError, KeyError, RuntimeError, TTLibError, FPDFException) as error:
            raise InvalidInput(f"{font} is not a TrueType font that can be used: {error}") from error
    pdf.set_font(family, size=10)
    pdf.set_auto_page_break(True, margin=18)
    pdf.add_page()
    return pdf


def _printable(text: str, font: Path | None) -> str:
    if font is None:
        try:
            text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{text.strip()!r} has letters that the built-in font cannot write; say --font FILE.ttf, or use html"
            ) from error
    return text


# What it says


def _facts(accounting: Accounting) -> Iterator[tuple[str, str]]:
    yield "Patient", f"pid {accounting.pid.hex()} at {accounting.custodian}"
    yield "Custodian of the records", accounting.custodian
    yield "Period", f"{day(accounting.from_ms)} to {day(accounting.made_ms)}"
    yield "Made", instant(accounting.made_ms)
    yield (
        "Source",
        f"access log of chain {accounting.chain.hex()}, complete up to height {accounting.height}, "
        f"proven by a block of {instant(accounting.proven_ms)}",
    )


def _sections(accounting: Accounting) -> Iterator[_Section]:
    entries, exempt = accounting.entries, accounting.exempt
    says = "Of repeated disclosures to one recipient for one purpose: the first, the last and how many there were."
    none = "There were none in this period."
    yield _Section("Disclosures to be accounted for", says if entries else none, [_row(entry) for entry in entries])
    says = "These need not be accounted for, 45 CFR 164.528(a)(1); the reason stands with the purpose."
    yield _Section("Other disclosures and uses", says if exempt else none, [_row(entry) for entry in exempt])


def _row(entry: Entry) -> tuple[str, ...]:
    recipient = entry.first.recipient if entry.address is None else f"{entry.first.recipient}\n{entry.address}"
    keys = f"keys released: {entry.released}"
    what = [*entry.descriptions, *(f"- {record}" for record in entry.records), keys]
    why = [words.purpose(entry.first.line.purpose), f"basis: {entry.first.basis}", *entry.reasons]
    if entry.exemption is not None:
        why.append(f"EXEMPT: {entry.exemption}")
    if entry.consents:
        why += [f"42 CFR Part 2, {one}" for one in entry.consents]
        why.append(f"notice: {PART2_NOTICE_REFERENCE}")
    return entry.dates, recipient, "\n".join(what), "\n".join(why)


def _notes(accounting: Accounting) -> Iterator[str]:
    yield (
        "A disclosure is listed where the ledger permitted a reader of another organisation to read, whether or not "
        "keys were released. 'Keys released' is what the validators have reported of it, proven like the log; reports "
        "follow a release, so the newest may be missing. Whether a released record was looked at, nobody knows. "
        "Requests that were denied disclosed nothing and are not listed."
    )
    if accounting.has_part2:
        yield f"{PART2_NOTICE} ({PART2_NOTICE_REFERENCE})"
    yield "Each line can be verified without its maker: p2pledger audit export FILE, then p2pledger verify FILE."
