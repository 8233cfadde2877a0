"""What a replica counts, keeps and waits for, against models that are sets and sums (P4 to P23).

The models keep everything that ever came and work out the answer anew each time; the parts keep what P23 allows.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from p2pledger.chain.genesis import Parameters
from p2pledger.chain.statement import Claim
from p2pledger.consensus import effects as do
from p2pledger.consensus.ballots import Ballots
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import (
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
)
from p2pledger.consensus.recovery import Recovery
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.statements import OwnStatements
from p2pledger.consensus.timeouts import Patience
from p2pledger.consensus.view_change import RivalClaims, ViewChanges, select_tip
from p2pledger.primitives.ids import BlockHash, Height, View
from tests.seeded.voices import EPOCH, Voices, require

STEPS = 60
VIEWS_AHEAD = 8
"""As P23 has it."""


def run_seed(seed: int, n: int) -> Counter[str]:
    """One life of each part; what was reached. Raises InvariantBroken."""
    random = Random(f"counts {seed} {n}")
    voices = Voices(random, n)
    reached: Counter[str] = Counter()
    for life in (_ballots, _view_changes, _patience, _silence, _own_words, _locks):
        life(voices, reached)
    return reached


def _slot(message: Message) -> tuple[type[Message], int, int]:
    at = message.height if isinstance(message, Prepare | Commit | PrePrepare) else 0
    return type(message), message.view, at


# Votes (P5, P14, P23)


@dataclass
class _Votes:
    """Of each kind and place the differing votes of each author, the first two only, in order."""

    kept: dict[tuple[type[Message], int, int], dict[bytes, list[Signed]]] = field(default_factory=dict)

    def of(self, vote: Message) -> list[Signed]:
        return self.kept.setdefault(_slot(vote), {}).setdefault(vote.author, [])

    def count(self, vote: Prepare | Commit) -> int:
        authors = self.kept.get(_slot(vote), {})
        return sum(any(_hash(one) == vote.block_hash for one in said) for said in authors.values())

    def prune(self, committed: int, oldest: int) -> None:
        self.kept = {at: said for at, said in self.kept.items() if at[2] > committed and at[1] >= oldest}

    def __len__(self) -> int:
        return sum(len(said) for authors in self.kept.values() for said in authors.values())


def _hash(signed: Signed) -> BlockHash:
    assert isinstance(signed.message, Prepare | Commit)
    return signed.message.block_hash


def _ballots(voices: Voices, reached: Counter[str]) -> None:
    random, window = voices.random, voices.random.randint(1, 8)
    ballots, model = Ballots(EPOCH, voices.founding.validators, window), _Votes()
    committed = view = 0
    for _ in range(STEPS):
        if random.random() < 0.05:
            committed, view = committed + random.randrange(2), view + random.randrange(3)
            ballots.move_to(Height(committed), View(view))
            model.prune(committed, max(0, view - VIEWS_AHEAD))
            require(len(ballots) == len(model), "P23", f"{len(ballots)} votes are kept, {len(model)} are in bounds")
        vote = _vote(voices, random, committed, view, window)
        _count(voices, ballots, model, vote, (committed, view, window), reached)
    for kept in model.kept:
        if kept[0] is Prepare:
            _quorums(voices, ballots, model, kept[1])


def _vote(voices: Voices, random: Random, committed: int, view: int, window: int) -> Prepare | Commit:
    far = random.random() < 0.2
    at = max(0, view + (random.randint(-12, 12) if far else random.randint(-1, 0)))
    height = max(1, committed + (random.randint(-2, window + 3) if far else random.randint(1, min(2, window))))
    name = random.choice([0, 0, 0, 1, 2]) if random.random() < 0.5 else 0
    kind = random.choice([Prepare, Commit])
    block = BlockHash(bytes([name]) * 32)
    return kind(EPOCH, View(at), Height(height), block, random.choice(voices.ids))


def _count(
    voices: Voices,
    ballots: Ballots,
    model: _Votes,
    vote: Prepare | Commit,
    here: tuple[int, int, int],
    reached: Counter[str],
) -> None:
    committed, view, window = here
    is_near = committed < vote.height <= committed + window and abs(vote.view - view) <= VIEWS_AHEAD
    require(ballots.has_room_for(vote) == is_near, "P23", f"room for a vote at {vote.view}, {vote.height} in {here}")
    if not is_near:
        reached["vote out of bounds"] += 1
        require(not ballots.wants(vote), "P23", "a vote out of bounds is verified")
        return
    said = model.of(vote)
    is_known = any(_hash(one) == vote.block_hash for one in said)
    is_wanted = not is_known and len(said) < 2 and model.count(vote) < voices.q
    require(ballots.wants(vote) == is_wanted, "P23", f"a vote is wanted: {not is_wanted}, should be {is_wanted}")
    signed = voices.said(vote)
    conflicting, certificate = ballots.count(signed, vote)
    is_evidence = len(said) == 1 and not is_known
    require(conflicting == (said[0] if is_evidence else None), "P14", "a second, differing vote is evidence, no other")
    reached["evidence"] += is_evidence
    if not is_known and len(said) < 2:
        said.append(signed)
    has_quorum = model.count(vote) >= voices.q
    reached["certificate"] += has_quorum
    require((certificate is not None) == has_quorum, "P5", f"{model.count(vote)} of {voices.q} votes for one block")
    require(len(ballots) == len(model), "P23", f"{len(ballots)} votes are kept, {len(model)} may be")
    if certificate is not None:
        place = (certificate.view, certificate.height, certificate.block_hash)
        require(place == (vote.view, vote.height, vote.block_hash), "P5", "a certificate of another place")
        seats = [one.seat for one in certificate.votes]
        require(len(seats) == voices.q and seats == sorted(set(seats)), "P5", f"a certificate of the seats {seats}")


def _quorums(voices: Voices, ballots: Ballots, model: _Votes, view: int) -> None:
    due = set()
    for (kind, at, height), authors in model.kept.items():
        if kind is Prepare and at == view:
            for block in {_hash(one) for said in authors.values() for one in said}:
                if sum(any(_hash(one) == block for one in said) for said in authors.values()) >= voices.q:
                    due.add((height, block))
    require(set(ballots.prepared_in(View(view))) == due, "P5", f"what is prepared in view {view}")


# View changes (P10 to P12, P14)


def _view_changes(voices: Voices, reached: Counter[str]) -> None:
    random = voices.random
    changes, model = ViewChanges(voices.founding.validators), {}
    eager = random.random()
    for _ in range(STEPS):
        author = random.choice(voices.ids)
        message = _view_change(voices, author, eager)
        earlier = model.get(author)
        is_known = earlier is not None and (
            earlier.view > message.view or (earlier.view, earlier.claim) == (message.view, message.claim)
        )
        require(changes.has(message) == is_known, "P11", "whether a VIEW-CHANGE is known")
        conflicting = changes.add(voices.said(message), message)
        differs = earlier is not None and earlier.view == message.view and earlier.claim != message.claim
        told = None if conflicting is None else conflicting.message
        require(told == (earlier if differs else None), "P14", "a second claim for one view is evidence, nothing else")
        reached["two claims"] += differs
        if earlier is None or message.view > earlier.view:
            model[author] = message
        _compare(voices, changes, list(model.values()), random.randrange(6), reached)
        if random.random() < 0.03:
            entered = random.randrange(4)
            changes.forget_up_to(View(entered))
            model = {author: one for author, one in model.items() if one.view > entered}


def _view_change(voices: Voices, author: bytes, eager: float) -> ViewChange:
    random = voices.random
    claim = None
    if random.random() < 0.8:
        rank = random.choice([(0, 1), (0, 2), (0, 5), (1, 1), (1, 3), (2, 1)])
        rival = random.random() < 0.25
        claim = Claim(View(rank[0]), Height(rank[1]), BlockHash(bytes([*rank, rival]) + bytes(29)))
    view = View(3 if random.random() < eager else random.randint(3, 8))
    return ViewChange(EPOCH, view, claim, voices.ids[voices.ids.index(author)], None, None)  # type: ignore[arg-type]


def _compare(voices: Voices, changes: ViewChanges, newest: list[ViewChange], view: int, reached: Counter[str]) -> None:
    above = sorted(one.view for one in newest if one.view > view)
    due = above[0] if len(above) > voices.f else None
    require(changes.wanted_above(View(view)) == due, "P10", f"to join is {due}, where {above} are asked for")
    reached["joins"] += due is not None
    at_least = sum(one.view >= view for one in newest)
    require(changes.count_at_least(View(view)) == at_least, "P8", "how many want a view")
    exact = [one for one in newest if one.view == view]
    quorum = changes.quorum_for(View(view))
    require((quorum is not None) == (len(exact) >= voices.q), "P12", f"{len(exact)} of {voices.q} ask for view {view}")
    if quorum is None:
        return
    reached["quorum of claims"] += 1
    quoted = [message for message, _ in quorum]
    require(len({one.author for one in quoted}) == voices.q == len(quoted), "P11", "a quorum is of distinct validators")
    require(all(one in exact for one in quoted), "P12", "a quorum is for exactly one view")
    top = max(map(_rank, exact))
    rivals = {one.claim for one in quoted if _rank(one) == top}
    try:
        tip, _ = select_tip(quorum)
    except RivalClaims:
        reached["rival claims"] += 1
        require(len(rivals) > 1, "P12", "rival claims are seen where there are none")
        return
    require(len(rivals) == 1, "P12", "two blocks of one rank are claimed, and one is chosen")
    require(tip in rivals, "P12", f"the tip is not the highest claim, of view and height {top}")


def _rank(one: ViewChange) -> tuple[int, int]:
    return (-1, -1) if one.claim is None else (one.claim.view, one.claim.height)


# Timers (P8, P16)


def _patience(voices: Voices, reached: Counter[str]) -> None:
    random = voices.random
    base, cap = random.choice([(1_000, 8_000), (300, 2_400), (1, 1)])
    patience = Patience(Parameters(timeout_ms=base, timeout_cap_ms=cap))
    failures = repeats = 0
    running: int | None = None
    given: list[int] = []
    for _ in range(STEPS):
        step = random.choice(["want", "want", "rest", "fire", "late", "height", "left", "repeat"])
        if step in {"want", "rest"}:
            said = list(patience.demand_progress(step == "want"))
            if step == "want" and running is None:
                delay = min(cap, base * 2**failures)
                require(_delays(said) == [("progress", delay)], "P8", f"{said} after {failures} views in vain")
                assert isinstance(said[0], do.SetTimer)
                running = said[0].generation
                given.append(running)
            elif step == "rest" and running is not None:
                require([type(one) for one in said] == [do.StopTimer], "P8", "a timer that nothing needs runs on")
                running = None
            else:
                require(not said, "P8", f"the timer is touched while it is {step}ed for: {said}")
        elif step in {"fire", "late"} and given:
            generation = given[-1] if step == "fire" else random.choice(given)
            fires = patience.progress.fires(generation)
            require(fires == (generation == running), "P8", "a timer fires that was stopped")
            reached["stale timer"] += not fires
            if fires:
                running = None
        elif step in {"height", "left", "repeat"}:
            failures = 0 if step == "height" else failures + (step == "left")
            repeats = repeats + 1 if step == "repeat" else 0
            patience.repeats += step == "repeat"
            changed = {"height": patience.height_committed, "left": patience.view_left, "repeat": patience.rearm}
            said = list(changed[step]())
            stops = any(isinstance(one, do.StopTimer) for one in said)
            require(stops == (running is not None and step != "repeat"), "P8", f"a {step} leaves the timer running")
            running = running if step == "repeat" else None
            delay = min(cap, max(1, base // 2) * 2**repeats)
            require(_delays(said) == [("retransmit", delay)], "P16", f"{said} after {repeats} repetitions")


def _delays(effects: list[do.Effect]) -> list[tuple[str, int]]:
    return [(one.timer, one.delay_ms) for one in effects if isinstance(one, do.SetTimer)]


# Silence (P20)


def _silence(voices: Voices, reached: Counter[str]) -> None:
    random, me = voices.random, voices.ids[0]
    recovery = Recovery(answers_needed=voices.q - 1)
    is_silent, height, view, left = False, 0, 0, -1
    for _ in range(STEPS // 4):
        if random.random() < 0.4:
            committed, standing = random.randrange(6), random.randrange(4)
            said = _own(random, me)
            at = said.height if isinstance(said, Prepare | Commit | PrePrepare) else 0
            cast = {_key(said): said} if random.random() < 0.3 else {}
            told = list(recovery.compare(said, Height(committed), View(standing), cast))
            is_above = at > committed if at else said.view >= standing
            if is_above and not cast:
                require(len(told) == (not is_silent), "P20", "a rolled-back journal is reported once")
                is_silent, height, view = True, max(height, at), max(view, said.view)
                reached["rollback"] += 1
            else:
                require(not told, "P20", "what the journal holds, or is long past, is no rollback")
        else:
            certified = (random.randrange(8), random.randrange(6))
            lifted = recovery.lift(Height(certified[0]), View(certified[1]))
            ends = is_silent and certified[0] > height and certified[1] > view
            require(lifted == ends, "P20", f"a silence up to {(height, view)} ends at {certified}: {lifted}")
            if ends:
                is_silent, left = False, view
                reached["silence ends"] += 1
        require(recovery.is_silent == is_silent, "P20", f"it is silent: {recovery.is_silent}, should be {is_silent}")
        require(recovery.left_view == left, "P20", "the views in which nothing is said any more")
    for count, who in enumerate(voices.ids[1:], start=1):
        recovery.answered.add(who)
        require(recovery.is_complete() == (count >= voices.q - 1), "P20", f"{count} answers of {voices.q - 1}")


def _own(random: Random, me: bytes) -> Message:
    view, height, block = View(random.randrange(6)), Height(random.randint(1, 7)), BlockHash(bytes(32))
    if random.random() < 0.3:
        return ViewChange(EPOCH, view, None, me, None, None)  # type: ignore[arg-type]
    return random.choice([Prepare, Commit])(EPOCH, view, height, block, me)  # type: ignore[arg-type]


def _key(message: Message) -> tuple[int, int, int, int]:
    kinds = (PrePrepare, Prepare, Commit, ViewChange, NewView)
    _, view, height = _slot(message)
    return (kinds.index(type(message)) + 1, 0, view, height)


# Own words and the lock (P4, P5, P19)


def _own_words(voices: Voices, reached: Counter[str]) -> None:
    random, own = voices.random, OwnStatements()
    said: dict[tuple[int, int, int, int], Message] = {}
    for _ in range(STEPS // 2):
        message = _own(random, voices.ids[0])
        if isinstance(message, Prepare | Commit) and random.random() < 0.3:
            block = BlockHash(b"1" * 32)
            message = type(message)(EPOCH, message.view, message.height, block, message.author)
        effects = list(own.say(message))
        if _key(message) in said:
            reached["said again"] += 1
            require(not effects, "P4", f"{_key(message)} is said twice")
            continue
        said[_key(message)] = message
        require(effects == [do.Persist(VoteRecord(message)), do.Broadcast(message)], "P19", "said before journalled")
    for place, message in said.items():
        repeated = [one.message for one in own.repeat(View(place[2])) if isinstance(one, do.Broadcast)]
        require(message in repeated, "P16", "a statement of this view is not repeated")


def _locks(voices: Voices, reached: Counter[str]) -> None:
    replica, highest = Replica(voices.founding, voices.ids[0]), (-1, -1)
    for _ in range(5):
        view = voices.random.randrange(4)
        certificate = voices.certificate("prepare", view, voices.random.choice(voices.branch(view)))
        replica.raise_lock(certificate)
        reached["lower lock"] += (certificate.view, certificate.height) < highest
        highest = max(highest, (certificate.view, certificate.height))
        assert replica.lock is not None
        require((replica.lock.view, replica.lock.height) == highest, "P5", f"the lock is not the highest, {highest}")
