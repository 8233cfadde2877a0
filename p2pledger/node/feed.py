"""The event feed of the client port: what happened to a patient's data, from any place in the chain on (F-08).

It is read from stored receipts, height by height, never from what passed by: so it goes on after a restart, at any
node, without a gap. It keeps nothing for a subscriber. The events of a height are looked through once for everybody.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from p2pledger.chain.receipt import Executed, ReceiptProof
from p2pledger.consensus.anchor import Anchor
from p2pledger.health import queries
from p2pledger.health.events import decode_event
from p2pledger.health.topics import Topic, person_of, topics_of
from p2pledger.network.feed_api import START_AHEAD_MAX, Cursor, FeedItem, FeedReply, Subscribe
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Bytes16, Height
from p2pledger.state.view import StateView

QUIET_S = 15.0
"""A subscriber hears at least so often how far its node is."""
HEIGHTS_PER_REPLY_MAX = 1_000
"""Heights without news between two replies: the place to go on from keeps moving."""
ITEM_BYTES_MAX = 1024 * 1024
_DIGESTS_MAX = 64
"""Of the newest heights; pruning stays 99 below the tip."""
_SLICE = 64
"""Receipts looked through before others get their turn."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One event that a feed tells."""

    place: int
    """Among the events of its transaction."""
    topics: frozenset[Topic]
    person: Bytes16 | None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A transaction with such an event."""

    executed: Executed
    told: tuple[_Told, ...]
    persons: frozenset[Bytes16 | None]
    """Whom its events are about, those that no feed tells too."""


class History(Protocol):
    """What a feed reads: the executor of a node."""

    @property
    def executed(self) -> Height:
        """The last executed height."""

    @property
    def state(self) -> StateView:
        """The state there."""

    def receipts_at(self, height: Height) -> list[Executed]:
        """All receipts of an executed height, in order."""


@dataclass(eq=False)
class Feed:
    """Pages of the feed. Runs on the driver's thread and never holds it for long."""

    history: History
    tip: Callable[[], Height]
    """The last height that is durable here."""
    sealed: Callable[[Height], Anchor | None]
    """What proves the receipts of a height, once a header does."""
    proof: Callable[[Executed], ReceiptProof]
    next_block: Callable[[], Awaitable[None]]
    """Returns when another block was executed."""
    quiet_s: float = QUIET_S
    _digests: dict[Height, Sequence[_Entry]] = field(default_factory=dict)
    _digesting: trio.Lock = field(default_factory=trio.Lock)

    async def next_page(self, account: AccountKey, request: Subscribe, place: Cursor) -> FeedReply:
        """What happened at the first height from `place` on at which something did; waits for it.

        After `quiet_s` without news an empty page says how far this node is. Raises Rejected(E_ROLE), judged anew for
        each page, and E_FORMAT for a place that this chain will not reach.
        """
        if place.height > self._tip() + START_AHEAD_MAX:
            raise Rejected(Code.E_FORMAT, f"place {place} is far above the tip {self._tip()}; start where it ends")
        deadline, looked_through = trio.current_time() + self.quiet_s, 0
        while True:
            person = self._about(account, request)
            if place.height > self._tip():
                if not await self._grows(deadline):
                    return FeedReply(request.id, (), None, place)
                continue
            entries = _chosen(await self._digest(place.height), place.index, set(request.topics), person)
            if entries:
                anchor = self.sealed(place.height)
                if anchor is not None:
                    return self._page(request, entries, person, anchor)
                if not await self._grows(deadline):
                    return FeedReply(request.id, (), None, place)
                continue
            place, looked_through = Cursor(Height(place.height + 1), 0), looked_through + 1
            if looked_through >= HEIGHTS_PER_REPLY_MAX:
                return FeedReply(request.id, (), None, place)
            await trio.lowlevel.checkpoint()

    async def _grows(self, deadline: float) -> bool:
        with trio.move_on_at(deadline):
            await self.next_block()
            return True
        return False

    def _tip(self) -> Height:
        """The last height that is executed here and durable."""
        return min(self.history.executed, self.tip())

    def _about(self, account: AccountKey, request: Subscribe) -> Bytes16 | None:
        """The person whose events are told, None for everybody's; raises Rejected(E_ROLE)."""
        state = self.history.state
        role, own = queries.identity_of(account, state)
        pid = own if request.pid is None and role == "patient" else request.pid
        if pid is None and role == "organisation" and queries.may_see_all(account, state):
            return None
        if pid is None or not queries.may_see_patient(account, pid, state):
            whom = "everybody" if pid is None else f"pid {pid.hex()}"
            raise Rejected(Code.E_ROLE, f"key {account.hex()} may not see what concerns {whom}")
        return pid

    async def _digest(self, height: Height) -> Sequence[_Entry]:
        """The transactions of a height that a feed tells of; of the newest heights looked through once for all.

        Older ones are read anew each time: what was pruned meanwhile is not told from memory.
        """
        async with self._digesting:
            oldest = self._tip() - _DIGESTS_MAX
            for known in [known for known in self._digests if known <= oldest]:
                del self._digests[known]
            if height in self._digests:
                return self._digests[height]
            began, found = trio.current_time(), list[_Entry]()
            receipts = self.history.receipts_at(height) if height else []
            for start in range(0, len(receipts), _SLICE):
                found += filter(None, map(_entry, receipts[start : start + _SLICE]))
                await trio.lowlevel.checkpoint()
            if height > oldest:
                self._digests[height] = found
            await trio.sleep(trio.current_time() - began)  # all replays together get half of the thread at most
            return found

    def _page(self, request: Subscribe, entries: Sequence[_Entry], person: Bytes16 | None, anchor: Anchor) -> FeedReply:
        """As many of these transactions of one height as fit."""
        items: list[FeedItem] = []
        room = ITEM_BYTES_MAX
        for entry in entries:
            item = self._item(entry, person)
            room -= sum(map(len, item.executed.known)) + 32 * len(item.proof.path) + 128
            if items and room < 0:
                break
            items.append(item)
        receipt = items[-1].executed.receipt
        is_last = len(items) == len(entries)
        after = Cursor(Height(receipt.height + 1), 0) if is_last else Cursor(receipt.height, receipt.index + 1)
        return FeedReply(request.id, tuple(items), anchor, after)

    def _item(self, entry: _Entry, person: Bytes16 | None) -> FeedItem:
        executed, proof = entry.executed, self.proof(entry.executed)
        if person is None or entry.persons == {person}:
            return FeedItem(executed, True, proof)
        own = tuple(executed.known[told.place] for told in entry.told if told.person == person)
        return FeedItem(Executed(executed.receipt, own), False, proof)  # what concerns others stays with us


def _chosen(entries: Sequence[_Entry], index: int, topics: set[Topic], person: Bytes16 | None) -> list[_Entry]:
    return [
        entry
        for entry in entries
        if entry.executed.receipt.index >= index
        and any(told.topics & topics and person in (None, told.person) for told in entry.told)
    ]


def _entry(executed: Executed) -> _Entry | None:
    if not executed.events or sha256(encode(executed.events)) != executed.receipt.events_hash:
        return None  # its personal part was pruned
    told: list[_Told] = []
    persons: set[Bytes16 | None] = set()
    for place, data in enumerate(executed.events):
        try:
            event = decode_event(data)
        except InvalidInput:  # of an application that this feed knows nothing about
            persons.add(None)
            continue
        person, topics = person_of(event), topics_of(event)
        persons.add(person)
        if topics:
            told.append(_Told(place, topics, person))
    return _Entry(executed, tuple(told), frozenset(persons)) if told else None
