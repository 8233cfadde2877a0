"""`p2pledger consent`: who may see what, what for and until when, as the patient says."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.consent_documents import import_, names
from p2pledger.cli.output import say
from p2pledger.cli.proxies import deceased, proxy
from p2pledger.cli.scopes import scope_options
from p2pledger.cli.values import ACTOR_KINDS, CompartmentValue, Hex, Instant, RecordName, Span, moment
from p2pledger.primitives.errors import InvalidInput, Refused, Rejected

if TYPE_CHECKING:
    from p2pledger.client.health import Compartment, ConsentCard, Represented, Scope
    from p2pledger.client.keyring import Persona
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.health.consent import Consent

REASONS = ("withdrawn", "error", "expired", "superseded", "other")
CAPACITIES = ("proxy", "guardian")
_COLUMNS = ["consent", "who", "what", "purposes", "from", "until", "state", "uses"]


@click.group()
def consent() -> None:
    """Grant, revoke and list consents."""


consent.add_command(import_)
consent.add_command(names)
consent.add_command(proxy)
consent.add_command(deceased)


@consent.command("grant")
@click.option("--pid", type=Hex(16), help="For checking: who the wallet's owner is at --at.")
@click.option("--actor", required=True, metavar="KIND:NAME", help=f"The reader; KIND is {', '.join(ACTOR_KINDS)}.")
@click.option("--purpose", "purposes", multiple=True, required=True, help="A PurposeOfUse code like TREAT; repeat.")
@click.option(
    "--compartment",
    "compartments",
    type=CompartmentValue(),
    multiple=True,
    metavar="HANDLE[=NAME]",
    help="A part of the chart; repeat.",
)
@click.option("--everything", is_flag=True, help="The whole chart.")
@click.option("--for", "span_ms", type=Span(), help="For how long from now on, like 24h.")
@click.option("--until", "until_ms", type=Instant(), help="Until when, like 2026-11-22T08:00:00Z; exclusive.")
@click.option("--from", "from_ms", type=Instant(), help="From when on. [default: now]")
@scope_options
@click.option("--record", "records", type=RecordName(), multiple=True, metavar="BATCH/INDEX", help="One; repeat.")
@click.option("--label", "labels", type=Hex(16), multiple=True, help="Of sensitive records these labels only; repeat.")
@click.option("--nothing-sensitive", is_flag=True, help="No record with a sensitive label.")
@click.option("--except-label", "denied", type=Hex(16), multiple=True, help="Not records with this label; repeat.")
@click.option("--as", "capacity", type=click.Choice(CAPACITIES), help="For --pid: as its registered proxy or guardian.")
@click.option("--max-uses", type=click.IntRange(0), default=0, help="How many accesses; 0 = any number.")
@click.option("--never-break-glass", is_flag=True, help="Not even in an emergency may anybody break the glass.")
@click.option("--to", "target", type=FILE, help="Write the consent card here. [default: stdout]")
@with_connection
def grant(
    connection: Connection,
    pid: bytes | None,
    actor: str,
    purposes: tuple[str, ...],
    compartments: "tuple[Compartment, ...]",
    everything: bool,
    span_ms: int | None,
    until_ms: int | None,
    from_ms: int | None,
    max_uses: int,
    never_break_glass: bool,
    target: Path | None,
    scope: "Scope",
    records: tuple[bytes, ...],
    labels: tuple[bytes, ...],
    nothing_sensitive: bool,
    denied: tuple[bytes, ...],
    capacity: Any,
) -> None:
    """Grant a consent as the wallet's owner, or with --as for somebody else.

    Prints the consent card, which the reader needs to ask.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.health import grant_consent
    from p2pledger.node.home import write_new

    if everything == bool(compartments):
        raise InvalidInput("say either --compartment, once or more, or --everything")
    if (span_ms is None) == (until_ms is None):
        raise InvalidInput("say either --for or --until")
    if labels and nothing_sensitive:
        raise InvalidInput("say either --label or --nothing-sensitive")
    owner = connection.persona()
    patient = _granting(owner, pid, capacity, connection.at)
    kind, reader = _reader(connection, actor)
    now = now_ms()
    # It stands from its block on anyway; our clock may be as far ahead of the chain's as the consortium tolerates.
    start = now - connection.founding().parameters.drift_ms if from_ms is None else from_ms
    end = until_ms if span_ms is None else span_ms + (now if from_ms is None else from_ms)
    assert end is not None, "one of the two was given"
    operation, card = grant_consent(
        patient,
        reader,
        compartments,
        _purposes(purposes),
        start,
        end,
        kind=kind,
        scope=replace(
            scope,
            records=tuple(sorted(set(records))),
            labels=tuple(sorted(labels)) if labels or nothing_sensitive else None,
            denied_labels=tuple(sorted(denied)),
        ),
        capacity=capacity or "patient",
        max_uses=max_uses,
        btg="never" if never_break_glass else "policy",
    )
    if target is not None:
        write_new(target, card.dump().encode(), 0o600)  # first: without its card a consent is useless

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    try:
        receipt = connection.ask(owner.signing, work)
    except (Refused, Rejected):
        if target is not None:
            target.unlink()  # the chain does not have this consent and never will
        raise
    if target is None:
        click.echo(card.dump(), nl=False)
    say(f"consent {card.consent_id.hex()} stands from height {receipt.executed.receipt.height} on, proven")
    say(f"it ends {moment(end)}; keep the card, and give the reader a copy")


@consent.command("revoke")
@click.argument("consent_id", type=Hex(16), metavar="CONSENT")
@click.option("--reason", type=click.Choice(REASONS), default="withdrawn", show_default=True)
@with_connection
def revoke(connection: Connection, consent_id: bytes, reason: Any) -> None:
    """Take CONSENT back: from its block on nobody gets an answer by it."""
    from p2pledger.cli.tx import show_receipt
    from p2pledger.client.health import revoke_consent

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(revoke_consent(consent_id, reason))

    show_receipt(connection, connection.ask(connection.persona().signing, work).executed)


@consent.command("show")
@click.argument("cards", nargs=-1, type=FILE)
@click.option("--pid", type=Hex(16), help="Whose, for organisations. [default: the wallet's owner]")
@with_connection
def show(connection: Connection, cards: tuple[Path, ...], pid: bytes | None) -> None:
    """Show who may see what until when. With the consent CARDS also the names that the chain does not hold."""
    asking, patient = connection.about(pid)
    opened = {card.consent_id: card for card in (read_card(path) for path in cards)}

    async def work(ledger: "LedgerClient") -> "list[Consent]":
        return await ledger.consents(patient)

    found = connection.ask(asking, work)
    rows = [_row(connection, one, opened.get(one.terms.consent_id)) for one in found]
    connection.session.show_all(rows, _COLUMNS)
    closed = sum(one.terms.consent_id not in opened for one in found)
    if closed:
        say(f"{closed} of {len(found)} consents shown without their card: the chain names readers by commitments only")


def read_card(path: Path) -> "ConsentCard":
    """The consent card in a file; raises InvalidInput."""
    from p2pledger.client.health import ConsentCard
    from p2pledger.node.home import read_text

    return ConsentCard.load(read_text(path))


def _granting(owner: "Persona", pid: bytes | None, capacity: str | None, at: str | None) -> "Persona | Represented":
    """Whose consent it is: the owner's, or with a capacity that of --pid, whose custodian is at --at."""
    from p2pledger.client.health import Represented

    if capacity is None:
        if pid not in (None, owner.did):
            raise InvalidInput(f"the wallet's owner is {owner.did.hex()} at {at}, not the given --pid")
        return owner
    if pid is None:
        raise InvalidInput(f"--as {capacity}: say for whom, with --pid")
    return Represented(pid, owner.organisation)


def _row(connection: Connection, found: "Consent", card: "ConsentCard | None") -> dict[str, Any]:
    from p2pledger.client import words

    terms = found.terms
    if card is not None:
        card.check(terms)
        cards = connection.founding().genesis.cards
        who = words.actor(card.actor, cards)
        what = ", ".join(map(str, card.compartments)) or "everything"
    else:
        who = ", ".join(f"commitment {one.hex()}" for one in terms.actor_commits) or "any reader"
        what = "everything" if terms.compartments is None else ", ".join(one.hex() for one in terms.compartments)
    what += words.limits(terms)
    return {
        "consent": terms.consent_id,
        "who": who,
        "what": what if terms.base == "permit" else f"nothing but exceptions in {what}",
        "purposes": [words.purpose(purpose) for purpose in terms.purposes],
        "from": moment(terms.valid_from_ms),
        "until": moment(terms.valid_to_ms),
        "state": _state(found),
        "uses": f"{found.uses} of {terms.max_uses}" if terms.max_uses else "unlimited",
    }


def _state(found: "Consent") -> str:
    from p2pledger.cli.clock import now_ms

    now = now_ms()
    if found.revoked is not None:
        return f"revoked at height {found.revoked} ({found.revoke_reason})"
    if now >= found.terms.valid_to_ms:
        return "expired"
    return "in force" if found.is_in_force(now) else "not yet in force"


def _purposes(texts: tuple[str, ...]) -> Any:
    return tuple(purpose_of(text) for text in texts)


def purpose_of(text: str) -> Any:
    """A PurposeOfUse code in any case; raises InvalidInput."""
    from typing import get_args

    from p2pledger.health.purposes import Purpose

    if text.upper() not in get_args(Purpose):
        raise InvalidInput(f"purpose {text!r} is no PurposeOfUse code; common are TREAT, ETREAT, HPAYMT, HRESCH")
    return text.upper()


def _reader(connection: Connection, text: str) -> tuple[Any, bytes]:
    """(kind, handle) of `person:HEX`, `organisation:NAME`, `role:physician` or `group:HEX`; raises InvalidInput."""
    from p2pledger.cli.identity import ROLES
    from p2pledger.health.operations import role_handle

    kind, _, name = text.partition(":")
    match kind:
        case "organisation":
            return kind, connection.card(name).organisation
        case "role" if name in ROLES:
            return kind, role_handle(name)  # type: ignore[arg-type]
        case "role":
            raise InvalidInput(f"role {name!r} is none of {', '.join(ROLES)}")
        case "person" | "group":
            return kind, Hex(16).convert(name, None, None)
        case _:
            raise InvalidInput(f"actor {text!r} is not KIND:NAME with KIND one of {', '.join(ACTOR_KINDS)}")
