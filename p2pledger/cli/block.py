"""`p2pledger block`: committed blocks, as a node shows them."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import Session

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.network.api import BlockReply

_COLUMNS = ["height", "time", "transactions", "signatures", "view", "hash"]
_POLL_S = 0.5


@click.group()
def block() -> None:
    """Show committed blocks."""


@block.command("get")
@click.argument("height", type=click.IntRange(min=0))
@with_connection
def get(connection: Connection, height: int) -> None:
    """Show the block at HEIGHT, 0 for the newest, with the receipts of its transactions."""
    from p2pledger.cli.tx import receipt_row

    async def work(ledger: "LedgerClient") -> "BlockReply":
        return await ledger.block(height)

    found = connection.ask(connection.anybody(), work)
    header, session = found.header, connection.session
    record: dict[str, Any] = {
        **_row(found),
        "parent": header.parent,
        "batches": list(header.batches),
        "transaction_root": header.transaction_root,
        "unsettled": header.unsettled,
        "executed_height": header.executed_height,
        "effects_roots": list(header.effects_roots),
        "state_roots": [f"{root.height}: {root.root.hex()}" for root in header.state_roots],
    }
    receipts = [receipt_row(executed, session.form) for executed in found.receipts]
    if session.form != "table":
        session.show({**record, "receipts": receipts})
        return
    session.show(record)
    if receipts:
        click.echo()
        session.show_all(receipts, ["index", "code", "transaction", "events"])


@block.command("tail")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with every new block, one a line, until interrupted.")
@with_connection
def tail(connection: Connection, count: int, follow: bool) -> None:
    """Show the newest blocks, oldest first."""

    async def work(ledger: "LedgerClient") -> None:
        tip = await ledger.block(0)
        first = max(1, tip.header.height - count + 1)
        shown = [await ledger.block(height) for height in range(first, tip.header.height)] + [tip]
        if not follow:
            connection.session.show_all([_row(one) for one in shown], _COLUMNS)
            return
        for one in shown:
            _line(connection.session, one)
        async for one in blocks_after(ledger, tip.header.height):
            _line(connection.session, one)

    connection.ask(connection.anybody(), work)


async def blocks_after(ledger: "LedgerClient", height: int) -> "AsyncGenerator[BlockReply]":
    """Every block above `height`, each once and in order, as they come."""
    import trio

    while True:
        tip = await ledger.block(0)
        for next_height in range(height + 1, tip.header.height):
            yield await ledger.block(next_height)
        if tip.header.height > height:
            yield tip
            height = tip.header.height
        await trio.sleep(_POLL_S)


def _row(found: "BlockReply") -> dict[str, Any]:
    from p2pledger.cli.values import moment

    certificate = found.certificate
    return {
        "height": found.header.height,
        "time": moment(found.header.time_ms),
        "transactions": found.transactions,
        "signatures": None if certificate is None else len(certificate.votes),
        "view": None if certificate is None else certificate.view,
        "hash": found.header.hash,
    }


def _line(session: Session, found: "BlockReply") -> None:
    """One line, seen at once also by a program that reads them."""
    row = _row(found)
    if session.form == "table":
        click.echo(f"{row['height']:>8}  {row['time']}  {row['transactions']:>5} tx  {row['hash'].hex()}")
    else:
        Session(session.home_flag, "jsonl").show(row)
