"""`p2pledger identity`: registrations that a person and an organisation sign, and what an organisation says of its
people.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, Span

if TYPE_CHECKING:
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.primitives.codec import Record

KINDS = ("patient", "practitioner", "researcher", "auditor", "device", "service")
ROLES = ("physician", "nurse", "pharmacist", "paramedic", "therapist", "clerk", "claims", "researcher", "auditor")
_FIRST = 1
"""The nonce of a registration: nothing else can be the first transaction of a key."""


@click.group()
def identity() -> None:
    """Register people and say what they may act as."""


@identity.command("register")
@click.option("--organisation", metavar="NAME", help="A patient's custodian, or the employer; the same as --at.")
@click.option("--kind", type=click.Choice(KINDS), default="patient", show_default=True)
@click.option("--attestation", type=Hex(32), help="Commitment to the record of the identity check. [default: random]")
@click.option("--valid-for", "valid_ms", type=Span(), default="12h", show_default=True, help="Below 24h.")
@click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")
@with_connection
def register(
    connection: Connection,
    organisation: str | None,
    kind: Any,
    attestation: bytes | None,
    valid_ms: int,
    target: Path | None,
) -> None:
    """Make a registration signed by the wallet: a draft that the organisation cosigns with 'tx sign'."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.health import register_identity
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.ids import Millis, Nonce

    founding = connection.founding()
    persona = replace(connection, at=organisation or connection.at).persona()
    sponsor = next(card for card in founding.genesis.cards if card.organisation == persona.organisation)
    operation = register_identity(persona, kind, attestation)
    expires = Millis(now_ms() + valid_ms)
    draft = Draft.new(founding.chain, persona.account, Nonce(_FIRST), expires, [operation], [sponsor.account])
    write_draft(draft.signed(persona.signing), target)
    say(f"id {persona.did.hex()} at {sponsor.name}; next: {sponsor.name} runs 'tx sign', then anybody 'tx submit'")


@identity.command("credential")
@click.option("--subject", required=True, type=Hex(16), help="The id of one of this organisation's people.")
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--for", "span_ms", type=Span(), default="365d", show_default=True)
@click.option("--group", "groups", type=Hex(16), multiple=True, help="A group that consents can name; repeat.")
@click.option("--break-glass-group", "emergency", type=Hex(16), multiple=True, help="A group that may break the glass.")
@click.option("--licence", type=Hex(32), help="Commitment to the licence. [default: random]")
@with_connection
def credential(
    connection: Connection,
    subject: bytes,
    role: Any,
    span_ms: int,
    groups: tuple[bytes, ...],
    emergency: tuple[bytes, ...],
    licence: bytes | None,
) -> None:
    """Say, as this home's organisation, what one of its people may act as, from now on."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.health import issue_credential
    from p2pledger.health.operations import Group

    named = [Group(handle, False) for handle in groups] + [Group(handle, True) for handle in emergency]
    now = now_ms()
    start = now - connection.founding().parameters.drift_ms  # our clock may be ahead of the chain's
    _submit(connection, issue_credential(subject, role, start, now + span_ms, groups=named, licence_commit=licence))


@identity.command("withdraw")
@click.option("--subject", required=True, type=Hex(16))
@click.option("--role", required=True, type=click.Choice(ROLES))
@with_connection
def withdraw(connection: Connection, subject: bytes, role: Any) -> None:
    """Take a role back, as this home's organisation."""
    from p2pledger.health.operations import CredentialRevoke

    _submit(connection, CredentialRevoke(subject, role))


@identity.command("suspend")
@click.option("--subject", required=True, type=Hex(16))
@with_connection
def suspend(connection: Connection, subject: bytes) -> None:
    """Stop one of this organisation's people."""
    from p2pledger.health.operations import IdentitySuspend

    _submit(connection, IdentitySuspend(subject))


@identity.command("resume")
@click.option("--subject", required=True, type=Hex(16))
@with_connection
def resume(connection: Connection, subject: bytes) -> None:
    """Let one of this organisation's people act again."""
    from p2pledger.health.operations import IdentityResume

    _submit(connection, IdentityResume(subject))


def _submit(connection: Connection, operation: "Record") -> None:
    from p2pledger.cli.tx import show_receipt

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    show_receipt(connection, connection.ask(connection.organisation().account, work).executed)
