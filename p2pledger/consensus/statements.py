"""What this replica itself has said, or may have said: journalled before it is signed, never contradicted (P19)."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus import effects as do
from p2pledger.consensus.effects import Effect
from p2pledger.consensus.journal import BlockRecord, VoteRecord
from p2pledger.consensus.messages import Message, Signed, slot
from p2pledger.primitives.ids import Height, View

Slot: TypeAlias = tuple[int, int, int, int]
"""(kind, epoch, view, height)."""
PRE_PREPARE, PREPARE, COMMIT, VIEW_CHANGE, NEW_VIEW = 1, 2, 3, 4, 5
"""The kinds of a slot."""


class OwnStatements:
    """Own messages by slot, and the headers that were journalled for them."""

    def __init__(self) -> None:
        self.cast: dict[Slot, Message] = {}
        self._signed: dict[Slot, Signed] = {}
        self._blocks: dict[bytes, Height] = {}

    def restore_vote(self, message: Message) -> None:
        self.cast[slot(message)] = message

    def restore_block(self, header: Header) -> None:
        self._blocks[header.hash] = header.height

    def __contains__(self, place: Slot) -> bool:
        return place in self.cast

    def journal_blocks(self, headers: Iterable[Header]) -> Iterator[Effect]:
        """Keep blocks from the first vote for them or for what stands on them (P16b)."""
        for header in headers:
            if header.hash not in self._blocks:
                self._blocks[header.hash] = header.height
                yield do.Persist(BlockRecord(header))

    def say(self, message: Message) -> Iterator[Effect]:
        """Journal, then say: once per slot, and never something else for it (P4, P6, P19)."""
        place = slot(message)
        if place not in self.cast:
            self.cast[place] = message
            yield do.Persist(VoteRecord(message))
            yield do.Broadcast(message)

    def keep_signed(self, signed: Signed) -> None:
        """Own words came back from the signer: for resending."""
        place = slot(signed.message)
        if place in self.cast:
            self._signed[place] = signed

    def repeat(self, view: View) -> Iterator[Effect]:
        """All own statements of a view (P16); signing again gives the same bytes."""
        for place in sorted(self.cast):
            if place[2] == view:
                yield do.Broadcast(self.cast[place])

    def votes_above(self, view: View, height: Height) -> list[Signed]:
        """Own signed PREPAREs and COMMITs of a view above a height."""
        return [
            signed
            for place, signed in sorted(self._signed.items())
            if place[0] in {PREPARE, COMMIT} and place[2] == view and place[3] > height
        ]

    def forget_up_to(self, committed: Height) -> None:
        """What lies at or below the committed height is never voted on again (P2)."""
        self.cast = {place: said for place, said in self.cast.items() if place[0] > COMMIT or place[3] > committed}
        self._signed = {place: signed for place, signed in self._signed.items() if place in self.cast}
        self._blocks = {block: height for block, height in self._blocks.items() if height > committed}

    def forget_views_below(self, view: View) -> None:
        """VIEW-CHANGEs and NEW-VIEWs of views that were left behind; P20 compares views instead."""
        self.cast = {place: said for place, said in self.cast.items() if place[0] <= COMMIT or place[2] >= view}
        self._signed = {place: signed for place, signed in self._signed.items() if place in self.cast}
