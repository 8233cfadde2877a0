"""Judges a run of replicas from outside: by what was signed for the wire and what stores took, by no replica's word.

It shares no decision with the replicas: it compares signed bytes, counts distinct signers itself, and knows every
block ever built. Invariant numbers are those of docs/protocol.md.
"""

from collections import Counter

from p2pledger.chain.block import Header
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.messages import Commit, Message, Prepare, slot
from p2pledger.primitives import limits
from p2pledger.primitives.ids import BlockHash, Height, ValidatorId
from p2pledger.sim.observer import InvariantBroken

Place = tuple[int, int, BlockHash]
"""(view, height, hash)."""


class Judge:
    """One run's witness; every method raises InvariantBroken, naming the invariant."""

    def __init__(self, validators: ValidatorSet, genesis: Header, liars: frozenset[ValidatorId], window: int) -> None:
        self._n = validators.n
        self._q = (self._n + (self._n - 1) // 3 + 2) // 2
        """⌈(n+f+1)/2⌉, computed here and not by the code under test."""
        self._window = window
        self._liars = liars
        self._said: dict[tuple[ValidatorId, tuple[int, int, int, int]], bytes] = {}
        self._votes: dict[tuple[type, int, int, BlockHash], set[ValidatorId]] = {}
        self._prepared: dict[int, Place] = {}
        """The highest block with a quorum of PREPAREs in each view."""
        self._decided: dict[int, Place] = {}
        """The highest block with a quorum of COMMITs in each view."""
        self._certified: set[BlockHash] = set()
        self.blocks: dict[BlockHash, Header] = {genesis.hash: genesis}
        """Every block that anybody ever built."""
        self.bad: set[BlockHash] = set()
        """Those that no correct validator may find good (P3)."""
        self.chain: dict[int, BlockHash] = {0: genesis.hash}
        """The first block that a correct validator committed at each height."""
        self.reached: Counter[str] = Counter()

    @property
    def height(self) -> int:
        """The highest height that a correct validator committed."""
        return len(self.chain) - 1

    # The wire

    def said(self, message: Message, signed_bytes: bytes) -> None:
        """`message.author` signed this: invariant 3, and what can be proven to have a quorum from now on."""
        author = message.author
        place = (author, slot(message))
        if author not in self._liars and self._said.setdefault(place, signed_bytes) != signed_bytes:
            raise InvariantBroken(f"3: an honest validator signed two statements for {place[1]}")
        if isinstance(message, Prepare | Commit):
            kind = type(message)
            voters = self._votes.setdefault((kind, message.view, message.height, message.block_hash), set())
            voters.add(author)
            if len(voters) == self._q:
                here = (message.view, message.height, message.block_hash)
                if kind is Prepare:
                    self._on_prepared(here)
                else:
                    self._on_decided(here)

    def _on_prepared(self, here: Place) -> None:
        """All that is prepared in one view lies on one chain, and extends all that was decided up to that view."""
        for view, decided in self._decided.items():
            if view <= here[0]:
                self._lie_on_one_chain(decided, here)
        top = self._prepared.setdefault(here[0], here)
        self._lie_on_one_chain(top, here)
        self._prepared[here[0]] = max(top, here)

    def _on_decided(self, here: Place) -> None:
        """Nothing that conflicts with it was or will be prepared in this view or a later one."""
        self._certified.add(here[2])
        for view, prepared in self._prepared.items():
            if view >= here[0]:
                self._lie_on_one_chain(here, prepared)
        self._decided[here[0]] = max(self._decided.get(here[0], here), here)

    def _lie_on_one_chain(self, first: Place, second: Place) -> None:
        """The lemma behind invariant 1, which fails long before two blocks of one height are committed."""
        low, high = (first, second) if first[1] <= second[1] else (second, first)
        if self._ancestor(high[2], low[1]) != low[2]:
            raise InvariantBroken(
                f"1: view {second[0]} prepared {second[2].hex()[:8]} at height {second[1]}, against "
                f"{first[2].hex()[:8]} at height {first[1]} of view {first[0]}"
            )

    def _ancestor(self, block_hash: BlockHash, height: int) -> BlockHash | None:
        """The block at or below this one at a height; None where its chain leaves what anybody ever built."""
        if self.chain.get(height) is not None and self._is_on_chain(block_hash):
            return self.chain[height]
        header = self.blocks.get(block_hash)
        while header is not None and header.height > height:
            block_hash = header.parent
            header = self.blocks.get(block_hash)
        return block_hash if header is not None else None

    def _is_on_chain(self, block_hash: BlockHash) -> bool:
        header = self.blocks.get(block_hash)
        return header is not None and self.chain.get(header.height) == block_hash

    # The stores

    def committed(self, header: Header, is_certified: bool) -> None:
        """A correct validator appended a block: invariants 1 and 2, the quorum on the wire (I3), and P3."""
        block_hash = header.hash
        if self.chain.setdefault(header.height, block_hash) != block_hash:
            other = self.chain[header.height].hex()[:8]
            raise InvariantBroken(f"1: two blocks at height {header.height}: {other} and {block_hash.hex()[:8]}")
        if self.chain.get(header.height - 1) != header.parent:
            raise InvariantBroken(f"2: block {header.height} does not hang on block {header.height - 1}")
        if is_certified and block_hash not in self._certified:
            raise InvariantBroken(f"I3: block {block_hash.hex()[:8]} was committed without a quorum on the wire")
        if block_hash in self.bad:
            raise InvariantBroken(f"P3: a bad block was committed at height {header.height}")

    def store_is_sound(self, hashes: list[BlockHash]) -> None:
        """Invariant 9: what a restarted validator finds (heights 1 and up) is a prefix of the chain."""
        for height, found in enumerate(hashes, start=1):
            if found != self.chain.get(height):
                raise InvariantBroken(f"9: the ledger of a restarted node does not hold block {height} of the chain")

    def is_bounded(self, kept: int) -> None:
        """Invariant 8: what a replica keeps of others' messages has the bound that P23 names."""
        views = 2 * limits.VIEWS_AHEAD_MAX + 1
        bound = 4 * self._n * self._window * views + self._window * (limits.VIEWS_AHEAD_MAX + 1) + self._n
        if kept > bound:
            raise InvariantBroken(f"8: a replica keeps {kept} messages, more than {bound}")

    def header_at(self, height: int) -> Header:
        """The committed block at a height."""
        return self.blocks[self.chain[Height(height)]]
