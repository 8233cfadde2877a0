"""`p2pledger compact`: give freed pages back, so that what was pruned or erased is in no file any more."""

import os

import click

from p2pledger.cli.output import Session, say, with_session


@click.command()
@with_session
def compact(session: Session) -> None:
    """Copy both stores of a stopped node without their free pages, and remove the old files.

    LMDB keeps the pages of what was deleted until something else is written there. What remains on the medium itself is
    the medium's matter.
    """
    session.show_all(compacted_stores(session), ["store", "before", "after"])
    say("compacted")


def compacted_stores(session: Session) -> list[dict[str, object]]:
    """Compact both stores of the home; a row for each. Raises ConfigError while its node runs, StoreError."""
    from p2pledger.node.home import Home
    from p2pledger.storage.environment import compacted
    from p2pledger.storage.home import exclusive_lock

    home = Home.load(session.home, os.environ)
    with exclusive_lock(home.layout.lock):
        return [
            {"store": path.name, "before": before, "after": after}
            for path in (home.ledger, home.state)
            for before, after in [compacted(path)]
        ]
