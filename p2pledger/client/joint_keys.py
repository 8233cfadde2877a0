"""What the chain holds of joint keys and of released shares, each value proven at a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pledger.client.depositing import newest_table
from p2pledger.client.ledger import LedgerClient
from p2pledger.health import joint_key, keys
from p2pledger.health.access import decode_access
from p2pledger.health.deposits import DepositTable
from p2pledger.health.guardian_state import decode_recovery
from p2pledger.health.joint_key import ActiveKey, decode_active_key, decode_ceremony
from p2pledger.health.release_receipts import decode_reported
from p2pledger.primitives.errors import Code
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Phase


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the consortium stands with its keys."""

    height: int
    """Of the checkpoint."""
    active: ActiveKey | None
    """The newest key, in its newest sharing."""
    ceremony: Ceremony | None
    """That runs, or that has failed and has no successor: for a new key, or for new shares of the newest one."""
    table: DepositTable | None
    """The newest one, for one-time secrets."""


async def newest(ledger: LedgerClient) -> tuple[int, int, ActiveKey | None]:
    """(checkpoint, key epoch, key) of the newest joint key there, 0 and None for none; for whoever has an identity."""
    height, value = await ledger.state(keys.NEWEST_KEY)
    epoch = joint_key.decode_epoch(value)
    return height, epoch, await of_epoch(ledger, epoch) if epoch else None


async def of_epoch(ledger: LedgerClient, key_epoch: int) -> ActiveKey | None:
    """The joint key of an epoch in its newest sharing; None where none is proven yet."""
    _, data = await ledger.state(keys.joint_key(key_epoch))
    return None if data is None else decode_active_key(data)


async def standing(ledger: LedgerClient) -> Standing:
    """Ask as a member; raises what `LedgerClient.state` raises."""
    height, epoch, active = await newest(ledger)
    table = await newest_table(ledger)
    candidates = [CeremonyId(epoch + 1, 0, 0)]
    if active is not None:
        candidates.append(CeremonyId(epoch, active.key.share_epoch + 1, 0))
    for identifier in candidates:
        _, data = await ledger.state(keys.ceremony(identifier))
        if data is not None and (found := decode_ceremony(data)).phase != Phase.ACTIVE:
            return Standing(height, active, found, table)
    return Standing(height, active, None, table)


@dataclass(frozen=True, slots=True)
class Audited:
    """One access of which a validator has written entries."""

    access_id: bytes
    entries: int
    reported: int
    """What the chain had from this validator at the checkpoint."""
    is_allowed: bool
    """Whether the chain has the access and has allowed it; or has the recovery, and it is final."""

    @property
    def verdict(self) -> str:
        if not self.is_allowed:
            return "never allowed"
        if self.reported < self.entries:
            return "not reported"
        return "reported" if self.reported == self.entries else "reported, entries lost"


async def audit_releases(ledger: LedgerClient, entries: Mapping[bytes, int], validator: bytes) -> list[Audited]:
    """Every access with entries, against what the chain knows (I-1, I-9); raises what `LedgerClient.state` raises."""
    audited = []
    for access_id, count in sorted(entries.items()):
        _, decided = await ledger.state(keys.access(access_id))
        _, said = await ledger.state(keys.released(access_id, validator))
        is_allowed = decided is not None and decode_access(decided).decision == Code.OK
        if decided is None:  # perhaps a recovered patient's old box keys
            _, recovered = await ledger.state(keys.recovery(access_id))
            is_allowed = recovered is not None and decode_recovery(recovered).progress == "final"
        reported = 0 if said is None else decode_reported(said).records
        audited.append(Audited(access_id, count, reported, is_allowed))
    return audited
