"""F-14: the accounting of disclosures of 45 CFR 164.528, and F-08: logs as tables, opened with cards and slips."""

import csv
import io
import json
import re
import zlib
from html import unescape
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.client.accounting import ORAL_MS_MAX, Accounting, Proven, Suspension, account
from p2pledger.client.disclosures import PART2_NOTICE, Named, Slip
from p2pledger.client.report import to_html, to_pdf
from p2pledger.client.sheet import COLUMNS, to_csv
from p2pledger.client.times import years_before
from p2pledger.health.commitments import commit
from p2pledger.primitives.errors import Code, InvalidInput
from tests.unit.client.papers import (
    CHAIN,
    CUSTODIAN,
    NOON,
    PART,
    REASON,
    RECORDS,
    SALT,
    card,
    consent,
    line,
    rows_of,
    slip,
    with_reason,
)
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import PID

DAY = 86_400_000
AGENCY = id16("Amt")


def accounted(*rows: Named, made_ms: int = NOON + 10 * DAY, **options: Any) -> Accounting:
    return account(Proven(PID, "Berg Hospital", CHAIN, 40, NOON, rows), made_ms, **options)


def legal(access: str = "access", **changes: Any) -> Any:
    """A disclosure that must be accounted for: to an agency, for legal proceedings, by the default policy."""
    given = {"organisation": AGENCY, "purpose": "HLEGAL", "basis": "policy", "consent_id": None, **changes}
    return line(access, **given)


# What is in it


def test_an_entry_says_date_recipient_what_and_why() -> None:
    """164.528(b)(2): date, name and address, brief description, purpose."""
    found = accounted(*rows_of(legal(), names={PART: "laboratory"}), addresses={"Amt Agency": "1 Main Street"})
    (entry,) = found.entries
    assert (entry.dates, entry.first.recipient, entry.address) == ("2026-09-21", "Amt Agency", "1 Main Street")
    assert entry.descriptions == ("2 records: laboratory",)
    assert entry.first.line.purpose == "HLEGAL"


@pytest.mark.parametrize(
    ("changes", "exemption"),
    [
        ({"purpose": "HLEGAL"}, None),
        ({"purpose": "PUBHLTH"}, None),
        ({"purpose": "HRESCH"}, None),
        ({"purpose": "CLINTRL"}, None),
        ({"purpose": "DONAT"}, None),
        ({"purpose": "TREAT"}, "treatment, payment or operations"),
        ({"purpose": "BTG", "basis": "btg"}, "treatment, payment or operations"),
        ({"purpose": "HPAYMT"}, "treatment, payment or operations"),
        ({"purpose": "HQUALIMP"}, "treatment, payment or operations"),
        ({"purpose": "HRESCH", "basis": "consent", "consent_id": id16("consent")}, "authorised"),
        ({"purpose": "PATRQT", "basis": "owner"}, "individual"),
        ({"purpose": "FAMRQT"}, "individual"),
        ({"purpose": "HLEGAL", "organisation": CUSTODIAN}, "use by the custodian itself"),
    ],
)
def test_what_is_exempt_is_flagged(changes: Any, exemption: str | None) -> None:
    """164.528(a)(1): the patient's own, treatment, payment, operations, authorised; a use is no disclosure."""
    (row,) = rows_of(legal(**changes))
    assert row.exemption == exemption
    found = accounted(row)
    assert (len(found.entries), len(found.exempt)) == ((1, 0) if exemption is None else (0, 1))


def test_denials_disclosed_nothing() -> None:
    found = accounted(*rows_of(legal(decision=int(Code.E_NO_CONSENT), basis="none")))
    assert (found.entries, found.exempt) == ((), ())


def test_repeated_disclosures_are_summed_up() -> None:
    """164.528(b)(3): for one recipient and purpose the first, how many, and the last."""
    rows = rows_of(*(legal(f"access {n}", time_ms=NOON + n * DAY) for n in range(5)), legal("x", purpose="PUBHLTH"))
    several, single = accounted(*rows).entries
    assert several.dates == "2026-09-21 to 2026-09-25, 5 times"
    assert single.dates == "2026-09-21"


def test_it_goes_six_years_back_unless_less_is_asked_for() -> None:
    made = NOON + 10 * DAY
    start = years_before(made, 6)
    rows = rows_of(legal("old", time_ms=start - 1), legal("in", time_ms=start), legal("new", time_ms=made))
    (entry,) = accounted(*rows).entries
    assert [row.line.access_id for row in entry.rows] == [id16("in"), id16("new")]
    (entry,) = accounted(*rows, from_ms=made - DAY).entries
    assert [row.line.access_id for row in entry.rows] == [id16("new")]
    with pytest.raises(InvalidInput, match="has no period"):
        accounted(*rows, from_ms=made)


def test_six_years_before_a_leap_day_is_the_day_after_it() -> None:
    leap = 1_835_395_200_000  # 29 February 2028
    assert years_before(leap, 6) == 1_646_092_800_000  # 1 March 2022
    assert years_before(leap, 4) == 1_709_164_800_000  # 29 February 2024


# Suspension


def statement(**changes: Any) -> str:
    parts = {
        "format": "p2pledger/accounting-suspension/1",
        "agency": AGENCY.hex(),
        "stated_ms": NOON,
        "until_ms": NOON + ORAL_MS_MAX,
        "oral": True,
        "document": "file 17/2026",
    }
    return json.dumps({**parts, **changes})


def test_a_suspension_keeps_an_agency_s_disclosures_out_while_it_holds() -> None:
    """164.528(a)(2): neither entry nor hint; others' stay, and afterwards everything is there."""
    rows = rows_of(legal(), legal("other", organisation=id16("Tal"), purpose="PUBHLTH"))
    held = [Suspension.load(statement())]
    during = accounted(*rows, suspensions=held)
    assert [entry.first.recipient for entry in during.entries] == ["Tal Clinic"]
    assert b"Amt" not in to_html(during) and b"uspen" not in to_html(during)
    after = accounted(*rows, made_ms=NOON + ORAL_MS_MAX, suspensions=held)
    assert len(after.entries) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"until_ms": NOON + ORAL_MS_MAX + 1}, r"at most 30 without a writing \(164.528\(a\)\(2\)\(ii\)\)"),
        ({"until_ms": NOON}, "names for how long"),
        ({"document": ""}, "names the document"),
        ({"oral": "yes"}, "says if it is oral"),
        ({"agency": "a1"}, "an agency of 16 bytes"),
        ({"format": "letter"}, "format 'letter'"),
    ],
)
def test_a_suspension_against_the_rules_is_refused(changes: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Suspension.load(statement(**changes))


def test_a_written_suspension_may_last_longer() -> None:
    assert Suspension.load(statement(oral=False, until_ms=NOON + 90 * DAY)).until_ms == NOON + 90 * DAY


def test_a_suspension_that_is_no_json_is_refused() -> None:
    for text in ("", "[]", '{"format": 1}', "\ud800"):
        with pytest.raises(InvalidInput, match="suspension"):
            Suspension.load(text)


# Opening


def test_slip_and_reason_open_the_line() -> None:
    """F-08: the record list and the reason, from their commitments."""
    (row,) = rows_of(with_reason(), slips=[Slip.load(slip(reason=REASON).dump())])
    assert row.records == tuple(map(str, RECORDS)) and row.reason == REASON


def test_a_slip_that_opens_something_else_is_refused() -> None:
    other = Slip(id16("access"), hash32("other salt"), RECORDS, None)
    with pytest.raises(InvalidInput, match="lists other records"):
        rows_of(line(), slips=[other])
    with pytest.raises(InvalidInput, match="another reason"):
        rows_of(with_reason(), slips=[slip(reason="because")])
    with pytest.raises(InvalidInput, match="another reason"):
        rows_of(with_reason(), slips=[slip()])
    for text in ("", "{}", slip().dump().replace("slip/1", "slip/2"), slip().dump().replace("/4", "/four")):
        with pytest.raises(InvalidInput, match="not an access slip"):
            Slip.load(text)


def test_a_card_that_is_not_the_document_on_the_chain_is_refused() -> None:
    """Names that somebody else gave the handles are not taken over."""
    genuine = consent()
    (row,) = rows_of(line(), cards=[card()], consents=[genuine])
    assert row.description == "2 records: condition/ETH+R"
    forged = replace(genuine, terms=replace(genuine.terms, doc_commit=hash32("another document")))
    with pytest.raises(InvalidInput, match=r"names no consent of this patient"):
        rows_of(line(), cards=[card()])
    with pytest.raises(InvalidInput, match="not the document of consent"):
        rows_of(line(), cards=[card()], consents=[forged])


# Part 2


def test_part_2_disclosures_carry_consent_copy_and_notice_in_every_form() -> None:
    """42 CFR 2.32: reference of the consent copy, and the notice; where no Part 2 label is known there is neither."""
    genuine = consent()
    (row,) = rows_of(line(), cards=[card()], consents=[genuine])
    assert row.is_part2 and row.consent_reference == (
        f"consent {id16('consent').hex()}, document {card().commitment.hex()}"
    )
    page = unescape(to_html(accounted(row)).decode())
    assert row.consent_reference in page and PART2_NOTICE in page
    (cells,) = csv.DictReader(io.StringIO(to_csv([row]).decode()))
    assert cells["consent"] == row.consent_reference and PART2_NOTICE in cells["part2_notice"]
    (plain,) = rows_of(line(), names={PART: "condition"})
    assert not plain.is_part2 and PART2_NOTICE not in to_html(accounted(plain)).decode()


# Documents


def test_the_page_shows_what_was_accounted_and_no_markup_of_others() -> None:
    """A name with markup in it is text."""
    rows = rows_of(legal(), line("treated"))
    evil = accounted(*rows, addresses={"Amt Agency": "<script>alert(1)</script>"})
    page = to_html(evil).decode()
    assert "<script>" not in page and "&lt;script&gt;" in page
    shown = re.sub(r"<[^>]+>", " ", unescape(page))
    for words in ("Amt Agency", "2026-09-21", "legal proceedings (HLEGAL)", "EXEMPT: treatment", "45 CFR 164.528"):
        assert words in shown


def test_the_pdf_is_one_with_the_same_text() -> None:
    """Pages, title; the same bytes for the same log, so that two who made it can compare."""
    rows = rows_of(*(legal(f"access {n}", purpose="HLEGAL" if n % 2 else "PUBHLTH") for n in range(4)))
    pdf = to_pdf(accounted(*rows))
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
    assert pdf == to_pdf(accounted(*rows))
    assert to_pdf(accounted()).startswith(b"%PDF-")


def test_the_pdf_says_what_the_page_says() -> None:
    """Every word of the page, in its order, however the lines were broken."""
    found = accounted(*rows_of(legal(), line("treated")), addresses={"Amt Agency": "1 Main Street"})
    page = re.sub(r"<style>.*?</style>|<[^>]+>", " ", to_html(found).decode())
    pdf = b"".join(
        zlib.decompress(stream) for stream in re.findall(rb"stream\n(.*?)\nendstream", to_pdf(found), re.DOTALL)[:1]
    )
    shown = b" ".join(re.findall(rb"\((.*?)(?<!\\)\) Tj", pdf)).decode("latin-1")
    squeezed = re.sub(r"\\([()])|[\s:]", r"\1", shown)
    for words in unescape(page).split("  "):
        assert re.sub(r"[\s:]", "", words) in squeezed, words


def test_letters_that_the_font_lacks_are_named(tmp_path: Any) -> None:
    """No question marks in place of a name."""
    found = accounted(*rows_of(legal()), addresses={"Amt Agency": "Łódź"})
    with pytest.raises(InvalidInput, match=r"Łódź.*--font FILE.ttf"):
        to_pdf(found)
    assert "Łódź" in to_html(found).decode()
    broken = tmp_path / "font.ttf"
    broken.write_bytes(b"no font")
    with pytest.raises(InvalidInput, match="not a TrueType font"):
        to_pdf(found, broken)


def test_a_table_has_a_row_for_each_decision() -> None:
    rows = rows_of(with_reason("a"), legal("b", decision=int(Code.E_SCOPE)), slips=[slip("a", REASON)])
    found = list(csv.DictReader(io.StringIO(to_csv(rows).decode())))
    assert tuple(found[0]) == COLUMNS and len(found) == 2
    assert found[0]["reason"] == REASON and found[0]["recipient"] == "Tal Clinic"
    assert found[1]["decision"].startswith("DENIED(E_SCOPE)") and found[1]["exempt"] == ""


@pytest.mark.parametrize("reason", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx"])
def test_a_table_holds_no_formulas(reason: str) -> None:
    """A spreadsheet would run what a reader wrote as its reason."""
    asked = line(reason_commit=commit(SALT, "text/plain", reason.encode()))
    (cells,) = csv.DictReader(io.StringIO(to_csv(rows_of(asked, slips=[slip(reason=reason)])).decode()))
    assert cells["reason"] == f"'{reason}"
