"""`p2pledger member`: a member's home, the card made from it, and what the others decide about a member."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import Session, say, with_session
from p2pledger.cli.values import Hex
from p2pledger.primitives.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from p2pledger.chain.genesis import Card
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.codec import Record
    from p2pledger.primitives.ids import AccountKey

KINDS = ("hospital", "insurer", "agency", "manufacturer", "pharmacy", "research")


@click.group()
def member() -> None:
    """Make a member's home and its card; stop, resume and rekey members."""


@member.command("init")
@click.option("--name", required=True, help="Public name of the organisation, at most 80 characters.")
@click.option("--kind", required=True, type=click.Choice(KINDS))
@click.option("--organisation", metavar="HEX", help="Its id, 32 hexadecimal digits. [default: random]")
@click.option("--card", "card_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the card here.")
@with_session
def init(session: Session, name: str, kind: str, organisation: str | None, card_path: Path | None) -> None:
    """Make keys that stay in this home and print the signed card that may leave it.

    With --organisation-keys the two keys that the organisation acts and reads with lie apart from the node's home.
    """
    from p2pledger.node.ceremony import card_to_json, init_member
    from p2pledger.node.home import write_new

    if organisation is not None and not re.fullmatch(r"[0-9a-fA-F]{32}", organisation):
        raise InvalidInput(f"organisation {organisation!r} is not 32 hexadecimal digits")
    identifier = bytes.fromhex(organisation) if organisation else None
    card = init_member(session.home, name, kind, identifier, session.organisation_keys)
    text = card_to_json(card)
    if card_path is not None:
        write_new(card_path, text.encode())
    click.echo(text, nl=False)
    layout = session.layout()
    say(f"home of {name} made in {session.home}; back up {layout.keys} now, offline")
    if layout.office != layout.keys:
        say(f"the keys that {name} acts and reads with are in {layout.office}; back them up, too")
    say("next: give the card above to whoever assembles the genesis")


@member.command("card")
@with_session
def card(session: Session) -> None:
    """Print this home's card again."""
    from p2pledger.node.ceremony import card_from_json, card_to_json
    from p2pledger.node.home import Layout, existing_home, read_text

    path = Layout(existing_home(session.home)).card
    click.echo(card_to_json(card_from_json(read_text(path), str(path))), nl=False)


_WITH = click.option("--with", "others", multiple=True, required=True, metavar="NAME", help="Who agrees; repeat.")
_TO = click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")


@member.command("suspend")
@click.argument("name")
@_WITH
@_TO
@with_connection
def suspend(connection: Connection, name: str, others: tuple[str, ...], target: Path | None) -> None:
    """Stop NAME and all its people: a draft by this home's organisation, which the others cosign with 'tx sign'.

    More than half of the other members must agree, and at least two.
    """
    from p2pledger.health.identity_operations import OrganisationSuspend

    _draft(connection, OrganisationSuspend(connection.card(name).organisation), others, (), target)


@member.command("resume")
@click.argument("name")
@_WITH
@_TO
@with_connection
def resume(connection: Connection, name: str, others: tuple[str, ...], target: Path | None) -> None:
    """Let the suspended NAME act again: a draft as for 'member suspend'."""
    from p2pledger.health.identity_operations import OrganisationResume

    _draft(connection, OrganisationResume(connection.card(name).organisation), others, (), target)


@member.command("rekey")
@click.argument("name")
@click.option("--account", required=True, type=Hex(32), help="The new account key; its owner cosigns, too.")
@click.option("--box", required=True, type=Hex(32), help="The new box key.")
@_WITH
@_TO
@with_connection
def rekey(
    connection: Connection, name: str, account: bytes, box: bytes, others: tuple[str, ...], target: Path | None
) -> None:
    """Give the suspended NAME new keys in place of stolen ones: a draft as for 'member suspend'."""
    from p2pledger.health.identity_operations import OrganisationRekey
    from p2pledger.primitives.ids import AccountKey

    operation = OrganisationRekey(connection.card(name).organisation, AccountKey(account), box)
    _draft(connection, operation, others, (account,), target)


def _draft(
    connection: Connection, operation: "Record", others: tuple[str, ...], more: tuple[bytes, ...], target: Path | None
) -> None:
    """A draft that this home's organisation has signed, for the others to cosign."""
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.ids import AccountKey

    ours = connection.organisation().account
    cards = [connection.card(other) for other in others]

    async def work(ledger: "LedgerClient") -> "Draft":
        cosigners = [await account_of(ledger, card) for card in cards] + [AccountKey(key) for key in more]
        chain, nonce = ledger.founding.chain, await ledger.next_nonce()
        return Draft.new(chain, ledger.account, nonce, ledger.expiry(), [operation], cosigners)

    write_draft(connection.ask(ours, work).signed(ours), target)
    say(f"next: {', '.join(others)} run 'tx sign' within ten minutes, then anybody 'tx submit'")


async def account_of(ledger: "LedgerClient", card: "Card") -> "AccountKey":
    """A member's account as the last checkpoint proves it; before the first one, the card's. Members only."""
    from p2pledger.health import keys
    from p2pledger.health.directory import Organisation
    from p2pledger.primitives import limits
    from p2pledger.primitives.codec import decode

    try:
        _, data = await ledger.state(keys.organisation(card.organisation))
    except Unavailable:
        return card.account
    return card.account if data is None else decode(Organisation, data, limits.STATE_VALUE_BYTES_MAX).account
