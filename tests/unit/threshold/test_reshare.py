"""New shares of the same secret: I-10."""

from itertools import combinations

import pytest

from p2pledger.chain.validators import faults
from p2pledger.primitives.errors import Code, Refused
from p2pledger.threshold import dkg
from p2pledger.threshold.dkg import Phase
from p2pledger.threshold.group import base_times
from p2pledger.threshold.key_release import TooFewShares
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.sharing import combine
from tests.unit.threshold.stage import (
    ACCESS,
    CONTENT_KEY,
    LABEL,
    READER,
    SIZES,
    Keepers,
    Table,
    finished,
    random_of,
    resharing,
    seats,
    spoiled_box,
    table,
)


def keepers(done: Table) -> Keepers:
    return Keepers(LongTerm(done.key), tuple(done.holders()))


@pytest.mark.parametrize("n", SIZES)
def test_a_refresh_keeps_the_key_and_changes_every_share(n: int) -> None:
    """I-10."""
    before = finished(n)
    after = resharing(before).run()
    assert after.ceremony.phase == Phase.ACTIVE
    assert after.key.public == before.key.public
    assert after.key.key_epoch == before.key.key_epoch
    assert all(before.share(seat) != after.share(seat) for seat in seats(n))
    capsule = keepers(before).release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    shares = keepers(after).shares(capsule)
    assert keepers(after).release.open(capsule, LABEL, ACCESS, READER, shares).content_key == CONTENT_KEY


@pytest.mark.parametrize("n", SIZES)
def test_old_and_new_shares_do_not_combine(n: int) -> None:
    before, after = finished(n), resharing(finished(n)).run()
    t = before.key.threshold
    old = {index: before.share(seat) for index, seat in enumerate(seats(n), start=1)}
    new = {index: after.share(seat) for index, seat in enumerate(seats(n), start=1)}
    for chosen in combinations(old, t):
        for kept in range(1, t):  # so many old ones, the rest new
            mixed = {index: (old if place < kept else new)[index] for place, index in enumerate(chosen)}
            assert base_times(combine(mixed)) != before.key.public


@pytest.mark.parametrize("n", SIZES)
def test_a_share_of_the_last_epoch_is_a_wrong_share(n: int) -> None:
    before, after = finished(n), resharing(finished(n)).run()
    capsule = keepers(before).release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    with pytest.raises(TooFewShares) as caught:
        keepers(after).release.open(capsule, LABEL, ACCESS, READER, keepers(before).shares(capsule))
    assert caught.value.wrong == tuple(range(1, n + 1))


@pytest.mark.parametrize(("old", "new"), [(4, 5), (5, 4), (4, 7), (7, 4)])
def test_the_set_of_holders_can_grow_and_shrink(old: int, new: int) -> None:
    """t of the old and t' of the new are needed, and no overlap of the two."""
    before = finished(old)
    after = resharing(before, seats(new, "newcomer")).run()
    assert after.ceremony.phase == Phase.ACTIVE
    assert after.key.public == before.key.public
    assert after.key.threshold == new - faults(new)
    capsule = keepers(before).release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    assert keepers(after).release.open(capsule, LABEL, ACCESS, READER, keepers(after).shares(capsule)).wrong == ()


def test_a_refresh_after_a_refresh() -> None:
    first = resharing(finished(4)).run()
    second = resharing(first).run()
    assert (second.key.share_epoch, second.key.public) == (2, finished(4).key.public)


def test_it_works_without_f_of_the_old_and_f_of_the_new() -> None:
    """S is then made of others, the same for all."""
    stage = resharing(finished(4))
    stage.silent = frozenset(seats(4)[:1])
    done = stage.run()
    assert done.ceremony.phase == Phase.ACTIVE
    assert done.ceremony.contributors == (2, 3, 4)
    assert done.key.public == finished(4).key.public


def test_without_t_of_the_old_there_is_no_resharing() -> None:
    stage = resharing(finished(4), seats(4, "newcomer"))
    stage.silent = frozenset(seats(4)[:2])
    assert stage.run().ceremony.phase == Phase.FAILED


def test_a_dealer_that_cheats_is_left_out_of_the_set() -> None:
    stage = resharing(finished(4))
    stage.lies = {seats(4)[0]: spoiled_box(2)}
    stage.stubborn = frozenset(seats(4)[:1])
    done = stage.run()
    assert done.ceremony.contributors == (2, 3, 4)
    assert done.key.public == finished(4).key.public


def test_nobody_deals_another_secret_than_its_share() -> None:
    """I-10: X stays what it is."""
    stage = resharing(finished(4))
    stage.join()
    seat = seats(4)[0]
    stranger = table(4)
    stranger.join()
    other = stranger.participants[seat].deal(stranger.ceremony, seat)
    with pytest.raises(Refused) as refused:
        dkg.deal(stage.ceremony, seat, other)
    assert refused.value.code == Code.E_DEAL
