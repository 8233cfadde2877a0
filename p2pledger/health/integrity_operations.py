"""What somebody says who was given other bytes than the chain committed to; the contract is in integrity.py."""

from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, Bytes16, Bytes32


class IntegrityAlert(Record, frozen=True, tag=36):
    """Tell that a record's bytes are not those that were committed to: by a reader, the patient or a member."""

    batch_id: Bytes16
    index: U64
    access_id: Bytes16 | None
    """Of the reader; None for the patient and for members."""
    expected: Bytes32
    """What the batch's tree says: the hash of the sealed object, or the commitment."""
    found: Bytes32
    """The same of the bytes that were given."""
