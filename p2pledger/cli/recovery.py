"""`p2pledger recovery`: a new wallet in place of a lost one, with the guardians' approval and after a delay (F-23)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.guardian import by_anybody, guarded_places, place_row, read_file, standing, write_file
from p2pledger.cli.output import say
from p2pledger.cli.values import Span, moment
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

if TYPE_CHECKING:
    from p2pledger.client.guardians import RecoveryRequest, RequestedPlace
    from p2pledger.client.guarding import Guarding
    from p2pledger.client.identities import OpenAs
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.health.guardian_operations import RecoveryStart

_FIRST = 1
"""The nonce of a start: nothing else can be the first transaction of a new key."""


@click.group()
def recovery() -> None:
    """Put a new wallet in a lost one's place, or say that it is not you."""


@recovery.command("request")
@click.argument("card", type=FILE)
@click.option("--for", "span_ms", type=Span(), default="30d", show_default=True, help="Approvals serve so long.")
@click.option("--to", "target", type=FILE, required=True, help="Write the request here, for the guardians.")
@with_connection
def request(connection: Connection, card: Path, span_ms: int, target: Path) -> None:
    """With a new --wallet, write what guardians shall approve. CARD: any guardian's, or the custodian's copy."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client import guardians

    read = read_file(guardians.GuardianCard, card, connection)
    file = connection.wallet_to_change()
    asked, wallet = guardians.ask(read, file.wallet, now_ms() + span_ms)
    write_file(target, asked.dump())
    file.keep(wallet)
    connection.session.show({"request": target, "word": asked.word, "needed": f"{read.threshold} of {read.guardians}"})
    say(f"hand it to {read.threshold} guardians or more, and read them this word when they call you: {asked.word}")


@recovery.command("start")
@click.argument("request_file", metavar="REQUEST", type=FILE)
@click.argument("approvals", metavar="APPROVAL...", type=FILE, nargs=-1, required=True)
@click.option("--beyond-veto", is_flag=True, help="After two vetoes: with one guardian more, and the custodian.")
@click.option("--to", "target", type=FILE, help="With --beyond-veto: write the draft here. [default: stdout]")
@with_connection
def start(
    connection: Connection, request_file: Path, approvals: tuple[Path, ...], beyond_veto: bool, target: Path | None
) -> None:
    """With the new --wallet, bring the guardians' APPROVALs to the chain: from now on the delay runs."""
    from p2pledger.client import guardians

    asked = read_file(guardians.RecoveryRequest, request_file, connection)
    files = [read_file(guardians.GuardianApproval, path, connection) for path in approvals]
    places = [place for place in asked.places if connection.at is None or place.organisation == _at(connection)]
    operations = [guardians.start_recovery(place, asked, files, is_beyond_veto=beyond_veto) for place in places]
    if beyond_veto:
        _draft_beyond_veto(connection, asked, operations, target)
        return
    held = connection.wallet()

    async def work(open_as: "OpenAs") -> list[dict[str, Any]]:
        rows = []
        for place, operation in zip(places, operations, strict=True):
            persona = held.at(place.organisation)
            _demand_own(persona.account, place.key)
            async with open_as(persona.signing) as ledger:
                if not await _waits(ledger, place):  # done already where a connection was lost in the middle
                    await ledger.submit(operation)
                found = await ledger.guarding(place.pid)
            due = found.recovery.due_ms if found.recovery is not None else 0
            rows.append({**place_row(connection, place.organisation, place.pid), "final from": moment(due)})
        return rows

    connection.session.show_all(connection.ask_as_many(work), ["organisation", "pid", "final from"])
    say("whoever has the lost wallet can veto until then; after that: p2pledger recovery finalize, then recovery open")


@recovery.command("veto")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_connection
def veto(connection: Connection, yes: bool) -> None:
    """With the present --wallet, say that a recovery which waits is not yours: it ends at once."""
    from p2pledger.health.guardian_operations import RecoveryVeto

    found = [one for one in guarded_places(connection) if one[2].guardianship.pending is not None]
    if not found:
        raise InvalidInput("no recovery waits; there is nothing to veto")
    if not yes and not click.confirm(f"Veto at {len(found)} places?", err=True):
        raise InvalidInput("nothing was vetoed")
    held = connection.wallet()

    async def work(open_as: "OpenAs") -> list[dict[str, Any]]:
        rows = []
        for organisation, pid, guarding in found:
            assert guarding.guardianship.pending is not None
            async with open_as(held.at(organisation).signing) as ledger:
                receipt = await ledger.submit(RecoveryVeto(pid, guarding.guardianship.pending))
            row = place_row(connection, organisation, pid)
            rows.append({**row, "height": receipt.executed.receipt.height})
        return rows

    connection.session.show_all(connection.ask_as_many(work), ["organisation", "pid", "height"])
    say("not your guardians any more? name others: p2pledger guardian set; after two vetoes they can go beyond a veto")


@recovery.command("finalize")
@with_connection
def finalize(connection: Connection) -> None:
    """After the delay, with the new --wallet: its keys take the place of the lost ones, which are dead from then on."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.health.guardian_operations import RecoveryFinalize

    found = [one for one in guarded_places(connection) if one[2].guardianship.pending is not None]
    if not found:
        raise InvalidInput("no recovery waits for this wallet; see 'recovery status', or begin with 'recovery request'")
    early = [one for one in found if one[2].recovery is not None and now_ms() < one[2].recovery.due_ms]
    if early:
        raise Rejected(Code.E_TIMELOCK, _too_early(early))
    operations = [RecoveryFinalize(pid, _pending(guarding)) for _, pid, guarding in found]
    receipts = by_anybody(connection, *operations)
    rows = [
        {**place_row(connection, organisation, pid), "height": receipt.executed.receipt.height}
        for (organisation, pid, _), receipt in zip(found, receipts, strict=True)
    ]
    connection.session.show_all(rows, ["organisation", "pid", "height"])
    say("the old key is dead. Next: p2pledger recovery open CARD, then look through 'wallet consents' and 'wallet log'")


@recovery.command("status")
@with_connection
def status(connection: Connection) -> None:
    """Show the recoveries of --wallet's owner: of the present one's, or of the one that is to take its place."""
    from p2pledger.cli.clock import now_ms

    rows = [
        {**place_row(connection, organisation, pid), **standing(found, now_ms())}
        for organisation, pid, found in guarded_places(connection)
    ]
    connection.session.show_all(rows, ["organisation", "pid", "recovery", "vetoes", "frozen"])
    if not rows:
        say("nobody guards this wallet's owner, and no recovery to it waits")


@recovery.command("open")
@click.argument("card", type=FILE)
@with_connection
def open_(connection: Connection, card: Path) -> None:
    """After 'recovery finalize': get the old box keys from the validators' shares into --wallet.

    Do it before 'wallet rotate': shares are sealed to the very key that the guardians approved of. CARD: any
    guardian's, or the custodian's copy.
    """
    from p2pledger.client import guardians
    from p2pledger.client.recoveries import open_place

    read = read_file(guardians.GuardianCard, card, connection)
    file = connection.wallet_to_change()
    rows = []
    for place in read.places:
        if connection.at is not None and place.organisation != _at(connection):
            continue
        held = file.wallet

        async def work(open_as: "OpenAs", place: Any = place, held: Any = held) -> Any:
            async with open_as(held.at(place.organisation).signing) as ledger:
                return await open_place(ledger, place, held)

        opened = connection.ask_as_many(work)
        file = file.keep(held.with_recovered(place.organisation, opened.boxes))
        row = place_row(connection, place.organisation, place.pid)
        rows.append({**row, "box keys": len(opened.boxes), "wrong shares of": list(opened.wrong)})
    connection.session.show_all(rows, ["organisation", "pid", "box keys", "wrong shares of"])
    say(f"{file.path} opens old records again; next: p2pledger guardian set, for cards that keep the new keys, too")


async def _waits(ledger: "LedgerClient", place: "RequestedPlace") -> bool:
    """Whether this very recovery was started there and still waits."""
    try:
        found = await ledger.guarding(place.pid, recovery=place.recovery)
    except Rejected:  # it may not even ask: nothing that concerns this key was started
        return False
    return found.recovery is not None and found.recovery.progress == "pending"


def _draft_beyond_veto(
    connection: Connection, asked: "RecoveryRequest", operations: "list[RecoveryStart]", target: Path | None
) -> None:
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.ids import Millis, Nonce

    if len(operations) != 1:
        raise InvalidInput("one custodian at a time: say --at NAME")
    (operation,) = operations
    custodian = connection.card(connection.at or _organisation_of(asked, operation.pid).hex())
    persona = connection.wallet().at(custodian.organisation)
    _demand_own(persona.account, operation.key)
    expires = Millis(now_ms() + 12 * 3_600_000)
    draft = Draft.new(
        connection.founding().chain, persona.account, Nonce(_FIRST), expires, [operation], [custodian.account]
    )
    write_draft(draft.signed(persona.signing), target)
    say(f"next: {custodian.name} looks at the person and runs 'tx sign', then anybody 'tx submit'")


def _organisation_of(asked: "RecoveryRequest", pid: bytes) -> bytes:
    return next(place.organisation for place in asked.places if place.pid == pid)


def _demand_own(own: bytes, asked: bytes) -> None:
    if own != asked:
        raise InvalidInput(f"the request is for key {asked.hex()}, this wallet has {own.hex()}; use the one that asked")


def _at(connection: Connection) -> bytes:
    assert connection.at is not None
    return connection.card(connection.at).organisation


def _pending(found: "Guarding") -> bytes:
    assert found.guardianship.pending is not None
    return found.guardianship.pending


def _too_early(early: "list[tuple[bytes, bytes, Guarding]]") -> str:
    due = max(found.recovery.due_ms for _, _, found in early if found.recovery is not None)
    return f"the delay is not over: come again from {moment(due)} on; the present key can veto until it is final"
