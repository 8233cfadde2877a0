"""What follows broken glass: the review of an emergency access (F-15)."""

from p2pledger.health.vocabulary import Verdict
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import Bytes16, Bytes32


class BtgReview(Record, frozen=True, tag=31):
    """The reader's organisation, or the patient's custodian, says whether the glass was broken for good reason."""

    access_id: Bytes16
    verdict: Verdict
    note_commit: Bytes32
    """Of the written findings."""
