"""`p2pledger audit`: a patient's access log, verified before it is shown."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, Instant, moment
from p2pledger.primitives.errors import ProofError

if TYPE_CHECKING:
    from p2pledger.chain.genesis import Card
    from p2pledger.client.joint_keys import Audited
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.client.verify import VerifiedLog
    from p2pledger.execution.evidence import Caught
    from p2pledger.health.integrity import Alert
    from p2pledger.health.log import LogLine
    from p2pledger.network.api import LineReply

FORMATS = ("json", "csv", "fhir", "html", "pdf")
_VERDICT = ["organisation", "proven up to", "caught", "kind", "epoch", "view", "height", "recorded at"]
_COLUMNS = ["line", "when", "organisation", "person", "purpose", "decision", "basis", "records", "released", "proven"]


@click.group()
def audit() -> None:
    """Who accessed what, for what purpose, and when."""


@audit.command("log")
@click.option("--pid", type=Hex(16), help="Whose, for organisations. [default: the wallet's owner]")
@with_connection
def log(connection: Connection, pid: bytes | None) -> None:
    """Show the access log, complete up to a checkpoint; what is newer is marked as not yet proven.

    'released' is what validators have reported of the keys of each access, proven and complete like the lines.

    Integrity alerts about the records follow, as the node says: `watch --kinds integrity` tells them proven.
    """
    from p2pledger.client import words
    from p2pledger.client.integrity import alerts_about
    from p2pledger.client.releases import NOT_YET

    asking, patient = connection.about(pid)

    async def work(ledger: "LedgerClient") -> "tuple[VerifiedLog, list[Alert]]":
        return await ledger.log(patient), await alerts_about(ledger, patient)

    found, alerts = connection.ask(asking, work)
    rows = [_row(connection, line, found.released.told(line), proven=True) for line in found.lines]
    rows += [_row(connection, line, NOT_YET, proven=False) for line in found.newer]
    connection.session.show_all(rows, _COLUMNS)
    say(
        f"verified: these are all {len(found.lines)} decisions up to height {found.height}, "
        f"proven by a block of {moment(found.proven_ms)}"
    )
    for recovery, release in found.released.recoveries((*found.lines, *found.newer)):
        say(f"keys of the patient's old wallet, for recovery {recovery.hex()}: released {release.text}")
    if found.newer:
        say(f"{len(found.newer)} newer lines follow them, as the node says; the next checkpoint proves them")
    for alert in alerts:
        say(words.alert(alert, connection.founding().genesis.cards))


@audit.command("export")
@click.argument("file", type=FILE)
@click.option("--format", "kind", type=click.Choice(FORMATS), default="json", show_default=True, help="What FILE is.")
@click.option("--pid", type=Hex(16), help="Whose, for organisations. [default: the wallet's owner]")
@click.option("--card", "cards", type=FILE, multiple=True, help="A consent card: names what it covers; repeat.")
@click.option("--slip", "slips", type=FILE, multiple=True, help="A reader's slip: opens records and reason; repeat.")
@click.option("--since", "since_ms", type=Instant(), help="Accounting: from when. [default: six years back]")
@click.option("--addresses", type=FILE, help="Accounting: JSON with the address of each recipient's name.")
@click.option(
    "--suspension", "suspensions", type=FILE, multiple=True, help="Accounting: an agency's statement; repeat."
)
@click.option("--font", type=FILE, help="PDF: a TrueType font, for names beyond Latin letters.")
@with_connection
def export(
    connection: Connection,
    file: Path,
    kind: str,
    pid: bytes | None,
    cards: tuple[Path, ...],
    slips: tuple[Path, ...],
    since_ms: int | None,
    addresses: Path | None,
    suspensions: tuple[Path, ...],
    font: Path | None,
) -> None:
    """Write the access log, verified, into FILE.

    json: with its proofs, for 'p2pledger verify'. csv: for spreadsheets. fhir: BALP AuditEvents in a Bundle. html and
    pdf: the accounting of disclosures of 45 CFR 164.528.
    """
    from p2pledger.cli.audit_papers import Papers
    from p2pledger.node.home import write_new

    asking, patient = connection.about(pid)
    papers = Papers(connection, patient, cards, slips)
    chain = connection.founding().chain
    if kind == "json":
        data, found = connection.ask(asking, papers.proofs)
    else:
        found, rows = connection.ask(asking, papers.rows)
        data = papers.written(kind, found, rows, since_ms, addresses, suspensions, font)
    write_new(file, data, 0o600)
    connection.session.show({"file": file, "lines": len(found.lines), "height": found.height, "bytes": len(data)})
    if kind == "json":
        say(f"check it anywhere: p2pledger verify {file} --genesis {chain.hex()}")


@audit.command("prove")
@click.argument("line", type=click.IntRange(1))
@click.argument("file", type=FILE)
@click.option("--pid", type=Hex(16), help="Whose, for organisations. [default: the wallet's owner]")
@with_connection
def prove(connection: Connection, line: int, file: Path, pid: bytes | None) -> None:
    """Write one LINE of the access log with its own proof into FILE; the other lines stay out of it."""
    from p2pledger.client.export import write_line
    from p2pledger.node.home import write_new

    asking, patient = connection.about(pid)
    founding = connection.founding()

    async def work(ledger: "LedgerClient") -> "LineReply":
        return await ledger.line(patient, line)

    reply = connection.ask(asking, work)
    data = write_line(founding, patient, line, reply.line, reply.evidence)
    write_new(file, data, 0o600)
    connection.session.show({"file": file, "line": line, "bytes": len(data)})
    say(f"check it anywhere: p2pledger verify {file} --genesis {founding.chain.hex()}")


@audit.command("validators")
@with_connection
def validators(connection: Connection) -> None:
    """Show what the chain holds against each validator, proven either way; for organisations."""

    async def work(ledger: "LedgerClient") -> list[dict[str, Any]]:
        cards = connection.founding().genesis.cards
        return [_verdict(card, *await ledger.evidence(card.validator)) for card in cards]

    connection.session.show_all(connection.ask(connection.organisation().account, work), _VERDICT)


def _verdict(card: "Card", height: int, held: "Caught | None") -> dict[str, Any]:
    """A row of `_VERDICT`; empty from the kind on for who was never caught."""
    from p2pledger.chain.statement import place_of

    place = (None,) * 4 if held is None else place_of(held.evidence.first)
    recorded = None if held is None else held.height
    return dict(zip(_VERDICT, (card.name, height, held is not None, *place, recorded), strict=True))


def _row(connection: Connection, line: "LogLine", released: str, *, proven: bool) -> dict[str, Any]:
    from p2pledger.client import words

    cards = connection.founding().genesis.cards
    return {
        "line": line.sequence,
        "when": moment(line.time_ms),
        "organisation": words.organisation(line.organisation, cards),
        "person": line.actor,
        "purpose": words.purpose(line.purpose),
        "decision": words.decision(line.decision),
        "basis": words.basis(line.basis, line.consent_id),
        "records": line.n_records,
        "released": released,
        "proven": proven,
    }


@audit.command("releases")
@with_connection
def releases(connection: Connection) -> None:
    """Hold what this home's validator has written down of released shares against the chain, access by access.

    Ends with status 5 where something was released that the chain does not know of, or never allowed (I-9, I-1).
    """
    from p2pledger.client.joint_keys import audit_releases
    from p2pledger.storage.release_entries import ReleaseEntries

    home = connection.home()
    counts: Counter[bytes] = Counter()
    if home.releases.is_dir():
        entries = ReleaseEntries(home.releases, home.founding.chain, home.node)
        try:
            counts = Counter(entry.access.access_id for entry in entries)  # each is read, a damaged one is named
        finally:
            entries.close()

    async def work(ledger: "LedgerClient") -> "list[Audited]":
        return await audit_releases(ledger, counts, home.validator)

    audited = connection.ask(connection.organisation().account, work)
    rows = [
        {"access": one.access_id, "entries": one.entries, "reported": one.reported, "verdict": one.verdict}
        for one in audited
    ]
    connection.session.show_all(rows, ["access", "entries", "reported", "verdict"])
    bad = [one for one in audited if not one.is_allowed or one.reported < one.entries]
    if bad:
        raise ProofError(
            f"of {len(audited)} accesses the chain does not confirm {len(bad)}, the first is {bad[0].access_id.hex()}: "
            f"{bad[0].verdict} at the last checkpoint"
        )
    say(f"all releases of {len(audited)} accesses stand on the chain")
