"""Wallets: one secret of a person, and who its owner is at each organisation (F-20, health rule 3.1).

Keys are derived from the secret by keyed BLAKE2b over (organisation, purpose), and so is the id under which the owner
first registers: who knows a patient's pid and keys at one custodian cannot tell them from a stranger's at another.

Rotating changes the secret and keeps the ids, so the file holds what the secret no longer tells: the ids, the former
secrets (records were sealed to their box keys), the box secrets of a lost wallet in whose place it is, and while a
rotation is under way the secret that comes next with the organisations that have it already. A crash at any moment
leaves a file that has every key the chain may know; what a phrase restores, the chain completes (`identities.py`).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from p2pledger.client.keyfiles import Ask, read_key, read_secret
from p2pledger.client.passphrase import Strength, seal
from p2pledger.client.phrase import phrase_of, secret_of
from p2pledger.client.records import Custodian, Patient
from p2pledger.client.sealing import BoxKey
from p2pledger.health.operations import IdentityRegister
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32
from p2pledger.storage.files import create_private, make_private_folder, put_private, sync_folder

_FORMAT = "p2pledger/wallet/1"
_FILE_BYTES_MAX = 64 * 1024
FORMER_MAX = 64
"""Rotations that a wallet can open old records for; one a year is a lifetime."""


class _Content(Record, frozen=True):
    """What the file holds, in the order in which it is sealed."""

    secret: Bytes32
    former: Annotated[tuple[Bytes32, ...], Meta(max_length=FORMER_MAX)]
    pending: Bytes32 | None
    moved: Annotated[tuple[Bytes16, ...], Meta(max_length=256)]
    ids: Annotated[tuple[tuple[Bytes16, Bytes16], ...], Meta(max_length=256)]
    recovered: Annotated[tuple[tuple[Bytes16, tuple[Bytes32, ...]], ...], Meta(max_length=256)]


@dataclass(frozen=True, slots=True)
class Persona:
    """A person as one organisation knows it: an id, a signing key and a box key that belong together."""

    organisation: bytes
    did: bytes
    """A patient's pid, a practitioner's did."""
    signing: SigningKey
    box: BoxKey

    @property
    def account(self) -> AccountKey:
        return AccountKey(self.signing.public)

    @property
    def patient(self) -> Patient:
        """To whom the custodian seals records."""
        return Patient(self.did, self.box.public)

    def registration(self, kind: IdentityKind, attestation_commit: bytes) -> IdentityRegister:
        """The operation that enters this persona, to be sent by its own key and cosigned by the organisation."""
        return IdentityRegister(self.did, kind, self.account, self.box.public, self.organisation, attestation_commit)


@dataclass(frozen=True, slots=True)
class Wallet:
    """The secret of a person, and all that is derived from it. Its text form shows nothing."""

    secret: bytes = field(repr=False)
    former: tuple[bytes, ...] = field(default=(), repr=False)
    """Secrets before this one, the newest first."""
    pending: bytes | None = field(default=None, repr=False)
    """The secret that a rotation is about to put in place."""
    moved: frozenset[bytes] = field(default=frozenset(), repr=False)
    """The organisations where the pending secret's keys stand already."""
    ids: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """Organisation -> id there, where it is not the one that this secret derives."""
    recovered: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    """Organisation -> secrets of the box keys of a wallet that was lost, as its guardians let them be opened."""

    def __post_init__(self) -> None:
        assert len(self.secret) == 32, "a wallet's secret has 32 bytes"

    def __repr__(self) -> str:
        return "Wallet(…)"

    @staticmethod
    def create(path: Path, passphrase: str | None, strength: Strength = "moderate") -> "Wallet":
        """A new wallet in a new file; raises InvalidInput where the file exists already."""
        wallet = Wallet(secrets.token_bytes(32))
        create_wallet(path, wallet, passphrase, strength)
        return wallet

    @staticmethod
    def load(path: Path, ask: Ask | None = None) -> "Wallet":
        """The wallet in a file; raises ConfigError as `read_key` does."""
        return open_wallet(path, ask).wallet

    @staticmethod
    def of_phrases(phrase: str, *former: str) -> "Wallet":
        """From the words on paper; those of former secrets open what was sealed to them. Raises InvalidInput."""
        found = [secret_of(text) for text in (phrase, *former)]
        if any(len(secret) != 32 for secret in found):
            raise InvalidInput("a wallet's backup phrase has 24 words")
        return Wallet(found[0], tuple(found[1:]))

    @property
    def phrase(self) -> str:
        """The 24 words that restore this wallet; secret."""
        return phrase_of(self.secret)

    def at(self, organisation: bytes) -> Persona:
        """Who the owner is at an organisation: the same every time, unlike at every other."""
        secret = self.secret
        if self.pending is not None and organisation in self.moved:
            secret = self.pending
        return _persona(secret, organisation, self._id(organisation))

    def next_at(self, organisation: bytes) -> Persona:
        """Who the owner will be there once the rotation under way is through."""
        assert self.pending is not None, "no rotation is under way"
        return _persona(self.pending, organisation, self._id(organisation))

    def former_boxes(self, organisation: bytes) -> list[BoxKey]:
        """The box keys that the owner had there before, the newest first: they open what was sealed then."""
        return [BoxKey(secret) for secret in self.box_secrets(organisation)[1:]]

    def box_secrets(self, organisation: bytes) -> tuple[bytes, ...]:
        """The secrets of all box keys that the owner has and had there, the present one first."""
        known = (self.secret, *self.former)
        if self.pending is not None and organisation in self.moved:
            known = (self.pending, *known)
        derived = tuple(_derived(secret, organisation, "box") for secret in known)
        return derived + self.recovered.get(organisation, ())

    def guardian_keys(self, pid: bytes, salt: bytes) -> list[SigningKey]:
        """The keys with which the owner may guard a patient, the newest first: others at each pid, and for each salt.

        Which of them the patient knows stands on the guardian's card; a rotation of this wallet changes nothing of it.
        """
        known = (self.secret, *self.former) if self.pending is None else (self.secret, *self.former, self.pending)
        return [SigningKey(_derived(secret, pid + salt, "guardian")) for secret in known]

    def with_recovered(self, organisation: bytes, secrets_: Sequence[bytes]) -> "Wallet":
        """The wallet that opens also what was sealed to a lost wallet's box keys."""
        return replace(self, recovered={**self.recovered, organisation: tuple(secrets_)})

    def known_as(self, organisation: bytes, identifier: bytes) -> "Wallet":
        """The wallet that knows its owner's id at an organisation."""
        return replace(self, ids={**self.ids, organisation: identifier})

    # Rotating

    def rotating(self) -> "Wallet":
        """The wallet with a next secret; itself where a rotation is under way. Raises InvalidInput after too many."""
        if self.pending is not None:
            return self
        if len(self.former) == FORMER_MAX:
            raise InvalidInput(f"a wallet keeps {FORMER_MAX} former secrets; make a new wallet and register anew")
        return replace(self, pending=secrets.token_bytes(32), moved=frozenset())

    def moved_at(self, organisation: bytes) -> "Wallet":
        """The wallet after the chain has put the pending key in place at an organisation."""
        assert self.pending is not None, "no rotation is under way"
        return replace(self, moved=self.moved | {organisation}).known_as(organisation, self._id(organisation))

    def rotated(self) -> "Wallet":
        """The wallet after the last organisation: the pending secret is the secret, the old one is former."""
        assert self.pending is not None, "no rotation is under way"
        return Wallet(self.pending, (self.secret, *self.former), None, frozenset(), self.ids, self.recovered)

    def _id(self, organisation: bytes) -> bytes:
        known = self.ids.get(organisation)
        return _derived(self.secret, organisation, "id")[:16] if known is None else known


@dataclass(frozen=True, slots=True)
class WalletFile:
    """A wallet, where it lies and how it is sealed there; for those who change it."""

    path: Path
    wallet: Wallet
    passphrase: str | None = field(repr=False)

    def keep(self, wallet: Wallet, strength: Strength = "moderate") -> "WalletFile":
        """Put a changed wallet in the old one's place, whole and durable; raises StoreError."""
        put_private(self.path, _text(wallet, self.passphrase, strength))
        sync_folder(self.path.parent)
        return replace(self, wallet=wallet)


def create_wallet(path: Path, wallet: Wallet, passphrase: str | None, strength: Strength = "moderate") -> None:
    """Write a wallet into a new file, sealed unless `passphrase` is None; raises InvalidInput where one exists."""
    make_private_folder(path.parent)
    create_private(path, _text(wallet, passphrase, strength))


def open_wallet(path: Path, ask: Ask | None = None) -> WalletFile:
    """The wallet in a file, to be changed there; raises ConfigError as `read_key` does."""
    payload, passphrase = read_secret(path, _FILE_BYTES_MAX, _FORMAT, ask)
    try:
        content = decode(_Content, payload, _FILE_BYTES_MAX)
    except InvalidInput as error:
        raise ConfigError(f"{path} is no wallet: {error}; a member's keys are used with --home") from error
    wallet = Wallet(
        content.secret,
        content.former,
        content.pending,
        frozenset(content.moved),
        dict(content.ids),
        dict(content.recovered),
    )
    return WalletFile(path, wallet, passphrase)


def _text(wallet: Wallet, passphrase: str | None, strength: Strength) -> bytes:
    ids, moved = tuple(sorted(wallet.ids.items())), tuple(sorted(wallet.moved))
    recovered = tuple(sorted(wallet.recovered.items()))
    content = _Content(wallet.secret, wallet.former, wallet.pending, moved, ids, recovered)
    payload = encode(content)
    return payload.hex().encode() + b"\n" if passphrase is None else seal(payload, passphrase, strength, _FORMAT)


def _persona(secret: bytes, organisation: bytes, identifier: bytes) -> Persona:
    return Persona(
        organisation,
        identifier,
        SigningKey(_derived(secret, organisation, "sign")),
        BoxKey(_derived(secret, organisation, "box")),
    )


def _derived(secret: bytes, organisation: bytes, purpose: str) -> bytes:
    data = encode((organisation, purpose))
    return blake2b(data, key=secret, digest_size=32, person=b"p2pl/wallet/1").digest()


@dataclass(frozen=True, slots=True)
class OrganisationWallet:
    """An organisation's own keys: the account that signs for it, and its box key with what follows from that."""

    organisation: bytes
    account: SigningKey
    custodian: Custodian

    @staticmethod
    def of_seeds(organisation: bytes, account_seed: bytes, box_seed: bytes) -> "OrganisationWallet":
        """From the two seeds of a member's home."""
        return OrganisationWallet(organisation, SigningKey(account_seed), Custodian.of_box_seed(organisation, box_seed))

    @staticmethod
    def load(organisation: bytes, keys: Path, ask: Ask | None = None) -> "OrganisationWallet":
        """From the folder `keys` of a member's home; raises ConfigError as `read_key` does."""
        return OrganisationWallet.of_seeds(
            organisation, read_key(keys / "account.key", ask), read_key(keys / "box.key", ask)
        )
