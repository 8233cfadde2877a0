"""This node's part in one-time secrets: its deposit keys, and the check of what writers deposit (health rule 3.6).

`health/deposit_keeper.py` decides what to announce and to acknowledge, and this performs it: a key is durable before it
is announced. A deposit is judged on the node's thread, its boxes are opened in a worker thread (0.6 ms each), and what
is good is owed to the chain from then on. Nothing of it is kept: each share waits in its box, inside the capsule.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import structlog
import trio

from p2pledger.engine.engine import Engine
from p2pledger.engine.events import DutiesOwed, EngineEvent
from p2pledger.health import deposit_check, records
from p2pledger.health.deposit_check import ToCheck
from p2pledger.health.deposit_keeper import DepositEffect, DepositKeeper, WriteDepositKey
from p2pledger.health.deposits import DepositTable
from p2pledger.health.key_keeper import STEP_MS, Send, Tell
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node.metrics import Metrics
from p2pledger.node.release import ACCESS_WAIT_S, room
from p2pledger.node.surroundings import Surroundings
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.storage.deposit_files import DepositFiles
from p2pledger.threshold.key_release import ShareHolder
from p2pledger.threshold.one_time import OneTimeHolder

log = structlog.get_logger()


@dataclass
class Depositing:
    """A node whose organisation has no seat has no keeper, and refuses every deposit."""

    engine: Engine
    files: DepositFiles
    surroundings: Surroundings
    metrics: Metrics
    post: Callable[[EngineEvent], None]
    """News for the engine."""
    next_block: Callable[[], Awaitable[None]]
    threads: int = 1
    """0: boxes are opened on the spot."""
    keeper: DepositKeeper | None = field(init=False)
    _under_way: Counter[Session] = field(default_factory=Counter)
    _limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    def __post_init__(self) -> None:
        validator = self.engine.founding.validators.of_node(self.engine.me)
        self.keeper = None
        if validator is not None:
            random = self.surroundings.transport.random_bytes
            self.keeper = DepositKeeper(validator, self.files.load(), random)

    def holder_of(self, table: DepositTable) -> OneTimeHolder | None:
        """This node as a member of a table."""
        return None if self.keeper is None else self.keeper.holder(table)

    async def run(self) -> None:
        """Until cancelled. Raises StoreError, which stops the node."""
        if self.keeper is None:
            return
        while True:
            if self.engine.is_ready:
                now_ms = self.surroundings.now().monotonic_ms
                for effect in self.keeper.step(self.engine.executor.state, now_ms):
                    await self._perform(effect)
            with trio.move_on_after(STEP_MS / 1000):
                await self.next_block()

    async def _perform(self, effect: DepositEffect) -> None:
        match effect:
            case WriteDepositKey():
                await self.surroundings.disk(partial(self.files.write, effect.number, effect.secret))
                log.info("deposit_key_kept", number=effect.number)
            case Send():
                self.post(DutiesOwed(effect.operations))
            case Tell():
                log.info(effect.name, **effect.values)
            case _:
                assert_never(effect)

    async def deposit(self, session: Session, question: api.Deposit) -> api.DepositReply:
        """Which shares are good; they are acknowledged from now on. Raises Rejected(code)."""
        state = self.engine.executor.state
        batch_id = question.openings[0].batch_id
        with trio.move_on_after(ACCESS_WAIT_S):
            while records.batch_of(batch_id, state := self.engine.executor.state) is None:
                await self.next_block()
        work = deposit_check.to_check(state, self.engine.chain, session.account, question.openings)
        if isinstance(work, Code):
            raise Rejected(work, f"{len(question.openings)} records of batch {batch_id.hex()} are not taken in deposit")
        holder = self.holder_of(work.table)
        if self.keeper is None or holder is None:
            raise Rejected(Code.E_NO_SHARE, f"this node has no key in deposit table {work.table.number}")
        with room(self._under_way, session, len(work.shown)):
            good = await self._checked(work, holder)
        if not self.keeper.has_room(batch_id):
            raise Rejected(Code.E_BUSY, f"{limits.DEPOSITS_OWED_MAX} batches wait to be acknowledged; try again later")
        self.keeper.found_good(batch_id, work.table.number, good)
        bad = sorted({one.label.index for one in work.shown}.difference(good))
        validator = work.table.holders[holder.index - 1]
        return api.DepositReply(question.id, validator, work.table.number, tuple(bad))

    async def _checked(self, work: ToCheck, holder: ShareHolder) -> tuple[int, ...]:
        def check() -> tuple[float, tuple[int, ...]]:
            began_s = time.thread_time()
            good = deposit_check.good_of(work, holder)
            return time.thread_time() - began_s, good

        if self.threads == 0:
            await trio.lowlevel.checkpoint()
            spent_s, good = check()
        else:
            spent_s, good = await trio.to_thread.run_sync(check, limiter=self._limiter)
        self.metrics.node_cpu_seconds["release"].inc(spent_s)
        return good
