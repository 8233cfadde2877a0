"""Erasing by destroying the keys: who may ask, who decides, what is released no more, who certifies (health rule 3.8).

    REQUESTED ── refuse ──▶ REFUSED
        └──── accept, partial ──▶ ERASING ── every holder has certified ──▶ ERASED

The chain never held a record, a salt, a capsule or a key, so there is nothing for it to forget: it refuses the shares
of what is being erased from the block of the decision on, for ever, and keeps account of who has destroyed the rest.
Which records are meant is a salted commitment until the custodian accepts; see docs/decisions/0024-erasure.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from msgspec.structs import replace

from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, guardian_state, keys, proxies, records, rules
from p2pledger.health.commitments import RecordRef, scope_commit
from p2pledger.health.erasure_operations import (
    EraseCertificate,
    EraseDecision,
    ErasedPart,
    EraseRequest,
    ErasureCertified,
    ErasureDecided,
    ErasureRequested,
    HolderRegister,
    HolderRegistered,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, decode_again, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import Bytes16, Bytes32, Height, Millis
from p2pledger.state.view import StateView

Status = Literal["requested", "refused", "erasing", "erased"]


class Decided(Record, frozen=True):
    """A custodian's decision, and when it fell."""

    terms: EraseDecision
    height: Height
    time_ms: Millis
    is_late: bool
    """Later than the chain's rules allow."""


class Certified(Record, frozen=True):
    """A holder's certificate."""

    holder: Bytes16
    report: Bytes32
    finished_ms: Millis
    height: Height


class Erasure(Record, frozen=True):
    """A request for erasure as it stands in the state."""

    request: EraseRequest
    custodian: Bytes16
    requested: Height
    requested_ms: Millis
    due_ms: Millis
    """Until when the custodian has to decide."""
    decided: Decided | None = None
    holders: tuple[Bytes16, ...] = ()
    """Who has to certify, ascending: the custodian and who kept replicas for it at the decision."""
    certified: tuple[Certified, ...] = ()

    @property
    def status(self) -> Status:
        if self.decided is None:
            return "requested"
        if self.decided.terms.verdict == "refuse":
            return "refused"
        return "erased" if len(self.certified) == len(self.holders) else "erasing"

    @property
    def missing(self) -> tuple[bytes, ...]:
        """The holders that have not certified yet."""
        signed = {one.holder for one in self.certified}
        return tuple(holder for holder in self.holders if holder not in signed)


class ErasedOf(Record, frozen=True):
    """What of a batch is erased or being erased."""

    is_whole: bool
    bits: bytes
    """Bit `index % 8` of byte `index // 8`; empty where it is the whole batch."""

    def has(self, index: int) -> bool:
        """Whether this record is."""
        place, bit = divmod(index, 8)
        return self.is_whole or (place < len(self.bits) and bool(self.bits[place] >> bit & 1))

    def indices(self) -> Iterator[int]:
        """Which records, where it is not the whole batch."""
        return (index for index in range(8 * len(self.bits)) if self.has(index))

    def joined(self, indices: Sequence[int]) -> "ErasedOf":
        """With these records too; none: the whole batch."""
        if self.is_whole or not indices:
            return ErasedOf(True, b"")
        bits = bytearray(self.bits.ljust(max(indices) // 8 + 1, b"\0"))
        for index in indices:
            bits[index // 8] |= 1 << index % 8
        return ErasedOf(False, bytes(bits))


NOTHING = ErasedOf(False, b"")


class Holder(Record, frozen=True):
    """That an organisation keeps replicas for a custodian."""

    since: Height


# Looking up


def is_erased(batch_id: bytes, index: int, state: StateView) -> bool:
    """Whether this record is erased or being erased: its shares are released to nobody (F-26)."""
    return erased_of(batch_id, state).has(index)


def erased_of(batch_id: bytes, state: StateView) -> ErasedOf:
    """What of a batch is erased or being erased."""
    data = state.get(keys.erased(batch_id))
    return NOTHING if data is None else decode_again(ErasedOf, data, limits.STATE_VALUE_BYTES_MAX)


def erasure_of(erase_id: bytes, state: StateView) -> Erasure | None:
    """A request by id, whatever became of it."""
    data = state.get(keys.erasure(erase_id))
    return None if data is None else decode_erasure(data)


def decode_erasure(data: bytes) -> Erasure:
    """A request from its state value; raises InvalidInput."""
    return decode(Erasure, data, limits.STATE_VALUE_BYTES_MAX)


def erasures_of(pid: bytes, state: StateView) -> Iterator[Erasure]:
    """All requests about a patient, by id."""
    prefix = keys.patient_erasures(pid)
    for key, _ in state.scan(prefix):
        found = erasure_of(key[len(prefix) :], state)
        assert found is not None, "the index of a patient names what there is"
        yield found


def unfinished(state: StateView) -> Iterator[Erasure]:
    """Requests that wait for a decision or for certificates, the first due first: what is overdue stands in front."""
    for key, _ in state.scan(keys.ERASURE_DUE):
        found = erasure_of(key[-16:], state)
        assert found is not None, "what is due is there"
        yield found


@dataclass(frozen=True, slots=True)
class Owed:
    """What an organisation has to do about erasures."""

    unfinished: int
    """Of all organisations."""
    overdue: int
    """That it should have decided by now."""
    uncertified: int
    """Decided ones of which it has yet to certify that it has deleted everything."""


def owed(organisation: bytes, time_ms: int, state: StateView, most: int) -> Owed:
    """What is owed at this block time; of more than `most` that are not finished, the first due are counted."""
    found = list(islice(unfinished(state), most))
    return Owed(
        len(found),
        sum(one.decided is None and one.custodian == organisation and one.due_ms <= time_ms for one in found),
        sum(one.decided is not None and organisation in one.missing for one in found),
    )


def holders_of(custodian: bytes, state: StateView) -> list[bytes]:
    """Who keeps replicas for a custodian, ascending."""
    prefix = keys.holders(custodian)
    return [key[len(prefix) :] for key, _ in state.scan(prefix)]


# Contracts


def request(operation: EraseRequest, call: Call, state: StateView) -> Outcome:
    """Ask for erasure. Refused: those of `_require_asker`, E_DUP (used id), E_QUOTA (too many wait already)."""
    custodian = _require_asker(operation, call, state)
    if erasure_of(operation.erase_id, state) is not None:
        raise Refused(Code.E_DUP)
    waiting = [one for one in erasures_of(operation.pid, state) if one.status == "requested"]
    if len(waiting) >= limits.ERASURES_WAITING_MAX:
        raise Refused(Code.E_QUOTA)
    due = Millis(call.time_ms + rules.of(state).erase_decision_ms)
    asked = Erasure(operation, Bytes16(custodian), call.height, call.time_ms, due)
    return Outcome(
        writes={
            **_put(asked),
            keys.patient_erasure(operation.pid, operation.erase_id): b"",
            keys.erasure_due(due, operation.erase_id): b"",
        },
        events=[encode(ErasureRequested(operation.erase_id, operation.pid, operation.asker, operation.n_records, due))],
    )


def _require_asker(operation: EraseRequest, call: Call, state: StateView) -> bytes:
    """Demand the patient, its proxy with that power, or its custodian; the custodian's id.

    Raises Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED, E_FROZEN, E_DECEASED, E_CAPACITY, E_ROLE.
    """
    patient = directory.identity_of(operation.pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if operation.asker != "custodian":
        guardian_state.require_thawed(operation.pid, call.time_ms, state)
    match operation.asker:
        case "patient":
            proxies.require_capacity(operation.pid, "patient", call, state)
        case "proxy":
            if proxies.acting(operation.pid, call.author, "erase", call.time_ms, state) is None:
                raise Refused(Code.E_CAPACITY)
        case "custodian":
            if directory.require_organisation(call, state).id != patient.organisation:
                raise Refused(Code.E_ROLE)
    return patient.organisation


def decide(operation: EraseDecision, call: Call, state: StateView) -> Outcome:
    """Accept, accept in part or refuse; late too, and then that is written down.

    Refused: E_ROLE unless by the custodian, E_NOT_FOUND, E_STATE (decided already), E_BASIS (something stays without a
    basis, or nothing does with one), E_FORMAT (order of the parts), E_SCOPE (not the records of the request, or not
    this patient's), E_TOO_LARGE (so many single records need a request for each part).
    """
    if len(encode(operation)) > limits.ERASE_DECISION_BYTES_MAX:
        raise Refused(Code.E_TOO_LARGE)
    organisation = directory.require_organisation(call, state)
    asked = erasure_of(operation.erase_id, state)
    if asked is None:
        raise Refused(Code.E_NOT_FOUND)
    if asked.custodian != organisation.id:
        raise Refused(Code.E_ROLE)
    if asked.decided is not None:
        raise Refused(Code.E_STATE)
    if (operation.basis is None) != (operation.verdict == "accept"):
        raise Refused(Code.E_BASIS)
    count = _checked_scope(operation, asked, state)
    is_late = call.time_ms >= asked.due_ms
    is_refused = operation.verdict == "refuse"
    holders = () if is_refused else tuple(sorted({asked.custodian, *holders_of(asked.custodian, state)}))
    decided = replace(
        asked,
        decided=Decided(operation, call.height, call.time_ms, is_late),
        holders=tuple(Bytes16(holder) for holder in holders),
    )
    writes = _put(decided)
    for part in operation.parts:
        writes[keys.erased(part.batch_id)] = encode(erased_of(part.batch_id, state).joined(part.indices))
    if is_refused:
        writes[keys.erasure_due(asked.due_ms, operation.erase_id)] = None
    event = ErasureDecided(
        operation.erase_id, asked.request.pid, operation.verdict, operation.basis, count, len(holders), is_late
    )
    return Outcome(writes=writes, events=[encode(event)])


def _checked_scope(operation: EraseDecision, asked: Erasure, state: StateView) -> int:
    """How many records are erased: all of the request, or some of as many. Raises Refused(E_FORMAT, E_SCOPE)."""
    verdict, parts, wanted = operation.verdict, operation.parts, asked.request.n_records
    if any(a.batch_id >= b.batch_id for a, b in pairwise(parts)):
        raise Refused(Code.E_FORMAT)
    if bool(parts) == (verdict == "refuse") or (operation.salt is not None) != (verdict == "accept"):
        raise Refused(Code.E_FORMAT)
    sizes = [_checked_size(part, asked, state) for part in parts]
    count = sum(sizes)
    if (count != wanted) if verdict == "accept" else (count >= wanted):
        raise Refused(Code.E_SCOPE)
    if operation.salt is not None and scope_commit(operation.salt, _refs(parts, sizes)) != asked.request.scope_commit:
        raise Refused(Code.E_SCOPE)
    return count


def _refs(parts: Sequence[ErasedPart], sizes: Sequence[int]) -> list[RecordRef]:
    return [
        RecordRef(part.batch_id, index)
        for part, size in zip(parts, sizes, strict=True)
        for index in part.indices or range(size)
    ]


def _checked_size(part: ErasedPart, asked: Erasure, state: StateView) -> int:
    """How many records a part names, all of them this patient's. Raises Refused(E_FORMAT, E_SCOPE)."""
    if any(a >= b for a, b in pairwise(part.indices)):
        raise Refused(Code.E_FORMAT)
    batch = records.batch_of(part.batch_id, state)
    if batch is None or (batch.terms.pid, batch.terms.custodian) != (asked.request.pid, asked.custodian):
        raise Refused(Code.E_SCOPE)
    if part.indices and part.indices[-1] >= batch.terms.n:
        raise Refused(Code.E_SCOPE)
    return len(part.indices) or batch.terms.n


def certify(operation: EraseCertificate, call: Call, state: StateView) -> Outcome:
    """A holder signs that nothing is left with it. Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_HOLDER, E_DUP."""
    organisation = directory.require_organisation(call, state)
    asked = erasure_of(operation.erase_id, state)
    if asked is None:
        raise Refused(Code.E_NOT_FOUND)
    if asked.status in ("requested", "refused"):
        raise Refused(Code.E_STATE)
    if organisation.id not in asked.holders:
        raise Refused(Code.E_HOLDER)
    if organisation.id not in asked.missing:
        raise Refused(Code.E_DUP)
    signed = Certified(organisation.id, operation.report, operation.finished_ms, call.height)
    after = replace(asked, certified=(*asked.certified, signed))
    is_last = after.status == "erased"
    writes = _put(after)
    if is_last:
        writes[keys.erasure_due(asked.due_ms, operation.erase_id)] = None
    event = ErasureCertified(operation.erase_id, asked.request.pid, organisation.id, is_last)
    return Outcome(writes=writes, events=[encode(event)])


def register_holder(operation: HolderRegister, call: Call, state: StateView) -> Outcome:
    """Enter who keeps replicas, as the custodian; leave, as the holder: no custodian can drop one that still has them.

    Refused: E_ROLE, E_NOT_FOUND (no such organisation, or no such holder), E_FORMAT (oneself), E_DUP, E_QUOTA.
    """
    author = directory.require_organisation(call, state)
    if operation.custodian == operation.holder:
        raise Refused(Code.E_FORMAT)
    if author.id != (operation.custodian if operation.is_holding else operation.holder):
        raise Refused(Code.E_ROLE)
    if directory.organisation_of(operation.holder, state) is None:
        raise Refused(Code.E_NOT_FOUND)
    present = holders_of(operation.custodian, state)
    if operation.is_holding and operation.holder in present:
        raise Refused(Code.E_DUP)
    if not operation.is_holding and operation.holder not in present:
        raise Refused(Code.E_NOT_FOUND)
    if operation.is_holding and len(present) >= limits.HOLDERS_MAX:
        raise Refused(Code.E_QUOTA)
    held = encode(Holder(call.height)) if operation.is_holding else None
    return Outcome(
        writes={keys.holder(operation.custodian, operation.holder): held},
        events=[encode(HolderRegistered(operation.custodian, operation.holder, operation.is_holding))],
    )


def _put(erasure: Erasure) -> dict[bytes, bytes | None]:
    return {keys.erasure(erasure.request.erase_id): encode(erasure)}
