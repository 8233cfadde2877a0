"""Prunings that the members have approved: which operations and events every node takes out of its old blocks.

Nothing of the state is touched, and nothing that a proof needs: bodies, signatures, receipts and all hashes stay. A
pruning ends well below the tip, because no node can execute pruned blocks again: whoever lags behind its horizon needs
a snapshot.
"""

from itertools import pairwise

from p2pledger.execution.contract import Call, Outcome, Pruning
from p2pledger.health import directory, keys
from p2pledger.health.pruning_operations import Kind, Prune, PruningApproved
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, Bytes16, Height, TransactionId
from p2pledger.state.view import StateView


class Approved(Record, frozen=True):
    """A pruning, and where it was approved."""

    horizon: Height
    kinds: tuple[Kind, ...]
    subject: Bytes16 | None
    height: Height
    transaction: TransactionId


def prune(operation: Prune, call: Call, state: StateView) -> Outcome:
    """Approve a pruning. Refused: E_ROLE without a majority, E_FORMAT (kinds), E_HORIZON (too near the tip)."""
    directory.require_majority(call, state)
    if any(a >= b for a, b in pairwise(operation.kinds)):
        raise Refused(Code.E_FORMAT)
    if not 1 <= operation.horizon <= call.height - limits.PRUNE_DISTANCE_HEIGHTS:
        raise Refused(Code.E_HORIZON)
    number = count(state) + 1
    approved = Approved(operation.horizon, operation.kinds, operation.subject, call.height, call.transaction)
    return Outcome(
        writes={keys.pruning(number): encode(approved), keys.PRUNING_COUNT: encode(number)},
        events=[encode(PruningApproved(number, operation.horizon))],
    )


def count(state: StateView) -> int:
    """How many were approved so far."""
    data = state.get(keys.PRUNING_COUNT)
    return 0 if data is None else decode(U64, data, 9)


def approved(number: int, state: StateView) -> Approved | None:
    """The pruning of this number."""
    data = state.get(keys.pruning(number))
    return None if data is None else decode(Approved, data, limits.STATE_VALUE_BYTES_MAX)


def scope(number: int, state: StateView) -> Pruning | None:
    """What the ledger has to take out for the pruning of this number, or None where there is none yet."""
    found = approved(number, state)
    if found is None:
        return None
    return Pruning(number, found.horizon, frozenset(found.kinds), found.subject)
