"""Emergency capsules that were opened while there was no quorum: the deferred, mandatory line in the log (F-17).

Offline nobody can ask the chain, and hiding an allergy would cost more than it protects. So the opening is judged by
nobody, and accounted for by everybody afterwards: it becomes a line of the patient's log like broken glass, with the
alert and a review that is due, and is counted with it. Entries of a house form a chain with a counter: one cannot be
left out or changed once a later one is here. An entry at the end that never comes is seen only where the house's own
journal is looked at; see docs/threats.md.
"""

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import access, break_glass, directory, keys, log
from p2pledger.health.access import Access
from p2pledger.health.emergency_operations import EmergencyAnchor, OfflineOpening, opening_bytes
from p2pledger.health.events import AccessDecided, EmergencyAnchored
from p2pledger.health.operations import AccessRequest
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import verify
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, Bytes16, Bytes32
from p2pledger.state.view import StateView

ANCHOR_WITHIN_MS = 24 * 3600 * 1000
"""A house anchors an opening within a day of it; until it has, it opens nothing further."""
CLOCK_AHEAD_MS_MAX = 10 * 60 * 1000
"""How far a house's clock may have been ahead of block time."""
_ZERO = bytes(32)


class OfflineHead(Record, frozen=True):
    """Where a house's chain of openings ends on the ledger."""

    count: U64
    hash: Bytes32


EMPTY = OfflineHead(0, Bytes32(bytes(32)))


def offline_head(organisation: bytes, state: StateView) -> OfflineHead:
    """How many openings of a house are anchored, and the last one's hash."""
    data = state.get(keys.offline_head(organisation))
    return EMPTY if data is None else decode_offline_head(data)


def decode_offline_head(data: bytes) -> OfflineHead:
    """A head from its state value; raises InvalidInput."""
    return decode(OfflineHead, data, 64)


def anchor(operation: EmergencyAnchor, call: Call, state: StateView) -> Outcome:
    """Write an opening into the patient's log.

    Refused: E_ROLE unless by the house itself, E_NOT_FOUND (no such patient), E_DUP (anchored already), E_STATE (not
    the entry that follows), E_CONSENT_INCOMPLETE (no reason), E_FORMAT (a time to come), E_POP (not the reader's
    signature), E_UNKNOWN_ACTOR (the key was never one of the house's people).
    """
    opening = operation.opening
    house = directory.require_organisation(call, state)
    if house.id != opening.organisation:
        raise Refused(Code.E_ROLE)
    patient = directory.identity_of(opening.pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if access.access_of(opening.access_id, state) is not None:
        raise Refused(Code.E_DUP)
    before = offline_head(house.id, state)
    if (opening.number, opening.previous) != (before.count + 1, before.hash):
        raise Refused(Code.E_STATE)
    if opening.reason_commit == _ZERO:
        raise Refused(Code.E_CONSENT_INCOMPLETE)
    if opening.opened_ms > call.time_ms + CLOCK_AHEAD_MS_MAX:
        raise Refused(Code.E_FORMAT)
    if not verify(opening.reader, opening_bytes(call.chain, opening), operation.signature):
        raise Refused(Code.E_POP)
    return _written_down(opening, _reader_of(opening, state), call, state)


def _reader_of(opening: OfflineOpening, state: StateView) -> Bytes16:
    """The did whose key it is or was: a credential that has ended since is for the review to judge."""
    owner = directory.key_owner(opening.reader, state)
    identity = None if owner is None else directory.identity_of(owner.id, state)
    if identity is None or identity.kind == "patient" or identity.organisation != opening.organisation:
        raise Refused(Code.E_UNKNOWN_ACTOR)
    return identity.did


def _written_down(opening: OfflineOpening, did: Bytes16, call: Call, state: StateView) -> Outcome:
    before = log.head(opening.pid, state)
    line = log.LogLine(
        pid=opening.pid,
        sequence=before.count + 1,
        previous=before.hash,
        height=call.height,
        time_ms=call.time_ms,
        transaction=call.transaction,
        access_id=opening.access_id,
        reader=opening.reader,
        actor=did,
        organisation=opening.organisation,
        purpose="BTG",
        decision=int(Code.OK),
        basis="btg",
        consent_id=None,
        compartments=(),
        labels=(),
        n_records=1,
        scope_commit=opening.capsule,
        reason_commit=opening.reason_commit,
    )
    request = _as_request(opening)
    # Kept as decided otherwise than OK: what was opened offline releases no shares, and its id is used up.
    kept = Access(request, opening.reader, call.height, int(Code.E_OFFLINE_UNANCHORED), "btg", None, (call.author,))
    signers = replace(call, cosigners=(*call.cosigners, opening.reader))
    use = break_glass.allowed(break_glass.Use(request, did, line.sequence), signers, state)
    anchored = EmergencyAnchored(
        opening.access_id,
        opening.pid,
        opening.organisation,
        opening.number,
        line.sequence,
        opening.opened_ms,
        call.time_ms - opening.opened_ms > ANCHOR_WITHIN_MS,
    )
    added, line_hash = log.append(line, before)
    decided = AccessDecided(opening.access_id, opening.pid, int(Code.OK), "btg", None, "BTG", line.sequence, line_hash)
    return Outcome(
        writes={
            **added,
            keys.access(opening.access_id): encode(kept),
            keys.offline_head(opening.organisation): encode(OfflineHead(opening.number, opening.hash)),
            **use.writes,
        },
        events=[encode(decided), encode(anchored), *use.events],
    )


def _as_request(opening: OfflineOpening) -> AccessRequest:
    """The opening in the terms of broken glass, which counts and reviews it."""
    return AccessRequest(
        access_id=opening.access_id,
        organisation=opening.organisation,
        pid=opening.pid,
        basis=None,
        purpose="BTG",
        actor_opening=None,
        scope_commit=opening.capsule,
        n_records=1,
        compartments=(Bytes16(bytes(16)),),
        labels=(),
        months=None,
        reader_eph_x25519=Bytes32(bytes(32)),
        pop=bytes(64),
        not_after_ms=opening.opened_ms,
        reason_commit=opening.reason_commit,
    )
