"""`p2pledger guardian`: people who together can give a patient a new key, or freeze a stolen one (F-23, F-25)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Instant, Span, moment
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

if TYPE_CHECKING:
    from p2pledger.client.guardian_cards import GuardianCards
    from p2pledger.client.guardians import GuardianApproval, GuardianCard, Named
    from p2pledger.client.guarding import Guarding
    from p2pledger.client.identities import Known, OpenAs
    from p2pledger.client.ledger import Receipt
    from p2pledger.primitives.codec import Record

FOLDER = click.Path(file_okay=False, path_type=Path)
_TO = click.option("--to", "target", type=FILE, required=True, help="Write it here, to be handed over.")
_STATUS = ["organisation", "pid", "needed", "delay", "change", "recovery", "vetoes", "frozen"]


@click.group()
def guardian() -> None:
    """Name guardians, guard somebody, freeze a stolen key."""


@guardian.command("invite")
@_TO
@with_connection
def invite(connection: Connection, target: Path) -> None:
    """As a patient, write an invitation for one guardian; a new one for each.

    It is about every organisation where the chain knows the wallet's owner as a patient, or about --at alone.
    """
    from p2pledger.client import guardians

    found = _patient_at(connection)
    invitation = guardians.invite([one.persona for one in found], connection.founding().chain)
    write_file(target, invitation.dump())
    connection.session.show({"invitation": target, "places": len(found)})
    say("hand it to one guardian; next, the guardian: p2pledger guardian accept INVITATION --wallet FILE --to FILE")


@guardian.command("accept")
@click.argument("invitation", type=FILE)
@_TO
@with_connection
def accept(connection: Connection, invitation: Path, target: Path) -> None:
    """As a guardian, answer INVITATION with keys that --wallet makes for it; any wallet serves, registered or not."""
    from p2pledger.client import guardians

    read = read_file(guardians.Invitation, invitation, connection)
    acceptance = guardians.accept(read, connection.wallet())
    write_file(target, acceptance.dump())
    connection.session.show({"acceptance": target, "places": len(acceptance.places)})
    say("hand it back to the patient, and keep the wallet's words on paper: they are all that a guardian needs")


@guardian.command("set")
@click.argument("acceptances", type=FILE, nargs=-1, required=True)
@click.option("--needed", "threshold", type=click.IntRange(2, 16), required=True, help="So many must approve.")
@click.option("--delay", "delay_ms", type=Span(), default="3d", show_default=True, help="In which you can veto.")
@click.option("--cards", "folder", type=FOLDER, required=True, help="Write the guardians' cards into this new folder.")
@click.option("--without-boxes", is_flag=True, help="Keep no box keys: a recovery will not open old records.")
@with_connection
def set_(
    connection: Connection,
    acceptances: tuple[Path, ...],
    threshold: int,
    delay_ms: int,
    folder: Path,
    without_boxes: bool,
) -> None:
    """As a patient, name those who gave ACCEPTANCES, at every organisation at once.

    The first guardians stand at once, others in their place after the delay. Do it again after 'wallet rotate': cards
    open the box keys of the day on which they were made.
    """
    from p2pledger.client import guardians
    from p2pledger.client.recoveries import Terms, name_everywhere

    read = [read_file(guardians.Acceptance, path, connection) for path in acceptances]
    found, held = _patient_at(connection), connection.wallet()
    terms = Terms(threshold, delay_ms, has_escrow=not without_boxes)

    async def prepare(open_as: "OpenAs") -> "list[Named]":
        return await name_everywhere(open_as, held, found, read, terms)

    named = connection.ask_as_many(prepare)
    cards, spare = guardians.cards_of(named, connection.founding().chain)
    _write_cards(folder, [path.stem for path in acceptances], cards, spare)

    async def send(open_as: "OpenAs") -> list[dict[str, Any]]:
        rows = []
        for one in named:
            async with open_as(one.persona.signing) as ledger:
                receipt = await ledger.submit(one.operation)
            rows.append({**place_row(connection, one.persona.organisation, one.persona.did), **_since(receipt)})
        return rows

    connection.session.show_all(connection.ask_as_many(send), ["organisation", "pid", "height", "from"])
    say(f"hand each guardian its card of {folder}, and {folder / 'copy.card'} to your custodians")


@guardian.command("keep")
@click.argument("card", type=FILE)
@with_connection
def keep(connection: Connection, card: Path) -> None:
    """As a custodian, keep a patient's copy.card in this home, for a recovery when all other cards are lost."""
    from p2pledger.client import guardians

    kept = cards_in(connection).keep(read_file(guardians.GuardianCard, card, connection))
    connection.session.show_all([{"card": path} for path in kept], ["card"])


@guardian.command("approve")
@click.argument("request", type=FILE)
@click.argument("card", type=FILE)
@click.option("--yes", is_flag=True, help="You have spoken with the person; do not ask.")
@_TO
@with_connection
def approve(connection: Connection, request: Path, card: Path, yes: bool, target: Path) -> None:
    """As a guardian, approve of the new keys in REQUEST with your CARD: after you have spoken with the person."""
    from p2pledger.client import guardians

    asked = read_file(guardians.RecoveryRequest, request, connection)
    own = read_file(guardians.GuardianCard, card, connection)
    approval = guardians.approve_request(asked, own, connection.wallet())
    say(f"new keys for {len(asked.places)} places; the word that the person must read to you: {asked.word}")
    if not yes and not click.confirm("Have you spoken with the person, and was it this word?", err=True):
        raise InvalidInput("nothing was approved; call the person on a number that you knew before")
    write_file(target, approval.dump())
    connection.session.show({"approval": target, "word": asked.word, "places": len(approval.places)})
    say("hand it to the person who asked; next, that person: p2pledger recovery start REQUEST APPROVAL...")


@guardian.command("freeze")
@click.argument("card", type=FILE)
@click.option("--until", "until_ms", type=Instant(), help="The end; the first guardian says it.")
@click.option("--with", "others", type=FILE, multiple=True, metavar="APPROVAL", help="Another guardian's; repeat.")
@click.option("--end", is_flag=True, help="End the freeze that would end --until then.")
@click.option("--to", "target", type=FILE, help="Write your approval here, for the next guardian.")
@with_connection
def freeze(
    connection: Connection, card: Path, until_ms: int | None, others: tuple[Path, ...], end: bool, target: Path | None
) -> None:
    """As a guardian, say that the patient's key is stolen: no new consents and no other key, at once.

    The first guardian says --until when and writes --to a file; the next adds --with that file. Who completes the
    number sends it. Consents that stand go on, and so does the patient's right to veto.
    """
    from p2pledger.client import guardians

    own = read_file(guardians.GuardianCard, card, connection)
    before = [read_file(guardians.GuardianApproval, path, connection) for path in others]
    if before and until_ms is None:
        until_ms, end = before[0].until_ms, before[0].kind == "unfreeze"
    if until_ms is None:
        raise InvalidInput("say until when: --until 2026-12-24T00:00:00Z, or --with the approval of another guardian")
    approval = guardians.approve_freeze(own, connection.wallet(), until_ms, is_end=end)
    files = [*before, approval]
    signers = {place.guardian for file in files for place in file.places if place.pid == own.places[0].pid}
    if target is not None:
        write_file(target, approval.dump())
    if len(signers) < own.threshold:
        if target is None:
            raise InvalidInput(f"{len(signers)} of {own.threshold} guardians have signed; say --to FILE for the next")
        connection.session.show({"approval": target, "signed": len(signers), "needed": own.threshold})
        say("hand it to the next guardian, who runs: p2pledger guardian freeze CARD --with APPROVAL")
        return
    connection.session.show_all(_send_freeze(connection, own, files), ["organisation", "pid", "height", "until"])


@guardian.command("status")
@click.argument("card", type=FILE, required=False)
@with_connection
def status(connection: Connection, card: Path | None) -> None:
    """Show who must approve, what waits and what is frozen: of the wallet's owner, or as a guardian of CARD."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client import guardians

    now = now_ms()
    if card is None:
        rows = [
            {**place_row(connection, organisation, pid), **standing(found, now)}
            for organisation, pid, found in guarded_places(connection)
        ]
    else:
        own, held = read_file(guardians.GuardianCard, card, connection), connection.wallet()

        async def work(open_as: "OpenAs") -> list[dict[str, Any]]:
            rows = []
            for place in own.places:
                async with open_as(guardians.guardian_key(place, held)) as ledger:
                    found = await ledger.guarding(place.pid, place.salt)
                rows.append({**place_row(connection, place.organisation, place.pid), **standing(found, now)})
            return rows

        rows = connection.ask_as_many(work)
    connection.session.show_all(rows, _STATUS)
    if not rows:
        say("nobody guards this wallet's owner; next: p2pledger guardian invite --to FILE, for each guardian")


# Shared with `p2pledger recovery` and `p2pledger erase`


def cards_in(connection: Connection) -> "GuardianCards":
    """The copies of guardians' cards in the home."""
    from p2pledger.client.guardian_cards import GuardianCards

    return GuardianCards(connection.session.home / "guardian-cards", connection.home().card.organisation)


def guarded_places(connection: Connection) -> "list[tuple[bytes, bytes, Guarding]]":
    """Where the wallet's owner is guarded, or is to take a lost wallet's place; at --at alone where that is said."""
    from p2pledger.client.recoveries import guardings

    held = connection.wallet()
    cards = connection.founding().genesis.cards if connection.at is None else [connection.card(connection.at)]

    async def work(open_as: "OpenAs") -> "list[tuple[bytes, bytes, Guarding]]":
        return [one async for one in guardings(open_as, held, [card.organisation for card in cards])]

    return connection.ask_as_many(work)


def standing(found: "Guarding", now_ms: int) -> dict[str, Any]:
    """How somebody is guarded, in words."""
    from p2pledger.primitives.ids import Height

    held = found.guardianship
    is_frozen, now = held.frozen_at(now_ms), held.at(now_ms, Height(0))
    recovery = found.recovery
    said = "none waits"
    if recovery is not None:
        how = "no veto ends it" if recovery.is_beyond_veto else "the present key can veto"
        waits = f"from {moment(recovery.due_ms)} on it can be made final; {how}"
        said = waits if recovery.progress == "pending" else recovery.progress
    return {
        "needed": f"{now.terms.threshold} of {len(now.terms.guardians)}",
        "delay": f"{now.terms.delay_ms / 3_600_000:g} h",
        "change": "none" if now.proposed is None else f"others from {moment(now.proposed.from_ms)} on",
        "recovery": said,
        "vetoes": now.vetoes,
        "frozen": f"until {moment(held.frozen_ms)}" if is_frozen else "no",
    }


def write_file(path: Path, text: str) -> None:
    """A new file; raises InvalidInput where there is one."""
    from p2pledger.node.home import write_new

    write_new(path, text.encode(), 0o600)


def read_file(kind: Any, path: Path, connection: Connection) -> Any:
    """A file that somebody handed over, of this kind and for this chain; raises InvalidInput, ConfigError."""
    from p2pledger.client.guardians import load
    from p2pledger.node.home import read_text

    text = read_text(path)
    try:
        return load(kind, text, connection.founding().chain)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def by_anybody(connection: Connection, *operations: "Record") -> "list[Receipt]":
    """Each operation sent by a key that is made for it and forgotten: guardians have signed what counts in it."""
    import secrets

    from p2pledger.primitives.crypto import SigningKey

    async def work(open_as: "OpenAs") -> "list[Receipt]":
        receipts = []
        for operation in operations:
            async with open_as(SigningKey(secrets.token_bytes(32))) as ledger:
                receipts.append(await ledger.submit(operation))
        return receipts

    return connection.ask_as_many(work)


def place_row(connection: Connection, organisation: bytes, pid: bytes) -> dict[str, Any]:
    """Where a pid is known, for people."""
    from p2pledger.client import words

    return {"organisation": words.organisation(organisation, connection.founding().genesis.cards), "pid": pid}


def _send_freeze(connection: Connection, card: "GuardianCard", files: "list[GuardianApproval]") -> list[dict[str, Any]]:
    from p2pledger.client import guardians

    receipts = by_anybody(connection, *(guardians.freezing(place.pid, files) for place in card.places))
    return [
        {
            **place_row(connection, place.organisation, place.pid),
            "height": receipt.executed.receipt.height,
            "until": moment(files[0].until_ms) if files[0].kind == "freeze" else "ended",
        }
        for place, receipt in zip(card.places, receipts, strict=True)
    ]


def _patient_at(connection: Connection) -> "list[Known]":
    """Where the chain knows the wallet's owner as a patient; raises Rejected(E_NOT_FOUND)."""
    from p2pledger.client.identities import known

    held = connection.wallet()
    cards = connection.founding().genesis.cards if connection.at is None else [connection.card(connection.at)]

    async def work(open_as: "OpenAs") -> "list[Known]":
        return await known(open_as, held, [card.organisation for card in cards])

    found = [one for one in connection.ask_as_many(work) if one.kind == "patient"]
    if not found:
        names = ", ".join(card.name for card in cards)
        raise Rejected(Code.E_NOT_FOUND, f"the owner of this wallet is no patient at {names}; see 'identity register'")
    return found


def _since(receipt: "Receipt") -> dict[str, Any]:
    from p2pledger.client.health import events_of
    from p2pledger.health.events import GuardiansChanged

    changed = next(event for event in events_of(receipt.executed) if isinstance(event, GuardiansChanged))
    return {"height": receipt.executed.receipt.height, "from": moment(changed.from_ms)}


def _write_cards(folder: Path, names: list[str], cards: "list[GuardianCard]", spare: "GuardianCard") -> None:
    """One file a guardian, named as its acceptance; raises InvalidInput where the folder is there already."""
    if len(set(names)) < len(names) or "copy" in names:
        raise InvalidInput("acceptances need different names, as cards are named after them, and none is 'copy'")
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise InvalidInput(f"{folder} is there already; say another --cards") from error
    for name, card in zip(names, cards, strict=True):
        write_file(folder / f"{name}.card", card.dump())
    write_file(folder / "copy.card", spare.dump())
