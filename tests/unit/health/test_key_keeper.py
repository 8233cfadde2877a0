"""What a validator does about joint keys, from chain and disk: begin, repeat, crash, come late, delete, report."""

import pytest

from p2pledger.health.joint_key_operations import LtsActivate, LtsDeal, LtsInit
from p2pledger.health.key_keeper import REPORT_MS, STEP_MS, SecretName, Send, Wish, WriteSecret
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.health.release_receipts import reports_of
from p2pledger.primitives.errors import Code
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.sharing import combine_points
from tests.unit.execution.ledger import Ledger, id16
from tests.unit.health.ceremonies import seat_at
from tests.unit.health.charts import Chart
from tests.unit.health.seats import Seat, active, run, seats_of, until_active
from tests.unit.health.world import World

FIRST = CeremonyId(1, 0, 0)
EFFECTS = 7
"""Of a validator in a ceremony that goes well: its seed, four words and a share between them, the seed erased."""


@pytest.fixture
def ledger() -> Ledger:
    return World()


def test_the_first_key_comes_by_itself_and_only_shares_are_left(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    until_active(ledger, seats)
    assert all(seat.is_holder() for seat in seats)
    assert [seat.names for seat in seats] == [["share-1-0-0"]] * 4
    assert {code for seat in seats for code, _ in seat.sent} == {Code.OK}, "nothing was said too early or twice"


def test_nobody_begins_who_should_not(ledger: Ledger) -> None:
    """Where begin = manual, before all peers are linked, and while the state may be an old one."""
    (manual, *_), (seat, *_) = seats_of(ledger, begins=False), seats_of(ledger)
    assert manual.step() == 0
    assert seat.keeper.step(seat.sight(all_linked=False)) == []
    assert seat.keeper.step(seat.sight(is_ready=False)) == []
    assert seat.keeper.step(seat.sight()) != []


def test_what_one_operator_wishes_the_others_join(ledger: Ledger) -> None:
    seats = seats_of(ledger, begins=False)
    seats[2].wish(Wish(1, 0))
    until_active(ledger, seats)
    assert all(seat.is_holder() for seat in seats)
    assert seats[2].wishes == set(), "a wish that is fulfilled stands no longer"


def test_secrets_are_durable_before_what_depends_on_them_is_said(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    kept: set[SecretName] = set()
    for _ in range(12):
        for seat in seats[1:]:
            seat.step()
        for effect in seats[0].effects():
            seats[0].perform(effect)
            if isinstance(effect, WriteSecret):
                kept.add(effect.name)
            if isinstance(effect, Send) and isinstance(effect.operations[0], LtsInit):
                assert SecretName("seed", FIRST) in kept
            if isinstance(effect, Send) and isinstance(effect.operations[0], LtsActivate):
                assert SecretName("share", FIRST) in kept
    assert seats[0].is_holder()


@pytest.mark.parametrize("performed", range(EFFECTS))
@pytest.mark.parametrize("keeps_last", [True, False])
def test_a_crash_at_any_effect_of_a_ceremony_changes_nothing(ledger: Ledger, performed: int, keeps_last: bool) -> None:
    """Before it, and after it was done but before anything else: a new life from the disk ends with the same key."""
    seats = seats_of(ledger)
    done = 0
    for _ in range(40):
        for seat in seats[1:]:
            seat.step()
        for effect in seats[0].effects():
            if done == performed:
                if keeps_last:
                    seats[0].perform(effect)
                seats[0].start()
                done += 1
                break
            seats[0].perform(effect)
            done += 1
    until_active(ledger, seats)
    assert all(seat.is_holder() for seat in seats)
    assert [seat.names for seat in seats] == [["share-1-0-0"]] * 4


def test_words_that_are_lost_are_said_again_later_and_later(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    lost: list[int] = []

    def loses(operations: object) -> bool:
        if isinstance(operations[0], LtsDeal) and len(lost) < 3:  # type: ignore[index]
            lost.append(seats[0].now_ms)
            return True
        return False

    seats[0].loses = loses
    for _ in range(80):
        for seat in seats:
            seat.step()
    assert seats[0].is_holder()
    first, second = lost[1] - lost[0], lost[2] - lost[1]
    assert first >= 4_000
    assert second >= 2 * first - STEP_MS


def refreshed(ledger: Ledger, seats: list[Seat], present: list[Seat]) -> None:
    until_active(ledger, seats)
    present[0].wish(Wish(1, 1))
    until_active(ledger, present, 1, 1)


def test_new_shares_of_the_same_key_and_the_old_ones_are_gone(ledger: Ledger) -> None:
    """I-10: what is on the disks afterwards is of one sharing."""
    seats = seats_of(ledger)
    until_active(ledger, seats)
    before = active(ledger).key.public
    refreshed(ledger, seats, seats)
    assert active(ledger).key.public == before
    assert [seat.names for seat in seats] == [["share-1-1-0"]] * 4
    assert all(seat.is_holder() for seat in seats)


@pytest.mark.parametrize("crash", [True, False])
def test_who_gives_up_its_seat_deals_once_more_and_keeps_nothing(ledger: Ledger, crash: bool) -> None:
    """I-10: without it too few of the old holders would deal, for one of the others has no share yet."""
    seats = seats_of(ledger)
    leaver, *staying = seats
    until_active(ledger, seats[:3])
    public = active(ledger).key.public
    seat_at(ledger, [seat.validator for seat in staying])
    staying[0].wish(Wish(1, 1))
    for _ in range(12):
        for seat in staying:
            seat.step()
        for effect in leaver.effects():
            leaver.perform(effect)
            if crash:
                leaver.start()
                break
    after = until_active(ledger, seats, 1, 1)
    assert (after.key.public, after.key.holders) == (public, 3)
    assert all(seat.is_holder() for seat in staying)
    assert leaver.names == []
    assert [code for code, words in leaver.sent if isinstance(words[0], LtsDeal)] == [Code.OK] * 2
    assert leaver.told == []


def test_old_and_new_shares_open_nothing_together(ledger: Ledger) -> None:
    """I-10, with what the disks held: two of the old sharing and one of the new are no three."""
    seats = seats_of(ledger)
    until_active(ledger, seats)
    old = {at: seat.keeper.holder(active(ledger)) for at, seat in enumerate(seats, start=1)}
    refreshed(ledger, seats, seats)
    new = {at: seat.keeper.holder(active(ledger)) for at, seat in enumerate(seats, start=1)}
    key = LongTerm(active(ledger).key)
    public = {at: held._public for at, held in {1: old[1], 2: old[2], 3: new[3]}.items() if held is not None}
    assert combine_points(public) != key.key.public
    assert combine_points({at: held._public for at, held in new.items() if held is not None}) == key.key.public


def test_who_joined_and_then_was_away_gets_its_share_later(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    until_active(ledger, seats)
    seats[1].wish(Wish(1, 1))
    for seat in seats:
        seat.step()
    for seat in seats:
        seat.step()
    assert "seed-1-1-0" in seats[3].names
    until_active(ledger, seats[:3], 1, 1)
    assert seats[3].names == ["seed-1-1-0", "share-1-0-0"], "away: nothing has changed on its disk"
    seats[3].start()
    assert not seats[3].is_holder(), "what it has is of the old sharing"
    run(ledger, seats[3:])
    assert seats[3].names == ["share-1-1-0"]
    assert seats[3].is_holder()
    assert seats[3].told[-1].name == "share_received_late"


def test_a_restored_old_disk_has_no_share_and_is_cleaned(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    until_active(ledger, seats)
    backup = dict(seats[0].secrets)
    refreshed(ledger, seats, seats)
    seats[0].secrets = backup
    seats[0].start()
    assert not seats[0].is_holder()
    run(ledger, seats)
    assert seats[0].names == []


def test_a_lost_seed_is_told_once_and_the_others_go_on(ledger: Ledger) -> None:
    seats = seats_of(ledger)
    seats[0].step()
    seats[0].secrets.clear()
    seats[0].start()
    until_active(ledger, seats)
    assert [one.name for one in seats[0].told] == ["ceremony_given_up"]
    assert [seat.is_holder() for seat in seats] == [False, True, True, True]


def test_a_failed_attempt_is_followed_by_the_next_and_leaves_nothing(ledger: Ledger) -> None:
    """Two of four are there: a phase passes without enough, and the next attempt has the next number."""
    seats = seats_of(ledger)
    for seat in seats[:2]:
        seat.step()
    ledger.now_ms += 300_000
    until_active(ledger, seats)
    assert [seat.names for seat in seats] == [["share-1-0-1"]] * 4


def test_a_wish_that_can_never_be_is_dropped(ledger: Ledger) -> None:
    (seat, *_) = seats_of(ledger, begins=False)
    seat.wish(Wish(5, 0))
    seat.wish(Wish(1, 7))
    seat.step()
    assert seat.wishes == set()
    assert seat.sent == []


# Reports (I-9)


@pytest.fixture
def chart() -> Chart:
    made = Chart()
    assert made.world.grant() == Code.OK
    made.allow(0, 1, 2)
    made.allow(3, 4, name="other")
    return made


ACCESS, OTHER = id16("access"), id16("other")


def reporter(chart: Chart, written: dict[bytes, int]) -> Seat:
    keeper = chart.keepers[0]
    return Seat(chart.world, keeper.node, keeper.validator, unreported=written, begins=False)


def reports(seat: Seat) -> list[tuple[Released, ...]]:
    return [one.releases for _, said in seat.sent for one in said if isinstance(one, ReleaseReceipt)]


def wait(seat: Seat, ms: int) -> None:
    for _ in range(0, ms, STEP_MS):
        seat.step()


def test_releases_are_gathered_and_reported_together(chart: Chart) -> None:
    seat = reporter(chart, {})
    for access_id, count in ((ACCESS, 3), (OTHER, 1)):
        seat.unreported[access_id] = count
        seat.keeper.entered({access_id: count})
    wait(seat, REPORT_MS)
    assert reports(seat) == []
    wait(seat, 2 * STEP_MS)
    assert [set(one) for one in reports(seat)] == [{Released(ACCESS, 3), Released(OTHER, 1)}]
    wait(seat, 60_000)
    assert len(reports(seat)) == 1
    assert seat.unreported == {}


def test_what_a_crash_left_unreported_is_reported_by_the_next_life(chart: Chart) -> None:
    seat = reporter(chart, {ACCESS: 2})
    wait(seat, 2 * REPORT_MS)
    said = reports_of(ACCESS, chart.world.state)
    assert said[seat.validator].records == 2


def test_a_report_that_was_lost_is_made_again(chart: Chart) -> None:
    seat = reporter(chart, {ACCESS: 2})
    lost: list[int] = []
    seat.loses = lambda operations: len(lost) < 2 and lost.append(1) is None
    wait(seat, 120_000)
    assert len(lost) == 2
    assert len(reports(seat)) == 1
    assert seat.unreported == {}


def test_one_that_the_chain_refuses_does_not_keep_the_others_back(chart: Chart) -> None:
    """A report is taken as a whole or not at all; what nobody allowed stays owed, and the gauge shows it."""
    seat = reporter(chart, {ACCESS: 2, id16("never allowed"): 1, OTHER: 2})
    wait(seat, 300_000)
    assert seat.unreported == {id16("never allowed"): 1}
    assert reports_of(ACCESS, chart.world.state)[seat.validator].records == 2
    assert reports_of(OTHER, chart.world.state)[seat.validator].records == 2


def test_more_of_the_same_access_is_reported_after_it(chart: Chart) -> None:
    seat = reporter(chart, {ACCESS: 1})
    wait(seat, REPORT_MS + STEP_MS)
    seat.unreported[ACCESS] = 3
    seat.keeper.entered({ACCESS: 3})
    wait(seat, 30_000)
    assert [one for report in reports(seat) for one in report] == [Released(ACCESS, 1), Released(ACCESS, 3)]
    assert seat.unreported == {}


def test_what_the_chain_knew_already_is_not_said_again(chart: Chart) -> None:
    before = reporter(chart, {ACCESS: 2})
    wait(before, 2 * REPORT_MS)
    after = reporter(chart, {ACCESS: 2})
    wait(after, 60_000)
    assert reports(after) == []
    assert after.unreported == {}


def test_texts_show_no_secret(ledger: Ledger) -> None:
    (seat, *_) = seats_of(ledger)
    effects = seat.effects()
    secret = next(effect.secret for effect in effects if isinstance(effect, WriteSecret))
    for shown in (repr(effects), repr(seat.keeper)):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
