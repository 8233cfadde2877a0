"""One validator's deposit keys in a virtual world: `health.deposit_keeper` decides, this performs on its disk."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, assert_never

from p2pledger.health import deposit_check
from p2pledger.health.deposit_keeper import DepositKeeper, WriteDepositKey
from p2pledger.health.deposits import DepositTable
from p2pledger.health.key_keeper import Send, Tell
from p2pledger.health.release import RecordOpening
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from p2pledger.state.view import StateView
from p2pledger.threshold.one_time import OneTimeHolder

if TYPE_CHECKING:
    from p2pledger.sim.keys.holder import KeyHolder

Found = Callable[[Code | tuple[int, ...]], object]
"""Told why a deposit is not taken, or of which records the share is no good one."""


class Depositor:
    """Its keys are durable before they are announced; what it owes to writers is forgotten in a crash."""

    def __init__(self, holder: "KeyHolder") -> None:
        self.holder = holder
        self._keeper: DepositKeeper | None = None

    def crashed(self) -> None:
        """What is not on the disk is gone."""
        self._keeper = None

    def keeper(self) -> DepositKeeper:
        """Of this life, made from what is on the disk."""
        if self._keeper is None:
            disk = self.holder.disk
            secrets = {int(name.split("-")[1]): disk.get(name) or b"" for name in disk.names("deposit-")}
            self._keeper = DepositKeeper(self.holder.node.validator, secrets, self.holder.chance.randbytes)
        return self._keeper

    def member_of(self, table: DepositTable | None) -> OneTimeHolder | None:
        """This validator with the key that stands in a table."""
        return None if table is None else self.keeper().holder(table)

    def step(self, state: StateView, now_ms: int) -> None:
        """Announce and acknowledge what is due."""
        for effect in self.keeper().step(state, now_ms):
            match effect:
                case WriteDepositKey():
                    self.holder.keep(f"deposit-{effect.number}", effect.secret, "a deposit key")
                case Send() | Tell():
                    self.holder.perform(effect)
                case _:
                    assert_never(effect)

    def show(self, account: AccountKey, openings: Sequence[RecordOpening], found: Found) -> None:
        """A custodian shows capsules of one batch; a node that is down says nothing."""
        engine = self.holder.node.engine
        if engine is None or not engine.is_ready:
            return
        chain = self.holder.world.consortium.founding.chain
        work = deposit_check.to_check(engine.executor.state, chain, account, openings)
        if isinstance(work, Code):
            found(work)
            return
        holder = self.member_of(work.table)
        if holder is None or not self.keeper().has_room(work.batch_id):
            found(Code.E_NO_SHARE if holder is None else Code.E_BUSY)
            return
        good = self.holder.good_of(work, holder)
        self.keeper().found_good(work.batch_id, work.table.number, good)
        found(tuple(sorted({one.label.index for one in work.shown}.difference(good))))
