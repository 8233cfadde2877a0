"""How a client subscribes to what happens on the chain, and what it is told then (F-08); see `api`."""

from typing import Annotated

from msgspec import Meta

from p2pledger.chain.receipt import Executed, ReceiptProof
from p2pledger.consensus.anchor import Anchor
from p2pledger.health.topics import Topic
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, Bytes16, Height

START_AHEAD_MAX = 1_000
"""Heights above its tip at which a node still takes a subscription: another node may have been further."""


class Cursor(Record, frozen=True):
    """A place in the chain: the transaction `index` of block `height`."""

    height: Height
    index: U64

    def __str__(self) -> str:
        return f"{self.height}:{self.index}"


class Subscribe(Record, frozen=True, tag=22):
    """What happened from a place on, and whatever happens from now on. Replies: FeedReply, until the session ends.

    A patient gets what concerns its own pid, organisations everything or what concerns `pid`; others Failure(E_ROLE).
    A Failure ends the subscription; its words name the place to go on from.
    """

    id: U64
    start: Cursor
    """The first place wanted; one above the tip: only what is to come."""
    topics: Annotated[tuple[Topic, ...], Meta(min_length=1, max_length=8)]
    pid: Bytes16 | None
    """None: whatever the asking key may see."""


class FeedItem(Record, frozen=True):
    """A transaction that a subscription is about."""

    executed: Executed
    """Its receipt, and of its events those that the asking key may see."""
    is_whole: bool
    """Whether these are all its events: then their hash is that of the receipt. Else it also concerned others."""
    proof: ReceiptProof


class FeedReply(Record, frozen=True, tag=52):
    """Some of what happened at one height, in order; or a sign that nothing did up to `next`."""

    id: U64
    items: tuple[FeedItem, ...]
    anchor: Anchor | None
    """Proves the receipts of `items`; None where there are none."""
    next: Cursor
    """Where the next reply goes on; a client that lost its node subscribes there anew, at any other."""
