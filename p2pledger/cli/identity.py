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
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected

if TYPE_CHECKING:
    from p2pledger.client.credentials import Signer, Statement
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.primitives.codec import Record
    from p2pledger.primitives.crypto import SigningKey

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
@click.option("--sponsor-key", type=Hex(32), help="Its account key. [default: the one in the genesis]")
@click.option("--attestation", type=Hex(32), help="Commitment to the record of the identity check. [default: random]")
@click.option("--valid-for", "valid_ms", type=Span(), default="12h", show_default=True, help="Below 24h.")
@click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")
@with_connection
def register(
    connection: Connection,
    organisation: str | None,
    kind: Any,
    sponsor_key: bytes | None,
    attestation: bytes | None,
    valid_ms: int,
    target: Path | None,
) -> None:
    """Make a registration signed by the wallet: a draft that the organisation cosigns with 'tx sign'."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.health import register_identity
    from p2pledger.client.signing import Draft
    from p2pledger.primitives.ids import AccountKey, Millis, Nonce

    founding = connection.founding()
    persona = replace(connection, at=organisation or connection.at).persona()
    sponsor = next(card for card in founding.genesis.cards if card.organisation == persona.organisation)
    operation = register_identity(persona, kind, attestation)
    expires = Millis(now_ms() + valid_ms)
    cosigner = sponsor.account if sponsor_key is None else AccountKey(sponsor_key)
    draft = Draft.new(founding.chain, persona.account, Nonce(_FIRST), expires, [operation], [cosigner])
    write_draft(draft.signed(persona.signing), target)
    say(f"id {persona.did.hex()} at {sponsor.name}; next: {sponsor.name} runs 'tx sign', then anybody 'tx submit'")


@identity.command("credential")
@click.option("--subject", required=True, type=Hex(16), help="The id of one of this organisation's people.")
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--for", "span_ms", type=Span(), default="365d", show_default=True)
@click.option("--group", "groups", type=Hex(16), multiple=True, help="A group that consents can name; repeat.")
@click.option("--break-glass-group", "emergency", type=Hex(16), multiple=True, help="A group that may break the glass.")
@click.option("--licence", type=Hex(32), help="Commitment to the licence. [default: random, or the token's]")
@click.option("--licence-number", help="Makes a verifiable credential with it; the chain gets the token's hash.")
@click.option("--token", "token_file", type=FILE, help="Where the verifiable credential is written.")
@with_connection
def credential(
    connection: Connection,
    subject: bytes,
    role: Any,
    span_ms: int,
    groups: tuple[bytes, ...],
    emergency: tuple[bytes, ...],
    licence: bytes | None,
    licence_number: str | None,
    token_file: Path | None,
) -> None:
    """Say, as this home's organisation, what one of its people may act as, from now on.

    With --licence-number and --token the person gets a verifiable credential (VC-JWT) to show; what it says of the
    licence stays outside the chain.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.credentials import commitment, issue
    from p2pledger.client.health import issue_credential
    from p2pledger.health.operations import Group
    from p2pledger.node.home import write_new

    if (licence_number is None) != (token_file is None) or (licence is not None and token_file is not None):
        raise InvalidInput("say --licence-number and --token together, without --licence")

    named = [Group(handle, False) for handle in groups] + [Group(handle, True) for handle in emergency]
    now = now_ms()
    start = now - connection.founding().parameters.drift_ms  # our clock may be ahead of the chain's
    if licence_number is not None and token_file is not None:
        signer = _signer(connection, connection.organisation().account)
        token = issue(signer, subject, role, licence_number, start, now + span_ms)
        write_new(token_file, token.encode() + b"\n", 0o600)  # first: without its token the entry proves nothing
        licence = commitment(token)
    operation = issue_credential(subject, role, start, now + span_ms, groups=named, licence_commit=licence)
    try:
        _submit(connection, operation)
    except (Refused, Rejected):
        if token_file is not None:
            token_file.unlink()  # the chain does not have this token and never will
        raise


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


@identity.command("present")
@click.argument("token_file", type=FILE, metavar="TOKEN")
@click.option("--audience", required=True, help="Who will verify it, by any name that verifier goes by.")
@click.option("--nonce", required=True, help="What the verifier has just chosen.")
@with_connection
def present(connection: Connection, token_file: Path, audience: str, nonce: str) -> None:
    """Show the credential TOKEN to one verifier, as the wallet's owner; what is printed lives two minutes."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.credentials import present as presented

    signer = _signer(connection, connection.persona().signing)
    click.echo(presented(signer, _token(token_file), audience, nonce, now_ms() // 1000))


@identity.command("verify")
@click.argument("token_file", type=FILE, metavar="TOKEN")
@click.option("--audience", help="For a presentation: the name that was given to its holder.")
@click.option("--nonce", help="For a presentation: what was chosen for its holder.")
@with_connection
def verify(connection: Connection, token_file: Path, audience: str | None, nonce: str | None) -> None:
    """Check a credential, or with --audience and --nonce a presentation, against the chain. Status 4: no."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.values import moment
    from p2pledger.client.credentials import verify_credential, verify_presentation

    token = _token(token_file)

    async def work(ledger: "LedgerClient") -> "Statement":
        if audience is None or nonce is None:
            return await verify_credential(ledger, token, now_ms())
        return await verify_presentation(ledger, token, audience, nonce, now_ms())

    if (audience is None) != (nonce is None):
        raise InvalidInput("a presentation has both --audience and --nonce; a credential neither")
    said = connection.ask(connection.signer(), work)
    names = {card.organisation: card.name for card in connection.founding().genesis.cards}
    connection.session.show(
        {
            "person": said.subject,
            "role": said.role,
            "licence": said.licence,
            "issuer": names.get(said.issuer.id, str(said.issuer)),
            "from": moment(said.valid_from_ms),
            "until": moment(said.valid_to_ms),
            "shown by the person": audience is not None,
            "proven": True,
        }
    )


@identity.command("show")
@click.argument("did_text", metavar="[DID]", required=False)
@with_connection
def show(connection: Connection, did_text: str | None) -> None:
    """Print the DID document of DID, or of the asker itself, as the last checkpoint proves it.

    A patient's document is for the patient and for members; those of practitioners and members for all registered.
    """
    import json

    from p2pledger.client.did_documents import resolve
    from p2pledger.health.did import Did, parse_did
    from p2pledger.primitives.ids import Bytes16

    given = None if did_text is None else parse_did(did_text)

    async def work(ledger: "LedgerClient") -> "dict[str, Any]":
        asked = given
        if asked is None:
            standing = await ledger.standing()
            if standing.identity is None:
                raise Rejected(Code.E_NOT_FOUND, "the chain does not know the asker; say whose document: a DID")
            asked = Did(connection.founding().chain, Bytes16(standing.identity))
        return (await resolve(ledger, asked)).document

    click.echo(json.dumps(connection.ask(connection.signer(), work), indent=2))


@identity.command("revoke-key")
@click.option("--subject", required=True, type=Hex(16))
@click.option("--key", required=True, type=Hex(32), help="The stolen key; see 'identity show'.")
@with_connection
def revoke_key(connection: Connection, subject: bytes, key: bytes) -> None:
    """Declare the key of one of this organisation's people stolen: dead from its block on, until 'identity rekey'."""
    from p2pledger.health.identity_operations import KeyRevoke
    from p2pledger.primitives.ids import AccountKey

    _submit(connection, KeyRevoke(subject, AccountKey(key)))
    say("next: the person makes a new wallet and runs 'identity rekey'; this organisation and a witness 'tx sign'")


@identity.command("rekey")
@click.option("--subject", required=True, type=Hex(16), help="The id whose key was revoked.")
@click.option("--organisation", metavar="NAME", help="The employer; the same as --at.")
@click.option("--witness", required=True, metavar="NAME", help="Another organisation that has seen the person.")
@click.option("--valid-for", "valid_ms", type=Span(), default="12h", show_default=True, help="Below 24h.")
@click.option("--to", "target", type=FILE, help="Write the draft here. [default: stdout]")
@with_connection
def rekey(
    connection: Connection, subject: bytes, organisation: str | None, witness: str, valid_ms: int, target: Path | None
) -> None:
    """Ask, with a new wallet, for its key in place of a revoked one: a draft that two organisations cosign.

    The employer and the witness run 'tx sign'. The wallet remembers the id.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.tx import write_draft
    from p2pledger.client.signing import Draft
    from p2pledger.health.identity_operations import IdentityRekey
    from p2pledger.primitives.ids import Millis, Nonce

    founding = connection.founding()
    at = replace(connection, at=organisation or connection.at)
    if at.at is None:
        raise InvalidInput("say which employer: --organisation NAME")
    sponsor = connection.card(at.at)
    file = at.wallet_to_change()
    persona = file.keep(file.wallet.known_as(sponsor.organisation, subject)).wallet.at(sponsor.organisation)
    operation = IdentityRekey(subject, persona.account, persona.box.public)
    expires, cosigners = Millis(now_ms() + valid_ms), [sponsor.account, connection.card(witness).account]
    draft = Draft.new(founding.chain, persona.account, Nonce(_FIRST), expires, [operation], cosigners)
    write_draft(draft.signed(persona.signing), target)
    say(f"next: {sponsor.name} and {witness} run 'tx sign', one after the other, then anybody 'tx submit'")


def _signer(connection: Connection, account: "SigningKey") -> "Signer":
    """An account as the chain knows it, with the number of its key."""
    from p2pledger.client.credentials import Signer
    from p2pledger.client.did_documents import resolve
    from p2pledger.health.did import Did
    from p2pledger.primitives.ids import Bytes16

    async def work(ledger: "LedgerClient") -> "Signer":
        standing = await ledger.standing()
        if standing.identity is None:
            raise Rejected(Code.E_NOT_FOUND, f"the chain does not know key {account.public.hex()}")
        return Signer.of(await resolve(ledger, Did(ledger.founding.chain, Bytes16(standing.identity))), account)

    return connection.ask(account, work)


def _token(path: Path) -> str:
    from p2pledger.node.home import read_text

    return read_text(path).strip()


def _submit(connection: Connection, operation: "Record") -> None:
    from p2pledger.cli.tx import show_receipt

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    show_receipt(connection, connection.ask(connection.organisation().account, work).executed)
