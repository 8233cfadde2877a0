"""What a replica must not forget: the records of its vote journal (P19).

Each record has a key in the store's journal table; a later record with the same key replaces the earlier one, but
for votes, where the store refuses a different one: guard and journal are one.
"""

from typing import TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate, Commit, NewView, Prepare, PrePrepare, Signed, ViewChange
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import BlockHash, Epoch, Height, View


class ViewRecord(Record, frozen=True, tag=1):
    """Where the replica stands."""

    epoch: Epoch
    view: View
    is_active: bool
    """False while changing to `view`."""
    base_height: Height
    base_hash: BlockHash
    new_view: Signed | None
    """The NEW-VIEW by which it entered; None in view 0 and while changing."""


class VoteRecord(Record, frozen=True, tag=2):
    """A message that it signed or is about to sign. Keyed by (kind, view, height); never replaced by another."""

    message: PrePrepare | Prepare | Commit | ViewChange | NewView


class LockRecord(Record, frozen=True, tag=3):
    """The highest certificate it acted on."""

    certificate: Certificate


class BlockRecord(Record, frozen=True, tag=4):
    """A header above the committed height that it prepared or must be able to serve."""

    header: Header


class HaltRecord(Record, frozen=True, tag=5):
    """It stopped itself and must not run again: diverged from the chain (P22), or saw more than f liars (P7, P12)."""

    reason: str
    disputed: Header | None = None
    """The committed header whose root is not its own; None where the halt is no divergence."""


class EvidenceRecord(Record, frozen=True, tag=6):
    """Two different signed statements of one author for one slot (P14). One pair an author; never pruned."""

    first: Signed
    second: Signed


JournalRecord: TypeAlias = ViewRecord | VoteRecord | LockRecord | BlockRecord | HaltRecord | EvidenceRecord


class CommittedRecord(Record, frozen=True):
    """A committed block: appended to the ledger and the floor of the journal in one write."""

    header: Header
    certificate: Certificate | None
    """None where the block committed as an ancestor of a certified one."""
