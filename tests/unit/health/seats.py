"""Validators' nodes on a chain in memory, each run by a KeyKeeper; they may crash between any two effects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from p2pledger.execution.contract import Duty
from p2pledger.health import joint_key
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.key_keeper import (
    STEP_MS,
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
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ValidatorId
from p2pledger.threshold.participant import seeded
from tests.unit.execution.ledger import Ledger
from tests.unit.health.ceremonies import keepers_of


@dataclass
class Seat:
    """A validator's node: what is in its dicts is on its disk."""

    ledger: Ledger
    node: SigningKey
    validator: ValidatorId
    secrets: dict[SecretName, bytes] = field(default_factory=dict)
    unreported: dict[bytes, int] = field(default_factory=dict)
    wishes: set[Wish] = field(default_factory=set)
    begins: bool = True
    lives: int = 0
    now_ms: int = 0
    loses: Callable[[tuple[Duty, ...]], bool] = lambda operations: False
    """Which of its transactions never arrive."""
    sent: list[tuple[Code, tuple[Duty, ...]]] = field(default_factory=list)
    told: list[Tell] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin anew from the disk."""
        self.lives += 1
        random = seeded(sha256(self.validator + bytes([self.lives])))
        self.keeper = KeyKeeper(
            self.ledger.chain,
            self.validator,
            self.secrets,
            self.unreported,
            self.wishes,
            random,
            begins=self.begins,
        )

    def wish(self, wish: Wish) -> None:
        self.wishes.add(wish)
        self.keeper.wished(wish)

    def sight(self, *, is_ready: bool = True, all_linked: bool = True) -> Sight:
        block_ms = self.ledger.now_ms - 1_000
        return Sight(self.ledger.state, block_ms, self.ledger.now_ms, self.now_ms, is_ready, all_linked)

    def step(self) -> int:
        """Perform what is to be done; how many effects that was."""
        effects = self.effects()
        for effect in effects:
            self.perform(effect)
        return len(effects)

    def effects(self) -> list[KeeperEffect]:
        self.now_ms += STEP_MS
        return self.keeper.step(self.sight())

    def perform(self, effect: KeeperEffect) -> None:
        match effect:
            case WriteSecret():
                self.secrets[effect.name] = effect.secret
            case DeleteSecret():
                self.secrets.pop(effect.name, None)
            case Send():
                if not self.loses(effect.operations):
                    self.sent.append((self.ledger.submit(self.node, *effect.operations), effect.operations))
            case Reported():
                for access_id, count in effect.counts.items():
                    if self.unreported.get(access_id) == count:
                        del self.unreported[access_id]
            case DropWish():
                self.wishes.discard(effect.wish)
            case Tell():
                self.told.append(effect)

    @property
    def names(self) -> list[str]:
        """Of the secrets on its disk."""
        return sorted(map(str, self.secrets))

    def is_holder(self, key_epoch: int = 1) -> bool:
        active = joint_key.active_key(key_epoch, self.ledger.state)
        return active is not None and self.keeper.holder(active) is not None


def seats_of(ledger: Ledger, *, begins: bool = True) -> list[Seat]:
    """In the order of the seats."""
    return [Seat(ledger, keeper.node, keeper.validator, begins=begins) for keeper in keepers_of(ledger)]


def run(ledger: Ledger, seats: list[Seat], rounds: int = 60) -> None:
    """All do what they have to until nobody has anything to do for a while; block time passes with the rounds."""
    quiet = 0
    for _ in range(rounds):
        quiet = 0 if sum([seat.step() for seat in seats]) else quiet + 1
        if quiet == 3:
            return


def wait_out_the_phase(ledger: Ledger, key_epoch: int, share_epoch: int) -> None:
    """Let block time pass until whoever is silent is not waited for any more."""
    ceremony = joint_key.ceremony_of(joint_key.CeremonyId(key_epoch, share_epoch, 0), ledger.state)
    assert ceremony is not None
    ledger.now_ms = max(ledger.now_ms, ceremony.since_ms + ceremony.phase_ms)


def active(ledger: Ledger, key_epoch: int = 1) -> ActiveKey:
    found = joint_key.active_key(key_epoch, ledger.state)
    assert found is not None, f"no joint key of epoch {key_epoch}"
    return found


def until_active(ledger: Ledger, seats: list[Seat], key_epoch: int = 1, share_epoch: int = 0) -> ActiveKey:
    """Run, and wait for the silent, until the sharing is there and everybody has done what follows."""
    for _ in _patiently():
        run(ledger, seats)
        found = joint_key.active_key(key_epoch, ledger.state)
        if found is not None and found.key.share_epoch == share_epoch:
            return found
        wait_out_the_phase(ledger, key_epoch, share_epoch)
    raise AssertionError(f"sharing {key_epoch}.{share_epoch} does not come")


def _patiently() -> Iterator[int]:
    return iter(range(10))
