"""`p2pledger sharing`: the joint key that records are sealed to, and this validator's share of it."""

from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.primitives.errors import InvalidInput, Unavailable, Unreachable

if TYPE_CHECKING:
    from p2pledger.client.joint_keys import Standing
    from p2pledger.storage.share_files import ShareFiles
    from p2pledger.threshold.dkg import Ceremony

_SEATS = ["validator", "joined", "dealt", "reported", "confirmed"]


@click.group()
def sharing() -> None:
    """The joint key that records are sealed to: its ceremony, its shares."""


@sharing.command("status")
@with_connection
def status(connection: Connection) -> None:
    """Show the joint key, what this home holds of it, and the ceremony that runs; proven at the last checkpoint."""
    found, files = _standing(connection), _files(connection)
    active, names = found.active, [str(name) for name in files.names()]
    record: dict[str, Any] = {"proven up to height": found.height}
    if active is not None:
        key = active.key
        sharing_of = f"share-{key.key_epoch}-{key.share_epoch}-"
        record |= {
            "key epoch": key.key_epoch,
            "share epoch": key.share_epoch,
            "public key": key.public,
            "shares needed": f"{key.threshold} of {key.holders}",
            "active since height": active.height,
            "this home holds a share": any(name.startswith(sharing_of) for name in names),
        }
    record |= {"secrets here": names, "wished": sorted(map(str, files.wishes()))}
    table = found.table
    if table is not None:
        record |= {"deposit table": table.number, "deposit keys": f"{len(table.holders)}, {table.threshold} are needed"}
    ceremony = found.ceremony
    if ceremony is not None:
        of = ceremony.id
        record["ceremony"] = f"{of.key_epoch}.{of.share_epoch}, attempt {of.attempt}: {ceremony.phase.name.lower()}"
    rows = [] if ceremony is None else _seats(connection, ceremony)
    session = connection.session
    if session.form == "table":
        session.show(record)
        if rows:
            click.echo()
            session.show_all(rows, _SEATS)
    else:
        session.show({name.replace(" ", "_"): value for name, value in record.items()} | {"validators": rows})
    if active is None:
        say("no joint key is active yet: records can be sealed with 'record ingest --one-time' only")


def _seats(connection: Connection, ceremony: "Ceremony") -> list[dict[str, Any]]:
    names: dict[bytes, str] = {card.validator: card.name for card in connection.founding().genesis.cards}
    rows = []
    for seat in sorted({*ceremony.receivers, *ceremony.dealers}):
        receiver = ceremony.receivers.index(seat) + 1 if seat in ceremony.receivers else 0
        dealer = ceremony.dealers.index(seat) + 1 if seat in ceremony.dealers else 0
        rows.append(
            {
                "validator": names.get(seat, seat.hex()),
                "joined": receiver in ceremony.joined,
                "dealt": dealer in ceremony.dealt,
                "reported": receiver in ceremony.reported,
                "confirmed": receiver in ceremony.confirmed,
            }
        )
    return rows


@sharing.command("begin")
@click.option("--new-key", is_flag=True, help="A further key for what is sealed from now on; the old one stays.")
@with_connection
def begin(connection: Connection, new_key: bool) -> None:
    """Have this home's node begin the ceremony for a joint key; it goes on beginning until one succeeds."""
    active = _standing(connection).active
    if active is not None and not new_key:
        raise InvalidInput(
            f"key epoch {active.key.key_epoch} is active: say --new-key for a further key, or "
            "'p2pledger sharing refresh' for new shares of this one"
        )
    _wish(connection, 1 if active is None else active.key.key_epoch + 1, 0)


@sharing.command("refresh")
@with_connection
def refresh(connection: Connection) -> None:
    """Have this home's node begin new shares of the newest key; every validator's old share is then deleted."""
    active = _standing(connection).active
    if active is None:
        raise InvalidInput("no joint key is active yet, so there is nothing to share anew: 'p2pledger sharing begin'")
    _wish(connection, active.key.key_epoch, active.key.share_epoch + 1)


def _wish(connection: Connection, key_epoch: int, share_epoch: int) -> None:
    from p2pledger.health.key_keeper import Wish

    _files(connection).wish(Wish(key_epoch, share_epoch))
    connection.session.show({"key epoch": key_epoch, "share epoch": share_epoch, "wished": True})
    say("the node of this home begins it, now or when it runs; follow it with 'p2pledger sharing status'")


def _standing(connection: Connection) -> "Standing":
    """As the last checkpoint proves it. Before the first one nothing is proven, and there is no key either: what makes
    a key active brings a checkpoint about. Should there be one all the same, the node drops the wish for the first.
    """
    from p2pledger.client.joint_keys import Standing, standing

    try:
        return connection.ask(connection.organisation().account, standing)
    except Unreachable:
        raise
    except Unavailable as error:
        say(f"nothing is proven yet: {error}")
        return Standing(0, None, None, None)


def _files(connection: Connection) -> "ShareFiles":
    from p2pledger.storage.share_files import ShareFiles

    home = connection.home()
    return ShareFiles(home.layout.shares, home.founding.chain, home.node)
