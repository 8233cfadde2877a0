"""`p2pledger consortium`: everybody's home at once, for demonstrations."""

from pathlib import Path

import click

from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput


@click.group()
def consortium() -> None:
    """Make all homes of a consortium, for demonstrations."""


@consortium.command("create")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--members", type=click.IntRange(1, 50), default=4, show_default=True, help="How many.")
@click.option("--member", "named", multiple=True, metavar="NAME[:KIND]", help="A member by name; repeat.")
@click.option("--name", default="Demo consortium", show_default=True, help="Public name of the consortium.")
@click.option("--base-port", type=int, default=7420, show_default=True, help="First port; 0 = any free ones.")
@click.option("--param", "parameters", multiple=True, metavar="KEY=VALUE", help="A parameter all must agree on.")
@with_session
def create(
    session: Session,
    folder: Path,
    members: int,
    named: tuple[str, ...],
    name: str,
    base_port: int,
    parameters: tuple[str, ...],
) -> None:
    """DEMO ONLY: make the homes of all members in FOLDER, on this one machine, which then sees every key.

    Without names: two hospitals, an insurer and an agency, then further hospitals. To found a real consortium each
    member runs `member init` on its own machine; see docs/operations.md.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.genesis import parse_pairs
    from p2pledger.node.ceremony import create_consortium, default_members

    made = create_consortium(
        folder,
        [_named(text) for text in named] or default_members(members),
        name=name,
        created_ms=now_ms(),
        base_port=base_port,
        parameters=parse_pairs(parameters),
    )
    rows = [
        {"name": one.name, "home": one.home, "p2p": str(one.p2p), "client": str(one.client), "ops": str(one.ops)}
        for one in made
    ]
    session.show_all(rows, ["name", "home", "p2p", "client", "ops"])
    say("DEMO ONLY: this machine has seen every member's keys")
    say(f"next: p2pledger start --home {made[0].home}   (and the others, each in its own terminal)")


def _named(text: str) -> tuple[str, str]:
    from p2pledger.node.ceremony import KINDS

    name, _, kind = text.partition(":")
    kind = kind or "hospital"
    if kind not in KINDS:
        raise InvalidInput(f"member {text!r}: kind {kind!r} is none of {', '.join(KINDS)}")
    return name, kind
