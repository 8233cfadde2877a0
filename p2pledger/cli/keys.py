"""`p2pledger keys`: what lies in keys/, and its backup on paper."""

import os

import click

from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput

PURPOSES = {
    "account": "signs transactions and the genesis",
    "consensus": "votes",
    "node": "carries the links",
    "box": "opens what others seal to this member",
}


@click.group()
def keys() -> None:
    """Show, back up, restore and check the keys of a home."""


@keys.command("show")
@with_session
def show(session: Session) -> None:
    """Show the public halves of this home's keys."""
    from p2pledger.node.home import Layout, existing_home, load_keys

    layout = Layout(existing_home(session.home))
    held = load_keys(layout)
    public = {
        "account": held.account.public,
        "consensus": held.consensus.public,
        "node": held.node.public,
        "box": held.box.public,
    }
    rows = [{"key": name, "public": public[name], "use": PURPOSES[name]} for name in public]
    session.show_all(rows, ["key", "public", "use"])


@keys.command("phrase")
@click.argument("name", type=click.Choice(list(PURPOSES)))
@with_session
def phrase(session: Session, name: str) -> None:
    """Show the 24 words that restore the key NAME of this home. On paper, in the safe, never in a picture or a mail."""
    from p2pledger.client.phrase import phrase_of
    from p2pledger.node.home import Layout, existing_home, load_seed

    session.show({"key": name, "phrase": phrase_of(load_seed(Layout(existing_home(session.home)).key(name)))})


@keys.command("restore")
@click.argument("name", type=click.Choice(list(PURPOSES)))
@with_session
def restore(session: Session, name: str) -> None:
    """Write the missing key NAME of this home from its 24 words, which must be those of the home's card.

    A node whose journal is lost as well must not vote before it has asked the others; it does so by itself.
    """
    from p2pledger.client.files import create_private
    from p2pledger.client.phrase import secret_of
    from p2pledger.client.sealing import BoxKey
    from p2pledger.node.ceremony import card_from_json
    from p2pledger.node.home import Layout, existing_home, read_text
    from p2pledger.primitives.crypto import SigningKey

    layout = Layout(existing_home(session.home))
    card = card_from_json(read_text(layout.card), str(layout.card)).card
    expected = {"account": card.account, "consensus": card.validator, "node": card.node, "box": card.box}[name]
    seed = secret_of(click.prompt("Phrase", hide_input=True, err=True))
    if len(seed) != 32:
        raise InvalidInput("a key's backup phrase has 24 words")
    public = BoxKey(seed).public if name == "box" else SigningKey(seed).public
    if public != expected:
        raise InvalidInput(f"these words are of key {public.hex()}; the card's {name} key is {expected.hex()}")
    create_private(layout.key(name), seed.hex().encode() + b"\n")
    session.show({"key": name, "public": public, "file": layout.key(name)})
    say("next: p2pledger keys check")


@keys.command("check")
@with_session
def check(session: Session) -> None:
    """Check everything that `start` checks: keys, modes, certificate, genesis, settings. Status 78 if not."""
    from p2pledger.node.home import Home

    home = Home.load(session.home, os.environ)
    session.show(
        {
            "home": home.layout.root,
            "member": home.card.name,
            "organisation": home.card.organisation,
            "chain": home.founding.chain,
            "members": len(home.founding.genesis.cards),
            "peers": len(home.peers()),
        }
    )
    say("all checks passed")
