"""What moves another validator on (P16), and what we hold of what it said (P20). Computed; the replica decides when."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from p2pledger.consensus import effects as do
from p2pledger.consensus.effects import Effect
from p2pledger.consensus.events import PeerStatus
from p2pledger.consensus.messages import Signed
from p2pledger.primitives.ids import ValidatorId

if TYPE_CHECKING:
    from p2pledger.consensus.replica import Replica


def answer_status(replica: "Replica", peer: PeerStatus) -> Iterator[Effect]:
    """P16: whoever is ahead answers with what moves the other on; a peer of our view gets what it may have missed."""
    if peer.epoch != replica.epoch or peer.author == replica.me:
        return
    if peer.committed < replica.committed and replica.committed_certificate is not None:
        yield do.SendCertificate(peer.author, replica.committed_certificate)
    is_behind = peer.view < replica.view or (peer.view == replica.view and not peer.is_active)
    new_view = replica.new_view
    if is_behind and new_view is not None and new_view.message.view >= peer.view:
        yield do.SendSigned(peer.author, new_view)
    if peer.view != replica.view or not replica.is_active:
        return
    for signed in replica.ballots.proposals_above(replica.view, peer.committed):
        yield do.SendSigned(peer.author, signed)
    for signed in replica.own.votes_above(replica.view, peer.committed):
        yield do.SendSigned(peer.author, signed)


def newest_by(replica: "Replica", author: ValidatorId) -> list[Signed]:
    """The newest messages of each kind by a validator that this replica holds: its answer to an inquiry."""
    held = replica.ballots.newest_of(author)
    changed = replica.view_changes.newest_of(author)
    if changed is not None:
        held.append(changed)
    if replica.new_view is not None and replica.new_view.message.author == author:
        held.append(replica.new_view)
    return held
