"""`p2pledger backup`: sealed sets of the home's vault, each with a key of its own, which an erasure can end."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, moment

if TYPE_CHECKING:
    from p2pledger.client.backup import Backups
    from p2pledger.vault.objects import ObjectStore

_SET = click.argument("set_id", metavar="SET", type=Hex(16))


@click.group()
def backup() -> None:
    """Back the vault up, check a backup, restore it."""


@backup.command("make")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="Where sets go.")
@with_connection
def make(connection: Connection, folder: Path) -> None:
    """Write everything in the vault into a new set, and read it back. The key stays in the home."""
    from p2pledger.cli.clock import now_ms

    one = _backups(connection).make(_store(connection), folder, now_ms())
    connection.session.show({"set": one.set_id, "file": str(one.path), "batches": len(one.manifests)})


@backup.command("list")
@with_connection
def list_(connection: Connection) -> None:
    """List the sets whose keys are in the home, the oldest first."""
    rows = [
        {
            "set": one.set_id,
            "made": moment(one.created_ms),
            "batches": len(one.manifests),
            "file": str(one.path),
            "is there": one.path.exists(),
        }
        for one in _backups(connection).sets()
    ]
    connection.session.show_all(rows, ["set", "made", "batches", "file", "is there"])


@backup.command("check")
@_SET
@with_connection
def check(connection: Connection, set_id: bytes) -> None:
    """Read all of a set; status 5 where a byte of it was changed."""
    backups = _backups(connection)
    files = backups.check(backups.set_of(set_id))
    connection.session.show({"set": set_id, "files": files, "whole": True})


@backup.command("restore")
@_SET
@with_connection
def restore(connection: Connection, set_id: bytes) -> None:
    """Put a set into the home's vault. Manifests of batches that are there take the form that they have in the set."""
    backups = _backups(connection)
    files = backups.restore(backups.set_of(set_id), _store(connection))
    connection.session.show({"set": set_id, "files": files})
    say("restored; next: p2pledger erase recheck, which deletes again what the chain has erased meanwhile")


def _backups(connection: Connection) -> "Backups":
    from p2pledger.cli.erase import backups_of

    return backups_of(connection)


def _store(connection: Connection) -> "ObjectStore":
    from p2pledger.cli.record import vault_of

    return vault_of(connection, connection.organisation()).store
