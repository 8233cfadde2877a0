"""How messages and batches reach every node over whatever links are up.

In a full mesh each message crosses each link once. Where a link is missing, a message travels inside a `Relay`, signed
by its origin's node key, and each receiver carries it on to those of its peers that have no live link to the origin.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pledger.chain.batch import Batch
from p2pledger.chain.transaction import Transaction
from p2pledger.messages import Links, PeerMessage, Relay
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Value, encode
from p2pledger.primitives.crypto import Domain, SigningKey, signed_bytes, verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BatchId, ChainId, NodeId

SEEN_PER_ORIGIN = 8192
"""Serials of relayed messages remembered per origin, against carrying one round in circles."""


class Transmission(Value, frozen=True):
    """Send these bytes to each of these nodes, over direct links."""

    nodes: tuple[NodeId, ...]
    body: bytes


class Router:
    """Knows the live links, ours and those that others tell us of."""

    def __init__(self, chain: ChainId, key: SigningKey, members: Iterable[NodeId], serial: int) -> None:
        self._chain = chain
        self._key = key
        self.me = NodeId(key.public)
        self.members = frozenset(members) - {self.me}
        self.links: set[NodeId] = set()
        self._links_of: dict[NodeId, frozenset[NodeId]] = {}
        self._serial = serial
        self._seen: dict[NodeId, dict[int, None]] = {}
        self._forgotten: dict[NodeId, int] = {}
        """The highest serial of each origin that is no longer remembered; up to it nothing is carried again."""

    def link_up(self, node: NodeId) -> list[Transmission]:
        self.links.add(node)
        return self._tell_links()

    def link_down(self, node: NodeId) -> list[Transmission]:
        self.links.discard(node)
        self._links_of.pop(node, None)
        return self._tell_links()

    def learn_links(self, node: NodeId, links: Links) -> None:
        """A direct peer says with whom it has live links."""
        self._links_of[node] = frozenset(links.nodes)

    def _tell_links(self) -> list[Transmission]:
        nodes = tuple(sorted(self.links))
        return [Transmission(nodes, encode(Links(nodes)))] if nodes else []

    def broadcast(self, message: PeerMessage) -> list[Transmission]:
        """To all members, relayed where a link is missing."""
        if not self.links:
            return []
        body = encode(message)
        if self.links < self.members:
            body = encode(self._relay(None, body))
        return [Transmission(tuple(sorted(self.links)), body)]

    def send(self, node: NodeId, message: PeerMessage) -> list[Transmission]:
        """To one member."""
        body = encode(message)
        if node in self.links:
            return [Transmission((node,), body)]
        if not self.links or node == self.me:
            return []
        return [Transmission(tuple(sorted(self.links)), encode(self._relay(node, body)))]

    def _relay(self, destination: NodeId | None, body: bytes) -> Relay:
        self._serial += 1
        signature = self._key.sign(_relay_bytes(self._chain, self.me, destination, self._serial, body))
        return Relay(self.me, destination, self._serial, body, signature)

    def on_relay(self, sender: NodeId, relay: Relay) -> tuple[bytes | None, list[Transmission]]:
        """(the message inside if it is for us and new, what to carry on). Raises InvalidInput for a forged one."""
        if relay.origin == self.me:
            return None, []
        if relay.origin not in self.members:
            raise InvalidInput(f"relayed message of {relay.origin.hex()}, who is not a member")
        seen = self._seen.setdefault(relay.origin, {})
        if relay.serial in seen or relay.serial <= self._forgotten.get(relay.origin, -1):
            return None, []
        said = _relay_bytes(self._chain, relay.origin, relay.destination, relay.serial, relay.body)
        if not verify(relay.origin, said, relay.signature):
            raise InvalidInput(f"relayed message is not signed by its origin {relay.origin.hex()}")
        seen[relay.serial] = None
        if len(seen) > SEEN_PER_ORIGIN:
            oldest = next(iter(seen))
            del seen[oldest]
            self._forgotten[relay.origin] = max(oldest, self._forgotten.get(relay.origin, -1))
        onward = self._onward(sender, relay)
        carried = [Transmission(onward, encode(relay))] if onward else []
        return (relay.body if relay.destination in {None, self.me} else None), carried

    def _onward(self, sender: NodeId, relay: Relay) -> tuple[NodeId, ...]:
        if relay.destination == self.me:
            return ()
        if relay.destination in self.links:
            return (relay.destination,)
        return tuple(
            sorted(
                node
                for node in self.links
                if node not in {sender, relay.origin} and relay.origin not in self._links_of.get(node, frozenset())
            )
        )


def _relay_bytes(chain: ChainId, origin: NodeId, destination: NodeId | None, serial: int, body: bytes) -> bytes:
    return signed_bytes(Domain.RELAY, chain, encode((origin, destination, serial, body)))


@dataclass(slots=True)
class PooledBatch:
    """A verified batch that waits to be ordered."""

    id: BatchId
    batch: Batch
    transactions: list[Transaction]
    data: bytes
    held_since_ms: int
    came_ms: int | None = None
    """When it came, by the wall clock; None where it was taken up from disk."""
    is_own: bool = False


@dataclass(slots=True)
class BatchPool:
    """Verified batches not yet in a committed block, in the order in which they came."""

    bytes_max: int = limits.POOL_BATCH_BYTES_MAX
    origins: int = 1
    """How many nodes may fill it; each has an equal share, so that none keeps the others' batches out."""
    batches: dict[BatchId, PooledBatch] = field(default_factory=dict)
    bytes_held: int = 0
    transactions: int = 0
    bytes_of: dict[NodeId, int] = field(default_factory=dict)
    halvings: dict[NodeId, int] = field(default_factory=dict)
    """How many times an origin's share is halved, for junk (P3)."""
    changes: int = 0
    """Counts what came and went: equal counts mean equal content."""

    def is_full(self, origin: NodeId, coming: int = 0) -> bool:
        """Whether another batch of the largest size would not fit beside this origin's, and `coming` bytes of it."""
        return self.bytes_of.get(origin, 0) + coming + limits.BATCH_BYTES_MAX > self.share(origin)

    def share(self, origin: NodeId) -> int:
        """The bytes that this origin may fill: an equal part, halved for junk, never less than one batch."""
        equal = max(self.bytes_max // self.origins, 2 * limits.BATCH_BYTES_MAX)
        return max(equal >> self.halvings.get(origin, 0), limits.BATCH_BYTES_MAX)

    def halve(self, origin: NodeId) -> None:
        """Give an origin half as much room; at one batch it stays."""
        if self.share(origin) > limits.BATCH_BYTES_MAX:
            self.halvings[origin] = self.halvings.get(origin, 0) + 1

    def double(self, origin: NodeId) -> None:
        """Take one halving back."""
        left = self.halvings.pop(origin, 0) - 1
        if left > 0:
            self.halvings[origin] = left

    def add(self, pooled: PooledBatch, is_wanted: bool = False) -> bool:
        """Hold a batch; False if it is here already, or if there is no room and no open block wants it."""
        if pooled.id in self.batches or (self.is_full(pooled.batch.origin) and not is_wanted):
            return False
        self.batches[pooled.id] = pooled
        self.changes += 1
        self.bytes_held += len(pooled.data)
        origin = pooled.batch.origin
        self.bytes_of[origin] = self.bytes_of.get(origin, 0) + len(pooled.data)
        self.transactions += len(pooled.transactions)
        return True

    def remove(self, batch: BatchId) -> PooledBatch | None:
        """It is ordered, or never will be."""
        pooled = self.batches.pop(batch, None)
        if pooled is not None:
            self.changes += 1
            self.bytes_held -= len(pooled.data)
            self.bytes_of[pooled.batch.origin] -= len(pooled.data)
            self.transactions -= len(pooled.transactions)
        return pooled

    def get(self, batch: BatchId) -> PooledBatch | None:
        return self.batches.get(batch)

    def oldest_ms(self) -> int | None:
        """Since when the longest waiting batch is held."""
        first = next(iter(self.batches.values()), None)
        return None if first is None else first.held_since_ms

    def __contains__(self, batch: object) -> bool:
        return batch in self.batches

    def __len__(self) -> int:
        return len(self.batches)
