"""`p2pledger resync`: what to do with a node that halted itself, or whose state store is damaged (P22)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from p2pledger.cli.output import Session, say, with_session

if TYPE_CHECKING:
    from p2pledger.engine.executor import WrongRoot
    from p2pledger.node.resync import Progress, StoppedNode

WORD = "resync"


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def resync(session: Session, yes: bool) -> None:
    """Execute the whole ledger of a stopped node afresh, and let the node run again if that agrees with the chain.

    Blocks, votes and the sign floor stay as they are; the state store is replaced. Ends with 1, and the node stays
    halted, where the chain has another root than this program comes to.
    """
    from p2pledger.engine.executor import WrongRoot
    from p2pledger.health.application import HealthApplication
    from p2pledger.node.home import Home
    from p2pledger.node.resync import stopped

    home = Home.load(session.home, os.environ)
    with stopped(home, HealthApplication()) as node:
        _explain(node)
        _confirm(yes)
        try:
            with _progress() as progress:
                rebuilt = node.rebuild(progress)
        except WrongRoot as error:
            _advise(error)
            raise
    session.show(
        {
            "home": home.layout.root,
            "height": rebuilt.height,
            "proven": rebuilt.proven,
            "checkpoint": rebuilt.checkpoint,
            "keys": rebuilt.keys,
            "halt": "none" if node.halt is None else "lifted",
        }
    )
    say(f"every root of the chain came out the same; start the node: p2pledger start --home {home.layout.root}")


def _explain(node: "StoppedNode") -> None:
    """What is known before anything is changed."""
    halt = "this node has not halted itself" if node.halt is None else f"this node halted itself: {node.halt.reason}"
    say(halt)
    damage = node.damage()
    say(f"its state store is {'sound by its own tree' if damage is None else f'damaged: {damage}'}")
    say(
        f"{node.tip} blocks will be checked and executed from the genesis with this version; if every root agrees with "
        "the chain, the result replaces the state store. Blocks, votes and the sign floor are not touched."
    )


def _confirm(yes: bool) -> None:
    """Raises UsageError where nobody can be asked, Abort for another answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is at the terminal to ask: pass --yes")
    if click.prompt(f"Type '{WORD}' to go on", err=True) != WORD:
        raise click.Abort


def _advise(error: "WrongRoot") -> None:
    say(
        f"the chain disagrees with this program about height {error.height}: the {error.kind} root in header "
        f"{error.header.height} is {error.listed.hex()}, this program comes to {error.own.hex()}"
    )
    say(
        "the node stays halted, its state store as it was. A quorum came to the other root: compare "
        "'p2pledger version' with the other members, install what they run and resync again. If versions are equal, "
        "keep data/ for the developers: this is a defect of the program or of this machine."
    )


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar on stderr while it goes on; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("heights", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
