"""I-11 as a property: whatever patients, guardians and thieves try in whatever order, the contracts do what a model of
names and times says. A recovery is never final before its delay, never after a veto, never with too few."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import access, directory
from p2pledger.health.guardian_operations import RecoveryStart, recovery_bytes
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ChainId
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.guarded import Guarded, approvals
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, PID, TAL, World, account

PEOPLE = ("aunt", "brother", "cousin", "friend", "foe")
DELAYS_MS = (HOUR_MS, DAY_MS, 20 * DAY_MS)
LONG_MS, FREEZE_MS = 14 * DAY_MS, 30 * DAY_MS
SOME = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4)


@dataclass
class Waiting:
    """A recovery as people would write it down."""

    to: str
    due_ms: int
    has_veto: bool
    circle: "Circle"


@dataclass(frozen=True)
class Circle:
    """Guardians by name."""

    names: frozenset[str]
    needed: int
    delay_ms: int

    def agrees(self, names: Sequence[str], more: int = 0) -> bool:
        """Whether these are enough, each once, and all of the circle."""
        enough = min(self.needed + more, len(self.names))
        return len(set(names)) == len(names) >= enough and self.names.issuperset(names)


@dataclass
class Model:
    """Who owns the patient's key, who guards it, and what is under way."""

    owner: str = "patient"
    circle: Circle | None = None
    wish: tuple[int, Circle] | None = None
    waiting: Waiting | None = None
    vetoes: int = 0
    frozen: tuple[int, int] | None = None
    """From when until when."""
    last_freeze_ms: int = 0
    used: set[str] = field(default_factory=set)
    """New keys that a recovery was started with."""

    def is_frozen(self, now_ms: int) -> bool:
        return self.frozen is not None and self.frozen[0] <= now_ms < self.frozen[1]

    def settle(self, now_ms: int) -> None:
        if self.wish is not None and self.wish[0] <= now_ms and not self.is_frozen(now_ms):
            self.circle, self.wish, self.vetoes = self.wish[1], None, 0


class Recoveries(RuleBasedStateMachine):
    """The contracts beside the model."""

    @initialize()
    def begin(self) -> None:
        self.guarded = Guarded.__new__(Guarded)
        self.guarded.world = World(Parameters(recovery_delay_min_ms=HOUR_MS))
        self.model = Model()
        self.numbers = iter(range(10_000))
        self.past: list[RecoveryStart] = []

    @property
    def world(self) -> World:
        return self.guarded.world

    def now(self) -> int:
        self.model.settle(self.world.now_ms)
        return self.world.now_ms

    @rule(names=st.sets(st.sampled_from(PEOPLE), min_size=1, max_size=4), needed=st.integers(1, 4),
          delay_ms=st.sampled_from((*DELAYS_MS, HOUR_MS - 1)), by_owner=st.booleans())  # fmt: skip
    def set_guardians(self, names: set[str], needed: int, delay_ms: int, by_owner: bool) -> None:
        now_ms, model = self.now(), self.model
        sender = key(model.owner) if by_owner else DOCTOR
        code = self.guarded.set(*names, sender=sender, threshold=needed, delay_ms=delay_ms)
        good = by_owner and 2 <= needed <= len(names) and delay_ms >= HOUR_MS
        assert (code == Code.OK) == good, code
        if not good:
            return
        circle = Circle(frozenset(names), needed, delay_ms)
        if model.circle is None:
            model.circle = circle
        else:
            model.wish = (now_ms + model.circle.delay_ms, circle)

    @rule(names=SOME, beyond=st.booleans(), cosigner=st.sampled_from([BERG, TAL, None]),
          spoilt=st.sampled_from([None, None, None, "chain", "pid", "key", "sender", "used"]))  # fmt: skip
    def start(self, names: list[str], beyond: bool, cosigner: object, spoilt: str | None) -> None:
        now_ms, model, world = self.now(), self.model, self.world
        to = f"new {next(self.numbers)}"
        if spoilt == "used" and model.used:
            to = sorted(model.used)[0]
        asked = self.guarded.asked(to, *names, is_beyond_veto=beyond)
        chain = ChainId(hash32("other")) if spoilt == "chain" else world.chain
        pid = id16("another patient") if spoilt == "pid" else PID
        signed_for = account("thief") if spoilt == "key" else asked.key
        data = recovery_bytes(chain, pid, asked.recovery, signed_for, asked.box, asked.not_after_ms)
        asked = replace(asked, approvals=approvals(names, data))
        sender = key("thief") if spoilt == "sender" else key(to)
        code = world.submit(sender, asked, cosigners=[] if cosigner is None else [cosigner])  # type: ignore[list-item]
        good = spoilt not in ("chain", "pid", "key", "sender") and to not in model.used and to != model.owner
        good = good and model.circle is not None and model.circle.agrees(names, more=beyond)
        good = good and (not beyond or (model.vetoes >= 2 and cosigner is BERG))
        good = good and (beyond or model.waiting is None or model.waiting.has_veto)
        assert (code == Code.OK) == good, code
        if good:
            assert model.circle is not None
            delay_ms = max(model.circle.delay_ms, LONG_MS) if beyond else model.circle.delay_ms
            model.waiting = Waiting(to, now_ms + delay_ms, not beyond, model.circle)
            model.used.add(to)
            self.past.append(asked)

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """What was public once is sent again, as it was and under another id: never good."""
        self.now()
        old = data.draw(st.sampled_from(self.past))
        name = next(name for name in self.model.used if account(name) == old.key)
        assert self.world.submit(key(name), old) != Code.OK
        fresh = f"fresh {next(self.numbers)}"
        stolen = replace(old, key=account(fresh), recovery=id16(fresh))
        assert self.world.submit(key(fresh), stolen) != Code.OK

    @precondition(lambda self: self.past)
    @rule(by_owner=st.booleans(), data=st.data())
    def veto(self, by_owner: bool, data: st.DataObject) -> None:
        self.now()
        model = self.model
        name = data.draw(st.sampled_from(sorted(model.used)))
        code = self.guarded.veto(name, sender=key(model.owner) if by_owner else DOCTOR)
        good = by_owner and model.waiting is not None and model.waiting.to == name and model.waiting.has_veto
        assert (code == Code.OK) == good, code
        if good:
            model.waiting, model.vetoes = None, model.vetoes + 1

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def finalize(self, data: st.DataObject) -> None:
        now_ms, model = self.now(), self.model
        name = data.draw(st.sampled_from(sorted(model.used)))
        code = self.guarded.finalize(name)
        waiting = model.waiting
        good = waiting is not None and waiting.to == name and now_ms >= waiting.due_ms
        assert (code == Code.OK) == good, code
        if good:
            assert waiting is not None
            model.owner, model.circle, model.wish, model.waiting = name, waiting.circle, None, None
            model.vetoes, model.frozen = 0, None

    @rule(names=SOME, span_ms=st.sampled_from([-HOUR_MS, HOUR_MS, 3 * DAY_MS, FREEZE_MS, FREEZE_MS + 1]))
    def freeze(self, names: list[str], span_ms: int) -> None:
        now_ms, model = self.now(), self.model
        until_ms = now_ms + span_ms
        code = self.guarded.freeze(*names, until_ms=until_ms)
        good = model.circle is not None and model.circle.agrees(names) and not model.is_frozen(now_ms)
        good = good and until_ms > max(now_ms, model.last_freeze_ms) and span_ms <= FREEZE_MS
        assert (code == Code.OK) == good, code
        if good:
            model.frozen, model.last_freeze_ms = (now_ms, until_ms), until_ms

    @precondition(lambda self: self.model.last_freeze_ms)
    @rule(names=SOME)
    def unfreeze(self, names: list[str]) -> None:
        now_ms, model = self.now(), self.model
        code = self.guarded.unfreeze(*names, until_ms=model.last_freeze_ms)
        good = model.is_frozen(now_ms) and model.circle is not None and model.circle.agrees(names)
        assert (code == Code.OK) == good, code
        if good:
            model.frozen = None

    @rule(span_ms=st.sampled_from([HOUR_MS, DAY_MS, 14 * DAY_MS, 30 * DAY_MS]))
    def time_passes(self, span_ms: int) -> None:
        self.world.now_ms += span_ms

    @precondition(lambda self: self.model.waiting is not None)
    @rule(off_ms=st.sampled_from([-1, 0]))
    def it_is_almost_time(self, off_ms: int) -> None:
        """The last block before the end of the delay, and the first after it."""
        assert self.model.waiting is not None
        self.world.now_ms = max(self.world.now_ms, self.model.waiting.due_ms + off_ms)

    @precondition(lambda self: self.model.frozen is not None)
    @rule(off_ms=st.sampled_from([-1, 0]))
    def the_freeze_is_almost_over(self, off_ms: int) -> None:
        assert self.model.frozen is not None
        self.world.now_ms = max(self.world.now_ms, self.model.frozen[1] + off_ms)

    @invariant()
    def the_key_is_whose_it_is(self) -> None:
        patient = directory.identity_of(PID, self.world.state)
        assert patient is not None
        assert patient.key == account(self.model.owner)

    @invariant()
    def only_a_frozen_owner_cannot_read(self) -> None:
        own = self.world.request("own", key(self.model.owner), basis=None, actor_opening=None, purpose="PATRQT")
        now_ms = self.world.now_ms
        decision = access.evaluate(own, account(self.model.owner), now_ms, self.world.state)
        assert decision.code == (Code.E_FROZEN if self.model.is_frozen(now_ms) else Code.OK)


Recoveries.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestRecoveries = Recoveries.TestCase
