"""Performs what the keeper of joint keys asks for, and decides nothing (health/key_keeper.py).

One task: after each block, and now and then, it asks the keeper what to do. Secrets are durable before anything after
them; words go through the engine, which has the node's nonces. A node whose organisation has no seat has no keeper.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import structlog
import trio

from p2pledger.engine.engine import Engine
from p2pledger.engine.events import DutiesOwed, EngineEvent
from p2pledger.health import joint_key
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.key_keeper import (
    STEP_MS,
    DeleteSecret,
    DropWish,
    KeeperEffect,
    KeyKeeper,
    Reported,
    Send,
    Sight,
    Tell,
    Wish,
    WriteSecret,
)
from p2pledger.health.release import ReleaseEntry
from p2pledger.node.metrics import Metrics
from p2pledger.node.surroundings import Surroundings
from p2pledger.primitives.ids import NodeId
from p2pledger.storage.release_entries import ReleaseEntries
from p2pledger.storage.share_files import ShareFiles
from p2pledger.threshold.long_term import LongTermHolder

log = structlog.get_logger()


@dataclass
class Sharing:
    """One node's part in key ceremonies and its memory of releases."""

    engine: Engine
    files: ShareFiles
    releases: ReleaseEntries
    surroundings: Surroundings
    metrics: Metrics
    post: Callable[[EngineEvent], None]
    """News for the engine."""
    next_block: Callable[[], Awaitable[None]]
    begins: bool
    peers: frozenset[NodeId]
    """The nodes to which this one wants links."""
    keeper: KeyKeeper | None = field(init=False)
    _wishes: set[Wish] = field(default_factory=set)

    def __post_init__(self) -> None:
        engine = self.engine
        validator = engine.founding.validators.of_node(engine.me)
        self.keeper = None
        if validator is not None:
            self._wishes = self.files.wishes()
            self.keeper = KeyKeeper(
                engine.chain,
                validator,
                self.files.load(),
                self.releases.unreported(),
                self._wishes,
                self.surroundings.transport.random_bytes,
                begins=self.begins,
            )

    def holder_of(self, active: ActiveKey) -> LongTermHolder | None:
        """The share of this sharing that this node holds."""
        return None if self.keeper is None else self.keeper.holder(active)

    async def write_down(self, entries: Sequence[ReleaseEntry]) -> None:
        """Return once the entries are durable; from then on they are reported."""
        totals: dict[bytes, int] = {}

        def write() -> None:
            totals.update(self.releases.add(entries))

        await self.surroundings.disk(write)
        if self.keeper is not None:
            self.keeper.entered(totals)

    async def run(self) -> None:
        """Until cancelled. Raises StoreError, which stops the node."""
        if self.keeper is None:
            return
        while True:
            for wish in self.files.wishes() - self._wishes:
                self._wishes.add(wish)
                self.keeper.wished(wish)
            for effect in self.keeper.step(self._sight()):
                await self._perform(effect)
            self._read(self.keeper)
            with trio.move_on_after(STEP_MS / 1000):
                await self.next_block()

    def _sight(self) -> Sight:
        engine, now = self.engine, self.surroundings.now()
        block_ms = engine.executor.last.time_ms
        return Sight(
            engine.executor.state,
            block_ms,
            max(block_ms, now.wall_ms - engine.founding.parameters.drift_ms),
            now.monotonic_ms,
            engine.is_ready,
            self.peers <= engine.router.links,
        )

    async def _perform(self, effect: KeeperEffect) -> None:
        match effect:
            case WriteSecret():
                await self.surroundings.disk(partial(self.files.write, effect.name, effect.secret))
                log.info("secret_kept", what=str(effect.name))
            case DeleteSecret():
                await self.surroundings.disk(partial(self.files.erase, effect.name))
                log.info("secret_erased", what=str(effect.name))
            case Send():
                self.post(DutiesOwed(effect.operations))
            case Reported():
                await self.surroundings.disk(partial(self.releases.reported, effect.counts))
            case DropWish():
                self._wishes.discard(effect.wish)
                await self.surroundings.disk(partial(self.files.drop, effect.wish))
            case Tell():
                log.info(effect.name, **effect.values)
            case _:
                assert_never(effect)

    def _read(self, keeper: KeyKeeper) -> None:
        """Bring the gauges up to date."""
        state, metrics = self.engine.executor.state, self.metrics
        active = joint_key.newest_key(state)
        ceremony = joint_key.running(state, self.engine.executor.last.time_ms)
        metrics.sharing_phase.set(0 if ceremony is None else int(ceremony.phase))
        metrics.sharing_key_epoch.set(0 if active is None else active.key.key_epoch)
        metrics.sharing_share_epoch.set(0 if active is None else active.key.share_epoch)
        metrics.sharing_holds_share.set(0 if active is None or keeper.holder(active) is None else 1)
        metrics.release_unreported.set(keeper.unreported)
