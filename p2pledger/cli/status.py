"""`p2pledger status`."""

from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import say

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.network.api import Equivocation, StatusReply


@click.command()
@with_connection
def status(connection: Connection) -> None:
    """Show where a node and its consortium stand: as this node says, not proven."""
    from msgspec.structs import asdict

    from p2pledger.cli.values import moment

    async def work(ledger: "LedgerClient") -> "StatusReply":
        return await ledger.status()

    found = connection.ask(connection.anybody(), work)
    session = connection.session
    peers = [
        {"peer": peer.organisation, "connected": peer.is_connected, "height": peer.committed, "node": peer.node}
        for peer in found.peers
    ]
    record = {
        "chain": found.chain,
        "node": found.node,
        "version": found.version,
        "ready": found.is_ready,
        "height": found.height,
        "executed": found.executed,
        "block time": moment(found.block_time_ms),
        "epoch": found.epoch,
        "view": found.view,
        "primary": found.primary,
        "n": found.n,
        "f": found.f,
        "q": found.q,
        "pending transactions": found.pending_transactions,
        "view changes": found.view_changes,
    }
    caught = [_in_words(one) for one in found.equivocations]
    if session.form == "table":
        session.show({**record, "caught contradicting themselves": "; ".join(caught) or "nobody"})
        click.echo()
        session.show_all(peers, ["peer", "connected", "height", "node"])
    else:
        equivocations = [asdict(one) for one in found.equivocations]
        fields = {name.replace(" ", "_"): value for name, value in record.items()}
        session.show(fields | {"equivocations": equivocations, "peers": peers})
    if found.n < 4:
        say(f"{found.n} members: no fault is tolerated; one that stops stops all, one that lies is believed")


def _in_words(one: "Equivocation") -> str:
    place = f"view {one.view}, height {one.height}" if one.height else f"view {one.view}"
    where = "known to this node only" if one.recorded is None else f"on the chain since height {one.recorded}"
    return f"{one.organisation} ({one.kind}, {place}; {where})"
