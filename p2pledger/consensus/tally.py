"""Counts ballots: distinct validators per (view, height, block hash), each signature verified before it counts.

Votes are kept per block hash, so an equivocator's first vote does not keep a replica from a certificate that others
can form (P14); at most two differing ones of an author and slot are kept (P23).
"""

from dataclasses import dataclass, field

from p2pledger.consensus.messages import Ballot, Signed
from p2pledger.primitives.ids import BlockHash, Height, Signature, ValidatorId, View


@dataclass(slots=True)
class _Slot:
    by_hash: dict[BlockHash, dict[ValidatorId, Signature]] = field(default_factory=dict)
    seen: dict[ValidatorId, list[Signed]] = field(default_factory=dict)


class Tally:
    """The ballots of one kind above the committed height."""

    def __init__(self) -> None:
        self._slots: dict[tuple[View, Height], _Slot] = {}

    def add(self, signed: Signed, ballot: Ballot) -> Signed | None:
        """Count a verified ballot; the author's earlier, different one for this slot if there is one."""
        place, author = (ballot.view, ballot.height), ballot.author
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = _Slot()
        counted = slot.by_hash.get(ballot.block_hash)
        earlier = slot.seen.get(author)
        if earlier is None:
            slot.seen[author] = [signed]
        elif len(earlier) >= 2 or (counted is not None and author in counted):
            return None
        else:
            earlier.append(signed)
        if counted is None:
            counted = slot.by_hash[ballot.block_hash] = {}
        counted[author] = signed.signature
        return None if earlier is None else earlier[0]

    def signatures(self, view: View, height: Height, block_hash: BlockHash) -> dict[ValidatorId, Signature]:
        """Who voted for this block at this place, with their signatures."""
        slot = self._slots.get((view, height))
        return {} if slot is None else slot.by_hash.get(block_hash, {})

    def has(self, ballot: Ballot) -> bool:
        """Whether this very ballot was counted."""
        return ballot.author in self.signatures(ballot.view, ballot.height, ballot.block_hash)

    def knows_equivocation(self, ballot: Ballot) -> bool:
        """Whether two differing votes of this author are kept for this slot: a third would only cost time (P23)."""
        slot = self._slots.get((ballot.view, ballot.height))
        return slot is not None and len(slot.seen.get(ballot.author, ())) >= 2

    def quorums(self, view: View, q: int) -> list[tuple[Height, BlockHash]]:
        """Every height and block with at least q votes in a view, in order of heights."""
        return sorted(
            (place[1], block_hash)
            for place, slot in self._slots.items()
            if place[0] == view
            for block_hash, votes in slot.by_hash.items()
            if len(votes) >= q
        )

    def newest_of(self, author: ValidatorId) -> Signed | None:
        """The ballot of the highest (view, height) by this author."""
        best: tuple[tuple[int, int], Signed] | None = None
        for place, slot in self._slots.items():
            kept = slot.seen.get(author)
            if kept and (best is None or place > best[0]):
                best = (place, kept[-1])
        return None if best is None else best[1]

    def prune(self, committed: Height, oldest: View) -> None:
        """Forget everything at or below the committed height, and of views before `oldest`."""
        self._slots = {
            place: slot for place, slot in self._slots.items() if place[1] > committed and place[0] >= oldest
        }

    def __len__(self) -> int:
        return sum(len(kept) for slot in self._slots.values() for kept in slot.seen.values())
