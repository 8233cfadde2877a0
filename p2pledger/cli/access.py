"""`p2pledger access`: may I read? The chain answers, and writes the answer down either way."""

import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.scopes import scope_options
from p2pledger.cli.values import CompartmentValue, Hex, Span, moment
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from p2pledger.client.health import Compartment, Scope
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.health.break_glass import BrokenGlass

DENIED = 4
VERDICTS = ("justified", "unjustified", "unclear")


@click.group()
def access() -> None:
    """Ask for access to records."""


@access.command("request")
@click.option("--card", "card_file", type=FILE, help="The consent card that the patient gave.")
@click.option("--pid", type=Hex(16), help="Whose records, where there is no card.")
@click.option("--purpose", "purpose_text", required=True, metavar="CODE", help="A PurposeOfUse code like TREAT.")
@click.option(
    "--compartment",
    "compartments",
    type=CompartmentValue(),
    multiple=True,
    metavar="HANDLE",
    help="What; repeat. [default: all of the card]",
)
@click.option("--label", "labels", type=Hex(16), multiple=True, help="A sensitive label among what is asked for.")
@click.option("--records", "n_records", type=click.IntRange(1), default=1, help="How many records at most.")
@click.option("--record", "refs", multiple=True, metavar="BATCH/INDEX", help="Which records; repeat.")
@click.option("--for", "span_ms", type=Span(), default="1h", show_default=True, help="No release after that.")
@click.option("--slip", "slip_file", type=FILE, help="Write what opens this access on the log: record list and reason.")
@click.option("--reason", help="The written reason for breaking the glass; only a commitment to it is sent.")
@click.option("--name-records", is_flag=True, help="Name each --record on the chain; consents to records need it.")
@scope_options
@click.option("--with", "colleague", metavar="NAME|KEY", help="Who signs, too, to break the glass: makes a draft.")
@click.option("--to", "target", type=FILE, help="With --with: write the draft here. [default: stdout]")
@with_connection
def request(
    connection: Connection,
    card_file: Path | None,
    pid: bytes | None,
    purpose_text: str,
    compartments: "tuple[Compartment, ...]",
    labels: tuple[bytes, ...],
    n_records: int,
    refs: tuple[str, ...],
    span_ms: int,
    reason: str | None,
    slip_file: Path | None,
    name_records: bool,
    scope: "Scope",
    colleague: str | None,
    target: Path | None,
) -> None:
    """Ask as the wallet's owner and print the decision. Status 0: ALLOWED, 4: DENIED; both are on the log.

    Breaking the glass needs a second signature: --with names the house itself or a colleague's key, and the draft
    is signed there with 'tx sign' and then sent with 'tx submit'.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.consent import purpose_of, read_card
    from p2pledger.cli.record import ref_of
    from p2pledger.cli.tx import make_draft
    from p2pledger.client import words
    from p2pledger.client.disclosures import Slip
    from p2pledger.client.health import decision_of, request_access
    from p2pledger.health.commitments import SALT_BYTES
    from p2pledger.health.operations import record_handle
    from p2pledger.node.home import write_new

    card = None if card_file is None else read_card(card_file)
    patient = pid if pid is not None else card.pid if card is not None else None
    if patient is None:
        raise InvalidInput("say whose records: --card FILE or --pid HEX")
    asked = [one.handle for one in compartments] or list(card.handles if card is not None else ())
    if not asked:
        raise InvalidInput("say --compartment: there is no card that names some")
    reader = connection.persona()
    records = [ref_of(text) for text in refs]
    handles = [record_handle(ref.batch_id, ref.index) for ref in records] if name_records else []
    salt = secrets.token_bytes(SALT_BYTES)
    operation = request_access(
        reader,
        connection.founding().chain,
        pid=patient,
        compartments=asked,
        purpose=purpose_of(purpose_text),
        not_after_ms=now_ms() + span_ms,
        card=card,
        records=records,
        n_records=len(records) or n_records,
        labels=labels,
        months=scope.months,
        named=replace(scope, records=tuple(handles)),
        reason=None if reason is None else reason.encode(),
        scope_salt=salt,
    )
    if slip_file is not None:  # before it is asked: an access on the log that nobody can open would be worse
        write_new(slip_file, Slip(operation.access_id, salt, tuple(records), reason).dump().encode(), 0o600)

    if colleague is not None:
        make_draft(connection, reader.signing, operation, [key_of(connection, colleague)], target)
        return

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    receipt = connection.ask(reader.signing, work)
    decided = decision_of(receipt.executed)
    connection.session.show(
        {
            "decision": words.decision(decided.decision),
            "basis": words.basis(decided.basis, decided.consent_id),
            "purpose": words.purpose(decided.purpose),
            "access": decided.access_id,
            "line": decided.sequence,
            "height": receipt.executed.receipt.height,
            "transaction": receipt.executed.receipt.transaction,
            "proven": True,
        }
    )
    if not decided.is_allowed:
        raise click.exceptions.Exit(DENIED)


@access.command("review")
@click.argument("access_id", type=Hex(16), metavar="ACCESS")
@click.option("--verdict", required=True, type=click.Choice(VERDICTS))
@click.option("--note", required=True, help="The written findings; only a commitment to them is sent.")
@with_connection
def review(connection: Connection, access_id: bytes, verdict: Any, note: str) -> None:
    """Say whether the glass was broken for good reason: the reader's house, the custodian, or an auditor of theirs.

    Print the salt that opens the commitment to the note: keep both.
    """
    import secrets

    from p2pledger.cli.tx import show_receipt
    from p2pledger.health.break_glass_operations import BtgReview
    from p2pledger.health.commitments import SALT_BYTES, commit
    from p2pledger.primitives.ids import Bytes16, Bytes32

    salt = secrets.token_bytes(SALT_BYTES)
    operation = BtgReview(Bytes16(access_id), verdict, Bytes32(commit(salt, "text/plain", note.encode())))

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    show_receipt(connection, connection.ask(connection.signer(), work).executed)
    say(f"the note's salt is {salt.hex()}; keep it with the note")


@access.command("reviews")
@click.option("--overdue", is_flag=True, help="Only those whose time has passed.")
@with_connection
def reviews(connection: Connection, overdue: bool) -> None:
    """List emergency accesses that nobody has reviewed yet, the first due first; as the node says, members only."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client import words

    async def work(ledger: "LedgerClient") -> "list[BrokenGlass]":
        return await ledger.reviews()

    cards, now = connection.founding().genesis.cards, now_ms()
    found = connection.ask(connection.signer(), work)
    rows = [
        {
            "access": used.access_id,
            "pid": used.pid,
            "organisation": words.organisation(used.organisation, cards),
            "due": moment(used.due_ms),
            "overdue": now >= used.due_ms,
        }
        for used in found
        if now >= used.due_ms or not overdue
    ]
    connection.session.show_all(rows, ["access", "pid", "organisation", "due", "overdue"])


def key_of(connection: Connection, text: str) -> bytes:
    """An account key in hexadecimal digits, or that of the member of this name."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    return connection.card(text).account
