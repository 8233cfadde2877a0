"""Custodians that give records up for erasure (F-26)."""

from typing import TYPE_CHECKING

from p2pledger.health.commitments import RecordRef, scope_commit
from p2pledger.health.erasure_operations import EraseDecision, ErasedPart, EraseRequest
from p2pledger.primitives.ids import TransactionId
from p2pledger.sim.keys.questions import Chart

if TYPE_CHECKING:
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.world import World


def erase(world: "World", ward: "Ward", chart: Chart, indices: tuple[int, ...]) -> TransactionId | None:
    """Ask for the erasure of these records, of all for none, and accept it at once; None if that node is down."""
    erase_id, salt = ward.fresh(), world.random.randbytes(32)
    refs = [RecordRef(chart.batch_id, index) for index in indices or range(len(chart.capsules))]
    asked = EraseRequest(erase_id, chart.pid, "custodian", scope_commit(salt, refs), len(refs))
    decided = EraseDecision(erase_id, "accept", None, (ErasedPart(chart.batch_id, indices),), salt)
    honest = next(node.index for node in world.nodes if node.is_honest)
    return world.submit_signed(honest, world.consortium.accounts[0], [asked, decided])
