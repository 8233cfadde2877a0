"""The genesis: who founds the consortium, under which parameters, signed by every founding member.

Each member makes a card from keys that stay at home; the assembled genesis lists the cards; each member signs it.
The chain id is the hash of what they signed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta

from p2pledger.chain.block import PROTOCOL_VERSION, Header
from p2pledger.chain.validators import Validator, ValidatorSet, quorum
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, is_public_key, sha256, tagged_hash, verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import (
    AccountKey,
    BlockHash,
    Bytes16,
    Bytes32,
    ChainId,
    Epoch,
    Height,
    Millis,
    NodeId,
    Signature,
    ValidatorId,
)

PublicName = Annotated[str, Meta(min_length=1, max_length=80)]
"""Public names of organisations are the only free text on the chain."""
OrganisationKind = Literal["hospital", "insurer", "agency", "manufacturer", "pharmacy", "research"]

GENESIS_BYTES_MAX = 256 * 1024


class Parameters(Record, frozen=True):
    """What all nodes must agree on; local configuration can never change it. Times in milliseconds."""

    window: Annotated[int, Meta(ge=1, le=limits.WINDOW_MAX)] = limits.WINDOW_DEFAULT
    timeout_ms: Annotated[int, Meta(ge=50, le=60_000)] = limits.TIMEOUT_MS_DEFAULT
    timeout_cap_ms: Annotated[int, Meta(ge=50, le=600_000)] = limits.TIMEOUT_MS_CAP
    drift_ms: Annotated[int, Meta(ge=100, le=600_000)] = limits.DRIFT_MS_DEFAULT
    heartbeat_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = limits.HEARTBEAT_MS_DEFAULT
    """One empty block per heartbeat of quiet; 0 = never."""
    term_heights: Annotated[int, Meta(ge=1, le=2**40)] = limits.TERM_HEIGHTS_DEFAULT
    checkpoint_interval: Annotated[int, Meta(ge=1, le=100_000)] = limits.CHECKPOINT_INTERVAL
    default_policy: Literal["deny", "basic-normal", "all-normal", "break-glass-only"] = "deny"
    """PCF's four policies for a patient without a fitting consent."""
    break_glass_review_ms: Annotated[int, Meta(ge=60_000, le=limits.SPAN_MS_MAX)] = limits.BREAK_GLASS_REVIEW_MS_DEFAULT
    """An emergency access is to be reviewed within this time (F-15)."""
    break_glass_window_ms: Annotated[int, Meta(ge=60_000, le=limits.SPAN_MS_MAX)] = limits.BREAK_GLASS_WINDOW_MS_DEFAULT
    """Emergency accesses are counted together for so long; an alarm is raised once in it (F-16)."""
    break_glass_alarm_uses: Annotated[int, Meta(ge=1, le=2**40)] = limits.BREAK_GLASS_ALARM_USES_DEFAULT
    """No alarm below so many in a window,"""
    break_glass_alarm_permille: Annotated[int, Meta(ge=0, le=1000)] = limits.BREAK_GLASS_ALARM_PERMILLE_DEFAULT
    """nor below this share of an organisation's allowed accesses."""
    refusals_window_ms: Annotated[int, Meta(ge=1_000, le=limits.SPAN_MS_MAX)] = limits.REFUSALS_WINDOW_MS_DEFAULT
    refusals_max: Annotated[int, Meta(ge=1, le=2**40)] = limits.REFUSALS_MAX_DEFAULT
    """Denied accesses and failed transactions of one person's key in a window; more are turned away."""
    erase_decision_ms: Annotated[int, Meta(ge=60_000, le=limits.SPAN_MS_MAX)] = limits.ERASE_DECISION_MS_DEFAULT
    """A custodian decides about a request for erasure within this time (F-26)."""
    recovery_delay_min_ms: Annotated[int, Meta(ge=1_000, le=limits.SPAN_MS_MAX)] = limits.RECOVERY_DELAY_MIN_MS_DEFAULT
    """No patient's guardians may have a shorter delay; less than a day is for trials (F-23)."""
    recovery_long_ms: Annotated[int, Meta(ge=1_000, le=limits.SPAN_MS_MAX)] = limits.RECOVERY_LONG_MS_DEFAULT
    """The delay, at least, of a recovery that no veto ends (F-25)."""
    freeze_max_ms: Annotated[int, Meta(ge=1_000, le=limits.SPAN_MS_MAX)] = limits.FREEZE_MAX_MS_DEFAULT
    """The longest time for which guardians can freeze a patient (F-25)."""

    @property
    def hash(self) -> bytes:
        return sha256(encode(self))


class Card(Record, frozen=True):
    """What a member publishes about itself before the genesis: public keys and names only."""

    organisation: Bytes16
    name: PublicName
    kind: OrganisationKind
    account: AccountKey
    """Signs the organisation's transactions and the genesis."""
    box: Bytes32
    """X25519: others seal documents to the organisation with it."""
    validator: ValidatorId
    node: NodeId
    certificate: bytes
    """DER of the self-signed transport certificate whose key is `node`."""


class SignedCard(Record, frozen=True):
    """A card with its owner's signature."""

    card: Card
    signature: Signature


class Genesis(Record, frozen=True):
    """The founding document."""

    version: int
    name: PublicName
    created_ms: Millis
    parameters: Parameters
    cards: tuple[Card, ...]
    """Sorted by organisation."""

    @property
    def chain(self) -> ChainId:
        """The id of the chain that this founds."""
        return ChainId(tagged_hash(Domain.GENESIS, encode(self)))


class SignedGenesis(Record, frozen=True):
    """The genesis with the signature of every card's account key, in the order of the cards."""

    genesis: Genesis
    signatures: tuple[Signature, ...]


def sign_card(card: Card, account: SigningKey) -> SignedCard:
    """The card, signed by the member's own account key."""
    assert account.public == card.account
    return SignedCard(card, account.sign(tagged_hash(Domain.CARD, encode(card))))


def check_card(signed: SignedCard) -> Card:
    """The card, if its owner signed it and its keys are usable; raises InvalidInput."""
    card = signed.card
    keys = (card.account, card.validator, card.node)
    if len(set(keys)) != 3:
        raise InvalidInput(f"card of {card.name!r} uses one key for two purposes")
    for key in keys:
        if not is_public_key(key):
            raise InvalidInput(f"card of {card.name!r}: {key.hex()} is not an Ed25519 public key")
    if not verify(card.account, tagged_hash(Domain.CARD, encode(card)), signed.signature):
        raise InvalidInput(f"card of {card.name!r} is not signed by its account key {card.account.hex()}")
    return card


def assemble(name: str, created_ms: Millis, parameters: Parameters, cards: Sequence[SignedCard]) -> Genesis:
    """The genesis of these members, for all of them to sign; raises InvalidInput where a rule is broken."""
    checked = sorted((check_card(card) for card in cards), key=lambda card: card.organisation)
    genesis = Genesis(PROTOCOL_VERSION, name, created_ms, parameters, tuple(checked))
    _check_members(genesis)
    return genesis


def _check_members(genesis: Genesis) -> None:
    cards = genesis.cards
    if any(a.organisation >= b.organisation for a, b in pairwise(cards)):
        raise InvalidInput("members of a genesis must be distinct and sorted by organisation")
    for what, values in (
        ("name", [card.name for card in cards]),
        ("key", [key for card in cards for key in (card.account, card.validator, card.node)]),
    ):
        if len(set(values)) != len(values):
            raise InvalidInput(f"two members share one {what}")
    if genesis.parameters.timeout_cap_ms < genesis.parameters.timeout_ms:
        raise InvalidInput(
            f"timeout cap {genesis.parameters.timeout_cap_ms} ms is below the timeout "
            f"{genesis.parameters.timeout_ms} ms"
        )
    ValidatorSet.of([_seat(card) for card in cards])


def _seat(card: Card) -> Validator:
    return Validator(card.validator, card.node, card.organisation)


def genesis_signing_bytes(genesis: Genesis) -> bytes:
    """What each member signs: the chain id, which is the tagged hash of all of it."""
    return genesis.chain


def sign_genesis(genesis: Genesis, account: SigningKey) -> Signature:
    """One member's signature."""
    return account.sign(genesis_signing_bytes(genesis))


def combine(genesis: Genesis, signatures: Mapping[AccountKey, Signature]) -> SignedGenesis:
    """The signed genesis; raises InvalidInput naming the members whose signature is missing or wrong."""
    missing = [card.name for card in genesis.cards if card.account not in signatures]
    if missing:
        raise InvalidInput(f"genesis lacks the signature of {', '.join(missing)}")
    signed = SignedGenesis(genesis, tuple(signatures[card.account] for card in genesis.cards))
    check_genesis(signed)
    return signed


def check_genesis(signed: SignedGenesis) -> None:
    """Raises InvalidInput unless every founding member signed exactly this genesis and its rules hold."""
    genesis = signed.genesis
    if genesis.version != PROTOCOL_VERSION:
        raise InvalidInput(f"genesis of protocol version {genesis.version}, this is {PROTOCOL_VERSION}")
    _check_members(genesis)
    if len(signed.signatures) != len(genesis.cards):
        raise InvalidInput(f"{len(signed.signatures)} signatures for {len(genesis.cards)} members")
    message = genesis_signing_bytes(genesis)
    for card, signature in zip(genesis.cards, signed.signatures, strict=True):
        if not verify(card.account, message, signature):
            raise InvalidInput(f"genesis is not signed by {card.name!r} ({card.account.hex()})")


def parse_genesis(data: bytes) -> SignedGenesis:
    """The checked genesis whose canonical bytes are `data`; raises InvalidInput."""
    signed = decode(SignedGenesis, data, GENESIS_BYTES_MAX)
    check_genesis(signed)
    return signed


@dataclass(frozen=True)
class Founding:
    """A checked genesis with what everybody derives from it."""

    signed: SignedGenesis

    @property
    def genesis(self) -> Genesis:
        return self.signed.genesis

    @cached_property
    def chain(self) -> ChainId:
        return self.genesis.chain

    @property
    def parameters(self) -> Parameters:
        return self.genesis.parameters

    @cached_property
    def validators(self) -> ValidatorSet:
        return ValidatorSet.of([_seat(card) for card in self.genesis.cards])

    @cached_property
    def header(self) -> Header:
        """Block 0: nobody votes on it, everybody computes it."""
        return Header(
            version=PROTOCOL_VERSION,
            chain=self.chain,
            epoch=Epoch(0),
            height=Height(0),
            parent=BlockHash(bytes(32)),
            time_ms=self.genesis.created_ms,
            validators_hash=self.validators.hash,
            next_validators_hash=None,
            parameters_hash=self.parameters.hash,
            batches=(),
            transaction_root=merkle.EMPTY_ROOT,
            unsettled=0,
            executed_height=Height(0),
            effects_roots=(),
            state_roots=(),
        )

    @property
    def tolerated_faults(self) -> int:
        """How many validators may lie before safety is lost: 0 below four."""
        n = self.validators.n
        return n - quorum(n) if n >= 4 else 0
