"""`p2pledger snapshot`: a member's stores as one file that proves itself, for who cannot execute what was pruned."""

import os
from pathlib import Path

import click

from p2pledger.cli.connect import FILE
from p2pledger.cli.output import Session, say, with_session
from p2pledger.primitives.errors import InvalidInput


@click.group()
def snapshot() -> None:
    """Hand a stopped node's stores to another member, or take in those of another."""


@snapshot.command("save")
@click.argument("file", type=FILE)
@with_session
def save(session: Session, file: Path) -> None:
    """Write everything that this stopped node holds up to its last checkpoint into FILE."""
    from p2pledger.node.home import Home
    from p2pledger.node.snapshot import saved_to

    saved = saved_to(Home.load(session.home, os.environ), file)
    session.show(
        {"file": file, "chain": saved.chain, "checkpoint": saved.checkpoint, "tip": saved.tip, "keys": saved.keys}
    )


@snapshot.command("install")
@click.argument("file", type=FILE)
@with_session
def install(session: Session, file: Path) -> None:
    """Check FILE against the genesis, append the blocks that this stopped node lacks, replace its state store.

    Votes and the sign floor stay. Status 5, and nothing changed, where the file does not hold.
    """
    from p2pledger.node.home import Home
    from p2pledger.node.snapshot import install

    home = Home.load(session.home, os.environ)
    try:
        with file.open("rb") as source:
            saved = install(home, source)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist") from error
    session.show({"chain": saved.chain, "checkpoint": saved.checkpoint, "tip": saved.tip, "keys": saved.keys})
    say(f"installed; start the node: p2pledger start --home {home.layout.root}")
