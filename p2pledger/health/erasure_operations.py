"""Erasing records: what is asked for, decided and certified, and what receipts report of it (F-26, F-27)."""

from typing import Annotated, Literal

from msgspec import Meta

from p2pledger.health.vocabulary import ErasureBasis, ErasureVerdict
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, Bytes16, Bytes32, Millis

Asker = Literal["patient", "proxy", "custodian"]
"""Who asks: a custodian does when its duty to keep has ended."""
RecordIndex = Annotated[int, Meta(ge=0, le=limits.FHIR_ENTRIES_MAX - 1)]


class ErasedPart(Record, frozen=True):
    """Records of one batch."""

    batch_id: Bytes16
    indices: Annotated[tuple[RecordIndex, ...], Meta(max_length=limits.FHIR_ENTRIES_MAX)]
    """Ascending; empty: all of the batch."""


class EraseRequest(Record, frozen=True, tag=56):
    """Erase records of a patient at the custodian that knows it by this pid. Which ones, only the custodian is told."""

    erase_id: Bytes16
    pid: Bytes16
    asker: Asker
    scope_commit: Bytes32
    """Of the salted list of record references, as with an access."""
    n_records: Annotated[int, Meta(ge=1, le=limits.FHIR_ENTRIES_MAX)]


class EraseDecision(Record, frozen=True, tag=57):
    """The custodian's answer. What it accepts is released to nobody any more, from this block on."""

    erase_id: Bytes16
    verdict: ErasureVerdict
    basis: ErasureBasis | None
    """Why something stays; None: nothing does."""
    parts: Annotated[tuple[ErasedPart, ...], Meta(max_length=limits.ERASED_BATCHES_MAX)]
    """What is erased: validators must know it to refuse its shares. Empty with a refusal."""
    salt: Bytes32 | None
    """With `accept`: opens the scope of the request, so that all see that nothing was left out."""
    reason_commit: Bytes32 | None = None
    """Of the written answer to the patient."""


class EraseCertificate(Record, frozen=True, tag=58):
    """A holder says: none of it is left with me, in stores and backups."""

    erase_id: Bytes16
    report: Bytes32
    """Hash of the holder's report on what was deleted where."""
    finished_ms: Millis


class HolderRegister(Record, frozen=True, tag=59):
    """An organisation keeps replicas for a custodian: the custodian says so. That it keeps none any more, it itself."""

    custodian: Bytes16
    holder: Bytes16
    is_holding: bool


class ErasureRequested(Record, frozen=True, tag=56):
    """A custodian is to decide about erasing."""

    erase_id: Bytes16
    pid: Bytes16
    asker: Asker
    n_records: U64
    due_ms: Millis


class ErasureDecided(Record, frozen=True, tag=57):
    """A custodian has decided."""

    erase_id: Bytes16
    pid: Bytes16
    verdict: ErasureVerdict
    basis: ErasureBasis | None
    n_records: U64
    """How many are erased."""
    holders: U64
    """How many have to certify it."""
    is_late: bool


class ErasureCertified(Record, frozen=True, tag=58):
    """A holder has nothing of it any more; the last one makes it erased."""

    erase_id: Bytes16
    pid: Bytes16
    holder: Bytes16
    is_last: bool


class HolderRegistered(Record, frozen=True, tag=59):
    """An organisation keeps replicas for a custodian, or keeps none any more."""

    custodian: Bytes16
    holder: Bytes16
    is_holding: bool
