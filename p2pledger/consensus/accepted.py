"""What one view has accepted, from its base upwards, and what may stand on it (P1, P2, P3, P13)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate
from p2pledger.consensus.window import Window
from p2pledger.primitives.ids import BlockHash, Height, View

_FIRST = View(0)
Place: TypeAlias = tuple[Height, BlockHash]


@dataclass(slots=True)
class Accepted:
    """At most one block per height; no height below the base is ever prepared in this view."""

    base: Place
    """The tip of the NEW-VIEW; in view 0 the block before the epoch's first."""
    view: View = _FIRST
    blocks: dict[Height, Header] = field(default_factory=dict)
    checking: set[BlockHash] = field(default_factory=set)
    """Asked to be checked."""

    def reset(self, view: View, base: Place) -> None:
        """Another view: nothing of the one before is accepted or checked in it."""
        self.view, self.base = view, base
        self.blocks = {}
        self.checking.clear()

    def forget_up_to(self, height: Height) -> None:
        self.blocks = {at: header for at, header in self.blocks.items() if at > height}

    def head(self, window: Window, certified: Certificate | None) -> Header | None:
        """The block to build on: the highest accepted, else the committed one; None: the tip must come first."""
        if self.blocks:
            return self.blocks[max(self.blocks)]
        if self.base[0] > window.committed.height:
            return None  # P13
        return window.committed if self._may_follow(window.committed, certified) else None

    def _may_follow(self, committed: Header, certified: Certificate | None) -> bool:
        """P2: the base, or committed under a certificate of this view or an earlier one."""
        return certified is None or certified.view <= self.view or self.base == (committed.height, committed.hash)

    def parent_of(self, header: Header, window: Window, certified: Certificate | None) -> Header | None:
        """The parent that makes a block acceptable in this view, or None.

        A block that was accepted may have lost since, against what was committed at a height below it; then neither
        it nor anything on top of it is prepared any more (P2).
        """
        below = Height(header.height - 1)
        if below < self.base[0]:
            return None  # P13: neither below the tip nor beside it
        parent = self.blocks.get(below)
        if parent is None and window.committed.height == below and self._may_follow(window.committed, certified):
            parent = window.committed
        elif parent is not None and below > self.base[0] and self.parent_of(parent, window, certified) is None:
            parent = None
        return parent if parent is not None and parent.hash == header.parent else None

    def up_to(self, height: Height) -> list[Header]:
        """What it accepted up to a height, lowest first: a vote says yes to all of it, now and after a crash (P19)."""
        return [header for at, header in sorted(self.blocks.items()) if at <= height]

    def take_due_checks(self, window: Window, certified: Certificate | None) -> Iterator[tuple[Header, Header]]:
        """(block, parent) of those to be checked now: in order, each once its parent is vouched for.

        A good child never vouches for a bad parent: its certificate would commit both (P3, P7).
        """
        for height, header in sorted(self.blocks.items()):
            if height == self.base[0] or header.hash in self.checking:
                continue
            parent = self.parent_of(header, window, certified)
            if parent is not None and window.vouches_for(parent):
                self.checking.add(header.hash)
                yield header, parent

    def check_again(self, window: Window) -> None:
        """Ask anew for what has not been found good."""
        self.checking &= window.held
