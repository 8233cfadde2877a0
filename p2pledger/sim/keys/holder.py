"""One validator's share of the joint key in a virtual world, with a disk that outlives it.

What it says, writes and deletes `health.key_keeper` decides, the code of the real node; readers are answered as
`health.release` decides. It may crash between any two of these steps; each step is a boundary with a name.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from p2pledger.execution.contract import Duty
from p2pledger.health import access, deposit_check, deposits, joint_key, recovery_release, release
from p2pledger.health.deposit_check import ToCheck
from p2pledger.health.joint_key_operations import LtsDeal
from p2pledger.health.key_keeper import (
    DeleteSecret,
    DropWish,
    KeeperEffect,
    KeyKeeper,
    Reported,
    SecretName,
    Send,
    Sight,
    Tell,
    Wish,
    WriteSecret,
)
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import Moment, ReleaseEntry
from p2pledger.primitives.errors import Code, InvalidInput, Refused
from p2pledger.sim.keys.depositor import Depositor
from p2pledger.sim.keys.disk import Disk
from p2pledger.sim.observer.releases import Ref, Share
from p2pledger.state.view import StateView
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.long_term import LongTermHolder
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, OneTimeHolder, read_capsule
from p2pledger.threshold.participant import seeded

if TYPE_CHECKING:
    from p2pledger.sim.keys.ward import Ward
    from p2pledger.sim.node import SimNode
    from p2pledger.sim.world import World

SECRETS = ("seed-", "share-")
"""How the names of secret files begin."""
FILES = ("a seed", "a share", "a wish", "the end of a seed", "the end of a share", "the end of a wish", "a deposit key")
WORDS = (
    *("LtsInit", "LtsDeal", "LtsComplaint", "LtsJustify", "LtsActivate", "ReleaseReceipt"),
    *("DepositKey", "DepositAck"),
)
BOUNDARIES = (
    *(f"{when} {word}" for word in WORDS for when in ("before", "after")),
    *(
        f"{when} {file} is {done}"
        for file in FILES
        for when, done in (("before", "written"), ("before", "synced"), ("after", "synced"))
    ),
    "before an entry is written",
    "before an entry is synced",
    "between an entry and its share",
    "before shares are sent",
    "after shares are sent",
)
"""All that lies between two steps of a ceremony or of a release."""
STEP_MS = 250
"""The real node's is 500; and it steps after each block, too."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a validator sends to a reader."""

    index: int
    sharing: tuple[int, int]
    shares: tuple[bytes, ...]
    """Sealed, in the order of the openings."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What was judged, and is written down: the shares are being computed."""

    request: ShareRequest
    entries: tuple[ReleaseEntry, ...]
    height: int
    """At which it was judged."""


Reply = Callable[[Answer | Code], object]


class _Crashed(Exception):
    pass


class KeyHolder:
    """An honest validator's keys: `health.key_keeper` decides, this performs. Its disk alone outlives a crash."""

    def __init__(self, world: "World", ward: "Ward", node: "SimNode") -> None:
        self.world, self.ward, self.node = world, ward, node
        self.chance = world.chance[f"keys {node.index}"]
        self.disk = Disk()
        self._keeper: KeyKeeper | None = None
        self.depositor = Depositor(self)
        self._backup: dict[str, bytes] = {}
        self._has_died_there = False
        world.at(self.chance.randint(1, STEP_MS), self._step)

    @property
    def index_of_share(self) -> int:
        """The index of this validator's shares."""
        return sorted(node.validator for node in self.world.nodes).index(self.node.validator) + 1

    # Lives

    def keeper(self) -> KeyKeeper:
        """Of this life, made from what is on the disk."""
        if self._keeper is None:
            secrets = {_secret_name(name): self._file(name) for name in self.disk.names(SECRETS)}
            wishes = [Wish(*map(int, name.split("-")[1:])) for name in self.disk.names("wish-")]
            chain, random = self.world.consortium.founding.chain, self.chance.randbytes
            self._keeper = KeyKeeper(chain, self.node.validator, secrets, self._entries(), wishes, random, begins=True)
        return self._keeper

    def _file(self, name: str) -> bytes:
        data = self.disk.get(name)
        assert data is not None, f"{name} was listed"
        return data

    def _entries(self) -> Counter[bytes]:
        """By access: of how many records there are entries."""
        return Counter(bytes.fromhex(name.split("/")[1]) for name in self.disk.names("entry/"))

    def crashed(self) -> None:
        """The node is gone: so is what was not synced, or half of it."""
        self._keeper = None
        self.depositor.crashed()
        self._became_durable(self.disk.crash(self.chance))
        if self.ward.restores == self.node.index and self._backup:
            self.disk.restore(self._backup, SECRETS)
            self._reached("an old backup is restored")
            self._became_durable(dict(self.disk.copy()))

    def _became_durable(self, files: Mapping[str, bytes | None]) -> None:
        judge, node = self.world.observer.releases, self.node.index
        for name, data in files.items():
            if name.startswith("share-"):
                sharing = _secret_name(name).sharing
                if data is None:
                    judge.deleted(node, sharing)
                else:
                    judge.kept(node, sharing, data)
            elif name.startswith("entry/"):
                _, access_id, what, index = name.split("/")
                judge.entered(node, bytes.fromhex(access_id), (bytes.fromhex(what), int(index)))

    def _boundary(self, where: str) -> None:
        """Between two steps: the node may die here, by chance or because this is where every node shall die once."""
        if self.world.network.is_healed:
            return
        is_drawn = self.ward.harm and self.chance.random() < self.ward.harm
        is_meant = where == self.ward.dies and not self._has_died_there
        if is_drawn or is_meant:
            self._has_died_there |= is_meant
            self._reached(f"crash {where}")
            self.node.crash_for_a_while()
            raise _Crashed

    def keep(self, name: str, data: bytes | None, what: str) -> None:
        """Make a file durable, or its absence."""
        self._boundary(f"before {what} is written")
        if data is None:
            self.disk.delete(name)
        else:
            self.disk.put(name, data)
        self._boundary(f"before {what} is synced")
        self._became_durable(self.disk.sync())
        self._boundary(f"after {what} is synced")

    def _reached(self, what: str) -> None:
        self.world.observer.reached[what] += 1

    # Duties

    def _step(self) -> None:
        self.world.at(STEP_MS, self._step)
        engine = self.node.engine
        if engine is None:
            return
        wall_ms = self.node.moment().wall_ms - self.world.parameters.drift_ms
        block_ms = int(engine.executor.last.time_ms)
        are_all_up = all(node.engine is not None for node in self.world.nodes)
        state = engine.executor.state
        sight = Sight(state, block_ms, max(wall_ms, block_ms), self.world.now, engine.is_ready, are_all_up)
        try:
            self._wish(state)
            for effect in self.keeper().step(sight):
                self.perform(effect)
            if engine.is_ready:
                self.depositor.step(state, self.world.now)
        except _Crashed:
            pass

    def _wish(self, state: StateView) -> None:
        wish = self.ward.wish(state, self.node.index)
        if wish is not None and self.disk.get(str(wish)) is None:
            self.keep(str(wish), b"1", "a wish")
            self.keeper().wished(wish)

    def good_of(self, work: ToCheck, holder: OneTimeHolder) -> tuple[int, ...]:
        """What it acknowledges of a deposit."""
        return deposit_check.good_of(work, holder)

    def perform(self, effect: KeeperEffect) -> None:
        """One effect of a keeper, in the order in which it asks."""
        match effect:
            case WriteSecret():
                self.keep(str(effect.name), self.secret(effect), f"a {effect.name.kind}")
            case DeleteSecret():
                self.delete(effect.name)
            case Send():
                words = sorted({type(operation).__name__ for operation in effect.operations})
                self._boundary(f"before {words[0]}")
                self.say(self.spoken(effect.operations))
                self._boundary(f"after {words[0]}")
            case DropWish():
                self.keep(str(effect.wish), None, "the end of a wish")
            case Tell():
                self._reached(effect.name)
            case Reported():
                pass  # a keeper that starts again finds it out by itself
            case _:
                assert_never(effect)

    def secret(self, effect: WriteSecret) -> bytes:
        """What is really written."""
        return effect.secret

    def delete(self, name: SecretName) -> None:
        """What is over goes; a backup from before may come back."""
        if name.kind == "share":
            self._backup = self.disk.copy()
        self.keep(str(name), None, f"the end of a {name.kind}")

    def spoken(self, operations: Sequence[Duty]) -> Sequence[Duty]:
        """What is really said."""
        is_refresh = any(isinstance(each, LtsDeal) and each.ceremony.share_epoch for each in operations)
        if is_refresh and any(node.engine is None for node in self.world.nodes):
            self._reached("refresh with a crashed holder")
        return operations

    def say(self, operations: Sequence[Duty]) -> None:
        """Hand a transaction of this validator's node to its own engine."""
        if operations:
            key = self.world.consortium.nodes[self.node.index]
            self.world.submit_signed(self.node.index, key, operations)

    # Readers

    def ask(self, request: ShareRequest, asker: bytes, reply: Reply) -> None:
        """A reader's question; a node that is down answers nothing, one that dies meanwhile neither."""
        if self.node.engine is None:
            return
        try:
            answer = self.answer(request, asker)
        except _Crashed:
            return
        if not isinstance(answer, Promise):
            reply(answer)
            return
        life = self.node.incarnation
        self.world.at(self.chance.choice([0, 5, 50, 400]), lambda: self._keep_promise(answer, life, reply))

    def _keep_promise(self, promise: "Promise", life: int, reply: Reply) -> None:
        """The shares are computed, and blocks may have come meanwhile."""
        if self.node.engine is None or self.node.incarnation != life:
            return
        with suppress(_Crashed):
            reply(self.shares(promise))

    def moment(self) -> Moment:
        """What time it is for this node."""
        engine = self.node.engine
        assert engine is not None
        parameters = self.world.parameters
        wall_ms = self.node.moment().wall_ms
        return Moment(int(engine.executor.last.time_ms), wall_ms, parameters.drift_ms, parameters.heartbeat_ms)

    def answer(self, request: ShareRequest, asker: bytes) -> "Answer | Code | Promise":
        """Judge and write down."""
        engine = self.node.engine
        assert engine is not None
        decided = access.access_of(request.access_id, engine.executor.state)
        if recovery_release.asker_of(request, engine.executor.state) not in (None, asker):
            return Code.E_ROLE
        entries = self.judged(request)
        if isinstance(entries, Code):
            if decided is not None and decided.decision == Code.OK:
                self._reached(f"refused after it was allowed: {entries.name}")
            return entries
        if self.held(request) is None:
            return Code.E_NO_SHARE
        self._boundary("before an entry is written")
        for entry in entries:
            self.disk.put(_entry_name(entry), b"1")
        self._boundary("before an entry is synced")
        self._became_durable(self.disk.sync())
        written = self._entries()
        self.keeper().entered({entry.access.access_id: written[entry.access.access_id] for entry in entries})
        self._boundary("between an entry and its share")
        return Promise(request, entries, int(engine.executor.last.height))

    def judged(self, request: ShareRequest) -> Code | tuple[ReleaseEntry, ...]:
        """What this validator's state and clock say now."""
        engine = self.node.engine
        assert engine is not None
        chain = self.world.consortium.founding.chain
        return recovery_release.may_share(engine.executor.state, chain, request, self.moment())

    def shares(self, promise: "Promise") -> Answer | Code:
        """What leaves, unless blocks that came meanwhile speak against it (I-2)."""
        engine = self.node.engine
        assert engine is not None
        height = int(engine.executor.last.height)
        again = self.judged(promise.request) if height != promise.height else promise.entries
        if isinstance(again, Code):
            self._reached(f"refused after it was written down: {again.name}")
            return again
        holder = self.held(promise.request)
        if holder is None:
            return Code.E_NO_SHARE
        capsules = recovery_release.capsules_of(promise.request)
        try:
            sealed = tuple(
                release.share_of(entry, capsule, holder, seeded(self.chance.randbytes(32)))
                for entry, capsule in zip(promise.entries, capsules, strict=True)
            )
        except Refused as refused:
            return refused.code
        self._boundary("before shares are sent")
        sharing = sharing_of(holder)
        for entry, capsule, share in zip(promise.entries, capsules, sealed, strict=True):
            self.let_go(height, self.node.moment().wall_ms, entry, capsule, sharing, share)
        if height < max(self.world.heights()):
            self._reached("release at a node behind")
        self._boundary("after shares are sent")
        return Answer(holder.index, sharing, sealed)

    def held(self, request: ShareRequest) -> LongTermHolder | OneTimeHolder | None:
        """What this validator has of the secret that a request is about, of whichever kind it is."""
        opening = request.openings[0]
        if opening.key_epoch != ONE_TIME_EPOCH:
            return self.holder(opening.key_epoch)
        engine = self.node.engine
        assert engine is not None
        try:
            table = deposits.table_of(read_capsule(opening.capsule).table, engine.executor.state)
        except InvalidInput:
            return None
        return self.depositor.member_of(table)

    def holder(self, key_epoch: int) -> LongTermHolder | None:
        """This validator with its share of the newest sharing of a key, if it has that."""
        engine = self.node.engine
        assert engine is not None
        active = joint_key.active_key(key_epoch, engine.executor.state)
        if active is None:
            return None
        found = self.keeper().holder(active)
        if found is None and self.disk.names(f"share-{key_epoch}-"):
            self._reached("an old share is not used")
        return found

    def let_go(
        self, height: int, wall_ms: int, entry: ReleaseEntry, capsule: bytes, sharing: tuple[int, int], sealed: bytes
    ) -> None:
        """A share leaves: the observer is told."""
        reader, ref = entry.access.reader, _ref(entry)
        share = Share(self.node.index, height, wall_ms, entry.access.access_id, reader, ref, sharing, capsule, sealed)
        self.world.observer.releases.released(share)


def sharing_of(holder: LongTermHolder | OneTimeHolder) -> tuple[int, int]:
    """Whose shares open a capsule together, as `observer.releases.Sharing` names it."""
    if isinstance(holder, OneTimeHolder):
        return ONE_TIME_EPOCH, holder.table
    return holder.key.key_epoch, holder.key.share_epoch


def _secret_name(text: str) -> SecretName:
    kind, *numbers = text.split("-")
    assert kind in ("seed", "share")
    return SecretName("seed" if kind == "seed" else "share", CeremonyId(*map(int, numbers)))


def _entry_name(entry: ReleaseEntry) -> str:
    name, index = _ref(entry)
    return f"entry/{entry.access.access_id.hex()}/{name.hex()}/{index}"


def _ref(entry: ReleaseEntry) -> Ref:
    """As the observer names what an entry is about."""
    is_record = entry.label.purpose == "record"
    return (entry.label.batch_id, entry.label.index) if is_record else (entry.capsule, 0)
