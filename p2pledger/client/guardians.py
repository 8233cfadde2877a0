"""Guardians among people: what patient, guardians and a recovering person hand to each other, as files (F-23).

    patient    invite   -> Invitation, one for each guardian           salts, for each custodian at which the patient is
    guardian   accept   -> Acceptance                                  a key for each pid, made for it alone
    patient    set      -> GuardianSet at each custodian, and a GuardianCard for each guardian
    new wallet request  -> RecoveryRequest, from any guardian's card   the keys that the guardians are asked to approve
    guardian   approve  -> GuardianApproval                            signatures over those keys
    new wallet start, finalize, open

None of them holds a secret that opens or signs anything. The card has the capsule in which the old box keys wait: it
opens through the validators' shares, which go to the recovered patient's new key and to nobody else (rule 3.7).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from p2pledger.client.keyring import Persona, Wallet
from p2pledger.client.sealing import decrypt, encrypt
from p2pledger.health.guardian_operations import (
    Approval,
    Freeze,
    GuardianSet,
    RecoveryStart,
    Unfreeze,
    approve,
    freeze_bytes,
    guardian_commit,
    recovery_bytes,
    sorted_commits,
    unfreeze_bytes,
)
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.recovery_release import RecoverRequest, RecoveryOpening, recovery_label
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Shape, decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, sha256, signed_bytes, tagged_hash, verify
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Bytes64, ChainId, Millis
from p2pledger.threshold.capsule import CAPSULE_BYTES_MAX
from p2pledger.threshold.key_release import Access, Opened
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.sealing import BoxSecret

_TEXT_BYTES_MAX = 1024 * 1024
_SECRETS_MAX = 256
_BOXES: Shape[tuple[Bytes32, ...]] = Shape(tuple[Bytes32, ...])
F = TypeVar("F", bound="_File")
P = TypeVar("P")
Places = Annotated[tuple[P, ...], Meta(min_length=1, max_length=256)]


class _File(Struct, frozen=True, forbid_unknown_fields=True, tag_field="format"):
    """A file that people hand over: JSON, bytes as base64."""

    chain: ChainId

    def dump(self) -> str:
        """As text, always spelled the same."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"


def load(kind: type[F], text: str, chain: ChainId) -> F:
    """A file of this kind for this chain; raises InvalidInput naming what is wrong."""
    name = str(kind.__struct_config__.tag)
    if len(text) > _TEXT_BYTES_MAX:
        raise InvalidInput(f"{name} of {len(text)} characters, the limit is {_TEXT_BYTES_MAX}")
    try:
        found = msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"not a {name}: {error}") from error
    if found.chain != chain:
        raise InvalidInput(f"this {name} is for chain {found.chain.hex()}, here is chain {chain.hex()}")
    return found


# Patient and guardian agree


class InvitedPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a guardian is asked to guard."""

    organisation: Bytes16
    pid: Bytes16
    salt: Bytes32
    """Random: hides on the chain who guards, and that it is the same person elsewhere."""


class Invitation(_File, frozen=True, tag="p2pledger/guardian-invitation/1"):
    """For one guardian."""

    places: Places[InvitedPlace]


class AcceptedPlace(InvitedPlace, frozen=True, forbid_unknown_fields=True):
    """With the guardian's key there."""

    guardian: AccountKey
    proof: Bytes64
    """That the guardian has this key."""


class Acceptance(_File, frozen=True, tag="p2pledger/guardian-acceptance/1"):
    """A guardian's answer."""

    places: Places[AcceptedPlace]


def invite(personas: Sequence[Persona], chain: ChainId) -> Invitation:
    """An invitation for one guardian to guard a patient everywhere it is known."""
    places = [InvitedPlace(one.organisation, one.did, secrets.token_bytes(32)) for one in personas]
    return Invitation(chain, tuple(places))


def accept(invitation: Invitation, guardian: Wallet) -> Acceptance:
    """The guardian's keys, made from its wallet for these places alone; nothing has to be kept but the wallet."""
    places = []
    for place in invitation.places:
        key = guardian.guardian_keys(place.pid, place.salt)[0]
        proof = key.sign(_promise(invitation.chain, place.pid, place.salt))
        places.append(AcceptedPlace(place.organisation, place.pid, place.salt, AccountKey(key.public), proof))
    return Acceptance(invitation.chain, tuple(places))


def _promise(chain: ChainId, pid: bytes, salt: bytes) -> bytes:
    return signed_bytes(Domain.GUARDIAN_APPROVAL, chain, encode(("guard", pid, salt)))


# The patient names them


class Escrow(Struct, frozen=True, forbid_unknown_fields=True):
    """The secrets of a patient's box keys at one custodian, for a day on which the wallet is lost."""

    key_epoch: U64
    capsule: Annotated[bytes, Meta(max_length=CAPSULE_BYTES_MAX)]
    """Opens through shares, with them `sealed`."""
    sealed: Annotated[bytes, Meta(max_length=64 * _SECRETS_MAX)]


class GuardedPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """What a guardian keeps about one pid."""

    organisation: Bytes16
    pid: Bytes16
    salt: Bytes32 | None
    """None on a card that is nobody's: a copy for the custodian or the patient."""
    guardian: AccountKey | None
    escrow: Escrow | None
    """None where nothing was kept: then a recovery gives new keys, and old records stay closed."""


class GuardianCard(_File, frozen=True, tag="p2pledger/guardian-card/1"):
    """What a guardian keeps: it is of no use to anybody alone, and nobody else's loss."""

    threshold: U64
    guardians: U64
    delay_ms: U64
    places: Places[GuardedPlace]

    def place(self, pid: bytes) -> GuardedPlace:
        """Raises InvalidInput where this card is about other patients."""
        for place in self.places:
            if place.pid == pid:
                return place
        raise InvalidInput(f"this guardian card is not about pid {pid.hex()}")


@dataclass(frozen=True, slots=True)
class Named:
    """What the patient sends to the chain at one custodian, and what becomes part of the cards."""

    persona: Persona
    operation: GuardianSet
    places: tuple[GuardedPlace, ...]
    """One for each acceptance, in their order."""


def keep_boxes(persona: Persona, boxes: Sequence[bytes], chain: ChainId, active: ActiveKey) -> Escrow:
    """The secrets of box keys, so that they open through the validators' shares after a recovery, and only then."""
    key = secrets.token_bytes(32)
    label = recovery_label(persona.did, persona.organisation, chain, active.key.key_epoch)
    capsule = LongTerm(active.key).wrap(key, label, secrets.token_bytes)
    nonce, ciphertext = encrypt(key, encode(tuple(boxes)), sha256(capsule))
    return Escrow(active.key.key_epoch, capsule, nonce + ciphertext)


def name_guardians(
    persona: Persona, acceptances: Sequence[Acceptance], threshold: int, delay_ms: int, escrow: Escrow | None
) -> Named:
    """The operation that names these guardians at one custodian.

    Raises InvalidInput where an acceptance leaves this custodian out, is for another pid, or its key is not proven;
    where somebody is there twice, and where so many can never approve.
    """
    places = [_accepted(persona, acceptance) for acceptance in acceptances]
    if len({place.guardian for place in places}) < len(places):
        raise InvalidInput("the same guardian stands in two acceptances; each counts once")
    if not 2 <= threshold <= len(places) <= limits.GUARDIANS_MAX:
        raise InvalidInput(
            f"{threshold} of {len(places)} guardians: at least 2 must be needed, of at most {limits.GUARDIANS_MAX}"
        )
    operation = GuardianSet(
        persona.did,
        threshold,
        sorted_commits([guardian_commit(place.pid, place.salt, place.guardian) for place in places]),
        delay_ms,
        None if escrow is None else sha256(escrow.capsule),
        0 if escrow is None else escrow.key_epoch,
    )
    kept = tuple(GuardedPlace(one.organisation, one.pid, one.salt, one.guardian, escrow) for one in places)
    return Named(persona, operation, kept)


def _accepted(persona: Persona, acceptance: Acceptance) -> AcceptedPlace:
    place = next((one for one in acceptance.places if one.organisation == persona.organisation), None)
    if place is None or place.pid != persona.did:
        raise InvalidInput(f"an acceptance is not about pid {persona.did.hex()}; invite this guardian there, too")
    if not verify(place.guardian, _promise(acceptance.chain, place.pid, place.salt), place.proof):
        raise InvalidInput(f"key {place.guardian.hex()} of an acceptance is not proven to be the guardian's")
    return place


def cards_of(named: Sequence[Named], chain: ChainId) -> tuple[list[GuardianCard], GuardianCard]:
    """A card for each acceptance, in their order, and one that is nobody's: for the custodians and the patient."""
    terms = named[0].operation

    def card(places: Sequence[GuardedPlace]) -> GuardianCard:
        return GuardianCard(chain, terms.threshold, len(terms.guardians), terms.delay_ms, tuple(places))

    cards = [card([one.places[number] for one in named]) for number in range(len(named[0].places))]
    spare = [msgspec.structs.replace(one.places[0], salt=None, guardian=None) for one in named]
    return cards, card(spare)


# A new wallet asks


class RequestedPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """New keys for one pid."""

    organisation: Bytes16
    pid: Bytes16
    recovery: Bytes16
    key: AccountKey
    box: Bytes32


class RecoveryRequest(_File, frozen=True, tag="p2pledger/recovery-request/1"):
    """For the guardians, who ask the person, and not the file, whether it is the person."""

    not_after_ms: Millis
    places: Places[RequestedPlace]

    @property
    def word(self) -> str:
        """What person and guardian compare by voice."""
        return sha256(encode(tuple((place.pid, place.key, place.box) for place in self.places)))[:8].hex(" ", 2)


def recovery_id(pid: bytes, key: bytes) -> bytes:
    """How a recovery to this key is called: a wallet finds it again without keeping anything."""
    return tagged_hash(Domain.GUARDIAN, encode(("recovery", pid, key)))[:16]


def ask(card: GuardianCard, wallet: Wallet, not_after_ms: int) -> tuple[RecoveryRequest, Wallet]:
    """The request of a new wallet for the pids on a card, and the wallet that knows itself under them."""
    places = []
    for place in card.places:
        wallet = wallet.known_as(place.organisation, place.pid)
        new = wallet.at(place.organisation)
        identifier = recovery_id(place.pid, new.account)
        places.append(RequestedPlace(place.organisation, place.pid, identifier, new.account, new.box.public))
    return RecoveryRequest(card.chain, Millis(not_after_ms), tuple(places)), wallet


# Guardians approve


class ApprovedPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """A guardian's signature about one pid."""

    pid: Bytes16
    salt: Bytes32
    guardian: AccountKey
    signature: Bytes64


class GuardianApproval(_File, frozen=True, tag="p2pledger/guardian-approval/1"):
    """One guardian's word about all pids on its card."""

    kind: Literal["recover", "freeze", "unfreeze"]
    until_ms: Millis
    """The end of the freeze; for a recovery the end of the request."""
    places: Places[ApprovedPlace]


def approve_request(request: RecoveryRequest, card: GuardianCard, guardian: Wallet) -> GuardianApproval:
    """The guardian's signatures over the keys in a request; raises InvalidInput where the card has no place in it."""
    places = []
    for asked in request.places:
        data = recovery_bytes(request.chain, asked.pid, asked.recovery, asked.key, asked.box, request.not_after_ms)
        places.append(_signed(card.place(asked.pid), guardian, data))
    return GuardianApproval(request.chain, "recover", request.not_after_ms, tuple(places))


def approve_freeze(card: GuardianCard, guardian: Wallet, until_ms: int, *, is_end: bool = False) -> GuardianApproval:
    """The guardian's signatures to freeze until then, or to end the freeze that would end then."""
    data = unfreeze_bytes if is_end else freeze_bytes
    places = [_signed(place, guardian, data(card.chain, place.pid, until_ms)) for place in card.places]
    return GuardianApproval(card.chain, "unfreeze" if is_end else "freeze", Millis(until_ms), tuple(places))


def guardian_key(place: GuardedPlace, guardian: Wallet) -> SigningKey:
    """The key with which a wallet's owner guards there; raises InvalidInput where the card is not its own."""
    if place.salt is None or place.guardian is None:
        raise InvalidInput("this card is a copy that is no guardian's; approve with a guardian's own card")
    for key in guardian.guardian_keys(place.pid, place.salt):
        if key.public == place.guardian:
            return key
    raise InvalidInput(
        f"this wallet is not the guardian of pid {place.pid.hex()} on this card; use the wallet that accepted, or "
        "restore it with its former phrases"
    )


def _signed(place: GuardedPlace, guardian: Wallet, data: bytes) -> ApprovedPlace:
    key = guardian_key(place, guardian)
    assert place.salt is not None, "a guardian's own card"
    given = approve(key, place.salt, data)
    return ApprovedPlace(place.pid, given.salt, given.guardian, given.signature)


def approvals_for(pid: bytes, files: Sequence[GuardianApproval]) -> tuple[Approval, ...]:
    """What guardians have signed about one pid, each once."""
    found: dict[bytes, Approval] = {}
    for file in files:
        for place in file.places:
            if place.pid == pid:
                found[place.guardian] = Approval(place.salt, place.guardian, place.signature)
    return tuple(found.values())


def start_recovery(
    place: RequestedPlace, request: RecoveryRequest, files: Sequence[GuardianApproval], *, is_beyond_veto: bool = False
) -> RecoveryStart:
    """To be sent by the new key. Raises InvalidInput where nobody approved of this pid, or of another request."""
    _demand("recover", request.not_after_ms, files)
    return RecoveryStart(
        place.pid,
        place.recovery,
        place.key,
        place.box,
        request.not_after_ms,
        _some(place.pid, files),
        is_beyond_veto,
    )


def freezing(pid: bytes, files: Sequence[GuardianApproval]) -> Freeze | Unfreeze:
    """What freezes a patient, or ends it; raises InvalidInput where the files are not about the same freeze."""
    first = files[0]
    _demand(first.kind, first.until_ms, files)
    if first.kind == "recover":
        raise InvalidInput("these approvals are of a recovery, not of a freeze; next: p2pledger recovery start")
    operation = Freeze if first.kind == "freeze" else Unfreeze
    return operation(Bytes16(pid), first.until_ms, _some(pid, files))


def _demand(kind: str, until_ms: int, files: Sequence[GuardianApproval]) -> None:
    for file in files:
        if (file.kind, file.until_ms) != (kind, until_ms):
            raise InvalidInput(
                f"one approval is to {file.kind}, until {file.until_ms} ms; this is to {kind}, until {until_ms} ms"
            )


def _some(pid: bytes, files: Sequence[GuardianApproval]) -> tuple[Approval, ...]:
    found = approvals_for(pid, files)
    if not found:
        raise InvalidInput(f"no guardian has approved anything about pid {pid.hex()}")
    return found


# The recovered wallet opens what was kept


def open_request(place: GuardedPlace, wallet: Wallet) -> RecoverRequest:
    """What the recovered patient sends to the validators; raises Rejected(E_CAPSULE) where nothing was kept."""
    if place.escrow is None:
        raise Rejected(Code.E_CAPSULE, f"no box keys of pid {place.pid.hex()} were kept: old records stay closed")
    identifier = recovery_id(place.pid, wallet.at(place.organisation).account)
    return RecoverRequest(Bytes16(identifier), (RecoveryOpening(place.escrow.capsule, place.escrow.key_epoch),))


def open_boxes(
    place: GuardedPlace, wallet: Wallet, chain: ChainId, active: ActiveKey, shares: Mapping[int, bytes]
) -> tuple[tuple[bytes, ...], Opened]:
    """The secrets of the old box keys, and who sent a wrong share.

    Raises TooFewShares naming who is missing and who lied, InvalidInput or ProofError for a card that was changed.
    """
    assert place.escrow is not None, "there was something to ask for"
    release = LongTerm(active.key)
    label = recovery_label(place.pid, place.organisation, chain, place.escrow.key_epoch)
    reader = BoxSecret(wallet.box_secrets(place.organisation)[0])
    identifier = recovery_id(place.pid, wallet.at(place.organisation).account)
    opened = release.open(place.escrow.capsule, label, Access(Bytes16(identifier), reader.public), reader, shares)
    nonce, ciphertext = place.escrow.sealed[:24], place.escrow.sealed[24:]
    data = decrypt(opened.content_key, nonce, ciphertext, sha256(place.escrow.capsule))
    return decode(_BOXES, data, 64 * _SECRETS_MAX), opened
