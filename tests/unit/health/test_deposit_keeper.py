"""What a validator makes, announces and acknowledges; said again until the chain has it, and forgotten in a crash."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from p2pledger.execution.contract import Duty
from p2pledger.health import deposits
from p2pledger.health.deposit_keeper import DepositEffect, DepositKeeper, WriteDepositKey
from p2pledger.health.deposit_operations import DepositAck, DepositKey, bits_of
from p2pledger.health.key_keeper import SAY_AGAIN_MS, STEP_MS, Send, Tell
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Bytes16
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret
from tests.unit.execution.ledger import Ledger, id16
from tests.unit.health.ceremonies import Keeper, keepers_of
from tests.unit.health.one_time import OneTimeChart, secret_of
from tests.unit.health.world import BERG, World, batch


@dataclass
class Seat:
    """A validator's node: its dict is its disk."""

    ledger: Ledger
    keeper: Keeper
    disk: dict[int, bytes] = field(default_factory=dict)
    lives: int = 0
    now_ms: int = 0
    is_cut_off: bool = False
    said: list[tuple[Code, Duty]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin anew from the disk."""
        self.lives += 1
        random = seeded(sha256(self.keeper.validator + bytes([self.lives])))
        self.own = DepositKeeper(self.keeper.validator, self.disk, random)

    def effects(self) -> list[DepositEffect]:
        self.now_ms += STEP_MS
        return self.own.step(self.ledger.state, self.now_ms)

    def perform(self, effect: DepositEffect) -> None:
        match effect:
            case WriteDepositKey():
                assert effect.number not in self.disk
                self.disk[effect.number] = effect.secret
            case Send():
                (operation,) = effect.operations
                if not self.is_cut_off:
                    self.said.append((self.ledger.submit(self.keeper.node, operation), operation))
            case Tell():
                self.told.append(effect.name)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            for effect in self.effects():
                self.perform(effect)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def seat(world: World) -> Seat:
    return Seat(world, keepers_of(world)[0])


@pytest.fixture
def chart() -> OneTimeChart:
    return OneTimeChart()


@pytest.fixture
def member(chart: OneTimeChart) -> Seat:
    """A validator whose key stands in the chart's table."""
    keeper = chart.keepers[0]
    found = Seat(chart.world, keeper, {1: sha256(b"deposit" + keeper.validator)})
    assert BoxSecret(found.disk[1]).public == secret_of(keeper).public
    return found


def test_a_key_is_durable_before_it_is_announced(seat: Seat) -> None:
    kept, said = seat.effects()
    assert isinstance(kept, WriteDepositKey) and isinstance(said, Send)
    assert said.operations == (DepositKey(BoxSecret(kept.secret).public),)
    assert kept.secret.hex() not in repr(kept) + repr(seat.own)


def test_it_announces_once_and_keeps_its_key(seat: Seat) -> None:
    seat.step(20)
    assert [code for code, _ in seat.said] == [Code.OK]
    seat.start()
    seat.step(20)
    assert len(seat.said) == 1 and list(seat.disk) == [1]


def test_a_crash_before_the_announcement_makes_no_second_key(seat: Seat) -> None:
    seat.perform(seat.effects()[0])
    seat.start()
    seat.step()
    assert list(seat.disk) == [1]
    assert [code for code, _ in seat.said] == [Code.OK]


def test_what_was_lost_is_said_again_and_ever_later(seat: Seat) -> None:
    seat.is_cut_off = True
    times = []
    for _ in range(60_000 // STEP_MS):
        sends = [effect for effect in seat.effects() if isinstance(effect, Send)]
        times += [seat.now_ms] * len(sends)
    first_ms, _ = SAY_AGAIN_MS
    assert [later - earlier for earlier, later in pairwise(times)] == [
        first_ms,
        2 * first_ms,
        4 * first_ms,
    ]


def test_a_validator_that_lost_its_keys_announces_another(seat: Seat) -> None:
    seat.step(2)
    seat.disk.clear()
    seat.start()
    seat.step(2)
    assert [code for code, _ in seat.said] == [Code.OK, Code.OK]
    assert deposits.newest_number(seat.ledger.state) == 2


def test_a_key_that_somebody_copied_is_given_up(world: World) -> None:
    """Whoever is faster with it has it; ours was never in a table, so nothing is lost."""
    own, thief = keepers_of(world)[:2]
    seat = Seat(world, own)
    kept, said = seat.effects()
    seat.perform(kept)
    assert isinstance(said, Send)
    assert world.submit(thief.node, *said.operations) == Code.OK
    seat.perform(said)
    assert [code for code, _ in seat.said] == [Code.E_DUP]
    seat.step()
    assert [code for code, _ in seat.said] == [Code.E_DUP, Code.OK]
    table = deposits.newest_table(world.state)
    assert table is not None and len(set(table.boxes)) == 2
    assert BoxSecret(seat.disk[2]).public in table.boxes


def test_it_stops_where_its_keys_are_used_up(world: World) -> None:
    keeper = keepers_of(world)[0]
    for number in range(limits.DEPOSIT_KEYS_MAX):
        box = BoxSecret(sha256(b"key %d" % number)).public
        assert world.submit(keeper.node, DepositKey(box)) == Code.OK
    seat = Seat(world, keeper)
    seat.step(50)
    assert (seat.said, seat.told, seat.disk) == ([], ["deposit_keys_used_up"], {})


def test_it_holds_shares_of_the_tables_that_its_keys_stand_in(chart: OneTimeChart, member: Seat) -> None:
    for number in range(1, 5):
        table = deposits.table_of(number, chart.world.state)
        assert table is not None
        holder = member.own.holder(table)
        assert (holder is not None) == table.is_usable, number
    member.disk.clear()
    member.start()
    assert member.own.holder(chart.table) is None


def test_good_shares_are_acknowledged_until_the_chain_has_it(chart: OneTimeChart, member: Seat) -> None:
    member.is_cut_off = True
    member.own.found_good(chart.batch_id, chart.table.number, [0, 1])
    member.own.found_good(chart.batch_id, chart.table.number, [1, 7])
    member.step()
    member.is_cut_off = False
    member.step(40)
    said = DepositAck(chart.batch_id, chart.table.number, bits_of([0, 1, 7]))
    assert member.said == [(Code.OK, said)]
    assert member.own.owed == 0


def test_what_comes_later_is_said_at_once_and_alone(chart: OneTimeChart, member: Seat) -> None:
    for indices in ([0, 1], [1, 2]):
        member.own.found_good(chart.batch_id, chart.table.number, indices)
        member.step(2)
    assert [operation for _, operation in member.said] == [
        DepositAck(chart.batch_id, chart.table.number, bits_of([0, 1])),
        DepositAck(chart.batch_id, chart.table.number, bits_of([2])),
    ]


def test_nothing_good_is_nothing_said(chart: OneTimeChart, member: Seat) -> None:
    member.own.found_good(chart.batch_id, chart.table.number, [])
    member.step(3)
    assert (member.said, member.own.owed) == ([], 0)


def test_words_that_can_never_be_taken_are_dropped(chart: OneTimeChart, member: Seat) -> None:
    """It has spoken of another table before: the chain would refuse them for ever."""
    assert chart.acknowledge(chart.keepers[0], 0, table=3) == Code.OK
    member.own.found_good(chart.batch_id, chart.table.number, [1])
    member.step(3)
    assert (member.said, member.own.owed) == ([], 0)


def test_so_many_batches_are_owed_and_no_more(chart: OneTimeChart, member: Seat) -> None:
    for number in range(limits.DEPOSITS_OWED_MAX):
        identifier = id16(f"batch {number}")
        assert chart.world.submit(BERG, batch(batch_id=identifier)) == Code.OK
        assert member.own.has_room(identifier)
        member.own.found_good(identifier, chart.table.number, [0])
    assert not member.own.has_room(Bytes16(chart.batch_id))
    assert member.own.has_room(id16("batch 3")), "it is owed something already"
    member.step(2)
    assert member.own.owed == 0 and member.own.has_room(Bytes16(chart.batch_id))
