"""What concerns a wallet's owner, in plain words and over all organisations at once (F-75).

Who may see what until when; who looked, when, why and on which basis; and one step to take a consent back. The
organisations know their patient under different ids; only the wallet shows them as one person.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import moment
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

if TYPE_CHECKING:
    from p2pledger.client.guarding import Guarding
    from p2pledger.client.health import ConsentCard
    from p2pledger.client.identities import Known, OpenAs
    from p2pledger.client.ledger import LedgerClient
    from p2pledger.health.consent import Consent
    from p2pledger.health.erasure import Erasure

T = TypeVar("T")


@click.command("who")
@with_connection
def who(connection: Connection) -> None:
    """Say where the chain knows the wallet's owner, as whom, and what it may act as there until when."""
    from p2pledger.client.identities import as_known

    rows = []
    for one, about in _everywhere(connection, as_known):
        rows.append({"organisation": _name(connection, one), "as": one.kind, "id": one.persona.did, **about})
    connection.session.show_all(rows, ["organisation", "as", "id", "key since", "may act as"])


@click.command("consents")
@click.argument("cards", nargs=-1, type=FILE)
@with_connection
def consents(connection: Connection, cards: tuple[Path, ...]) -> None:
    """Say who may see what until when, at every custodian; with the consent CARDS also the readers' names."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.consent import read_card
    from p2pledger.client import words

    opened = {card.consent_id: card for card in (read_card(path) for path in cards)}
    members = connection.founding().genesis.cards
    rows = []
    for number, (one, consent) in enumerate(_numbered(connection), start=1):
        card = _checked(opened.get(consent.terms.consent_id), consent)
        says = words.consent(consent, card, members, now_ms())
        rows.append({"number": number, "at": _name(connection, one), **says})
    connection.session.show_all(rows, ["number", "at", "who", "what", "why", "until", "now"])
    if rows:
        say("take one back: p2pledger wallet revoke NUMBER, with the same options")


@click.command("log")
@with_connection
def log(connection: Connection) -> None:
    """Say who looked, when, why and on which basis, at every custodian; proven to be all up to a checkpoint.

    'released' says whether validators report that they gave the reader the keys, and of how many records.

    What the owner asked to have erased stands among it, with what became of that. Integrity alerts about the records
    follow, as the node says: `watch --kinds integrity` tells them proven.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.client import words
    from p2pledger.client.integrity import alerts_about
    from p2pledger.client.releases import NOT_YET

    members = connection.founding().genesis.cards
    rows: list[dict[str, Any]] = []

    async def lines(ledger: "LedgerClient", one: "Known") -> Any:
        about = await _guarding(ledger, one), await alerts_about(ledger, one.persona.did)
        return await ledger.log(one.persona.did), *about

    for one, (found, guarding, alerts) in _everywhere(connection, lines, "patient"):
        at = _name(connection, one)
        shown = [(line, found.released.told(line), True) for line in found.lines]
        for line, released, proven in shown + [(line, NOT_YET, False) for line in found.newer]:
            says = {**words.log_line(line, members), "released": released, "proven": proven}
            rows.append({"time": line.time_ms, "when": moment(line.time_ms), "at": at, **says})
        say(f"{at}: these are all {len(found.lines)} decisions up to height {found.height}, proven")
        for recovery, release in found.released.recoveries((*found.lines, *found.newer)):
            say(f"{at}: keys of the old wallet, for recovery {recovery.hex()}: released {release.text}")
        for warning in _warnings(guarding):
            say(f"{at}: {warning}")
        for alert in alerts:
            say(f"{at}: {words.alert(alert, members)}")
    for one, erasures in _everywhere(connection, _erasures, "patient"):
        for erasure in erasures:
            says = words.erasure(erasure, members, now_ms())
            row = {"who": says["asked by"], "why": "erasure", "answer": says["now"], "records": says["records"]}
            time_ms, at = erasure.requested_ms, _name(connection, one)
            rows.append(
                {
                    "time": time_ms,
                    "when": moment(time_ms),
                    "at": at,
                    **row,
                    "because": "-",
                    "released": "-",
                    "proven": False,
                }
            )
    rows.sort(key=lambda row: row["time"])
    connection.session.show_all(
        rows, ["when", "at", "who", "why", "answer", "because", "records", "released", "proven"]
    )


async def _erasures(ledger: "LedgerClient", one: "Known") -> "list[Erasure]":
    return await ledger.erasures(one.persona.did)


@click.command("revoke")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_connection
def revoke(connection: Connection, number: int, yes: bool) -> None:
    """Take back the consent that 'wallet consents' shows under NUMBER: from its block on nobody reads by it."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import show_receipt
    from p2pledger.client import words
    from p2pledger.client.health import revoke_consent

    found = _numbered(connection)
    if number > len(found):
        raise InvalidInput(f"there are {len(found)} consents, none has the number {number}; see 'wallet consents'")
    one, consent = found[number - 1]
    says = words.consent(consent, None, connection.founding().genesis.cards, now_ms())
    identifier = consent.terms.consent_id
    if consent.revoked is not None:
        raise InvalidInput(f"consent {identifier.hex()} is {says['now']}; there is nothing to take back")
    say(f"consent {identifier.hex()} at {_name(connection, one)}: {says['who']}, {says['what']}, {says['until']}")
    if not yes and not click.confirm("Take it back?", err=True):
        raise InvalidInput("nothing was taken back")

    async def work(ledger: "LedgerClient") -> Any:
        return await ledger.submit(revoke_consent(identifier))

    show_receipt(connection, connection.ask(one.persona.signing, work).executed)


async def _guarding(ledger: "LedgerClient", one: "Known") -> "Guarding | None":
    try:
        return await ledger.guarding(one.persona.did)
    except Rejected:
        return None


def _warnings(found: "Guarding | None") -> list[str]:
    """What an owner must know at once: it may be a thief's doing, and there is a time to object (F-24, F-25)."""
    from p2pledger.cli.clock import now_ms

    if found is None:
        return []
    held, recovery, told = found.guardianship, found.recovery, []
    if recovery is not None and recovery.progress == "pending":
        end = "no veto ends it" if recovery.is_beyond_veto else "not you? p2pledger recovery veto"
        told.append(f"A RECOVERY WAITS: other keys take the place of yours from {moment(recovery.due_ms)} on; {end}")
    if held.proposed is not None and now_ms() < held.proposed.from_ms:
        told.append(f"OTHER GUARDIANS from {moment(held.proposed.from_ms)} on; not by you? have your guardians freeze")
    if held.frozen_at(now_ms()):
        told.append(f"FROZEN by your guardians until {moment(held.frozen_ms)}: no new consents, no other key")
    return told


def _numbered(connection: Connection) -> "list[tuple[Known, Consent]]":
    """The owner's consents at all custodians, the oldest first: a new one never changes an older one's number."""

    async def all_of(ledger: "LedgerClient", one: "Known") -> "list[Consent]":
        return await ledger.consents(one.persona.did)

    found = [(one, consent) for one, held in _everywhere(connection, all_of, "patient") for consent in held]
    return sorted(found, key=lambda pair: (pair[1].granted, pair[1].terms.consent_id))


def _everywhere(
    connection: Connection, work: "Callable[[LedgerClient, Known], Awaitable[T]]", kind: str | None = None
) -> "list[tuple[Known, T]]":
    """What `work` makes of each organisation where the chain knows the owner, as `kind` where one is named.

    Raises Rejected(E_NOT_FOUND) where it is known nowhere.
    """
    from p2pledger.client.identities import known

    held = connection.wallet()
    cards = connection.founding().genesis.cards
    if connection.at is not None:
        cards = (connection.card(connection.at),)

    async def each(open_as: "OpenAs") -> "list[tuple[Known, T]]":
        found = await known(open_as, held, [card.organisation for card in cards])
        answers = []
        for one in found:
            if kind in (None, one.kind):
                async with open_as(one.persona.signing) as ledger:
                    answers.append((one, await work(ledger, one)))
        return answers

    answers = connection.ask_as_many(each)
    if not answers:
        names = ", ".join(card.name for card in cards)
        what = "nobody" if kind is None else f"no {kind}"
        raise Rejected(Code.E_NOT_FOUND, f"the owner of this wallet is {what} at {names}; see 'identity register'")
    return answers


def _checked(card: "ConsentCard | None", consent: "Consent") -> "ConsentCard | None":
    if card is not None:
        card.check(consent.terms)
    return card


def _name(connection: Connection, one: "Known") -> str:
    from p2pledger.client import words

    return words.organisation(one.persona.organisation, connection.founding().genesis.cards)
