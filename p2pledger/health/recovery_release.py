"""May this validator release its share of a recovered patient's old box keys? The second kind of request (rule 3.7).

Decided like a release of records, by each validator alone and from its own final state: the recovery is final here,
its key is the patient's key still, and the capsule is the one that the patient's guardians were named with. The share
is sealed to the box key that the guardians have approved of and to no other. Guardians get nothing: without a delay
that is over, and unvetoed, no validator releases anything (F-24).
"""

from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.health import access, directory, guardian_state, joint_key, proxies, release
from p2pledger.health.release import Moment, ReleaseEntry, ReleaseRequest
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, ChainId
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.capsule import CAPSULE_BYTES_MAX, Label

_NO_BATCH = bytes(16)


class RecoveryOpening(Record, frozen=True):
    """The capsule in which the secrets of the old box keys wait."""

    capsule: Annotated[bytes, Meta(max_length=CAPSULE_BYTES_MAX)]
    key_epoch: U64


class RecoverRequest(Record, frozen=True, tag=2):
    """What a recovered patient sends to each validator."""

    access_id: Bytes16
    """The recovery's id."""
    openings: Annotated[tuple[RecoveryOpening, ...], Meta(min_length=1, max_length=1)]


ShareRequest: TypeAlias = ReleaseRequest | RecoverRequest
"""Everything for which a validator may release shares."""


def recovery_label(pid: bytes, custodian: bytes, chain: ChainId, key_epoch: int) -> Label:
    """The label of a patient's recovery capsule, for whoever makes it, the validators and the new wallet."""
    return Label("recovery", chain, Bytes16(custodian), Bytes16(pid), _NO_BATCH, 0, key_epoch)


def may_recover(
    state: StateView, chain: ChainId, request: RecoverRequest, now: Moment
) -> Code | tuple[ReleaseEntry, ...]:
    """The one entry, or the reason against it.

    E_STALE: this node is behind. E_NOT_FOUND: no such recovery, or no such joint key. E_STATE: it is not final, or its
    key is not the patient's any more. E_DECEASED. E_FROZEN: the guardians say that the new key is stolen, too.
    E_CAPSULE: not the capsule that the guardians were named with, or they were named with none.
    """
    if now.is_stale:
        return Code.E_STALE
    recovery = guardian_state.recovery_of(request.access_id, state)
    if recovery is None:
        return Code.E_NOT_FOUND
    patient = directory.identity_of(recovery.pid, state)
    if recovery.progress != "final" or patient is None or patient.key != recovery.key:
        return Code.E_STATE
    if proxies.is_deceased(recovery.pid, state):
        return Code.E_DECEASED
    if guardian_state.is_frozen(recovery.pid, now.block_ms, state):
        return Code.E_FROZEN
    (opening,) = request.openings
    capsule = sha256(opening.capsule)
    if capsule != recovery.terms.capsule or opening.key_epoch != recovery.terms.key_epoch:
        return Code.E_CAPSULE
    if joint_key.active_key(opening.key_epoch, state) is None:
        return Code.E_NOT_FOUND
    label = recovery_label(recovery.pid, patient.organisation, chain, opening.key_epoch)
    return (ReleaseEntry(key_release.Access(request.access_id, recovery.box), label, capsule),)


def may_share(state: StateView, chain: ChainId, request: ShareRequest, now: Moment) -> Code | tuple[ReleaseEntry, ...]:
    """An entry for each opening, or the reason against all; whichever kind of request it is."""
    if isinstance(request, RecoverRequest):
        return may_recover(state, chain, request, now)
    return release.may_release(state, chain, request, now)


def capsules_of(request: ShareRequest) -> tuple[bytes, ...]:
    """Of its openings, in their order."""
    return tuple(opening.capsule for opening in request.openings)


def asker_of(request: ShareRequest, state: StateView) -> AccountKey | None:
    """Who alone may send this request; None where there is no such access or recovery here (yet)."""
    if isinstance(request, RecoverRequest):
        recovery = guardian_state.recovery_of(request.access_id, state)
        return None if recovery is None else recovery.key
    decided = access.access_of(request.access_id, state)
    return None if decided is None else decided.author


def subject_of(access_id: bytes, state: StateView) -> Bytes16 | None:
    """The patient of a final recovery with this id, for what validators report of it."""
    recovery = guardian_state.recovery_of(access_id, state)
    return None if recovery is None or recovery.progress != "final" else recovery.pid
