"""`p2pledger member`: a member's home and the public card made from it."""

import re
from pathlib import Path

import click

from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput

KINDS = ("hospital", "insurer", "agency", "manufacturer", "pharmacy", "research")


@click.group()
def member() -> None:
    """Make a member's home and its public card."""


@member.command("init")
@click.option("--name", required=True, help="Public name of the organisation, at most 80 characters.")
@click.option("--kind", required=True, type=click.Choice(KINDS))
@click.option("--organisation", metavar="HEX", help="Its id, 32 hexadecimal digits. [default: random]")
@click.option("--card", "card_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the card here.")
@with_session
def init(session: Session, name: str, kind: str, organisation: str | None, card_path: Path | None) -> None:
    """Make keys that stay in this home and print the signed card that may leave it."""
    from p2pledger.node.ceremony import card_to_json, init_member
    from p2pledger.node.home import write_new

    if organisation is not None and not re.fullmatch(r"[0-9a-fA-F]{32}", organisation):
        raise InvalidInput(f"organisation {organisation!r} is not 32 hexadecimal digits")
    card = init_member(session.home, name, kind, bytes.fromhex(organisation) if organisation else None)
    text = card_to_json(card)
    if card_path is not None:
        write_new(card_path, text.encode())
    click.echo(text, nl=False)
    say(f"home of {name} made in {session.home}; back up {session.home / 'keys'} now, offline")
    say("next: give the card above to whoever assembles the genesis")


@member.command("card")
@with_session
def card(session: Session) -> None:
    """Print this home's card again."""
    from p2pledger.node.ceremony import card_from_json, card_to_json
    from p2pledger.node.home import Layout, existing_home, read_text

    path = Layout(existing_home(session.home)).card
    click.echo(card_to_json(card_from_json(read_text(path), str(path))), nl=False)
