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
        slot = self._slots.setdefault((ballot.view, ballot.height), _Slot())
        earlier = slot.seen.setdefault(ballot.author, [])
        counted = slot.by_hash.get(ballot.block_hash, {})
        if ballot.author in counted or len(earlier) >= 2:
            return None
        earlier.append(signed)
        slot.by_hash.setdefault(ballot.block_hash, {})[ballot.author] = signed.signature
        return earlier[0] if len(earlier) == 2 else None

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

    def quorums(self, q: int) -> list[tuple[View, Height, BlockHash]]:
        """Every place and block with at least q votes, in order of (view, height)."""
        return [
            (view, height, block_hash)
            for (view, height), slot in sorted(self._slots.items())
            for block_hash, votes in sorted(slot.by_hash.items())
            if len(votes) >= q
        ]

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
