"""`p2pledger prune`: a draft by which the members take operations and events out of old blocks."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, Span

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.primitives.ids import Nonce


@click.command()
@click.option("--horizon", required=True, type=click.IntRange(min=1), help="The last height concerned.")
@click.option("--kind", "kinds", type=click.IntRange(0, 127), multiple=True, help="Number of an operation; repeat.")
@click.option("--subject", type=Hex(16), help="Only what names this pid, did, consent, batch or access.")
@click.option("--with", "members", metavar="NAME", multiple=True, help="A member that will cosign; repeat.")
@click.option("--valid-for", "valid_ms", type=Span(), default="12h", show_default=True, help="Below 24h.")
@click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")
@with_connection
def prune(
    connection: Connection,
    horizon: int,
    kinds: tuple[int, ...],
    subject: bytes | None,
    members: tuple[str, ...],
    valid_ms: int,
    target: Path | None,
) -> None:
    """Make a draft, signed by this home's organisation, that most members have to sign with 'tx sign'.

    Without --kind and --subject it is about everything up to the horizon. Pruned blocks cannot be executed again:
    who is behind the horizon will need a snapshot.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.signing import Draft
    from p2pledger.health.pruning_operations import Prune
    from p2pledger.primitives.ids import AccountKey, Height, Millis

    founding, organisation = connection.founding(), connection.organisation()
    operation = Prune(Height(horizon), tuple(sorted(set(kinds))), subject)

    async def work(ledger: "LedgerClient") -> "Nonce":
        return await ledger.next_nonce()

    nonce = connection.ask(organisation.account, work)
    own = AccountKey(organisation.account.public)
    cosigners = [connection.card(name).account for name in members]
    draft = Draft.new(founding.chain, own, nonce, Millis(now_ms() + valid_ms), [operation], cosigners)
    write_draft(draft.signed(organisation.account), target)
    say("next: each member named runs 'tx sign', then anybody 'tx submit'")
