"""The key ceremony as contracts: who may say what, in which order, again, after crashes, and in bad company."""

import pytest
from msgspec.structs import replace

from p2pledger.chain.validators import faults
from p2pledger.health import joint_key, key_duties, keys
from p2pledger.health.application import HealthApplication
from p2pledger.health.events import CeremonyMoved, JointKeyActivated, decode_event
from p2pledger.health.joint_key_operations import LtsActivate, LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code
from p2pledger.threshold.dkg import CeremonyId, Phase
from p2pledger.threshold.group import base_times
from p2pledger.threshold.sharing import combine
from tests.unit.execution.ledger import Ledger, codes, founding_of, hash32, key
from tests.unit.health.ceremonies import Keeper, hold, keepers_of, seat_at

NAMES = ["Berg", "Tal", "See", "Wald", "Moor", "Heide", "Kliff"]
FIRST = CeremonyId(1, 0, 0)
SIZES = (4, 5, 7)


def ledger_of(n: int) -> Ledger:
    return Ledger(HealthApplication(), founding_of(NAMES[:n]))


@pytest.fixture
def ledger() -> Ledger:
    return ledger_of(4)


@pytest.fixture
def keepers(ledger: Ledger) -> list[Keeper]:
    return keepers_of(ledger)


def phase_of(ledger: Ledger, identifier: CeremonyId = FIRST) -> Phase:
    ceremony = joint_key.ceremony_of(identifier, ledger.state)
    assert ceremony is not None
    return ceremony.at(ledger.now_ms).phase


def joined(keepers: list[Keeper], identifier: CeremonyId = FIRST) -> list[Keeper]:
    for keeper in keepers:
        assert keeper.speak(identifier) == Code.OK
    return keepers


@pytest.mark.parametrize("n", SIZES)
def test_validators_make_a_joint_key_over_the_chain(n: int) -> None:
    """I-3: t = n − f of them, and any t."""
    ledger = ledger_of(n)
    keepers = keepers_of(ledger)
    active = hold(ledger, FIRST, keepers)
    assert joint_key.newest_key(ledger.state) == active
    assert (active.key.threshold, active.key.holders) == (n - faults(n), n)
    for keeper in keepers:
        keeper.words(FIRST)  # who was not among the first t to confirm computes its share now
    t = active.key.threshold
    shares = {keeper.holder().index: keeper.shares[1, 0] for keeper in keepers[:t] if (1, 0) in keeper.shares}
    assert len(shares) == t
    assert base_times(combine(shares)) == active.key.public


@pytest.mark.parametrize("n", SIZES)
def test_f_silent_validators_do_not_stop_it(n: int) -> None:
    ledger = ledger_of(n)
    present = keepers_of(ledger)[faults(n) :]
    active = hold(ledger, FIRST, present)
    assert active.key.holders == n
    assert base_times(combine({keeper.holder().index: keeper.shares[1, 0] for keeper in present})) == active.key.public


def test_too_few_make_no_key_and_the_next_attempt_does(ledger: Ledger, keepers: list[Keeper]) -> None:
    assert keepers[0].speak(FIRST) == Code.OK
    ledger.now_ms += limits.CEREMONY_PHASE_MS
    assert phase_of(ledger) == Phase.FAILED
    second = joint_key.next_key(ledger.state, ledger.now_ms)
    assert second == replace(FIRST, attempt=1)
    late = LtsInit(FIRST, hash32("box"))
    assert ledger.submit(keepers[1].node, late) == Code.E_STATE, "the failed attempt is over"
    assert hold(ledger, second, keepers).key.key_epoch == 1


def test_a_failed_attempt_leaves_nothing_of_its_deals(ledger: Ledger, keepers: list[Keeper]) -> None:
    joined(keepers)
    keepers[0].speak(FIRST)
    assert list(ledger.state.scan(keys.deals(FIRST)))
    ledger.now_ms += limits.CEREMONY_PHASE_MS
    keepers[0].speak(replace(FIRST, attempt=1))
    assert not list(ledger.state.scan(keys.deals(FIRST)))


def test_only_validators_nodes_speak_in_it(ledger: Ledger, keepers: list[Keeper]) -> None:
    deal = keepers[0].words(FIRST)
    joined(keepers)
    for operation in (
        *deal,
        *keepers[0].words(FIRST),
        LtsComplaint(FIRST, ()),
        LtsJustify(FIRST, 1, hash32("share")),
        LtsActivate(FIRST, hash32("key")),
    ):
        assert ledger.submit(key("Berg"), operation) == Code.E_ROLE, "a member's own account"


def test_nodes_still_send_nothing_else(ledger: Ledger, keepers: list[Keeper]) -> None:
    from tests.unit.health.world import registration

    assert ledger.submit(keepers[0].node, registration("doctor", "practitioner", "Berg")) == Code.E_ROLE


def test_every_word_is_taken_once(ledger: Ledger, keepers: list[Keeper]) -> None:
    """Replayed under another nonce, in its phase or after it."""
    spoken: list[tuple[Keeper, tuple[object, ...]]] = []
    for _ in range(4):
        for keeper in keepers:
            words = keeper.words(FIRST)
            if not words:
                continue
            assert ledger.submit(keeper.node, *words) == Code.OK
            again = ledger.submit(keeper.node, *words)
            assert again in {Code.E_DUP, Code.E_STATE}
            spoken.append((keeper, words))
    assert phase_of(ledger) == Phase.ACTIVE
    before = joint_key.active_key(1, ledger.state)
    for keeper, words in spoken:
        assert ledger.submit(keeper.node, *words) == Code.E_STATE  # type: ignore[arg-type]
    assert joint_key.active_key(1, ledger.state) == before


def test_words_out_of_order_are_refused_and_change_nothing(ledger: Ledger, keepers: list[Keeper]) -> None:
    keepers[0].speak(FIRST)
    before = joint_key.ceremony_of(FIRST, ledger.state)
    for operation in (
        LtsComplaint(FIRST, ()),
        LtsActivate(FIRST, hash32("key")),
    ):
        assert ledger.submit(keepers[1].node, operation) == Code.E_STATE
    assert ledger.submit(keepers[1].node, LtsJustify(FIRST, 1, hash32("share"))) == Code.E_NOT_FOUND
    unknown = replace(FIRST, key_epoch=9)
    assert ledger.submit(keepers[1].node, LtsComplaint(unknown, ())) == Code.E_NOT_FOUND
    assert joint_key.ceremony_of(FIRST, ledger.state) == before


def test_only_the_next_key_and_the_next_sharing_are_begun(ledger: Ledger, keepers: list[Keeper]) -> None:
    def begin(identifier: CeremonyId) -> Code:
        return ledger.submit(keepers[0].node, LtsInit(identifier, hash32(f"box {identifier}")))

    assert begin(CeremonyId(2, 0, 0)) == Code.E_KEY_EPOCH
    assert begin(CeremonyId(1, 1, 0)) == Code.E_KEY_EPOCH, "there is nothing to share anew"
    assert begin(CeremonyId(0, 0, 0)) == Code.E_KEY_EPOCH
    assert begin(CeremonyId(1, 0, 1)) == Code.E_STATE
    hold(ledger, FIRST, keepers)
    assert begin(FIRST) == Code.E_STATE
    assert begin(CeremonyId(1, 2, 0)) == Code.E_KEY_EPOCH
    assert begin(CeremonyId(2, 1, 0)) == Code.E_KEY_EPOCH
    assert begin(CeremonyId(1, 1, 0)) == Code.OK
    assert begin(CeremonyId(2, 0, 0)) == Code.OK, "beside it: one does not hinder the other"


def test_two_seats_do_not_show_one_key_and_no_key_opens_for_all(ledger: Ledger, keepers: list[Keeper]) -> None:
    assert ledger.submit(keepers[0].node, LtsInit(FIRST, hash32("box"))) == Code.OK
    assert ledger.submit(keepers[1].node, LtsInit(FIRST, hash32("box"))) == Code.E_DUP
    assert ledger.submit(keepers[1].node, LtsInit(FIRST, bytes(32))) == Code.E_FORMAT


@pytest.mark.parametrize("n", SIZES)
def test_a_refresh_keeps_the_key_and_old_shares_are_of_no_use(n: int) -> None:
    """I-10, on the chain."""
    ledger = ledger_of(n)
    keepers = keepers_of(ledger)
    before = hold(ledger, FIRST, keepers)
    t = before.key.threshold
    old = dict(enumerate((keeper.shares.get((1, 0)) for keeper in keepers), start=1))
    second = joint_key.next_sharing(before, ledger.state, ledger.now_ms)
    for keeper in keepers[t:]:  # they learned their share late, from the chain
        share = key_duties.late_share(FIRST, keeper.participant(FIRST), keeper.validator, ledger.state)
        assert share is not None
        keeper.shares[1, 0] = share
    after = hold(ledger, second, keepers)
    assert after.key.public == before.key.public
    assert after.key.share_epoch == 1
    assert all(keeper.shares[1, 1] != old[number] for number, keeper in enumerate(keepers[:t], start=1))
    mixed = {1: keepers[0].shares[1, 0], **{i: keepers[i - 1].shares[1, 1] for i in range(2, t + 1)}}
    assert base_times(combine(mixed)) != after.key.public
    assert not list(ledger.state.scan(keys.deals(FIRST))), "the deals of the last sharing are gone"
    assert key_duties.late_share(FIRST, keepers[0].participant(FIRST), keepers[0].validator, ledger.state) is None


def test_who_has_no_old_share_still_receives_a_new_one(ledger: Ledger, keepers: list[Keeper]) -> None:
    """It was away for the first key; t others deal, all four receive."""
    first = hold(ledger, FIRST, keepers[1:])
    absent = keepers[0]
    assert key_duties.late_share(FIRST, absent.participant(FIRST), absent.validator, ledger.state) is None
    for keeper in keepers[1:]:
        late = key_duties.late_share(FIRST, keeper.participant(FIRST), keeper.validator, ledger.state)
        assert late is not None and late == keeper.shares.setdefault((1, 0), late)
    second = joint_key.next_sharing(first, ledger.state, ledger.now_ms)
    after = hold(ledger, second, keepers)
    assert after.key.public == first.key.public
    assert (1, 1) in absent.shares


@pytest.mark.parametrize(("before", "after"), [(4, 7), (7, 4), (4, 4)])
def test_a_new_validator_set_receives_the_old_key(before: int, after: int) -> None:
    """I-10, F-04: who gives up its seat deals once more, and holds nothing of use then."""
    ledger = ledger_of(7)
    everybody = keepers_of(ledger)
    old, new = everybody[:before], everybody[-after:]
    seat_at(ledger, [keeper.validator for keeper in old])
    first = hold(ledger, FIRST, old)
    for keeper in old[first.key.threshold :]:
        late = key_duties.late_share(FIRST, keeper.participant(FIRST), keeper.validator, ledger.state)
        assert late is not None and late == keeper.shares.setdefault((1, 0), late)
    seat_at(ledger, [keeper.validator for keeper in new])
    second = joint_key.next_sharing(first, ledger.state, ledger.now_ms)
    active = hold(ledger, second, everybody)
    assert active.holders == tuple(keeper.validator for keeper in new)
    t = active.key.threshold
    assert (active.key.public, t) == (first.key.public, after - faults(after))
    held = {keeper.holder().index: keeper.shares[1, 1] for keeper in new if (1, 1) in keeper.shares}
    assert len(held) >= t
    assert base_times(combine(dict(list(held.items())[:t]))) == first.key.public
    for left in old:
        assert left in new or ((1, 1) not in left.shares and active.index_of(left.validator) is None)
        mixed = dict(list(held.items())[: t - 1])
        mixed[next(index for index in range(1, after + 1) if index not in mixed)] = left.shares[1, 0]
        assert base_times(combine(mixed)) != first.key.public


def test_a_new_key_epoch_has_a_new_key_and_the_old_one_stays(ledger: Ledger, keepers: list[Keeper]) -> None:
    first = hold(ledger, FIRST, keepers)
    second = hold(ledger, joint_key.next_key(ledger.state, ledger.now_ms), keepers)
    assert first.key.public != second.key.public
    assert joint_key.newest_key(ledger.state) == second
    assert joint_key.active_key(1, ledger.state) == first


def test_a_cheating_dealer_is_excluded_on_the_chain(ledger: Ledger, keepers: list[Keeper]) -> None:
    joined(keepers)
    cheat, victim = keepers[0], 4
    (honest,) = cheat.words(FIRST)
    assert isinstance(honest, LtsDeal)
    boxes = list(honest.deal.boxes)
    box = boxes[victim - 1]
    assert box is not None
    boxes[victim - 1] = replace(box, body=bytes(48))
    assert ledger.submit(cheat.node, replace(honest, deal=replace(honest.deal, boxes=tuple(boxes)))) == Code.OK
    for keeper in keepers[1:]:
        keeper.speak(FIRST)
    assert phase_of(ledger) == Phase.REPORT
    for keeper in keepers:
        keeper.speak(FIRST)
    assert phase_of(ledger) == Phase.JUSTIFY
    assert ledger.submit(cheat.node, LtsJustify(FIRST, victim, hash32("another share")[:31] + b"\x00")) == Code.E_DEAL
    ledger.now_ms += limits.CEREMONY_PHASE_MS
    hold(ledger, FIRST, keepers)
    ceremony = joint_key.ceremony_of(FIRST, ledger.state)
    assert ceremony is not None
    assert ceremony.qualified == (2, 3, 4)


def test_slander_is_answered_on_the_chain_and_bounded(ledger: Ledger, keepers: list[Keeper]) -> None:
    """One liar accuses everybody, itself too: once. All answer, nobody is excluded, its own share is all it learns."""
    joined(keepers)
    for keeper in keepers:
        keeper.speak(FIRST)
    liar = keepers[3]
    assert ledger.submit(liar.node, LtsComplaint(FIRST, (1, 2, 3, 4))) == Code.OK
    assert ledger.submit(liar.node, LtsComplaint(FIRST, (1, 2, 3))) == Code.E_DUP
    active = hold(ledger, FIRST, keepers)
    ceremony = joint_key.ceremony_of(FIRST, ledger.state)
    assert ceremony is not None
    assert ceremony.justified == ceremony.complaints == ((1, 4), (2, 4), (3, 4), (4, 4))
    assert ceremony.qualified == (1, 2, 3, 4)
    assert active.key.threshold == 3


@pytest.mark.parametrize("crash_at", range(12))
def test_a_crash_at_any_word_changes_nothing(crash_at: int) -> None:
    """A node that has written its seed (and its share before confirming) says after a crash what it would have said.

    Crashed before sending, after sending and before the block, and after the block: the chain takes one of them.
    """
    ledger, calm = ledger_of(4), ledger_of(4)
    keepers, others = keepers_of(ledger), keepers_of(calm)
    expected = hold(calm, FIRST, others)
    said = 0
    for _ in range(4):
        for keeper in keepers:
            words = keeper.words(FIRST)
            if not words:
                continue
            if said == crash_at:
                reborn = Keeper(ledger, keeper.node, keeper.validator, dict(keeper.shares))
                assert reborn.words(FIRST) == words, "the same words from what was on disk"
                assert ledger.submit(keeper.node, *words) == Code.OK
                assert ledger.submit(keeper.node, *words) in {Code.E_DUP, Code.E_STATE}
            else:
                assert ledger.submit(keeper.node, *words) == Code.OK
            said += 1
    active = joint_key.active_key(1, ledger.state)
    assert active is not None
    assert active.key == expected.key


def test_the_same_messages_in_other_blocks_make_the_same_key(ledger: Ledger, keepers: list[Keeper]) -> None:
    """All words of a phase in one block, in the opposite order."""
    calm = ledger_of(4)
    expected = hold(calm, FIRST, keepers_of(calm))
    for _ in range(4):
        words = [(keeper, keeper.words(FIRST)) for keeper in reversed(keepers)]
        effects = ledger.run(*(ledger.signed(keeper.node, *said) for keeper, said in words if said))
        assert set(codes(effects)) <= {Code.OK, Code.E_STATE}, "who comes after the t-th confirmation is late"
    active = joint_key.active_key(1, ledger.state)
    assert active is not None
    assert active.key == expected.key


def test_every_phase_and_the_key_are_events(ledger: Ledger, keepers: list[Keeper]) -> None:
    events = []
    for _ in range(4):
        for keeper in keepers:
            words = keeper.words(FIRST)
            if words:
                effects = ledger.run(ledger.signed(keeper.node, *words))
                events += [decode_event(data) for data in effects.receipts[0].events]
    moved = [event.phase for event in events if isinstance(event, CeremonyMoved)]
    assert moved == [Phase.JOIN, Phase.DEAL, Phase.REPORT, Phase.CONFIRM, Phase.ACTIVE]
    active = joint_key.active_key(1, ledger.state)
    assert active is not None
    assert events[-1] == JointKeyActivated(1, 0, active.key.public)
