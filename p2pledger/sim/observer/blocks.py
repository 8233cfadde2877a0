"""What stands in a genesis, a header, a transaction and a receipt, read from raw bytes; see reader.py."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from p2pledger.sim.observer.encoding import (
    NOTHING,
    Unreadable,
    array,
    faults,
    holds,
    leaf,
    listed,
    number,
    pack,
    quorum,
    sized,
    tagged_hash,
    unpack,
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A validator: its consensus key, the node that speaks for it, its organisation."""

    key: bytes
    node: bytes
    organisation: bytes


@dataclass(frozen=True, slots=True)
class Founding:
    """What a signed genesis says."""

    chain: bytes
    seats: tuple[Seat, ...]
    """By key: a seat's number is its place."""
    accounts: frozenset[bytes]
    """Of the members, and of the nodes that speak for validators (P14)."""
    nodes: frozenset[bytes]
    window: int
    timeout_cap_ms: int
    drift_ms: int
    heartbeat_ms: int
    checkpoint_interval: int
    validators_hash: bytes
    parameters_hash: bytes
    block: bytes
    """The hash of block 0."""
    time_ms: int

    @property
    def f(self) -> int:
        return faults(len(self.seats))

    @property
    def q(self) -> int:
        return quorum(len(self.seats))

    def primary(self, epoch: int, view: int) -> bytes:
        """The seats take turns."""
        return self.seats[(epoch + view) % len(self.seats)].key


def read_founding(data: bytes) -> Founding:
    """A signed genesis: every founding member's signature must hold."""
    genesis, signatures = array(unpack(data), 2)
    version, _, created_ms, parameters, cards = array(genesis, 5)
    cards = [array(card, 8) for card in listed(cards)]
    chain = tagged_hash(b"p2pl/genesis/1", pack(genesis))
    if len(listed(signatures)) != len(cards):
        raise Unreadable(f"{len(signatures)} signatures for {len(cards)} members")
    for card, signature in zip(cards, signatures, strict=True):
        if not holds(sized(card[3]), chain, sized(signature, 64)):
            raise Unreadable(f"the genesis is not signed by {card[1]}")
    seats = tuple(sorted((Seat(card[5], card[6], card[0]) for card in cards), key=lambda seat: seat.key))
    window, _, timeout_cap_ms, drift_ms, heartbeat_ms, _, checkpoint_interval, *_ = array(parameters, 18)
    validators_hash = sha256(pack([[seat.key, seat.node, seat.organisation] for seat in seats])).digest()
    parameters_hash = sha256(pack(parameters)).digest()
    rest = (created_ms, validators_hash, None, parameters_hash, (), NOTHING, 0, 0, (), ())
    block = tagged_hash(b"p2pl/block/1", pack((version, chain, 0, 0, bytes(32), *rest)))
    nodes = frozenset(seat.node for seat in seats)
    accounts = nodes.union(sized(card[3]) for card in cards)
    return Founding(
        chain,
        seats,
        accounts,
        nodes,
        window,
        timeout_cap_ms,
        drift_ms,
        heartbeat_ms,
        checkpoint_interval,
        validators_hash,
        parameters_hash,
        block,
        created_ms,
    )


# Blocks and transactions


@dataclass(frozen=True, slots=True)
class Header:
    """A block but for its bodies."""

    hash: bytes
    chain: bytes
    epoch: int
    height: int
    parent: bytes
    time_ms: int
    validators_hash: bytes
    parameters_hash: bytes
    batches: tuple[bytes, ...]
    transaction_root: bytes
    unsettled: int
    executed_height: int
    effects_roots: tuple[bytes, ...]
    state_roots: tuple[tuple[int, bytes], ...]


def header_of(value: Any) -> Header:
    """A header from the array of its fields."""
    version, chain, epoch, height, parent, time_ms, validators, _, parameters, batches, root, *rest = array(value, 15)
    unsettled, executed, effects, states = rest
    if version != 1:
        raise Unreadable(f"header of version {version!r:.20}")
    return Header(
        tagged_hash(b"p2pl/block/1", pack(value)),
        sized(chain),
        number(epoch),
        number(height),
        sized(parent),
        number(time_ms),
        sized(validators),
        sized(parameters),
        tuple(sized(batch) for batch in listed(batches)),
        sized(root),
        number(unsettled),
        number(executed),
        tuple(sized(effect) for effect in listed(effects)),
        tuple((number(array(state, 2)[0]), sized(state[1])) for state in listed(states)),
    )


def read_header(data: bytes) -> Header:
    """A header from its canonical bytes."""
    return header_of(unpack(data))


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as it stands in a batch."""

    id: bytes
    chain: bytes
    sender: bytes
    nonce: int
    signers: tuple[bytes, ...]
    signatures: tuple[bytes, ...]
    body: bytes
    operations: bytes

    def is_signed(self) -> bool:
        """Whether the sender and every cosigner signed the body."""
        return len(self.signers) == len(self.signatures) and all(
            holds(signer, self.body, signature) for signer, signature in zip(self.signers, self.signatures, strict=True)
        )


def read_transaction(data: bytes) -> Transaction:
    """`[signatures, body, operations]`; the body names the hash of the operations."""
    signatures, body, operations = array(unpack(data), 3)
    tag, chain, sender, nonce, _, cosigners, operations_hash = array(unpack(body), 7)
    if tag != "p2pl/tx/1" or sha256(operations).digest() != operations_hash:
        raise Unreadable(f"no transaction: tag {tag!r:.20}")
    return Transaction(
        sha256(body).digest(),
        sized(chain),
        sized(sender),
        number(nonce),
        (sender, *(sized(cosigner) for cosigner in listed(cosigners))),
        tuple(sized(signature, 64) for signature in listed(signatures)),
        body,
        operations,
    )


def read_batch(data: bytes) -> list[Transaction]:
    """The transactions of a batch."""
    origin, sequence, transactions, signature = array(unpack(data), 4)
    sized(origin), number(sequence), sized(signature, 64)
    return [read_transaction(each) for each in listed(transactions)]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of a transaction."""

    height: int
    index: int
    transaction: bytes
    code: int
    leaf: bytes
    """Its leaf in the effects tree of its height."""
    events: tuple[bytes, ...]
    """What it reports, each event as encoded."""


def read_receipt(data: bytes) -> Receipt:
    """An executed transaction, `[receipt, events]`; the receipt names the hash of the events."""
    receipt, events = array(unpack(data), 2)
    height, index, transaction, code, events_hash = array(receipt, 5)
    if sha256(pack(events)).digest() != events_hash:
        raise Unreadable(f"a receipt at {height}/{index} names another hash of its events")
    place = number(height), number(index)
    return Receipt(*place, sized(transaction), number(code), leaf(b"r" + pack(receipt)), listed(events))
