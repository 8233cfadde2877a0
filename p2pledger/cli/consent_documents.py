"""`p2pledger consent import` and `names`: a FHIR Consent enters the chain as it stands, or is refused by element."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, moment
from p2pledger.primitives.errors import InvalidInput, Refused, Rejected

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient, Receipt


@click.command("import")
@click.argument("file", type=FILE)
@click.option("--names", "names_file", type=FILE, help="What references mean on the chain; the custodian makes it.")
@click.option("--patient", required=True, metavar="Patient/ID", help="As the document calls the patient.")
@click.option("--pid", type=Hex(16), help="For somebody else, as its proxy. [default: the wallet's owner]")
@click.option("--guardian", is_flag=True, help="With --pid: as its guardian.")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where the cards are written.")
@with_connection
def import_(
    connection: Connection,
    file: Path,
    names_file: Path | None,
    patient: str,
    pid: bytes | None,
    guardian: bool,
    folder: Path | None,
) -> None:
    """Grant what the FHIR R4 Consent (IHE PCF) in FILE says; status 4 and the element where the chain cannot."""
    from p2pledger.client.consent_documents import Names, Patient, grant_of_document
    from p2pledger.fhir.pcf import BYTES_MAX
    from p2pledger.node.home import read_bounded, read_text, write_new

    owner = connection.persona()
    names = Names({}, {}) if names_file is None else Names.load(read_text(names_file))
    try:
        data = read_bounded(file, BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist") from error
    whose = Patient(patient, owner.did if pid is None else pid, owner.organisation)
    policy = connection.founding().parameters.default_policy
    made = grant_of_document(data, whose, names, policy, is_guardian=guardian)
    operation = made.operation
    if (operation.capacity == "patient") != (pid is None):
        raise InvalidInput(f"the document is performed by the {operation.capacity}: --pid is for proxies and guardians")
    cards = [(_card_path(folder, operation.consent_id, number), card) for number, card in enumerate(made.cards)]
    for path, card in cards:
        if path is not None:
            write_new(path, card.dump().encode(), 0o600)  # first: without its card a consent is useless

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    try:
        receipt = connection.ask(owner.signing, work)
    except (Refused, Rejected):
        for path, _ in cards:
            if path is not None:
                path.unlink()  # the chain does not have this consent and never will
        raise
    connection.session.show(
        {
            "consent": operation.consent_id,
            "base": operation.base,
            "exceptions": len(operation.exceptions),
            "break-glass": operation.btg,
            "from": moment(operation.valid_from_ms),
            "until": moment(operation.valid_to_ms),
            "height": receipt.executed.receipt.height,
            "cards": [str(path) for path, _ in cards if path is not None],
            "proven": True,
        }
    )
    if folder is None:
        say("no card was kept: with --to FOLDER readers get what they need to ask by this consent")


def _card_path(folder: Path | None, consent_id: bytes, number: int) -> Path | None:
    return None if folder is None else folder / f"{consent_id.hex()}-{number}.card"


@click.command("names")
@click.option("--pid", required=True, type=Hex(16), help="Whose chart.")
@click.option("--to", "target", type=FILE, help="Write the names here. [default: stdout]")
@with_connection
def names(connection: Connection, pid: bytes, target: Path | None) -> None:
    """Write down, as the custodian whose home it is, what a patient's labels, classes and records are on the chain.

    Add actors to the file before it is used: "actors": {"Practitioner/7": "<did>"}.
    """
    from p2pledger.client.consent_documents import names_of
    from p2pledger.client.records import Custodian
    from p2pledger.client.vault import Vault
    from p2pledger.node.home import write_new
    from p2pledger.node.vault import own_store

    home = connection.home()
    custodian = Custodian.of_box_seed(home.card.organisation, home.office().box.seed)
    vault = Vault(own_store(connection.home()), custodian.box)
    manifests = [manifest for one in vault.batches() if (manifest := vault.manifest(one)).pid == pid]
    text = names_of(custodian, pid, manifests).dump()
    if target is None:
        click.echo(text, nl=False)
        return
    write_new(target, text.encode(), 0o600)
    say(f"{len(manifests)} batches; written to {target}")
