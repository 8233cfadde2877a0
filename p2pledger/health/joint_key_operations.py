"""What validators' nodes say in a key ceremony (threshold/dkg.py): one record a kind; joint_key.py is the contract."""

from p2pledger.execution.contract import Duty
from p2pledger.primitives.ids import Bytes32
from p2pledger.threshold.dkg import CeremonyId, Deal, Index, Indices


class LtsInit(Duty, frozen=True, tag=40):
    """Join a ceremony, or begin it: with the fresh X25519 key to which the others seal."""

    ceremony: CeremonyId
    box: Bytes32


class LtsDeal(Duty, frozen=True, tag=41):
    """Commit to a polynomial, and seal to each receiver its sub-share."""

    ceremony: CeremonyId
    deal: Deal


class LtsComplaint(Duty, frozen=True, tag=42):
    """Name the dealers whose sub-share is not what they committed to; nobody: all is well."""

    ceremony: CeremonyId
    cheats: Indices
    """Ascending."""


class LtsJustify(Duty, frozen=True, tag=43):
    """Answer a complaint: show to all the sub-share that was dealt."""

    ceremony: CeremonyId
    receiver: Index
    share: Bytes32


class LtsActivate(Duty, frozen=True, tag=44):
    """Confirm that one's share of this key is on one's disk."""

    ceremony: CeremonyId
    key: Bytes32
    """`JointKey.digest`."""
