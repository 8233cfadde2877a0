"""`p2pledger emergency`: a summary that a house can open when there is no ledger to ask, and must account for after."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, moment
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from p2pledger.client.emergency import EmergencyCapsule, EmergencyShelf
    from p2pledger.client.ledger import LedgerClient


@click.group()
def emergency() -> None:
    """Seal, keep, open and anchor emergency summaries."""


@emergency.command("seal")
@click.argument("summary", type=FILE)
@click.option("--for", "house", required=True, metavar="ORGANISATION", help="The member that may open it.")
@click.option("--to", "target", type=FILE, required=True, help="Write the capsule here, and hand it over.")
@with_connection
def seal(connection: Connection, summary: Path, house: str, target: Path) -> None:
    """Sign and seal a SUMMARY of the wallet's owner, as it chooses, for one organisation."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.emergency import SUMMARY_BYTES_MAX, read_capsule, seal_summary
    from p2pledger.node.home import read_bounded, write_new

    patient, card = connection.persona(), connection.card(house)
    try:
        content = read_bounded(summary, SUMMARY_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{summary} does not exist") from error
    data = seal_summary(patient, card.organisation, connection.founding().chain, card.box, content, now_ms())
    write_new(target, data, 0o600)
    connection.session.show({"capsule": read_capsule(data).hash, "for": card.name, "pid": patient.did, "file": target})


@emergency.command("keep")
@click.argument("file", type=FILE)
@with_connection
def keep(connection: Connection, file: Path) -> None:
    """Keep a patient's capsule FILE in the home, once the chain has proven whose it is."""
    from p2pledger.client.emergency import SUMMARY_BYTES_MAX
    from p2pledger.node.home import read_bounded

    shelf = _shelf(connection)
    try:
        data = read_bounded(file, 2 * SUMMARY_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist") from error

    async def work(ledger: "LedgerClient") -> "EmergencyCapsule":
        return await shelf.keep(ledger, data)

    kept = connection.ask(connection.organisation().account, work)
    connection.session.show({"pid": kept.pid, "made": moment(kept.made_ms), "capsule": kept.hash})


@emergency.command("open")
@click.argument("pid", type=Hex(16))
@click.option("--reason", required=True, help="Why; the patient and the review will read it.")
@with_connection
def open_(connection: Connection, pid: bytes, reason: str) -> None:
    """Open a patient's summary without the ledger, as the wallet's owner, on stdout. It is written down first.

    While the ledger can be reached, break the glass instead ('record ask --purpose BTG'). Status 4: an earlier opening
    has been waiting for its anchor for more than a day.
    """
    import sys

    from p2pledger.cli.clock import now_ms

    shown = _shelf(connection).open(pid, connection.persona(), reason, now_ms())
    sys.stdout.buffer.write(shown.content)
    sys.stdout.flush()
    say(
        f"opening {shown.entry.number} is written down, of a summary of {moment(shown.made_ms)}; "
        "anchor it within a day: p2pledger emergency anchor"
    )


@emergency.command("anchor")
@with_connection
def anchor(connection: Connection) -> None:
    """Bring all openings onto the chain that are not there yet: lines of the patients' logs, with a review each."""
    shelf = _shelf(connection)

    async def work(ledger: "LedgerClient") -> int:
        return await shelf.anchor(ledger)

    connection.session.show({"anchored": connection.ask(connection.organisation().account, work)})


@emergency.command("status")
@with_connection
def status(connection: Connection) -> None:
    """List the openings of this house, and which of them the chain does not have yet."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.health.emergency import ANCHOR_WITHIN_MS

    shelf, now = _shelf(connection), now_ms()
    waiting = {opening.number for opening in shelf.unanchored()}
    rows = [
        {
            "opening": one.number,
            "when": moment(one.opened_ms),
            "pid": one.pid,
            "anchored": one.number not in waiting,
            "overdue": one.number in waiting and now - one.opened_ms > ANCHOR_WITHIN_MS,
        }
        for one in shelf.openings()
    ]
    connection.session.show_all(rows, ["opening", "when", "pid", "anchored", "overdue"])
    say(f"{len(shelf.kept())} patients have a summary here; {len(waiting)} openings wait for their anchor")


def _shelf(connection: Connection) -> "EmergencyShelf":
    from p2pledger.client.emergency import EmergencyShelf

    house = connection.organisation()
    folder = connection.session.home / "emergency"
    return EmergencyShelf(folder, connection.founding().chain, house.organisation, house.custodian.box)
