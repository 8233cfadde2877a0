"""A validator's contradiction on the chain: two signed statements of one author for one place, for ever (P14).

This is the ledger's own operation; every application's `decode` knows it beside its own. It proves itself: whoever
sends it can only repeat what the accused has signed. So an honest validator, who journals before it signs, cannot be
framed, and it does not matter whose node was first.
"""

from collections.abc import Iterator

from p2pledger.chain.statement import Statement, StatementKind, contradict, place_of, signing_bytes
from p2pledger.execution import keys, seats
from p2pledger.execution.contract import Call, Duty, Outcome
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import verify
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import ChainId, Epoch, Height, NodeId, Signature, ValidatorId, View
from p2pledger.state.view import StateView

EVIDENCE_TAG = 100
"""The number of the operation. Those of applications stay below it."""


class ValidatorEvidence(Duty, frozen=True, tag=EVIDENCE_TAG):
    """A validator's node shows that a validator said two things at one place.

    Only what was signed travels, never what lay beside it: fewer than 320 bytes, whatever the messages carried.
    """

    validator: ValidatorId
    """Who contradicted itself."""
    first: Statement
    first_signature: Signature
    second: Statement
    second_signature: Signature


class EquivocationRecorded(Record, frozen=True, tag=EVIDENCE_TAG):
    """The chain holds proof that a validator contradicted itself."""

    validator: ValidatorId
    kind: StatementKind
    epoch: Epoch
    view: View
    height: Height
    """Of the block that it spoke about; 0 for statements about a view."""


class Caught(Record, frozen=True):
    """The state value: the whole proof, so that a proof of the state is a proof of the misdeed."""

    height: Height
    """Of the block that recorded it."""
    node: NodeId
    """Who offered it."""
    evidence: ValidatorEvidence


def fault_of(evidence: ValidatorEvidence, chain: ChainId, state: StateView) -> Code:
    """OK if it proves a contradiction, else why it does not: E_NOT_FOUND, E_EVIDENCE, E_SIG."""
    seat = seats.seat_of(evidence.validator, state)
    if seat is None or evidence.first.epoch != seat.since:
        return Code.E_NOT_FOUND
    if not contradict(evidence.first, evidence.second):
        return Code.E_EVIDENCE
    said = ((evidence.first, evidence.first_signature), (evidence.second, evidence.second_signature))
    for statement, signature in said:
        if not verify(evidence.validator, signing_bytes(statement, chain, evidence.validator), signature):
            return Code.E_SIG
    return Code.OK


def record(operation: ValidatorEvidence, call: Call, state: StateView) -> Outcome:
    """Keep the first proof against a validator. Refused: E_ROLE but for a validator's node, E_DUP, and `fault_of`."""
    if seats.validator_of(call.author, state) is None:
        raise Refused(Code.E_ROLE)
    key = keys.caught(operation.validator)
    if state.get(key) is not None:
        raise Refused(Code.E_DUP)
    fault = fault_of(operation, call.chain, state)
    if fault != Code.OK:
        raise Refused(fault)
    kind, epoch, view, height = place_of(operation.first)
    event = EquivocationRecorded(operation.validator, kind, Epoch(epoch), View(view), Height(height))
    return Outcome({key: encode(Caught(call.height, NodeId(call.author), operation))}, [encode(event)])


def caught(validator: ValidatorId, state: StateView) -> Caught | None:
    """What the chain holds against a validator."""
    data = state.get(keys.caught(validator))
    return None if data is None else decode_caught(data)


def all_caught(state: StateView) -> Iterator[Caught]:
    """What the chain holds against anybody, by validator."""
    return (decode_caught(data) for _, data in state.scan(keys.CAUGHT))


def decode_caught(data: bytes) -> Caught:
    """The state value whose canonical bytes are `data`; raises InvalidInput."""
    return decode(Caught, data, limits.STATE_VALUE_BYTES_MAX)
