"""The ceremony: a key of which nobody knows the secret, in spite of liars, slander and silence."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pledger.chain.validators import faults
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused
from p2pledger.threshold import dkg
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Deal, Phase, SealedShare
from p2pledger.threshold.group import base_times
from p2pledger.threshold.participant import Participant
from p2pledger.threshold.sharing import combine, public_share
from tests.unit.threshold.stage import CHAIN, SIZES, Table, finished, seats, spoiled_box, table


def code_of(refused: pytest.ExceptionInfo[Refused]) -> Code:
    return refused.value.code


def consistent(done: Table) -> bool:
    """All shares are those of one secret, whose public key is that of the chain."""
    holders = {
        holder.index: seat for holder, seat in zip(done.holders(), done.speakers(done.ceremony.receivers), strict=True)
    }
    shares = {index: done.share(seat) for index, seat in holders.items()}
    return all(
        base_times(combine({index: shares[index] for index in chosen})) == done.key.public
        for chosen in combinations(shares, done.key.threshold)
    )


@pytest.mark.parametrize("n", SIZES)
def test_honest_seats_make_a_key_that_any_t_of_them_hold(n: int) -> None:
    done = finished(n)
    assert done.ceremony.phase == Phase.ACTIVE
    assert done.key.threshold == n - faults(n)
    assert done.ceremony.qualified == tuple(range(1, n + 1))
    assert done.time_ms == 0, "nobody had to be waited for"
    assert consistent(done)


@pytest.mark.parametrize("n", SIZES)
def test_f_silent_seats_are_waited_for_once_a_phase_and_then_done_without(n: int) -> None:
    silent = frozenset(seats(n)[: faults(n)])
    done = table(n, silent=silent).run()
    assert done.ceremony.phase == Phase.ACTIVE
    assert done.ceremony.joined == tuple(range(1 + len(silent), n + 1)) == done.ceremony.qualified
    assert consistent(done)


@pytest.mark.parametrize("n", SIZES)
def test_without_t_seats_there_is_no_key(n: int) -> None:
    silent = frozenset(seats(n)[: faults(n) + 1])
    done = table(n, silent=silent).run()
    assert done.ceremony.phase == Phase.FAILED


@pytest.mark.parametrize("n", SIZES)
def test_a_dealer_that_cheats_one_and_does_not_answer_is_excluded(n: int) -> None:
    """I-3."""
    cheat, victim = seats(n)[0], n
    done = table(n, lies={cheat: spoiled_box(victim)}, stubborn=frozenset({cheat})).run()
    assert done.ceremony.phase == Phase.ACTIVE
    assert done.ceremony.complaints == ((1, victim),)
    assert done.ceremony.qualified == tuple(range(2, n + 1))
    assert consistent(done)


@pytest.mark.parametrize("n", SIZES)
def test_a_dealer_that_answers_stays_and_its_victim_takes_what_was_shown(n: int) -> None:
    cheat, victim = seats(n)[0], n
    done = table(n, lies={cheat: spoiled_box(victim)}).run()
    assert done.ceremony.justified == ((1, victim),)
    assert done.ceremony.qualified == tuple(range(1, n + 1))
    assert consistent(done)


@pytest.mark.parametrize("n", SIZES)
def test_slander_by_f_seats_excludes_nobody(n: int) -> None:
    everybody = tuple(range(1, n + 1))
    liars = seats(n)[: faults(n)]
    done = table(n, slander=dict.fromkeys(liars, everybody)).run()
    assert done.ceremony.phase == Phase.ACTIVE
    assert done.ceremony.qualified == everybody
    assert consistent(done)


def test_a_dealer_that_more_than_f_accuse_is_excluded_whatever_it_answers() -> None:
    accusers = seats(4)[2:]
    done = table(4, slander=dict.fromkeys(accusers, (1,))).run()
    assert done.ceremony.justified == ((1, 3), (1, 4))
    assert done.ceremony.qualified == (2, 3, 4)
    assert consistent(done)


def test_too_many_cheats_leave_no_key() -> None:
    """I-3: fewer dealers than will open it could know it."""
    cheats = frozenset(seats(4)[:2])
    done = table(4, lies={cheat: spoiled_box(4) for cheat in cheats}, stubborn=cheats).run()
    assert done.ceremony.phase == Phase.FAILED


def test_shares_that_are_none_are_noticed_by_who_gets_them() -> None:
    """A box that opens, with a share of another polynomial in it: only commitments can tell."""
    honest = table(4)
    honest.join()
    first, second = seats(4)[:2]
    deal = honest.participants[first].deal(honest.ceremony, first)
    other = honest.participants[second].deal(honest.ceremony, second)
    mixed = replace(deal, commitments=other.commitments)
    assert honest.participants[second].cheats(replace(honest.ceremony, dealt=(1,)), second, {1: mixed}) == (1,)


# Who may say what, and when


def test_every_message_is_taken_once_and_in_its_phase_alone() -> None:
    stage = table(4)
    seat, box = seats(4)[0], stage.participants[seats(4)[0]].box.public
    for early in (
        lambda: dkg.deal(stage.ceremony, seat, Deal((bytes(32),), (None,))),
        lambda: dkg.report(stage.ceremony, seat, ()),
        lambda: dkg.justify(stage.ceremony, seat, 1, bytes(32), Deal((bytes(32),), (None,))),
        lambda: dkg.confirm(stage.ceremony, seat, bytes(32), finished(4).key),
    ):
        with pytest.raises(Refused) as refused:
            early()
        assert code_of(refused) == Code.E_STATE
    joined = dkg.join(stage.ceremony, seat, box)
    for again in (box, sha256(b"another key")):
        with pytest.raises(Refused) as refused:
            dkg.join(joined, seat, again)
        assert code_of(refused) == Code.E_DUP
    with pytest.raises(Refused) as refused:
        dkg.join(joined, seats(4)[1], box)
    assert code_of(refused) == Code.E_DUP, "a key that another seat has shown"
    with pytest.raises(Refused) as refused:
        dkg.join(joined, sha256(b"a stranger"), box)
    assert code_of(refused) == Code.E_ROLE
    with pytest.raises(Refused) as refused:
        dkg.join(joined, seats(4)[1], bytes(32))
    assert code_of(refused) == Code.E_FORMAT, "a key that opens for everybody"


def test_a_deal_that_no_honest_dealer_makes_is_refused() -> None:
    stage = table(4, silent=frozenset(seats(4)[3:]))
    stage.join()
    seat = seats(4)[0]
    good = stage.participants[seat].deal(stage.ceremony, seat)
    identity = (1).to_bytes(32, "little")
    for bad in (
        replace(good, commitments=good.commitments[:2]),
        replace(good, commitments=(*good.commitments, good.commitments[0])),
        replace(good, commitments=(identity, *good.commitments[1:])),
        replace(good, boxes=good.boxes[:3]),
        replace(good, boxes=(None, *good.boxes[1:])),
        replace(good, boxes=(*good.boxes[:3], good.boxes[0])),
    ):
        with pytest.raises(Refused) as refused:
            dkg.deal(stage.ceremony, seat, bad)
        assert code_of(refused) == Code.E_DEAL
    with pytest.raises(Refused) as refused:
        dkg.deal(stage.ceremony, seats(4)[3], good)
    assert code_of(refused) == Code.E_ROLE, "who has not joined does not deal"
    dealt = dkg.deal(stage.ceremony, seat, good)
    with pytest.raises(Refused) as refused:
        dkg.deal(dealt, seat, good)
    assert code_of(refused) == Code.E_DUP


def test_reports_name_dealers_once_and_come_once() -> None:
    """Complaint spam: each seat speaks once, about dealers that have dealt: there are at most n·n complaints."""
    stage = table(4)
    stage.join()
    stage.deal()
    seat = seats(4)[0]
    for bad in ((1, 1), (2, 1), (5,)):
        with pytest.raises(Refused) as refused:
            dkg.report(stage.ceremony, seat, bad)
        assert code_of(refused) == Code.E_FORMAT
    reported = dkg.report(stage.ceremony, seat, (2,))
    with pytest.raises(Refused) as refused:
        dkg.report(reported, seat, ())
    assert code_of(refused) == Code.E_DUP


def test_a_justification_answers_an_accusation_with_the_true_share() -> None:
    stage = table(4, slander={seats(4)[3]: (1,)})
    for phase in (stage.join, stage.deal, stage.report):
        phase()
    seat = seats(4)[0]
    share = stage.participants[seat].justification(stage.ceremony, 4)
    other = stage.participants[seat].justification(stage.ceremony, 3)
    for receiver, shown, expected in (
        (3, other, Code.E_NOT_FOUND),
        (4, other, Code.E_DEAL),
        (4, bytes(32), Code.E_DEAL),
    ):
        with pytest.raises(Refused) as refused:
            dkg.justify(stage.ceremony, seat, receiver, shown, stage.deals[1])
        assert code_of(refused) == expected
    done = dkg.justify(stage.ceremony, seat, 4, share, stage.deals[1])
    with pytest.raises(Refused) as refused:
        dkg.justify(done, seat, 4, share, stage.deals[1])
    assert code_of(refused) == Code.E_DUP


def test_t_confirmations_of_one_key_make_it_active() -> None:
    stage = table(4)
    for phase in (stage.join, stage.deal, stage.report, stage.justify):
        phase()
    ceremony, key = stage.ceremony, stage.key
    with pytest.raises(Refused) as refused:
        dkg.confirm(ceremony, seats(4)[0], sha256(b"another key"), key)
    assert code_of(refused) == Code.E_DEAL
    for seat in seats(4)[:2]:
        ceremony = dkg.confirm(ceremony, seat, key.digest, key)
        assert ceremony.phase == Phase.CONFIRM
    with pytest.raises(Refused) as refused:
        dkg.confirm(ceremony, seats(4)[0], key.digest, key)
    assert code_of(refused) == Code.E_DUP
    assert dkg.confirm(ceremony, seats(4)[2], key.digest, key).phase == Phase.ACTIVE


def test_a_key_that_too_few_confirm_in_time_fails() -> None:
    stage = table(4)
    for phase in (stage.join, stage.deal, stage.report, stage.justify):
        phase()
    assert stage.ceremony.at(limits.CEREMONY_PHASE_MS - 1).phase == Phase.CONFIRM
    assert stage.ceremony.at(limits.CEREMONY_PHASE_MS).phase == Phase.FAILED


# Order, replay, crashes


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_within_a_phase_changes_nothing(joins: list[int], deals: list[int], reports: list[int]) -> None:
    """QUAL and the key are a function of what was said, not of who was faster."""
    stage = table(4)
    ceremony, all_seats = stage.ceremony, seats(4)
    for number in joins:
        ceremony = dkg.join(ceremony, all_seats[number], stage.participants[all_seats[number]].box.public)
    ceremony = ceremony.at(0)
    dealt = {}
    for number in deals:
        seat = all_seats[number]
        dealt[number + 1] = stage.participants[seat].deal(ceremony.at(0), seat)
        ceremony = dkg.deal(ceremony, seat, dealt[number + 1])
    ceremony = ceremony.at(0)
    for number in reports:
        ceremony = dkg.report(ceremony, all_seats[number], ())
    assert dkg.outcome(ceremony.at(0), dealt) == finished(4).key


def test_after_a_crash_the_same_seed_says_the_same() -> None:
    """Nothing but the seed has to survive: a second deal would be refused, and would not fit the first one's shares."""
    stage = table(4)
    stage.join()
    for seat in seats(4):
        again = Participant(CHAIN, stage.ceremony.id, sha256(b"seed" + seat))
        assert again.box.public == stage.participants[seat].box.public
        assert again.deal(stage.ceremony, seat) == stage.participants[seat].deal(stage.ceremony, seat)
    done = finished(4)
    for seat in seats(4):
        again = Participant(CHAIN, done.ceremony.id, sha256(b"seed" + seat))
        assert again.holder(done.ceremony, seat, done.deals, done.shown)[1] == done.share(seat)


def test_another_attempt_says_something_else_with_the_same_seed() -> None:
    """What was sealed in a failed attempt is of no use in the next one."""
    seat = seats(4)[0]
    first, second = (Participant(CHAIN, CeremonyId(1, 0, attempt), sha256(b"seed")) for attempt in (0, 1))
    assert first.box.public != second.box.public
    assert seat.hex() not in repr(first)


def test_a_ceremony_survives_being_written_down() -> None:
    ceremony = finished(7).ceremony
    assert decode(Ceremony, encode(ceremony), limits.CEREMONY_BYTES_MAX) == ceremony
    assert decode(Deal, encode(finished(7).deals[1]), limits.TRANSACTION_BYTES_MAX) == finished(7).deals[1]


def test_the_largest_ceremony_fits_its_bound() -> None:
    """Fifty seats, all of whom accuse all others; and the largest deal fits a transaction."""
    everybody = tuple(range(1, 51))
    largest = replace(
        finished(4).ceremony,
        receivers=seats(50),
        dealers=seats(50),
        boxes=seats(50, "box"),
        dealt=everybody,
        reported=everybody,
        complaints=tuple((dealer, receiver) for dealer in everybody for receiver in everybody),
        justified=tuple((dealer, receiver) for dealer in everybody for receiver in everybody),
        confirmed=everybody,
        since_ms=2**63 - 1,
        source=replace(finished(4).key, commitments=seats(34)),
    )
    assert len(encode(largest)) <= limits.CEREMONY_BYTES_MAX
    assert len(encode(Deal(seats(34), (SealedShare(bytes(32), bytes(48)),) * 50))) < limits.TRANSACTION_BYTES_MAX


def test_a_share_that_does_not_fit_the_chain_is_no_share() -> None:
    done = finished(4)
    seat = seats(4)[0]
    with pytest.raises((ProofError, InvalidInput)):
        Participant(CHAIN, done.ceremony.id, sha256(b"another seed")).holder(done.ceremony, seat, done.deals, {})


def test_public_shares_are_those_of_the_dealt_polynomials() -> None:
    done = finished(5)
    for holder, seat in zip(done.holders(), seats(5), strict=True):
        commitments = dkg.check_commitments(done.key.commitments, done.key.threshold)
        assert base_times(done.share(seat)) == public_share(commitments, holder.index)
