"""The operation by which members have personal parts taken out of old blocks, and what it reports."""

from typing import Annotated

from msgspec import Meta

from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, Bytes16, Height

KINDS_MAX = 32
Kind = Annotated[int, Meta(ge=0, le=127)]
"""The number of an operation."""


class Prune(Record, frozen=True, tag=60):
    """Take operations of transactions, and the events of their receipts, out of all blocks up to a height.

    Approved like an admission, by a majority of the active organisations, sender included.
    """

    horizon: Height
    """The last height concerned."""
    kinds: Annotated[tuple[Kind, ...], Meta(max_length=KINDS_MAX)]
    """Only transactions with one of these operations, ascending; empty: all."""
    subject: Bytes16 | None
    """Only what names this did, pid, consent, batch or access; None: whatever it names."""


class PruningApproved(Record, frozen=True, tag=60):
    """From now on every node takes out what was approved."""

    number: U64
    horizon: Height
