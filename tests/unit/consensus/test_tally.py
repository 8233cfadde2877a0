"""The tally against a model that keeps everything."""

from hypothesis import given
from hypothesis import strategies as st

from p2pledger.consensus.messages import Prepare, Signed
from p2pledger.consensus.tally import Tally
from p2pledger.primitives.ids import BlockHash, Epoch, Height, Signature, ValidatorId, View

VOTES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from([b"x", b"y", b"z"]), st.integers(0, 5)), max_size=60
)


def _vote(view: int, height: int, block: bytes, author: int) -> Prepare:
    return Prepare(Epoch(0), View(view), Height(height), BlockHash(block * 32), ValidatorId(bytes([author]) * 32))


@given(VOTES)
def test_it_counts_distinct_validators_and_keeps_two_votes_of_each(votes: list[tuple[int, int, bytes, int]]) -> None:
    """P14, P23: per (view, height, author) the first two differing votes; each counts for its own block."""
    tally = Tally()
    model: dict[tuple[int, int, int], list[bytes]] = {}
    for view, height, block, author in votes:
        vote = _vote(view, height, block, author)
        kept = model.setdefault((view, height, author), [])
        is_conflict = block not in kept and len(kept) == 1
        assert (tally.add(Signed(vote, Signature(bytes(64))), vote) is not None) == is_conflict
        if block not in kept and len(kept) < 2:
            kept.append(block)
    for view in range(3):
        for height in range(1, 4):
            for block in (b"x", b"y", b"z"):
                counted = {author[0] for author in tally.signatures(View(view), Height(height), BlockHash(block * 32))}
                assert counted == {a for (v, h, a), kept in model.items() if (v, h) == (view, height) and block in kept}
    assert len(tally) == sum(len(kept) for kept in model.values())


@given(VOTES, st.randoms(use_true_random=False))
def test_the_order_of_agreeing_votes_does_not_matter(votes: list[tuple[int, int, bytes, int]], chance: object) -> None:
    single = {(view, height, author): (view, height, block, author) for view, height, block, author in votes}
    orders = [list(single.values()), sorted(single.values())]
    chance.shuffle(orders[0])  # type: ignore[attr-defined]
    quorums = []
    for order in orders:
        tally = Tally()
        for item in order:
            tally.add(Signed(_vote(*item), Signature(bytes(64))), _vote(*item))
        quorums.append([tally.quorums(View(view), 2) for view in range(3)])
    assert quorums[0] == quorums[1]


@given(VOTES, st.integers(0, 3), st.integers(0, 2))
def test_pruning_leaves_what_is_above(votes: list[tuple[int, int, bytes, int]], floor: int, oldest: int) -> None:
    tally = Tally()
    for item in votes:
        tally.add(Signed(_vote(*item), Signature(bytes(64))), _vote(*item))
    tally.prune(Height(floor), View(oldest))
    for view in range(3):
        heights = [height for height, _ in tally.quorums(View(view), 1)]
        assert all(height > floor for height in heights)
        assert view >= oldest or not heights


@given(VOTES, st.integers(0, 3), st.integers(0, 2))
def test_pruning_forgets_nothing_else(votes: list[tuple[int, int, bytes, int]], floor: int, oldest: int) -> None:
    """P23: what is above the committed height and not too old stays as it was."""
    whole, pruned = Tally(), Tally()
    for item in votes:
        for tally in (whole, pruned):
            tally.add(Signed(_vote(*item), Signature(bytes(64))), _vote(*item))
    pruned.prune(Height(floor), View(oldest))
    for view in range(oldest, 3):
        assert pruned.quorums(View(view), 1) == [it for it in whole.quorums(View(view), 1) if it[0] > floor]


def test_the_newest_is_that_of_the_highest_view_then_height() -> None:
    """P20: whoever asks what it may have forgotten is told the newest, whatever came first, and of its own only."""
    places = [(0, 2), (1, 1), (0, 9), (1, 3), (1, 2), (0, 1)]
    votes = [_vote(view, height, b"x", 1) for view, height in places]
    for order in (votes, votes[::-1]):
        tally = Tally()
        for vote in [*order, _vote(2, 9, b"x", 2)]:
            tally.add(Signed(vote, Signature(bytes(64))), vote)
        newest = tally.newest_of(ValidatorId(bytes([1]) * 32))
        assert newest is not None and newest.message == _vote(1, 3, b"x", 1)
        assert tally.newest_of(ValidatorId(bytes([3]) * 32)) is None


def test_of_two_differing_votes_for_one_place_the_later_is_the_newest() -> None:
    tally = Tally()
    for block in (b"x", b"y"):
        tally.add(Signed(_vote(0, 1, block, 1), Signature(bytes(64))), _vote(0, 1, block, 1))
    newest = tally.newest_of(ValidatorId(bytes([1]) * 32))
    assert newest is not None and newest.message == _vote(0, 1, b"y", 1)


def test_a_ballot_is_there_once_it_was_counted() -> None:
    """P23: by author, place and block; knowing it saves its verification."""
    tally, vote = Tally(), _vote(0, 1, b"x", 1)
    assert not tally.has(vote)
    tally.add(Signed(vote, Signature(bytes(64))), vote)
    assert tally.has(vote)
    assert not any(tally.has(other) for other in (_vote(0, 1, b"x", 2), _vote(0, 1, b"y", 1), _vote(0, 2, b"x", 1)))
