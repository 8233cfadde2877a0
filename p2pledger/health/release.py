"""May this validator release its shares? Decided by each one alone, from its own final state (health rule 3.5.4).

Nobody is asked, nobody is believed: not the reader, not another validator, not a leader. What the reader brings is
opened against what the chain has. An access that was allowed once is judged again as of now, so that consent
revoked, expired or overruled since then, a reader suspended or a key revoked since then, end the release without any
job that would have to run. Because the time of a quiet chain stands still, the validator's own clock can refuse as
well; it never permits.

The edge then writes the entries down durably, and only after that calls `share_of` for each: a share that nobody
remembers having released would be missing in the patient's accounting (I-9).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from p2pledger.health import access, consent, deposits, erasure, joint_key, keys, records
from p2pledger.health.access import Access
from p2pledger.health.commitments import RecordProof, RecordRef, check_record, scope_commit
from p2pledger.health.declared import check_declared
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused
from p2pledger.primitives.ids import U64, Bytes16, Bytes32, ChainId
from p2pledger.state.overlay import Overlay
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.group import Random
from p2pledger.threshold.key_release import ShareHolder
from p2pledger.threshold.one_time import ONE_TIME_BYTES_MAX, ONE_TIME_EPOCH, read_capsule
from p2pledger.threshold.sealing import Sealer

HEARTBEATS_MAX = 2
"""A validator whose last block is older than this many heartbeats does not know what the others have decided."""


class RecordOpening(Record, frozen=True):
    """One record of the scope: where the chain commits to it, and its capsule."""

    batch_id: Bytes16
    proof: RecordProof
    key_epoch: U64
    """Of the joint key to which the capsule is sealed; 0: a one-time secret."""
    capsule: Annotated[bytes, Meta(max_length=ONE_TIME_BYTES_MAX)]


class ReleaseRequest(Record, frozen=True, tag=1):
    """What a reader sends to each validator."""

    access_id: Bytes16
    salt: Bytes32
    """Opens the scope of the access."""
    scope: Annotated[tuple[RecordRef, ...], Meta(max_length=limits.FHIR_ENTRIES_MAX)]
    """All records of the access."""
    openings: Annotated[tuple[RecordOpening, ...], Meta(min_length=1, max_length=limits.RELEASE_RECORDS_MAX)]
    """Those whose keys are asked for now."""


class ReleaseEntry(Record, frozen=True):
    """A share that may leave: what the validator writes down before it does."""

    access: key_release.Access
    label: Label
    capsule: Bytes32
    """Its hash."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is: on the chain, and here."""

    block_ms: int
    """Time of the last block of the final state that is judged by."""
    wall_ms: int
    """The own clock."""
    drift_ms: int
    """By how much honest clocks may differ (genesis)."""
    heartbeat_ms: int
    """0: the chain has none, and the age of its last block says nothing."""

    @property
    def earliest_ms(self) -> int:
        """It is not earlier than this anywhere."""
        return max(self.block_ms, self.wall_ms - self.drift_ms)

    @property
    def is_stale(self) -> bool:
        return (
            bool(self.heartbeat_ms)
            and self.wall_ms - self.drift_ms > self.block_ms + HEARTBEATS_MAX * self.heartbeat_ms
        )


def may_release(
    state: StateView, chain: ChainId, request: ReleaseRequest, now: Moment
) -> Code | tuple[ReleaseEntry, ...]:
    """An entry for each opening, in their order, or the first reason against all of them.

    E_STALE: this node is behind. E_NOT_FOUND: no such access, batch or joint key. The code of a denied access.
    E_EXPIRED: past the request's own end. What `access.evaluate` says by now. E_SCOPE: salt, list or record are not
    what the access was decided about. E_LABEL: a sensitive label that was not declared. E_COMMIT_MISMATCH: not the
    chain's record. E_CAPSULE: not the record's capsule, or it has none. E_ERASED: being erased, or gone. E_DEAL: a
    one-time secret that fewer than t validators have seen to be dealt well. Whether a capsule is made for its label is
    `share_of`'s to find.
    """
    if now.is_stale:
        return Code.E_STALE
    decided = access.access_of(request.access_id, state)
    if decided is None:
        return Code.E_NOT_FOUND
    standing = _standing(decided, state, now)
    if standing != Code.OK:
        return standing
    if not _opens_scope(request, decided):
        return Code.E_SCOPE
    entries = []
    for opening in request.openings:
        entry = _entry(opening, decided, chain, state)
        if isinstance(entry, Code):
            return entry
        entries.append(entry)
    return tuple(entries)


def _standing(decided: Access, state: StateView, now: Moment) -> Code:
    """Whether the access would be allowed now as well: at the last block's time, and at the own clock's (I-1, I-2)."""
    if decided.decision != Code.OK:
        return Code(decided.decision)
    if now.earliest_ms >= decided.request.not_after_ms:
        return Code.E_EXPIRED
    before = _without_own_use(decided, state)
    for time_ms in sorted({now.block_ms, now.earliest_ms}):
        decision = access.evaluate(decided.request, decided.author, time_ms, before, decided.cosigners)
        if decision.code != Code.OK:
            return decision.code
    return Code.OK


def _without_own_use(decided: Access, state: StateView) -> StateView:
    """The state before this access was counted under its consent: it is one use, however often it is judged."""
    if decided.consent_id is None:
        return state
    basis = consent.load(decided.request.pid, decided.consent_id, state)
    if basis is None or not basis.uses:
        return state
    before = Overlay(state)
    fewer = replace(basis, uses=basis.uses - 1)
    before.apply({keys.consent(decided.request.pid, decided.consent_id): encode(fewer)})
    return before


def _opens_scope(request: ReleaseRequest, decided: Access) -> bool:
    """Whether these are the records that the access was decided about, each asked for once."""
    scope = {(ref.batch_id, ref.index) for ref in request.scope}
    asked = [(opening.batch_id, opening.proof.leaf.index) for opening in request.openings]
    return (
        len(scope) == len(request.scope) == decided.request.n_records
        and scope_commit(request.salt, request.scope) == decided.request.scope_commit
        and len(set(asked)) == len(asked)
        and scope.issuperset(asked)
    )


def _entry(opening: RecordOpening, decided: Access, chain: ChainId, state: StateView) -> ReleaseEntry | Code:
    request = decided.request
    batch = records.batch_of(opening.batch_id, state)
    if batch is None or not _has_holders(opening, state):
        return Code.E_NOT_FOUND
    if batch.terms.pid != request.pid:
        return Code.E_SCOPE
    if opening.proof.size != batch.terms.n:
        return Code.E_COMMIT_MISMATCH
    try:
        leaf = check_record(opening.proof, batch.terms.root)
    except ProofError:
        return Code.E_COMMIT_MISMATCH
    declared = check_declared(request, RecordRef(opening.batch_id, leaf.index), leaf)
    if declared != Code.OK:
        return declared
    if erasure.is_erased(opening.batch_id, leaf.index, state):
        return Code.E_ERASED  # F-26
    capsule = sha256(opening.capsule)
    if capsule != leaf.capsule:
        return Code.E_CAPSULE
    label = label_of(
        RecordRef(opening.batch_id, leaf.index), batch.terms.pid, batch.terms.custodian, chain, opening.key_epoch
    )
    deposit = _deposit(opening, state) if opening.key_epoch == ONE_TIME_EPOCH else Code.OK
    if deposit != Code.OK:
        return deposit
    return ReleaseEntry(key_release.Access(request.access_id, request.reader_eph_x25519), label, capsule)


def _has_holders(opening: RecordOpening, state: StateView) -> bool:
    """Whether there is a joint key to which its capsule can be sealed; those of one-time secrets name their table."""
    return opening.key_epoch == ONE_TIME_EPOCH or joint_key.active_key(opening.key_epoch, state) is not None


def _deposit(opening: RecordOpening, state: StateView) -> Code:
    """Whether t members of its capsule's table have seen that their shares are good; E_DEAL where fewer have."""
    try:
        number = read_capsule(opening.capsule).table
    except InvalidInput:
        return Code.E_CAPSULE
    table = deposits.table_of(number, state)
    if table is None:
        return Code.E_NOT_FOUND
    if not deposits.is_deposited(table, opening.batch_id, opening.proof.leaf.index, state):
        return Code.E_DEAL
    return Code.OK


def label_of(ref: RecordRef, pid: bytes, custodian: bytes, chain: ChainId, key_epoch: int) -> Label:
    """The label of a record's capsule, for its writer, the validators and its reader alike."""
    return Label("record", chain, custodian, pid, ref.batch_id, ref.index, key_epoch)


def share_of(
    entry: ReleaseEntry, capsule: bytes, holder: ShareHolder, random: Random, sealer: Sealer | None = None
) -> bytes:
    """The sealed share of an entry that is written down; `sealer` to the entry's reader, where more are sealed to it.

    Raises Refused(E_CAPSULE) for a capsule that was not made for this label and this holder's key, whoever has
    committed to it.
    """
    assert sha256(capsule) == entry.capsule, "the entry is about another capsule"
    try:
        return holder.release(capsule, entry.label, entry.access, random, sealer)
    except (InvalidInput, ProofError) as error:
        raise Refused(Code.E_CAPSULE) from error


def shares_of(
    entries: Sequence[ReleaseEntry], capsules: Sequence[bytes], holder: ShareHolder, random: Random
) -> tuple[bytes, ...]:
    """The sealed shares of entries of one access, all of them written down; raises like `share_of`."""
    try:
        sealer = Sealer(entries[0].access.reader, random)
    except InvalidInput as error:
        raise Refused(Code.E_CAPSULE) from error
    return tuple(
        share_of(entry, capsule, holder, random, sealer) for entry, capsule in zip(entries, capsules, strict=True)
    )
