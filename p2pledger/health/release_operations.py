"""What validators' nodes report of shares that have left; the contract is in release_receipts.py."""

from typing import Annotated

from msgspec import Meta

from p2pledger.execution.contract import Duty
from p2pledger.health.vocabulary import Count
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import Bytes16


class Released(Record, frozen=True):
    """Of how many records of one access a validator has released its share."""

    access_id: Bytes16
    records: Count


class ReleaseReceipt(Duty, frozen=True, tag=45):
    """A validator's report, since its last one."""

    releases: Annotated[tuple[Released, ...], Meta(min_length=1, max_length=limits.RELEASES_REPORTED_MAX)]
    """Each access once."""
