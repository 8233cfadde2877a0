"""Answers readers that ask for shares: judged on the node's thread, written down, computed beside it, judged again.

1. `may_share` on the final state as it is now, with the own clock (health rule 3.5.4).
2. The entries become durable. From then on the release is reported, whatever happens next (I-9).
3. The shares are computed in a worker thread: 0.8 ms of processor time each would hold up every vote behind them. They
   are computed anew whenever they are asked for: a cache would have to be judged all the same, and would keep secrets.
4. If blocks were executed meanwhile, the first step once more: a revocation that overtook us is obeyed (I-2).

Only the key that the access was granted to may ask. What a session, and all together, may have under way is bounded.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from p2pledger.engine.engine import Engine
from p2pledger.engine.events import Now
from p2pledger.health import deposits, joint_key, recovery_release, release
from p2pledger.health.deposits import DepositTable
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import Moment, ReleaseEntry
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node.metrics import Metrics
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected
from p2pledger.primitives.ids import Height, ValidatorId
from p2pledger.threshold.group import Random
from p2pledger.threshold.key_release import ShareHolder
from p2pledger.threshold.long_term import LongTermHolder
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, OneTimeHolder, read_capsule

RECORDS_WAITING_MAX = 16 * limits.RELEASE_RECORDS_MAX
"""Of all sessions together: four seconds of one processor."""
ACCESS_WAIT_S = 2.0
"""For an access that this node has not executed yet: the reader has its receipt from a faster one."""

HolderOf = Callable[[ActiveKey], LongTermHolder | None]
OneTimeHolderOf = Callable[[DepositTable], OneTimeHolder | None]
WriteDown = Callable[[Sequence[ReleaseEntry]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Held:
    """What this node has of the secret that a request is about, whichever of the two kinds it is."""

    holder: ShareHolder
    validator: ValidatorId
    key_epoch: int
    share_epoch: int
    """Of one-time secrets the number of their table."""


@dataclass
class Releasing:
    """One node's answers to `GetShares` and `Judge`."""

    engine: Engine
    holder_of: HolderOf
    """The share of an active key that this node holds."""
    one_time_holder_of: OneTimeHolderOf
    """This node as a member of a table of deposit keys."""
    write_down: WriteDown
    """Returns once the entries are durable."""
    next_block: Callable[[], Awaitable[None]]
    now: Callable[[], Now]
    random: Random
    metrics: Metrics
    started_at: Height
    """The tip of the ledger when the node started."""
    threads: int = 1
    """0: computed on the spot."""
    _under_way: Counter[Session] = field(default_factory=Counter)
    _limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def shares(self, session: Session, question: api.GetShares) -> api.SharesReply:
        """The sealed shares; raises Rejected(code)."""
        request = question.request
        try:
            with trio.move_on_after(ACCESS_WAIT_S):
                while recovery_release.asker_of(request, self.engine.executor.state) is None:
                    await self.next_block()
            self._demand_reader(session, request)
            held = self._held(request)
            with room(self._under_way, session, len(request.openings)):
                shares = await self._released(request, held)
        except Rejected as refusal:
            self.metrics.release_refused[refusal.code].inc()
            raise
        self.metrics.release_shares.inc(len(shares))
        return api.SharesReply(question.id, held.validator, held.holder.index, held.key_epoch, held.share_epoch, shares)

    def judge(self, question: api.Judge) -> api.JudgeReply:
        """What `shares` would say of the request itself."""
        judged = self._judged(question.request)
        asker = recovery_release.asker_of(question.request, self.engine.executor.state)
        if question.reader is not None and asker not in (None, question.reader):
            judged = Code.E_ROLE
        return api.JudgeReply(question.id, int(judged if isinstance(judged, Code) else Code.OK))

    async def _released(self, request: ShareRequest, held: _Held) -> tuple[bytes, ...]:
        entries, judged_at = self._permitted(request), self.engine.executor.executed
        await self.write_down(entries)
        shares = await self._computed(entries, request, held.holder)
        if self.engine.executor.executed != judged_at:
            self._permitted(request)
        if held.key_epoch != ONE_TIME_EPOCH and not self._is_newest(held):
            raise Rejected(Code.E_NO_SHARE, f"key epoch {held.key_epoch} was shared anew meanwhile; ask again")
        return shares

    def _is_newest(self, held: _Held) -> bool:
        active = joint_key.active_key(held.key_epoch, self.engine.executor.state)
        return active is not None and active.key.share_epoch == held.share_epoch

    def _permitted(self, request: ShareRequest) -> tuple[ReleaseEntry, ...]:
        judged = self._judged(request)
        if isinstance(judged, Code):
            raise Rejected(judged, f"no share for access {request.access_id.hex()} at height {self._height}")
        return judged

    def _judged(self, request: ShareRequest) -> Code | tuple[ReleaseEntry, ...]:
        engine = self.engine
        if not is_current(engine, self.started_at):
            return Code.E_STALE
        parameters = engine.founding.parameters
        now = Moment(engine.executor.last.time_ms, self.now().wall_ms, parameters.drift_ms, parameters.heartbeat_ms)
        return recovery_release.may_share(engine.executor.state, engine.chain, request, now)

    @property
    def _height(self) -> Height:
        return self.engine.executor.executed

    def _demand_reader(self, session: Session, request: ShareRequest) -> None:
        asker = recovery_release.asker_of(request, self.engine.executor.state)
        if asker is None:
            raise Rejected(Code.E_NOT_FOUND, f"there is no access {request.access_id.hex()} at height {self._height}")
        if asker != session.account:
            raise Rejected(Code.E_ROLE, f"access {request.access_id.hex()} is not that of key {session.account.hex()}")

    def _held(self, request: ShareRequest) -> _Held:
        epochs = {opening.key_epoch for opening in request.openings}
        if len(epochs) > 1:
            raise Rejected(Code.E_KEY_EPOCH, f"openings of {len(epochs)} key epochs; ask for each epoch by itself")
        (epoch,) = epochs
        if epoch == ONE_TIME_EPOCH:
            return self._held_of_table(request)
        active = joint_key.active_key(epoch, self.engine.executor.state)
        if active is None:
            raise Rejected(Code.E_NOT_FOUND, f"there is no joint key of epoch {epoch} at height {self._height}")
        holder = self.holder_of(active)
        if holder is None:
            raise Rejected(
                Code.E_NO_SHARE, f"this node holds no share of key epoch {epoch}, share epoch {active.key.share_epoch}"
            )
        validator = active.holders[holder.index - 1]
        return _Held(holder, ValidatorId(validator), epoch, active.key.share_epoch)

    def _held_of_table(self, request: ShareRequest) -> _Held:
        try:
            numbers = {read_capsule(capsule).table for capsule in recovery_release.capsules_of(request)}
        except InvalidInput as error:
            raise Rejected(Code.E_CAPSULE, f"no one-time capsule: {error}") from error
        if len(numbers) > 1:
            raise Rejected(Code.E_KEY_EPOCH, f"capsules for {len(numbers)} deposit tables; ask for each by itself")
        (number,) = numbers
        table = deposits.table_of(number, self.engine.executor.state)
        if table is None:
            raise Rejected(Code.E_NOT_FOUND, f"there is no deposit table {number} at height {self._height}")
        holder = self.one_time_holder_of(table)
        if holder is None:
            raise Rejected(Code.E_NO_SHARE, f"this node has no key in deposit table {number}")
        validator = table.holders[holder.index - 1]
        return _Held(holder, ValidatorId(validator), ONE_TIME_EPOCH, number)

    async def _computed(
        self, entries: Sequence[ReleaseEntry], request: ShareRequest, holder: ShareHolder
    ) -> tuple[bytes, ...]:
        def compute() -> tuple[float, tuple[bytes, ...]]:
            began_s = time.thread_time()
            shares = release.shares_of(entries, recovery_release.capsules_of(request), holder, self.random)
            return time.thread_time() - began_s, shares

        try:
            if self.threads == 0:
                await trio.lowlevel.checkpoint()
                spent_s, shares = compute()
            else:
                spent_s, shares = await trio.to_thread.run_sync(compute, limiter=self._limiter)
        except Refused as refusal:
            raise Rejected(refusal.code, "a capsule was not made for its record, or not for this key") from refusal
        self.metrics.node_cpu_seconds["release"].inc(spent_s)
        return shares


def is_current(engine: Engine, started_at: Height) -> bool:
    """Whether this node knows what the others have decided, or nearly: a home restored from a backup does not at first.

    At least one honest validator says that it has committed no more than a window above us; or, where too few have said
    anything yet, a block has been executed here since the start.
    """
    if not engine.is_ready:
        return False
    validators, parameters = engine.founding.validators, engine.founding.parameters
    told = sorted(
        (status.committed for node, status in engine.statuses.items() if validators.of_node(node)), reverse=True
    )
    if len(told) > validators.f:
        return told[validators.f] <= engine.executor.executed + parameters.window
    return engine.executor.executed > started_at or validators.n == 1


@contextmanager
def room(under_way: Counter[Session], session: Session, records: int) -> Iterator[None]:
    """A place for so many records; raises Rejected(E_BUSY) where there is none."""
    own, most = under_way[session], limits.RELEASE_RECORDS_MAX
    if own + records > most:
        raise Rejected(Code.E_BUSY, f"{own} records of this session are under way, {records} more exceed {most}")
    if under_way.total() + records > RECORDS_WAITING_MAX:
        raise Rejected(Code.E_BUSY, f"{RECORDS_WAITING_MAX} records wait for their shares here; try again later")
    under_way[session] += records
    try:
        yield
    finally:
        under_way[session] -= records
        if not under_way[session]:
            del under_way[session]
