"""What patients, their guardians and recovering wallets ask; the contracts are in guardians.py and recovery.py (F-23).

A guardian need not be known to the chain: its approval is a signature inside the operation, with what opens the
commitment that the patient made to it. Who approves is nobody's secret from then on, and no guardian's key is of use
at another pid.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, SigningKey, signed_bytes, tagged_hash
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Bytes64, ChainId, Millis


class Approval(Record, frozen=True):
    """A guardian's word: what opens the commitment to it, and its signature over what it approves."""

    salt: Bytes32
    guardian: AccountKey
    signature: Bytes64


Approvals = Annotated[tuple[Approval, ...], Meta(min_length=1, max_length=limits.GUARDIANS_MAX)]
"""Each guardian once."""


class GuardianSet(Record, frozen=True, tag=50):
    """The patient names its guardians; in place of earlier ones only after their delay."""

    pid: Bytes16
    threshold: Annotated[int, Meta(ge=1, le=limits.GUARDIANS_MAX)]
    """So many must approve."""
    guardians: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=limits.GUARDIANS_MAX)]
    """`guardian_commit` of each, ascending."""
    delay_ms: U64
    """Between the start of a recovery and its end; the present key can veto in between."""
    capsule: Bytes32 | None
    """SHA-256 of the capsule in which the secrets of the old box keys wait; None: none are kept."""
    key_epoch: U64
    """Of the joint key to which the capsule is sealed; 0 without one."""


class RecoveryStart(Record, frozen=True, tag=51):
    """Guardians ask for a new key in place of a lost or stolen one: sent by the new key itself."""

    pid: Bytes16
    recovery: Bytes16
    """Random: names this recovery."""
    key: AccountKey
    box: Bytes32
    not_after_ms: Millis
    """The approvals are worth nothing after this."""
    approvals: Approvals
    is_beyond_veto: bool
    """After two vetoes: with one guardian more, the custodian's signature and a longer delay."""


class RecoveryVeto(Record, frozen=True, tag=52):
    """The present key says: this is not me."""

    pid: Bytes16
    recovery: Bytes16


class RecoveryFinalize(Record, frozen=True, tag=53):
    """The delay is over: anybody asks for the new key to take the place of the old one."""

    pid: Bytes16
    recovery: Bytes16


class Freeze(Record, frozen=True, tag=54):
    """Guardians say that the key is stolen: no new consents and no other key, at once."""

    pid: Bytes16
    until_ms: Millis
    """The first instant at which it has ended; later than that of every freeze before."""
    approvals: Approvals


class Unfreeze(Record, frozen=True, tag=55):
    """Guardians end a freeze."""

    pid: Bytes16
    until_ms: Millis
    """Of the freeze that is meant."""
    approvals: Approvals


# What signers and openers compute


def guardian_commit(pid: bytes, salt: bytes, guardian: bytes) -> Bytes32:
    """The commitment to a guardian that a patient's set carries."""
    return tagged_hash(Domain.GUARDIAN, encode((pid, salt, guardian)))


def recovery_bytes(chain: ChainId, pid: bytes, recovery: bytes, key: bytes, box: bytes, not_after_ms: int) -> bytes:
    """What a guardian signs to approve of new keys: good for these keys, this pid, this chain and this recovery."""
    return signed_bytes(Domain.GUARDIAN_APPROVAL, chain, encode(("recover", pid, recovery, key, box, not_after_ms)))


def freeze_bytes(chain: ChainId, pid: bytes, until_ms: int) -> bytes:
    """What a guardian signs to freeze; of use once, since each freeze ends later than the one before."""
    return signed_bytes(Domain.GUARDIAN_APPROVAL, chain, encode(("freeze", pid, until_ms)))


def unfreeze_bytes(chain: ChainId, pid: bytes, until_ms: int) -> bytes:
    """What a guardian signs to end the freeze that would end then."""
    return signed_bytes(Domain.GUARDIAN_APPROVAL, chain, encode(("unfreeze", pid, until_ms)))


def approve(guardian: SigningKey, salt: bytes, data: bytes) -> Approval:
    """A guardian's approval of what one of the three above has made."""
    return Approval(salt, AccountKey(guardian.public), guardian.sign(data))


def start_bytes(operation: RecoveryStart, chain: ChainId) -> bytes:
    """What its approvals must have signed."""
    return recovery_bytes(
        chain, operation.pid, operation.recovery, operation.key, operation.box, operation.not_after_ms
    )


def sorted_commits(commits: Sequence[bytes]) -> tuple[bytes, ...]:
    """Commitments as a set carries them: their order says nothing."""
    return tuple(sorted(commits))
