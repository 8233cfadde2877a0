"""Liars among voters: what they say, to whom, how often, how late, and of which view and height."""

from msgspec.structs import replace

from p2pledger.chain.statement import Claim
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    Vote,
)
from p2pledger.messages import Status
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import BlockHash, Epoch, Height, Signature, View
from p2pledger.sim.adversaries.base import Adversary
from p2pledger.sim.node import SimNode

REMEMBERED = 500


class Silent(Adversary):
    """Says nothing at all."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        return []


class Withholder(Adversary):
    """Speaks to some, by chance."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        if self.chance.random() < 0.5:
            return [body]
        self.acts()
        return []


class SlowLoris(Adversary):
    """Says everything as late as it can without being taken for dead: just below the timeout."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        self.acts()
        timeout = self.world.parameters.timeout_ms
        self.world.carry(self.node.index, target, body, after=timeout - self.chance.randint(1, 30))
        return []


class Replayer(Adversary):
    """Keeps what it hears and says, and sends it again when its time is long over."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def hearer(self, source: int, body: bytes) -> SimNode | None:
        self._keep(body)
        return super().hearer(source, body)

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        self._keep(body)
        return [body]

    def _keep(self, body: bytes) -> None:
        if len(self._kept) < REMEMBERED:
            self._kept.append(body)
        else:
            self._kept[self.chance.randrange(REMEMBERED)] = body

    def idle(self) -> None:
        for body in self.chance.sample(self._kept, min(len(self._kept), 10)):
            self.acts()
            self.world.carry(self.node.index, self.chance.choice(self.others()), body)


class LiarInViewChange(Adversary):
    """Claims older locks than it has, none at all, or such as nobody ever certified (P9, P11)."""

    def __init__(self) -> None:
        self._locks: list[Certificate] = []

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if not isinstance(said, ViewChange):
            return [body]
        self.acts()
        if said.lock is not None and said.lock not in self._locks:
            self._locks.append(said.lock)
        return [self.say(self.chance.choice([self._nothing, self._stale, self._forged, self._mismatched])(said))]

    def _nothing(self, said: ViewChange) -> ViewChange:
        return replace(said, claim=None, lock=None)

    def _stale(self, said: ViewChange) -> ViewChange:
        if not self._locks:
            return said
        lock = self.chance.choice(self._locks)
        return self._claiming(said, lock)

    def _forged(self, said: ViewChange) -> ViewChange:
        founding = self.world.consortium.founding
        votes = tuple(Vote(seat, Signature(bytes(64))) for seat in range(founding.validators.q))
        view, height = View(max(0, said.view - 1)), Height(self.node.ledger.tip() + 1)
        block = BlockHash(self.chance.randbytes(32))
        return self._claiming(said, Certificate("prepare", said.epoch, view, height, block, votes))

    def _mismatched(self, said: ViewChange) -> ViewChange:
        if said.claim is None:
            return said
        return replace(said, claim=replace(said.claim, height=Height(said.claim.height + 1)))

    def _claiming(self, said: ViewChange, lock: Certificate) -> ViewChange:
        return replace(said, claim=Claim(lock.view, lock.height, lock.block_hash), lock=lock)


class FutureSpammer(Adversary):
    """Properly signed votes, proposals and view changes of heights and views far ahead (T18, P10, P23)."""

    def idle(self) -> None:
        engine = self.node.engine
        if engine is None:
            return
        self.acts()
        base, me = engine.replica, self.node.validator
        for _ in range(10):
            view = View(base.view + self.chance.choice([0, 1, 2, 7, 9, 1_000, 2**31]))
            height = Height(base.committed + self.chance.choice([1, 2, 4, 9, 50, 10**6, 2**40]))
            block = BlockHash(self.chance.randbytes(32))
            said: list[Message] = [
                Prepare(base.epoch, view, height, block, me),
                Commit(base.epoch, view, height, block, me),
                ViewChange(base.epoch, view, None, me, None, None),
                Prepare(Epoch(base.epoch + 1), view, height, block, me),
            ]
            body = self.say(self.chance.choice(said))
            for target in self.others():
                self.world.carry(self.node.index, target, body)
        status = encode(Status(base.epoch, View(2**40), True, Height(2**40)))
        self.world.carry(self.node.index, self.chance.choice(self.others()), status)


class Twin(Adversary):
    """Two honest copies of one identity, each talking to a part of the others that keeps changing.

    Source: Bano et al., "Twins: BFT Systems Made Robust", OPODIS 2021.
    """

    def __init__(self) -> None:
        self._to_copy: set[int] = set()
        """Those who hear, and are heard by, the second copy."""

    def begin(self) -> None:
        """The second copy starts, with a disk of its own."""
        self.copy = SimNode(self.world, self.node.index, _Copy(self), is_amnesiac=False)
        self.copy.start()
        self.idle()

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        return [] if target in self._to_copy else [body]

    def outgoing_of_copy(self, target: int, body: bytes) -> list[bytes]:
        """What the second copy says reaches only its own part."""
        return [body] if target in self._to_copy else []

    def hearer(self, source: int, body: bytes) -> SimNode | None:
        hearer = super().hearer(source, body)
        return self.copy if hearer is not None and source in self._to_copy else hearer

    def idle(self) -> None:
        if self.chance.random() < 0.3:
            self.acts()
            self._to_copy = {index for index in self.others() if self.chance.random() < 0.5}


class _Copy(Adversary):
    """What the second copy of a twin is joined to."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        return self._twin.outgoing_of_copy(target, body)


class Mutator(Adversary):
    """Small changes of its own valid messages, signed anew: one place more or less, another block, another epoch.

    Which kinds of messages of which rounds are changed, and for whom, is drawn once, so that a change is consistent
    within a round. Source: Winter et al., "Randomized Testing of Byzantine Fault Tolerant Algorithms" (ByzzFuzz),
    OOPSLA 2023.
    """

    def __init__(self) -> None:
        self._seen: list[BlockHash] = []

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if said is None:
            return [body]
        if not isinstance(said, ViewChange | NewView):
            self._seen = [*self._seen[-20:], said.block_hash]
        draw = self.world.chance[f"mutation {self.node.index} {type(said).__name__} {said.view} {target % 2}"]
        if draw.random() >= 0.15:
            return [body]
        self.acts()
        changed = self._changed(said)
        return [] if changed is None else [self.say(changed)]

    def _changed(self, said: Message) -> Message | None:
        chance = self.chance
        kind = chance.randrange(4)
        if kind == 0:
            return None
        if kind == 1:
            return replace(said, view=View(max(0, said.view + chance.choice([-1, 1]))))
        if kind == 2:
            return replace(said, epoch=Epoch(said.epoch + 1))
        match said:
            case Prepare() | Commit():
                if chance.random() < 0.5:
                    return replace(said, height=Height(max(0, said.height + chance.choice([-1, 1]))))
                return replace(said, block_hash=chance.choice(self._seen))
            case PrePrepare():
                header = replace(said.header, height=Height(max(0, said.header.height + chance.choice([-1, 1]))))
                return replace(said, header=header)
            case ViewChange():
                return replace(said, committed=None)
            case NewView():
                return replace(said, claims=said.claims[1:])
