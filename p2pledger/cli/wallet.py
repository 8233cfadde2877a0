"""`p2pledger wallet`: one secret of a person, who that person is at each organisation, and what concerns it there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import Session, say, with_session
from p2pledger.cli.wallet_views import consents, log, revoke, who
from p2pledger.primitives.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from p2pledger.client.identities import Known, OpenAs
    from p2pledger.client.keyring import Wallet

PATIENT_CARD = "p2pledger/patient-card/1"
_KNOWN = ["organisation", "kind", "id", "account"]


@click.group()
def wallet() -> None:
    """Make, back up, restore and use a person's wallet."""


for view in (who, consents, log, revoke):
    wallet.add_command(view)


@wallet.command("init")
@click.argument("file", type=FILE, envvar="P2PLEDGER_WALLET")
@click.option("--no-passphrase", is_flag=True, help="Leave it unsealed, protected by file mode 0600 alone.")
@with_session
def init(session: Session, file: Path, no_passphrase: bool) -> None:
    """Make a wallet in FILE, sealed with a passphrase. Who has lost both can never sign as the same person again."""
    from p2pledger.client.keyring import Wallet

    Wallet.create(file, None if no_passphrase else _new_passphrase())
    session.show({"wallet": file, "sealed": not no_passphrase})
    say(f"write its words on paper now: p2pledger wallet phrase {file}")
    say(f"then: p2pledger identity register --wallet {file} --organisation NAME")


@wallet.command("phrase")
@click.argument("file", type=FILE, envvar="P2PLEDGER_WALLET")
@with_session
def phrase(session: Session, file: Path) -> None:
    """Show the 24 words that restore FILE. Who reads them is its owner: on paper, never in a picture or a mail."""
    from p2pledger.cli.connect import ask_passphrase
    from p2pledger.client.keyring import Wallet

    held = Wallet.load(file, ask_passphrase)
    session.show({"phrase": held.phrase})
    if held.pending is not None:
        say("a rotation is under way: these are the old words; 'wallet rotate' shows the new ones and finishes it")


@wallet.command("restore")
@click.argument("file", type=FILE)
@click.option("--former", "n_former", type=click.IntRange(0, 64), default=0, help="So many older phrases, too.")
@click.option("--no-passphrase", is_flag=True, help="Leave it unsealed, protected by file mode 0600 alone.")
@click.option("--offline", is_flag=True, help="Do not look on the chain for who the owner is.")
@with_connection
def restore(connection: Connection, file: Path, n_former: int, no_passphrase: bool, offline: bool) -> None:
    """Make a wallet in FILE from its 24 words, and find its owner on the chain.

    The words are read from the terminal or from stdin, the newest phrase first. Older phrases open records that were
    sealed before a rotation.
    """
    from p2pledger.client.identities import recognised
    from p2pledger.client.keyring import Wallet, create_wallet

    names = ["Phrase", *(f"Former phrase {number}" for number in range(1, n_former + 1))]
    words = [click.prompt(name, hide_input=True, err=True) for name in names]
    restored = Wallet.of_phrases(*words)
    passphrase = None if no_passphrase else _new_passphrase()
    found: list[Known] = []
    if not offline:
        organisations = [card.organisation for card in connection.founding().genesis.cards]

        async def work(open_as: "OpenAs") -> "tuple[Wallet, list[Known]]":
            return await recognised(open_as, restored, organisations)

        restored, found = connection.ask_as_many(work)
    create_wallet(file, restored, passphrase)
    connection.session.show_all(known_rows(connection, found), _KNOWN)
    if offline:
        say(f"restored from its words into {file}; without --offline the chain tells who its owner is")
    elif not found:
        say("the chain knows these keys nowhere: they were never registered, or a newer phrase has replaced them")
    elif restored.pending is not None:
        say(f"a rotation was not finished; next: p2pledger wallet rotate --wallet {file}")
    else:
        say(f"restored into {file}, known at {len(found)} of {len(connection.founding().genesis.cards)} organisations")


@wallet.command("rotate")
@click.option("--yes", is_flag=True, help="The new words are on paper already; do not ask.")
@with_connection
def rotate(connection: Connection, yes: bool) -> None:
    """Replace the wallet's secret, and its keys at every organisation; the ids stay.

    After any interruption do it again: it goes on where it stood, and until the last organisation has the new key the
    file keeps both. Keep the old words as well: they open records that were sealed to the old keys.
    """
    from p2pledger.client.identities import rotate as rotate_everywhere
    from p2pledger.client.phrase import phrase_of

    file = connection.wallet_to_change()
    is_new = file.wallet.pending is None
    file = file.keep(file.wallet.rotating())
    pending = file.wallet.pending
    assert pending is not None
    say(
        "goes on with a rotation that was not finished" if not is_new else "a new secret is in the wallet, not yet used"
    )
    say(f"its words, for paper: {phrase_of(pending)}")
    if not yes and not click.confirm("Are the new words on paper?", err=True):
        raise InvalidInput("nothing was rotated; do it again when the words are on paper")
    organisations = [card.organisation for card in connection.founding().genesis.cards]

    async def work(open_as: "OpenAs") -> list[dict[str, Any]]:
        rows = []
        async for step in rotate_everywhere(open_as, file, organisations):
            height = None if step.receipt is None else step.receipt.executed.receipt.height
            rows += [{**row, "height": height} for row in known_rows(connection, [step.known])]
        return rows

    connection.session.show_all(connection.ask_as_many(work), [*_KNOWN, "height"])
    say(f"the old keys are dead from these heights on; {file.path} holds the new ones, and opens old records, too")


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


def known_rows(connection: Connection, found: "list[Known]") -> list[dict[str, Any]]:
    """Where the chain knows the wallet's owner, as rows."""
    from p2pledger.client import words

    cards = connection.founding().genesis.cards
    return [
        {
            "organisation": words.organisation(one.persona.organisation, cards),
            "kind": one.kind,
            "id": one.persona.did,
            "account": one.persona.account,
        }
        for one in found
    ]


def _new_passphrase() -> str:
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
