"""`p2pledger record index`, `ask`, `get`: from a chart's table of contents to its records in the clear."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, Span
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from p2pledger.client.chart_index import ChartIndex
    from p2pledger.client.keyring import Persona
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.client.reading import Reading, Source
    from p2pledger.client.tickets import Ticket, Tickets
    from p2pledger.health.operations import AccessRequest

DENIED = 4
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("index")
@click.argument("pid", type=Hex(16))
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Like allergy; repeat. [default: all]")
@click.option("--to", "target", type=FILE, help="Write it here. [default: stdout]")
@with_connection
def index(connection: Connection, pid: bytes, classes: tuple[str, ...], target: Path | None) -> None:
    """Write the table of contents of a patient's chart in the home's vault, to be given to a reader beside the card."""
    from p2pledger.cli.record import vault_of
    from p2pledger.client.chart_index import ChartIndex
    from p2pledger.node.home import write_new

    vault = vault_of(connection, connection.organisation())
    manifests = [manifest for manifest in map(vault.manifest, vault.batches()) if manifest.pid == pid]
    if not manifests:
        raise InvalidInput(f"the vault has no batch of patient {pid.hex()}")
    found = ChartIndex.of(manifests)
    if classes:
        found = found.of_classes(*classes)
    if target is None:
        sys.stdout.write(found.dump())
    else:
        write_new(target, found.dump().encode(), 0o600)
    say(f"{len(found.entries)} records whose keys open through validators")


def _asking_options(command: "Callable[..., Any]") -> "Callable[..., Any]":
    """Which records, as whom and how: the options that `ask` and `get` share."""
    options = [
        click.option("--index", "index_file", type=FILE, help="The chart's table of contents, of 'record index'."),
        click.option("--card", "card_file", type=FILE, help="The consent card that the patient gave."),
        click.option("--class", "classes", multiple=True, metavar="NAME", help="Records of this class; repeat."),
        click.option("--record", "refs", multiple=True, metavar="BATCH/INDEX", help="This record; repeat."),
        click.option("--all", "is_all", is_flag=True, help="All records of the index."),
        click.option("--purpose", "purpose_text", metavar="CODE", help="A PurposeOfUse code like TREAT."),
        click.option("--for", "span_ms", type=Span(), default="1h", show_default=True, help="No release after that."),
        click.option("--reason", help="The written reason for breaking the glass; a commitment to it is sent."),
        click.option("--slip", "slip_file", type=FILE, help="Write what opens this access on the log."),
        click.option("--declare", "is_declared", is_flag=True, help="Say classes, months, authors, encounters, too."),
        click.option("--name-records", is_flag=True, help="Name each record on the chain, for consents to records."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("ask")
@_asking_options
@click.option("--with", "colleague", metavar="NAME|KEY", help="Who signs, too, to break the glass: makes a draft.")
@click.option("--to", "target", type=FILE, help="With --with: write the draft here. [default: stdout]")
@with_connection
def ask(connection: Connection, colleague: str | None, target: Path | None, **asked: "Any") -> None:
    """Ask for records and keep the key to them; 'record get --access' reads them. Status 0: ALLOWED, 4: DENIED."""
    from p2pledger.cli.access import key_of
    from p2pledger.cli.tx import make_draft

    reader = connection.persona()
    operation, ticket = _request(connection, reader, **asked)
    _tickets(connection).keep(ticket)
    if colleague is not None:
        make_draft(connection, reader.signing, operation, [key_of(connection, colleague)], target)
    else:
        _decided(connection, reader, operation, ticket)
    say(f"once it is allowed: p2pledger record get --access {ticket.access_id.hex()}")


@click.command("get")
@_asking_options
@click.option("--access", "access_id", type=Hex(16), help="Read by an access of 'record ask', or one that was kept.")
@click.option("--keep", is_flag=True, help="Keep the key, to read again until the access ends.")
@click.option("--to", "folder", type=FOLDER, help="A file for each record in this folder. [default: stdout]")
@click.option(
    "--vault", metavar="HOST:PORT=NAME", help="The custodian's vault service. [default: the home's own vault]"
)
@with_connection
def get(
    connection: Connection,
    access_id: bytes | None,
    keep: bool,
    folder: Path | None,
    vault: str | None,
    refs: tuple[str, ...],
    **asked: "Any",
) -> None:
    """Read records: ask, wait for the receipt, fetch, collect shares, open, and compare with the commitments.

    On stdout one record as it is, several as one line each. Validators that lied are named. Status 4: DENIED or
    refused; 75: fewer validators than needed help, and who is missing.
    """
    from p2pledger.cli.record import progress_bar, ref_of
    from p2pledger.client.reading import Changed, read_records, tell

    reader, tickets = connection.persona(), _tickets(connection)
    if access_id is None:
        operation, ticket = _request(connection, reader, refs=refs, **asked)
        tickets.keep(ticket)
        _decided(connection, reader, operation, ticket)
        wanted = None
    else:
        ticket = tickets.load(access_id)
        wanted = [ref_of(text) for text in refs] or None
    source = source_of(connection, ticket, vault)

    async def work(ledger: "LedgerClient") -> "Reading":
        try:
            with progress_bar("opening") as report:
                return await read_records(ledger, source, ticket, wanted, report)
        except Changed as error:  # F-36: whom it concerns hears of it, whatever the custodian says
            await tell(ledger, ticket, error)
            say(f"an integrity alert about record {error.ref} is on the chain")
            raise

    reading = connection.ask(reader.signing, work)
    _written(reading, folder)
    if not keep:
        tickets.forget(ticket.access_id)
    for blame in reading.blamed:
        say(f"warning: {blame}")
    say(f"{len(reading.records)} records, each as committed to on the chain")


@click.command("handover")
@click.argument("pid", type=Hex(16))
@click.option("--to", "folder", type=FOLDER, required=True, help="A new folder for the sealed copies.")
@with_connection
def handover(connection: Connection, pid: bytes, folder: Path) -> None:
    """Copy a patient's records from the home's vault, sealed as they are: the patient alone can open them."""
    from p2pledger.cli.record import vault_of
    from p2pledger.client.patient_export import hand_over
    from p2pledger.vault.objects import DirectoryStore

    records = hand_over(vault_of(connection, connection.organisation()), pid, DirectoryStore(folder))
    if not records:
        raise InvalidInput(f"the vault has no record of patient {pid.hex()}")
    connection.session.show({"pid": pid, "records": records, "folder": folder})
    say("the patient opens them with: p2pledger record export")


@click.command("export")
@click.option("--from", "store", type=FOLDER, required=True, help="The sealed copies that the custodian handed over.")
@click.option("--to", "folder", type=FOLDER, required=True, help="A new folder.")
@with_connection
def export(connection: Connection, store: Path, folder: Path) -> None:
    """Write all of one's own records in the clear, with proofs, access log and a script that checks them by itself."""
    from p2pledger.cli.record import progress_bar
    from p2pledger.client.patient_export import own_batches, write_export
    from p2pledger.vault.objects import DirectoryStore

    persona = connection.persona()
    boxes = [persona.box, *connection.wallet().former_boxes(persona.organisation)]
    with progress_bar("opening") as report:
        batches = own_batches(DirectoryStore(store), persona.did, boxes, report)
    if not batches:
        raise InvalidInput(f"{store} holds nothing that was sealed to patient {persona.did.hex()}")

    async def work(ledger: "LedgerClient") -> int:
        return await write_export(ledger, folder, persona.did, batches)

    records = connection.ask(persona.signing, work)
    absent = sum(len(batch.absent) for batch in batches)
    connection.session.show({"folder": folder, "batches": len(batches), "records": records, "absent": absent})
    say(f"check it anywhere: python3 {folder / 'verify.py'} {connection.founding().chain.hex()}")


def source_of(connection: Connection, ticket: "Ticket", vault: str | None = None) -> "Source":
    """Where the sealed records come from: the custodian's vault service, or the vault in the custodian's own home."""
    from p2pledger.cli.record import vault_of
    from p2pledger.cli.vault import vault_address
    from p2pledger.client.reading import OwnVault
    from p2pledger.client.vault_service import VaultSource

    if vault is not None:
        return VaultSource(vault_address(connection, vault), connection.signer(), connection.founding().chain)
    house = connection.organisation()
    if house.organisation != ticket.custodian:
        raise InvalidInput(
            f"the home is of {house.organisation.hex()}, the records are kept by {ticket.custodian.hex()}: say --vault"
        )
    return OwnVault(vault_of(connection, house))


def _request(
    connection: Connection,
    reader: "Persona",
    *,
    index_file: Path | None,
    card_file: Path | None,
    classes: tuple[str, ...],
    refs: tuple[str, ...],
    is_all: bool,
    purpose_text: str | None,
    span_ms: int,
    reason: str | None,
    slip_file: Path | None,
    is_declared: bool,
    name_records: bool,
) -> "tuple[AccessRequest, Ticket]":
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.consent import purpose_of, read_card
    from p2pledger.client.disclosures import Slip
    from p2pledger.client.reading import ask_for
    from p2pledger.node.home import write_new

    if purpose_text is None:
        raise InvalidInput("say --purpose, or --access for what was asked before")
    operation, ticket = ask_for(
        reader,
        connection.founding().chain,
        _chosen(index_file, classes, refs, is_all),
        purpose_of(purpose_text),
        now_ms() + span_ms,
        card=None if card_file is None else read_card(card_file),
        reason=None if reason is None else reason.encode(),
        declared=is_declared,
        by_name=name_records,
    )
    if slip_file is not None:  # before it is asked: an access on the log that nobody can open would be worse
        slip = Slip(ticket.access_id, ticket.salt, ticket.scope, reason)
        write_new(slip_file, slip.dump().encode(), 0o600)
    return operation, ticket


def _chosen(index_file: Path | None, classes: tuple[str, ...], refs: tuple[str, ...], is_all: bool) -> "ChartIndex":
    from p2pledger.cli.record import ref_of
    from p2pledger.client.chart_index import ChartIndex
    from p2pledger.node.home import read_bounded

    if index_file is None:
        raise InvalidInput("say --index FILE: the chart's table of contents, which its custodian writes")
    if sum((bool(classes), bool(refs), is_all)) != 1:
        raise InvalidInput("say which records: --class NAME, --record BATCH/INDEX or --all")
    try:
        found = ChartIndex.load(read_bounded(index_file, 64 * 1024 * 1024).decode())
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{index_file}: {error}") from error
    if is_all:
        return found
    return found.of_classes(*classes) if classes else found.of_records([ref_of(text) for text in refs])


def _tickets(connection: Connection) -> "Tickets":
    from p2pledger.client.tickets import Tickets

    wallet = connection.wallet_file
    if wallet is None:
        raise InvalidInput("reading needs a person's key: say --wallet FILE and --at ORGANISATION")
    return Tickets(wallet.with_name(f"{wallet.name}.accesses"))


def _decided(connection: Connection, reader: "Persona", operation: "AccessRequest", ticket: "Ticket") -> None:
    """Submit, and end with status 4 where the chain says no; the ticket then opens nothing and goes."""
    from p2pledger.client import words
    from p2pledger.client.health import decision_of

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    receipt = connection.ask(reader.signing, work)
    decided = decision_of(receipt.executed)
    say(
        f"{words.decision(decided.decision)} at height {receipt.executed.receipt.height}, "
        f"line {decided.sequence} of the patient's log, access {decided.access_id.hex()}"
    )
    if not decided.is_allowed:
        _tickets(connection).forget(ticket.access_id)
        raise click.exceptions.Exit(DENIED)


def _written(reading: "Reading", folder: Path | None) -> None:
    from p2pledger.node.home import write_new
    from p2pledger.storage.files import make_private_folder

    if folder is None:
        for record in reading.records:
            data = record.data
            if len(reading.records) > 1:
                data = data.replace(b"\r", b"").replace(b"\n", b"") + b"\n"
            sys.stdout.buffer.write(data)
        return
    make_private_folder(folder)
    for record in reading.records:
        ending = "json" if record.media_type.endswith("json") else "bin"
        write_new(folder / f"{record.ref.batch_id.hex()}-{record.ref.index}.{ending}", record.data, 0o600)
