"""The health layer as the ledger sees it: one contract a kind of operation."""

from collections.abc import Sequence
from typing import assert_never

from p2pledger.chain.genesis import Founding
from p2pledger.execution.contract import Application, Call, Outcome, Pruning
from p2pledger.health import (
    access,
    break_glass,
    consent,
    deposits,
    directory,
    emergency,
    erasure,
    guardians,
    integrity,
    joint_key,
    membership,
    proxies,
    pruning,
    quotas,
    records,
    recovery,
    release_receipts,
    rules,
    stolen_keys,
)
from p2pledger.health.break_glass_operations import BtgReview
from p2pledger.health.deposit_operations import DepositAck, DepositKey
from p2pledger.health.emergency_operations import EmergencyAnchor
from p2pledger.health.erasure_operations import EraseCertificate, EraseDecision, EraseRequest, HolderRegister
from p2pledger.health.guardian_operations import (
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    Unfreeze,
)
from p2pledger.health.identity_operations import (
    IdentityRekey,
    KeyRevoke,
    OrganisationKeyRotate,
    OrganisationRekey,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.health.joint_key_operations import LtsActivate, LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.health.operations import (
    AccessRequest,
    ConsentGrant,
    ConsentRevoke,
    CredentialIssue,
    CredentialRevoke,
    IdentityRegister,
    IdentityResume,
    IdentitySuspend,
    KeyRotate,
    Operation,
    OrganisationRegister,
    RecordBatch,
    decode_operations,
)
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant, ProxyRevoke
from p2pledger.health.pruning_operations import Prune
from p2pledger.health.release_operations import ReleaseReceipt
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import AccountKey, Millis
from p2pledger.state.view import StateView, Writes


class HealthApplication(Application):
    """Consent, access, records and the directory behind them."""

    def genesis_writes(self, founding: Founding) -> Writes:
        """The founding organisations, their accounts and the rules for the health layer."""
        return {**directory.founding_writes(founding), **rules.genesis_writes(founding.parameters)}

    def decode(self, operations: bytes) -> Sequence[Record]:
        """The operations of a transaction; raises Rejected(E_FORMAT, E_UNKNOWN_KIND, E_ALONE, E_TOO_LARGE)."""
        return decode_operations(operations)

    def opens_account(self, operations: Sequence[Record], call: Call, state: StateView) -> bool:
        """Whether the first operation gives the sender itself an identity, and its organisation has signed.

        Others may follow it in the same transaction. Without the signature of a member, or of a patient's guardians,
        anybody could make the chain carry failed registrations. Raises Refused(code) where guardians' approvals, or the
        time, are not what it takes.
        """
        first = operations[0] if operations else None
        if isinstance(first, IdentityRekey):
            return first.key == call.author and stolen_keys.has_employer(first, call, state)
        if isinstance(first, RecoveryStart):
            return first.key == call.author and bool(recovery.start(first, call, state).writes)
        if isinstance(first, RecoveryFinalize | Freeze | Unfreeze):  # what guardians have signed, anybody may carry
            return len(operations) == 1 and bool(self.execute(first, call, state).writes)
        return (
            isinstance(first, IdentityRegister)
            and first.key == call.author
            and directory.has_sponsor(first, call, state)
        )

    def may_send(self, author: AccountKey, state: StateView) -> bool:
        """Whether this key belongs to an active organisation or an identity that is not suspended."""
        return directory.may_act(author, state)

    def has_quota(self, operations: Sequence[Record], author: AccountKey, time_ms: Millis, state: StateView) -> bool:
        """Whether this key has not drawn too many refusals lately; who may break the glass always may."""
        return not quotas.is_used_up(author, time_ms, state) or access.is_emergency(operations, author, time_ms, state)

    def refused(self, call: Call, state: StateView) -> Writes:
        """A failed transaction counts against its sender's quota."""
        return quotas.counted(call.author, call.time_ms, state)

    def pruning(self, number: int, state: StateView) -> Pruning | None:
        """The approved pruning of this number."""
        return pruning.scope(number, state)

    def execute(self, operation: Operation, call: Call, state: StateView) -> Outcome:
        """Run one operation; raises Refused(code)."""
        match operation:
            case OrganisationRegister():
                return directory.register_organisation(operation, call, state)
            case IdentityRegister():
                return directory.register_identity(operation, call, state)
            case KeyRotate():
                return directory.rotate_key(operation, call, state)
            case IdentitySuspend():
                return directory.suspend(operation, call, state)
            case IdentityResume():
                return directory.resume(operation, call, state)
            case CredentialIssue():
                return directory.issue_credential(operation, call, state)
            case CredentialRevoke():
                return directory.revoke_credential(operation, call, state)
            case KeyRevoke():
                return stolen_keys.revoke_key(operation, call, state)
            case IdentityRekey():
                return stolen_keys.rekey(operation, call, state)
            case OrganisationSuspend():
                return membership.suspend(operation, call, state)
            case OrganisationResume():
                return membership.resume(operation, call, state)
            case OrganisationKeyRotate():
                return membership.rotate_key(operation, call, state)
            case OrganisationRekey():
                return membership.rekey(operation, call, state)
            case RecordBatch():
                return records.record_batch(operation, call, state)
            case ConsentGrant():
                return consent.grant(operation, call, state)
            case ConsentRevoke():
                return consent.revoke(operation, call, state)
            case AccessRequest():
                return access.request_access(operation, call, state)
            case ProxyGrant():
                return proxies.grant(operation, call, state)
            case ProxyRevoke():
                return proxies.revoke(operation, call, state)
            case DeceasedMark():
                return proxies.mark_deceased(operation, call, state)
            case BtgReview():
                return break_glass.review(operation, call, state)
            case EmergencyAnchor():
                return emergency.anchor(operation, call, state)
            case IntegrityAlert():
                return integrity.alert(operation, call, state)
            case LtsInit():
                return joint_key.init(operation, call, state)
            case LtsDeal():
                return joint_key.deal(operation, call, state)
            case LtsComplaint():
                return joint_key.complain(operation, call, state)
            case LtsJustify():
                return joint_key.justify(operation, call, state)
            case LtsActivate():
                return joint_key.activate(operation, call, state)
            case DepositKey():
                return deposits.announce(operation, call, state)
            case DepositAck():
                return deposits.acknowledge(operation, call, state)
            case ReleaseReceipt():
                return release_receipts.report(operation, call, state)
            case GuardianSet():
                return guardians.set_guardians(operation, call, state)
            case RecoveryStart():
                return recovery.start(operation, call, state)
            case RecoveryVeto():
                return recovery.veto(operation, call, state)
            case RecoveryFinalize():
                return recovery.finalize(operation, call, state)
            case Freeze():
                return guardians.freeze(operation, call, state)
            case Unfreeze():
                return guardians.unfreeze(operation, call, state)
            case Prune():
                return pruning.prune(operation, call, state)
            case EraseRequest():
                return erasure.request(operation, call, state)
            case EraseDecision():
                return erasure.decide(operation, call, state)
            case EraseCertificate():
                return erasure.certify(operation, call, state)
            case HolderRegister():
                return erasure.register_holder(operation, call, state)
        assert_never(operation)
