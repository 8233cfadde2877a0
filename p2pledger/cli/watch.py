"""`p2pledger watch`: what happens to a patient's data, line by line as it happens, from one node or the next."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import click

from p2pledger.cli.connect import Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, Place
from p2pledger.primitives.errors import InvalidInput

if TYPE_CHECKING:
    from p2pledger.client.feed import Notice
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.health.topics import Topic
    from p2pledger.network.feed_api import Cursor

KINDS = "access,consent,break-glass,recovery,erasure,integrity"
_COLUMNS = ["next", "what", "about", "says", "proven"]


@click.command()
@click.option("--from", "start", type=Place(), metavar="HEIGHT:INDEX", help="The first place. [default: from now on]")
@click.option("--kinds", default=KINDS, show_default=True, help="What to tell.")
@click.option("--pid", type=Hex(16), help="About whom, for organisations. [default: everybody]")
@click.option("--count", type=click.IntRange(1), help="End after so many. [default: never]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the same as --output jsonl.")
@with_connection
def watch(
    connection: Connection,
    start: "Cursor | None",
    kinds: str,
    pid: bytes | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Tell what happens as it happens; a lost node is replaced by the next one, at the very place.

    Each line begins with the place to go on from: `--from` it, at any node, and nothing is missing or told twice.
    """
    import trio

    from p2pledger.client.feed import open_feed

    founding, nodes, topics = connection.founding(), connection.nodes(), topics_of(kinds)
    signer = connection.signer()
    session = replace(connection.session, form="jsonl") if as_json else connection.session
    begin = start if start is not None else connection.ask(signer, _tip)

    async def main() -> None:
        left = count
        async with open_feed(founding, nodes, signer, topics, begin, pid=pid, told=say) as notices:
            async for notice in notices:
                session.show_line(_row(notice), _COLUMNS)
                left = None if left is None else left - 1
                if left == 0:
                    return

    trio.run(main)


def topics_of(text: str) -> "list[Topic]":
    """The kinds in a list with commas; raises InvalidInput naming the one that there is not."""
    from p2pledger.health.topics import Topic

    known: tuple[Topic, ...] = get_args(Topic)
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise InvalidInput(f"there is no kind {name!r} of news; there are {', '.join(known)}")
    return [topic for topic in known if topic in chosen]


async def _tip(ledger: "LedgerClient") -> "Cursor":
    """The place after everything that has happened, as a node says."""
    from p2pledger.network.feed_api import Cursor
    from p2pledger.primitives.ids import Height

    return Cursor(Height((await ledger.status()).height + 1), 0)


def _row(notice: "Notice") -> dict[str, Any]:
    from p2pledger.client import words
    from p2pledger.health.topics import person_of

    return {
        "next": str(notice.next),
        "kinds": sorted(notice.topics),
        "what": type(notice.event).__name__,
        "about": person_of(notice.event),
        "says": words.event(notice.event),
        "transaction": notice.transaction,
        "proven": notice.is_proven,
    }
