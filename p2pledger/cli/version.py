"""`p2pledger version`."""

import platform

import click

from p2pledger import __version__
from p2pledger.chain.block import PROTOCOL_VERSION
from p2pledger.cli.output import Session, with_session


@click.command()
@with_session
def version(session: Session) -> None:
    """Show the versions of this program, its protocol and its Python."""
    session.show({"version": __version__, "protocol": PROTOCOL_VERSION, "python": platform.python_version()})
