"""What people do, as operations to submit: register, employ, consent, revoke, ask; and what the chain answered.

A consent on the chain names its reader by a salted commitment and its compartments by handles. What opens both is
the consent card: the patient keeps it and gives it to the reader. The card is the consent document itself, and the
chain holds its commitment, so that neither can later show another one.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from p2pledger.chain.receipt import Executed
from p2pledger.client.keyring import Persona
from p2pledger.client.records import Manifest
from p2pledger.client.sealing import BoxKey
from p2pledger.health.commitments import FHIR_JSON, SALT_BYTES, RecordRef, commit, scope_commit
from p2pledger.health.events import AccessDecided, AnyEvent, decode_event
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    ConsentGrant,
    ConsentRevoke,
    CredentialIssue,
    Group,
    IdentityRegister,
    PolicyException,
    actor_commit,
    sign_pop,
)
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import ActorKind, BreakGlass, Capacity, IdentityKind, Months, RevokeReason, Role
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import ChainId, Millis

_FORMAT = "p2pledger/consent-card/1"
_CARD_CHARACTERS_MAX = 1024 * 1024
_FIELDS = frozenset(
    {"format", "salt", "consent", "pid", "custodian", "actor", "purposes", "compartments", "valid_from_ms"}
    | {"valid_to_ms"}
)
_DOCUMENT = frozenset({"document"})


# Who there is


def register_identity(
    persona: Persona, kind: IdentityKind, attestation_commit: bytes | None = None
) -> IdentityRegister:
    """Enter a persona: to be sent by its own key and cosigned by its organisation (F-20).

    Without a commitment to what the organisation keeps about the identity check, a random one that opens to nothing.
    """
    return persona.registration(kind, attestation_commit or secrets.token_bytes(32))


def issue_credential(
    subject: bytes,
    role: Role,
    valid_from_ms: int,
    valid_to_ms: int,
    *,
    groups: Sequence[Group] = (),
    licence_commit: bytes | None = None,
) -> CredentialIssue:
    """Say what one of the organisation's people may act as: to be sent by the organisation (F-21)."""
    licence = licence_commit or secrets.token_bytes(32)
    return CredentialIssue(subject, role, licence, Millis(valid_from_ms), Millis(valid_to_ms), tuple(groups))


# Consent


@dataclass(frozen=True, slots=True)
class Compartment:
    """A part of a chart: its handle on the chain and, where it is known, what that stands for."""

    handle: bytes
    name: str | None = None

    def __str__(self) -> str:
        return self.name or self.handle.hex()


def compartments_of(manifest: Manifest, *classes: str) -> tuple[Compartment, ...]:
    """The compartments of these classes in a batch, sensitive ones too; of all classes where none is named.

    Raises InvalidInput for a class of which the batch has no record.
    """
    found = [
        Compartment(name.handle, name.name)
        for name in manifest.handles
        if name.kind == "compartment" and (not classes or name.name.split("/")[0] in classes)
    ]
    missing = set(classes) - {str(compartment).split("/")[0] for compartment in found}
    if missing:
        raise InvalidInput(f"batch {manifest.batch_id.hex()} has no record of class {', '.join(sorted(missing))}")
    return tuple(sorted(found, key=lambda compartment: compartment.handle))


@dataclass(frozen=True, slots=True)
class ConsentCard:
    """A consent in the open: for the patient's own papers and for the reader, who needs it to ask."""

    consent_id: bytes
    pid: bytes
    custodian: bytes
    actor: ActorOpening | None
    """None: any reader with a credential."""
    purposes: tuple[Purpose, ...]
    compartments: tuple[Compartment, ...]
    """Empty: all of the chart."""
    valid_from_ms: int
    valid_to_ms: int
    """The first instant at which it has expired."""
    salt: bytes
    """Opens the commitment on the chain to this card, or to its document."""
    document: str | None = None
    """The FHIR Consent that was granted, byte for byte, where it was granted as one."""

    @property
    def handles(self) -> tuple[bytes, ...]:
        return tuple(compartment.handle for compartment in self.compartments)

    @property
    def commitment(self) -> bytes:
        """What the chain knows this card, or its document, by."""
        if self.document is not None:
            return commit(self.salt, FHIR_JSON, self.document.encode())
        return commit(self.salt, "application/json", self.dump().encode())

    def dump(self) -> str:
        """The card as JSON, always spelled the same."""
        document: dict[str, Any] = {
            "format": _FORMAT,
            "consent": self.consent_id.hex(),
            "pid": self.pid.hex(),
            "custodian": self.custodian.hex(),
            "actor": None if self.actor is None else _opened(self.actor),
            "purposes": list(self.purposes),
            "compartments": [{"handle": one.handle.hex(), "name": one.name} for one in self.compartments],
            "valid_from_ms": self.valid_from_ms,
            "valid_to_ms": self.valid_to_ms,
            "salt": self.salt.hex(),
        }
        if self.document is not None:
            document["document"] = self.document
        return json.dumps(document, indent=1) + "\n"

    @staticmethod
    def load(text: str) -> "ConsentCard":
        """The card in a text; raises InvalidInput naming the field that is wrong."""
        if len(text) > _CARD_CHARACTERS_MAX:
            raise InvalidInput(f"consent card of {len(text)} characters, the limit is {_CARD_CHARACTERS_MAX}")
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"not a consent card: {error}") from error
        if not isinstance(parts, dict) or parts.get("format") != _FORMAT:
            shown = parts.get("format") if isinstance(parts, dict) else type(parts).__name__
            raise InvalidInput(f"not a consent card: format {shown!r}, this version reads {_FORMAT!r}")
        if set(parts) - _DOCUMENT != _FIELDS:
            raise InvalidInput(f"not a consent card: fields {', '.join(sorted(set(parts) - _DOCUMENT ^ _FIELDS))}")
        return ConsentCard(
            consent_id=_bytes(parts, "consent", 16),
            pid=_bytes(parts, "pid", 16),
            custodian=_bytes(parts, "custodian", 16),
            actor=None if parts["actor"] is None and "document" in parts else _actor(parts["actor"]),
            purposes=tuple(_chosen("purpose", purpose, get_args(Purpose)) for purpose in _list(parts, "purposes")),
            compartments=tuple(_compartment(one) for one in _list(parts, "compartments")),
            valid_from_ms=_time(parts, "valid_from_ms"),
            valid_to_ms=_time(parts, "valid_to_ms"),
            salt=_bytes(parts, "salt", SALT_BYTES),
            document=_text(parts, "document") if "document" in parts else None,
        )

    def check(self, terms: ConsentGrant) -> None:
        """Raises Rejected(E_COMMIT_MISMATCH) unless this is the document that the consent on the chain names."""
        if terms.doc_commit != self.commitment or (self.document is not None and not self._agrees(terms)):
            raise Rejected(
                Code.E_COMMIT_MISMATCH,
                f"this card is not the document of consent {terms.consent_id.hex()} ({terms.doc_commit.hex()})",
            )

    def _agrees(self, terms: ConsentGrant) -> bool:
        """Whether what stands beside the document is what was granted, too."""
        parts = (terms.actor_commits, terms.btg_commits, *(one.actor_commits for one in terms.exceptions))
        is_meant = self.actor is None or any(actor_commit(self.actor) in commits for commits in parts)
        own = (self.consent_id, self.pid, self.purposes, self.handles, self.valid_from_ms, self.valid_to_ms)
        granted = (terms.consent_id, terms.pid, terms.purposes, terms.compartments or ())
        return is_meant and own == (*granted, terms.valid_from_ms, terms.valid_to_ms)


@dataclass(frozen=True, slots=True)
class Represented:
    """Somebody for whom somebody else consents."""

    did: bytes
    organisation: bytes


@dataclass(frozen=True, slots=True)
class Scope:
    """To what of a chart a consent extends, beside its compartments (F-05). What is empty or None is not limited."""

    classes: tuple[bytes, ...] = ()
    labels: tuple[bytes, ...] | None = None
    """Sensitive labels; empty: nothing sensitive."""
    months: Months | None = None
    records: tuple[bytes, ...] = ()
    """What lies in one of these records, authors or encounters."""
    authors: tuple[bytes, ...] = ()
    encounters: tuple[bytes, ...] = ()
    denied_labels: tuple[bytes, ...] = ()
    """Sensitive labels that it leaves out."""


EVERYTHING = Scope()


def _opened(actor: ActorOpening) -> dict[str, str]:
    return {"kind": actor.kind, "handle": actor.handle.hex(), "salt": actor.salt.hex()}


def grant_consent(
    patient: Persona | Represented,
    reader: bytes,
    compartments: Sequence[Compartment],
    purposes: Sequence[Purpose],
    valid_from_ms: int,
    valid_to_ms: int,
    *,
    kind: ActorKind = "person",
    scope: Scope = EVERYTHING,
    capacity: Capacity = "patient",
    max_uses: int = 0,
    btg: BreakGlass = "policy",
    evidence: bytes = b"signed with the patient's own key",
) -> tuple[ConsentGrant, ConsentCard]:
    """A consent for one reader, to be sent by the patient's key, and the card that goes to the reader (F-02).

    In another `capacity` a proxy or guardian sends it for the patient, who is then given as `Represented` (F-30).

    `reader` is a did, an organisation's id, `role_handle(role)` or a group's handle, as `kind` says. No compartments:
    the whole chart. Of the `evidence` of the ceremony the chain gets a commitment that the card's salt opens. Raises
    InvalidInput without a purpose, with one twice, and for a period that ends before it begins.
    """
    if not purposes or len(set(purposes)) != len(purposes):
        raise InvalidInput(f"purposes {', '.join(purposes) or '(none)'}: at least one, and each once, is needed")
    if valid_to_ms <= valid_from_ms:
        raise InvalidInput(f"a consent from {valid_from_ms} ms to {valid_to_ms} ms never holds")
    opening = ActorOpening(secrets.token_bytes(SALT_BYTES), kind, reader)
    card = ConsentCard(
        consent_id=secrets.token_bytes(16),
        pid=patient.did,
        custodian=patient.organisation,
        actor=opening,
        purposes=tuple(purposes),
        compartments=tuple(sorted(compartments, key=lambda compartment: compartment.handle)),
        valid_from_ms=valid_from_ms,
        valid_to_ms=valid_to_ms,
        salt=secrets.token_bytes(SALT_BYTES),
    )
    grant = ConsentGrant(
        consent_id=card.consent_id,
        pid=card.pid,
        capacity=capacity,
        base="permit",
        actor_commits=(actor_commit(opening),),
        purposes=card.purposes,
        compartments=card.handles or None,
        months=scope.months,
        valid_from_ms=Millis(valid_from_ms),
        valid_to_ms=Millis(valid_to_ms),
        max_uses=max_uses,
        exceptions=(PolicyException(labels=scope.denied_labels),) if scope.denied_labels else (),
        btg=btg,
        doc_commit=card.commitment,
        evidence_commit=commit(card.salt, "application/octet-stream", evidence),
        labels=scope.labels,
        classes=scope.classes or None,
        records=scope.records,
        authors=scope.authors,
        encounters=scope.encounters,
    )
    return grant, card


def revoke_consent(consent_id: bytes, reason: RevokeReason = "withdrawn") -> ConsentRevoke:
    """Take a consent back: to be sent by the patient's key (F-06)."""
    return ConsentRevoke(consent_id, reason)


# Access


def request_access(
    reader: Persona,
    chain: ChainId,
    *,
    pid: bytes,
    compartments: Sequence[bytes],
    purpose: Purpose,
    not_after_ms: int,
    card: ConsentCard | None = None,
    records: Sequence[RecordRef] = (),
    n_records: int | None = None,
    scope_salt: bytes | None = None,
    labels: Sequence[bytes] = (),
    months: Months | None = None,
    named: Scope = EVERYTHING,
    ephemeral: BoxKey | None = None,
    reason: bytes | None = None,
) -> AccessRequest:
    """May I read? To be sent alone by the reader's key, which also signs for the ephemeral key (F-01).

    With a card the chain judges by that consent, without one by any of the patient's. Whoever wants to use the answer
    keeps `ephemeral` and `scope_salt`; without them they are made and forgotten. `reason` is the written reason for
    breaking the glass, of which the chain gets a commitment that `scope_salt` opens. `named` says of which classes,
    records, authors and encounters everything is that is asked for; consents that name such need it.
    Raises InvalidInput where the card is about another patient, and without a compartment.
    """
    if card is not None and card.pid != pid:
        raise InvalidInput(f"the consent card is about pid {card.pid.hex()}, asked is for {pid.hex()}")
    if not compartments:
        raise InvalidInput("an access request names at least one compartment")
    salt = scope_salt or secrets.token_bytes(SALT_BYTES)
    key = ephemeral or BoxKey(secrets.token_bytes(32))
    access_id, scope = secrets.token_bytes(16), scope_commit(salt, records)
    return AccessRequest(
        access_id=access_id,
        organisation=reader.organisation,
        pid=pid,
        basis=None if card is None else card.consent_id,
        purpose=purpose,
        actor_opening=None if card is None else card.actor,
        scope_commit=scope,
        n_records=n_records or len(records) or 1,
        compartments=tuple(sorted(set(compartments))),
        labels=tuple(sorted(set(labels))),
        months=months,
        reader_eph_x25519=key.public,
        pop=sign_pop(reader.signing, chain, key.public, access_id, scope),
        not_after_ms=Millis(not_after_ms),
        reason_commit=None if reason is None else commit(salt, "text/plain", reason),
        classes=tuple(sorted(set(named.classes))),
        records=tuple(sorted(set(named.records))),
        authors=tuple(sorted(set(named.authors))),
        encounters=tuple(sorted(set(named.encounters))),
    )


# What the chain answered


def events_of(executed: Executed) -> list[AnyEvent]:
    """What the contracts reported about a transaction, in order; raises InvalidInput where that was pruned."""
    if executed.events is None:
        raise InvalidInput(f"the events of transaction {executed.receipt.transaction.hex()} were pruned")
    return [decode_event(data) for data in executed.events]


def decision_of(executed: Executed) -> AccessDecided:
    """The answer to an access request; raises InvalidInput where the transaction was none or was refused."""
    decided = next((event for event in events_of(executed) if isinstance(event, AccessDecided)), None)
    if decided is None:
        raise InvalidInput(f"transaction {executed.receipt.transaction.hex()} decided no access")
    return decided


# Reading a card, field by field


def _bytes(parts: dict[str, Any], name: str, length: int) -> bytes:
    text = parts.get(name)
    if not isinstance(text, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * length}}}", text):
        raise InvalidInput(f"consent card: {name} {text!r} is not {2 * length} hexadecimal digits")
    return bytes.fromhex(text)


def _text(parts: dict[str, Any], name: str) -> str:
    value = parts[name]
    if not isinstance(value, str):
        raise InvalidInput(f"consent card: {name} is no text")
    return value


def _time(parts: dict[str, Any], name: str) -> int:
    value = parts[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidInput(f"consent card: {name} {value!r} is not a time in milliseconds")
    return value


def _list(parts: dict[str, Any], name: str) -> list[Any]:
    value = parts[name]
    if not isinstance(value, list):
        raise InvalidInput(f"consent card: {name} is not a list")
    return value


def _chosen(what: str, value: object, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        raise InvalidInput(f"consent card: {what} {value!r} is not known")
    return value


def _actor(value: object) -> ActorOpening:
    if not isinstance(value, dict):
        raise InvalidInput(f"consent card: actor {value!r} has no kind, handle and salt")
    kind: ActorKind = _chosen("kind of actor", value.get("kind"), get_args(ActorKind))
    return ActorOpening(_bytes(value, "salt", SALT_BYTES), kind, _bytes(value, "handle", 16))


def _compartment(value: object) -> Compartment:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str | None):
        raise InvalidInput(f"consent card: compartment {value!r} has no handle and name")
    return Compartment(_bytes(value, "handle", 16), value.get("name"))
