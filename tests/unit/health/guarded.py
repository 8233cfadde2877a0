"""A patient with guardians who approve, freeze and recover: what their tests begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import guardian_state
from p2pledger.health.guardian_operations import (
    Approval,
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    Unfreeze,
    approve,
    freeze_bytes,
    guardian_commit,
    sorted_commits,
    start_bytes,
    unfreeze_bytes,
)
from p2pledger.health.guardian_state import Guardianship, Recovery
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.world import BERG, DAY_MS, FOREVER_MS, PATIENT, PID, World, account

AUNT, BROTHER, COUSIN, FRIEND = "aunt", "brother", "cousin", "friend"
DELAY_MS = 3 * DAY_MS


def commit(name: str) -> bytes:
    return guardian_commit(PID, salt(name), account(name))


def salt(name: str) -> bytes:
    return hash32(f"salt of {name}")


def approvals(names: Sequence[str], data: bytes) -> tuple[Approval, ...]:
    """In any order, as they come in."""
    return tuple(approve(key(name), salt(name), data) for name in names)


@dataclass
class Guarded:
    """Aunt, brother and cousin guard the patient; two of them are enough."""

    world: World = field(default_factory=lambda: World(Parameters(recovery_delay_min_ms=HOUR_MS)))

    def __post_init__(self) -> None:
        assert self.set(AUNT, BROTHER, COUSIN) == Code.OK

    def terms(self, *names: str, **changes: Any) -> GuardianSet:
        named = GuardianSet(PID, 2, sorted_commits([commit(name) for name in names]), DELAY_MS, None, 0)
        return replace(named, **changes)

    def set(self, *names: str, sender: SigningKey = PATIENT, **changes: Any) -> Code:
        return self.world.submit(sender, self.terms(*names, **changes))

    # Recovery

    def asked(self, new: str, *names: str, **changes: Any) -> RecoveryStart:
        """The start of a recovery to the key `new`, approved of by these guardians; `changes` come before."""
        start = RecoveryStart(
            PID, id16(f"recovery to {new}"), account(new), hash32(f"box of {new}"), Millis(FOREVER_MS), (), False
        )
        start = replace(start, **changes)
        if "approvals" in changes:
            return start
        return replace(start, approvals=approvals(names, start_bytes(start, self.world.chain)))

    def start(self, new: str, *names: str, cosigners: Sequence[SigningKey] = (), **changes: Any) -> Code:
        return self.world.submit(key(new), self.asked(new, *names, **changes), cosigners=cosigners)

    def beyond_veto(self, new: str, *names: str, cosigners: Sequence[SigningKey] = (BERG,)) -> Code:
        return self.start(new, *names, cosigners=cosigners, is_beyond_veto=True)

    def veto(self, new: str, sender: SigningKey = PATIENT) -> Code:
        return self.world.submit(sender, RecoveryVeto(PID, id16(f"recovery to {new}")))

    def finalize(self, new: str, sender: SigningKey = BERG) -> Code:
        return self.world.submit(sender, RecoveryFinalize(PID, id16(f"recovery to {new}")))

    # Freezing

    def freeze(self, *names: str, until_ms: int, sender: SigningKey = BERG) -> Code:
        data = freeze_bytes(self.world.chain, PID, until_ms)
        return self.world.submit(sender, Freeze(PID, Millis(until_ms), approvals(names, data)))

    def unfreeze(self, *names: str, until_ms: int, sender: SigningKey = BERG) -> Code:
        data = unfreeze_bytes(self.world.chain, PID, until_ms)
        return self.world.submit(sender, Unfreeze(PID, Millis(until_ms), approvals(names, data)))

    # What is

    @property
    def held(self) -> Guardianship:
        found = guardian_state.guardianship_of(PID, self.world.state)
        assert found is not None
        return found

    def recovery(self, new: str) -> Recovery:
        found = guardian_state.recovery_of(id16(f"recovery to {new}"), self.world.state)
        assert found is not None
        return found

    def pass_time(self, milliseconds: int) -> None:
        self.world.now_ms += milliseconds
