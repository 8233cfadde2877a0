"""What happened to a patient's data, as it happens: a feed that outlives the nodes that serve it (F-08).

Every notice is traced back to the signatures of the founding members before it is handed out. When a node is lost,
lies, or falls silent, the next one goes on from the very place: nothing is missing and nothing comes twice. That a
node leaves something out shows where the access log counts: the lines of a patient have no gaps.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import effects_root_of
from p2pledger.client.links import Node
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_anchor, check_receipt, effects_root_in
from p2pledger.health.events import AccessDecided, AnyEvent, decode_event
from p2pledger.health.topics import Topic, person_of, topics_of
from p2pledger.network.api import Failure
from p2pledger.network.connection import connect
from p2pledger.network.feed_api import Cursor, FeedItem, FeedReply, Subscribe
from p2pledger.network.transport import TLS_OVER_TCP, Transport
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, ProofError, Rejected, Unavailable
from p2pledger.primitives.ids import Bytes16, Height, TransactionId

K = TypeVar("K")
V = TypeVar("V")

START = Cursor(Height(1), 0)
"""The first place of every chain."""
_REMEMBERED_MAX = 100_000
"""Patients' last lines, and transactions told; of more, the ones longest unheard of are forgotten."""
_BUFFERED = 64
_FAULTS = (Unavailable, PeerFault, ProofError, InvalidInput, trio.TooSlowError)


@dataclass(frozen=True, slots=True)
class Notice:
    """One event, with what proves it."""

    place: Cursor
    """Of its transaction."""
    next: Cursor
    """Where to go on after the transaction's last event."""
    transaction: TransactionId
    event: AnyEvent
    topics: frozenset[Topic]
    item: FeedItem = field(repr=False)
    anchor: Anchor = field(repr=False)
    node: Node = field(repr=False)
    """Who told it."""

    @property
    def is_proven(self) -> bool:
        """Whether the event itself is proven; else only that its transaction was executed: it concerned others too."""
        return self.item.is_whole

    @property
    def evidence(self) -> ReceiptEvidence | None:
        """What proves it to anybody who knows the genesis; None unless `is_proven`."""
        return ReceiptEvidence(self.item.executed, self.item.proof, self.anchor) if self.is_proven else None


@dataclass(frozen=True, slots=True)
class FeedPatience:
    """How long a feed waits, in seconds."""

    silence_s: float = 60.0
    """For a word of the node; nodes say every 15 s how far they are."""
    stale_s: float = 300.0
    """For a new height; then the next node is asked, which may be further."""
    retry_first_s: float = 0.1
    """After a node failed, before the next is asked; it doubles while none does better."""
    retry_most_s: float = 5.0


@asynccontextmanager
async def open_feed(
    founding: Founding,
    nodes: Sequence[Node],
    account: SigningKey,
    topics: Sequence[Topic],
    start: Cursor = START,
    *,
    pid: bytes | None = None,
    patience: FeedPatience | None = None,
    transport: Transport = TLS_OVER_TCP,
    told: Callable[[str], None] = lambda _: None,
) -> "AsyncIterator[AsyncIterator[Notice]]":
    """The notices from `start` on, for ever: `async with open_feed(...) as notices: async for notice in notices`.

    `told` hears in words when a node is left for another. Raises Rejected where more nodes than may lie refuse,
    InvalidInput without nodes or topics. What the body raises comes out as it is.
    """
    if not nodes or not topics:
        raise InvalidInput(f"a feed from {len(nodes)} nodes about {len(topics)} topics; at least one each is needed")
    send, receive = trio.open_memory_channel[Notice](_BUFFERED)
    follower = _Follower(
        founding, tuple(nodes), account, tuple(topics), start, pid, patience or FeedPatience(), transport, told, send
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        try:
            yield _taken(receive, follower)
        except Exception as error:  # a nursery would wrap it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _taken(receive: "trio.MemoryReceiveChannel[Notice]", follower: "_Follower") -> AsyncIterator[Notice]:
    async for notice in receive:
        yield notice
    assert follower.refusal is not None, "a feed ends when it is refused"
    raise follower.refusal


@dataclass(eq=False)
class _Follower:
    """Goes from node to node with one place in hand."""

    founding: Founding
    nodes: tuple[Node, ...]
    account: SigningKey
    topics: tuple[Topic, ...]
    place: Cursor
    pid: bytes | None
    patience: FeedPatience
    transport: Transport
    told: Callable[[str], None]
    send: "trio.MemorySendChannel[Notice]"
    refusal: Rejected | None = None
    _lines: "OrderedDict[Bytes16, tuple[int, Cursor]]" = field(default_factory=OrderedDict)
    """The last line of each patient's log that was told, and the place after it."""
    _done: "OrderedDict[TransactionId, None]" = field(default_factory=OrderedDict)
    """What was told: after a gap things are gone through again."""
    _gaps: dict[tuple[Bytes16, int], set[Node]] = field(default_factory=dict)
    """(patient, line after the gap): who told it so."""
    _anchored: Anchor | None = None

    async def run(self) -> None:
        """Until refused or cancelled; then the channel is closed."""
        refusals, wait_s = 0, self.patience.retry_first_s
        with self.send:
            for node in self._in_turn():
                before = self.place
                try:
                    await self._follow(node)
                except Rejected as error:
                    refusals += 1
                    if refusals > min(self.founding.validators.f, len(self.nodes) - 1):
                        self.refusal = error
                        return
                    self.told(f"{node} refuses: {error}")
                except _FAULTS as error:
                    words = "it stays silent" if isinstance(error, trio.TooSlowError) else str(error)
                    self.told(f"{node} is left at {self.place}: {words}")
                if self.place != before:
                    refusals, wait_s = 0, self.patience.retry_first_s
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, self.patience.retry_most_s)

    def _in_turn(self) -> Iterator[Node]:
        while True:
            yield from self.nodes

    async def _follow(self, node: Node) -> None:
        """Take what one node tells until it fails; raises Rejected and _FAULTS."""
        account, chain, transport = self.account, self.founding.chain, self.transport
        async with connect(node.host, node.port, node.key, account, chain, transport) as connection:
            request = Subscribe(0, self.place, self.topics, None if self.pid is None else Bytes16(self.pid))
            with connection.subscribe(request) as replies:
                grown = trio.current_time()
                while True:
                    with trio.fail_after(self.patience.silence_s):
                        try:
                            reply = await replies.receive()
                        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
                            raise Unavailable(f"the connection ended: {connection.ended}") from error
                    match reply:
                        case FeedReply():
                            before = self.place.height
                            await self._take(reply, node)
                        case Failure():
                            raise _failure(reply)
                        case _:
                            raise PeerFault(node.key, f"answered a subscription with {type(reply).__name__}")
                    if self.place.height > before:
                        grown = trio.current_time()
                    elif trio.current_time() - grown > self.patience.stale_s:
                        raise Unavailable(f"no new height for {self.patience.stale_s:g} s")

    async def _take(self, reply: FeedReply, node: Node) -> None:
        """Check a reply as a whole, then hand its events out, except those that were before a gap was found."""
        notices = self._checked(reply, node)
        self._check_gaps(notices, node)
        known = {notice.transaction for notice in notices if notice.transaction in self._done}
        for notice in notices:
            if notice.transaction not in known:
                await self.send.send(notice)
                _remember(self._done, notice.transaction, None)
        self.place = reply.next

    def _checked(self, reply: FeedReply, node: Node) -> list[Notice]:
        if reply.items and reply.anchor is not None:
            self._check_anchor(reply.anchor)
        place, notices = self.place, list[Notice]()
        for item in reply.items:
            receipt = item.executed.receipt
            here, after = Cursor(receipt.height, receipt.index), Cursor(receipt.height, receipt.index + 1)
            if reply.anchor is None or _order(here) < _order(place):
                raise PeerFault(node.key, f"told of place {here} without a proof, or after {place}")
            _check_item(item, reply.anchor, self.founding)
            place = after
            events = [decode_event(data) for data in item.executed.known]
            chosen = [event for event in events if self._is_wanted(event)]
            if not chosen:
                raise PeerFault(node.key, f"told of place {here}, at which nothing was asked for")
            notices += [
                Notice(here, after, receipt.transaction, event, topics_of(event), item, reply.anchor, node)
                for event in chosen
            ]
        if _order(reply.next) < _order(place):
            raise PeerFault(node.key, f"goes on from {reply.next}, before {place}")
        return notices

    def _is_wanted(self, event: AnyEvent) -> bool:
        return not topics_of(event).isdisjoint(self.topics) and self.pid in (None, person_of(event))

    def _check_anchor(self, anchor: Anchor) -> None:
        if anchor != self._anchored:
            check_anchor(anchor, self.founding.chain, self.founding.validators)
            self._anchored = anchor

    def _check_gaps(self, notices: Sequence[Notice], node: Node) -> None:
        """Every decision is a line of its patient's log, numbered from 1: one that is left out shows with the next.

        Then the next node is asked from the last line on. A gap that more nodes show than may lie is one: its events
        were pruned. With fewer nodes to ask, all of them count.
        """
        if "access" not in self.topics:
            return
        for notice in notices:
            if not isinstance(notice.event, AccessDecided):
                continue
            pid, line = notice.event.pid, notice.event.sequence
            last, after = self._lines.get(pid, (line - 1, self.place))
            if line > last + 1 and not self._is_known_gap(pid, line, node):
                self.place = after
                raise PeerFault(node.key, f"told of line {line} of pid {pid.hex()} after line {last}")
            _remember(self._lines, pid, (max(line, last), notice.next if line > last else after))

    def _is_known_gap(self, pid: Bytes16, line: int, node: Node) -> bool:
        told_so = self._gaps.setdefault((pid, line), set())
        told_so.add(node)
        if len(told_so) < min(self.founding.validators.f + 1, len(self.nodes)):
            return False
        del self._gaps[pid, line]
        self.told(f"lines of pid {pid.hex()} just before line {line} are not told by any of {len(told_so)} nodes")
        return True


def _remember(memory: "OrderedDict[K, V]", key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED_MAX:
        memory.popitem(last=False)


def _check_item(item: FeedItem, anchor: Anchor, founding: Founding) -> None:
    """Raises ProofError unless the receipt, and its events where they are whole, follow from the checked anchor."""
    evidence = ReceiptEvidence(item.executed, item.proof, anchor)
    header = anchor.headers[0]
    if item.is_whole:
        check_receipt(evidence, founding.chain, founding.validators, is_anchored=True)
        return
    receipt = item.executed.receipt
    before = Height(header.executed_height - len(header.effects_roots))
    if effects_root_of(receipt, item.proof) != effects_root_in(header, before, receipt.height):
        raise ProofError(f"receipt {receipt.index} is not in the effects tree of height {receipt.height}")


def _order(place: Cursor) -> tuple[int, int]:
    return place.height, place.index


def _failure(reply: Failure) -> Rejected | Unavailable:
    code = Code(reply.code) if reply.code in Code.__members__.values() else Code.E_INTERNAL
    return Unavailable(reply.detail) if code in (Code.E_BUSY, Code.E_INTERNAL) else Rejected(code, reply.detail)
