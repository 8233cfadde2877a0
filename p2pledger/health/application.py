"""The health layer as the ledger sees it: one contract a kind of operation."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

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
        return _CONTRACTS[type(operation)](operation, call, state)


_CONTRACTS: dict[type[Operation], Callable[[Any, Call, StateView], Outcome]] = {
    OrganisationRegister: directory.register_organisation,
    IdentityRegister: directory.register_identity,
    KeyRotate: directory.rotate_key,
    IdentitySuspend: directory.suspend,
    IdentityResume: directory.resume,
    CredentialIssue: directory.issue_credential,
    CredentialRevoke: directory.revoke_credential,
    KeyRevoke: stolen_keys.revoke_key,
    IdentityRekey: stolen_keys.rekey,
    OrganisationSuspend: membership.suspend,
    OrganisationResume: membership.resume,
    OrganisationKeyRotate: membership.rotate_key,
    OrganisationRekey: membership.rekey,
    RecordBatch: records.record_batch,
    ConsentGrant: consent.grant,
    ConsentRevoke: consent.revoke,
    AccessRequest: access.request_access,
    ProxyGrant: proxies.grant,
    ProxyRevoke: proxies.revoke,
    DeceasedMark: proxies.mark_deceased,
    BtgReview: break_glass.review,
    EmergencyAnchor: emergency.anchor,
    IntegrityAlert: integrity.alert,
    LtsInit: joint_key.init,
    LtsDeal: joint_key.deal,
    LtsComplaint: joint_key.complain,
    LtsJustify: joint_key.justify,
    LtsActivate: joint_key.activate,
    DepositKey: deposits.announce,
    DepositAck: deposits.acknowledge,
    ReleaseReceipt: release_receipts.report,
    GuardianSet: guardians.set_guardians,
    RecoveryStart: recovery.start,
    RecoveryVeto: recovery.veto,
    RecoveryFinalize: recovery.finalize,
    Freeze: guardians.freeze,
    Unfreeze: guardians.unfreeze,
    Prune: pruning.prune,
    EraseRequest: erasure.request,
    EraseDecision: erasure.decide,
    EraseCertificate: erasure.certify,
    HolderRegister: erasure.register_holder,
}
"""By the kind of operation: a chain of comparisons would cost the last one forty."""
assert set(_CONTRACTS) == set(get_args(Operation)), "each kind of operation has its contract"
