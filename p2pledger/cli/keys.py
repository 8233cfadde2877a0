"""`p2pledger keys`: what lies in keys/, never the secrets themselves."""

import os

import click

from p2pledger.cli.output import Session, say, with_session

PURPOSES = {
    "account": "signs transactions and the genesis",
    "consensus": "votes",
    "node": "carries the links",
    "box": "opens what others seal to this member",
}


@click.group()
def keys() -> None:
    """Show and check the keys of a home."""


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
