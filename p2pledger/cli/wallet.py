"""`p2pledger wallet`: one secret of a person, and who that person is at each organisation."""

import json
from dataclasses import replace
from pathlib import Path

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import ConfigError

PATIENT_CARD = "p2pledger/patient-card/1"


@click.group()
def wallet() -> None:
    """Make and show a person's wallet."""


@wallet.command("init")
@click.argument("file", type=FILE, envvar="P2PLEDGER_WALLET")
@click.option("--no-passphrase", is_flag=True, help="Leave it unsealed, protected by file mode 0600 alone.")
@with_session
def init(session: Session, file: Path, no_passphrase: bool) -> None:
    """Make a wallet in FILE, sealed with a passphrase. Who has lost both can never sign as the same person again."""
    from p2pledger.client.keyring import Wallet

    passphrase = None
    if not no_passphrase:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    Wallet.create(file, passphrase)
    session.show({"wallet": file, "sealed": not no_passphrase})
    say(f"back up {file} now, offline; next: p2pledger identity register --wallet {file} --organisation NAME")


@wallet.command("show")
@with_connection
def show(connection: Connection) -> None:
    """Show the public parts of who the wallet's owner is at each organisation of the genesis."""
    held = connection.wallet()
    rows = []
    for card in connection.founding().genesis.cards:
        persona = held.at(card.organisation)
        rows.append(
            {"organisation": card.name, "id": persona.did, "account": persona.account, "box": persona.box.public}
        )
    connection.session.show_all(rows, ["organisation", "id", "account", "box"])


@wallet.command("card")
@click.option("--organisation", metavar="NAME", help="For whom; the same as --at.")
@with_connection
def card(connection: Connection, organisation: str | None) -> None:
    """Print the card that a patient gives to a custodian: id and public keys there, nothing secret."""
    persona = replace(connection, at=organisation or connection.at).persona()
    document = {
        "format": PATIENT_CARD,
        "organisation": persona.organisation.hex(),
        "pid": persona.did.hex(),
        "account": persona.account.hex(),
        "box": persona.box.public.hex(),
    }
    click.echo(json.dumps(document, indent=1))


def read_patient_card(path: Path) -> tuple[bytes, bytes]:
    """(pid, box key) of a card that `wallet card` printed; raises ConfigError."""
    from p2pledger.node.home import read_text

    try:
        parts = json.loads(read_text(path))
        if parts["format"] != PATIENT_CARD:
            raise ConfigError(f"{path}: format {parts['format']!r}, this version reads {PATIENT_CARD!r}")
        pid, box = bytes.fromhex(parts["pid"]), bytes.fromhex(parts["box"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a patient card: {error}") from error
    if (len(pid), len(box)) != (16, 32):
        raise ConfigError(f"{path}: a pid of {len(pid)} bytes and a box key of {len(box)}, expected are 16 and 32")
    return pid, box
