"""What validators signed: nothing twice, nothing before it was durable, and who is to blame where it was otherwise.

Statements are kept for ever, over all incarnations of a node. Signatures are verified where something hangs on them
(a contradiction, a quorum, a word that was not durable), each once.
"""

from collections.abc import Iterator, Mapping

from p2pledger.sim.observer.blocks import Founding, Header
from p2pledger.sim.observer.encoding import holds
from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.reader import COMMIT, NEW_VIEW, PREPARE, VIEW_CHANGE, Statement

_Key = tuple[bytes, tuple[int, int, int, int]]
"""(author, place)."""
_NAMES = ("", "PRE-PREPARE", "PREPARE", "COMMIT", "VIEW-CHANGE", "NEW-VIEW")


def named(said: Statement) -> str:
    """For messages of people: what was said where."""
    where = f"view {said.view}" + (f" height {said.height}" if said.kind <= COMMIT else "")
    return f"{_NAMES[said.kind]} of {said.author.hex()[:8]} for {where}"


class Speech:
    """All statements heard, and all that honest validators made durable."""

    def __init__(self, founding: Founding, liars: frozenset[bytes]) -> None:
        self._founding = founding
        self._seats = frozenset(seat.key for seat in founding.seats)
        self._liars = liars
        self._heard: set[tuple[bytes, bytes]] = set()
        """(signed bytes, signature): the bytes name the author."""
        self._verdicts: dict[tuple[bytes, bytes], bool] = {}
        self._first: dict[_Key, Statement] = {}
        self._durable: dict[bytes, dict[tuple[int, int, int, int], bytes]] = {key: {} for key in self._seats}
        """Signed bytes by author and place."""
        self._votes: dict[tuple[int, int, int, int, bytes], dict[bytes, Statement]] = {}
        """By (kind, epoch, view, height, block hash), then by author."""
        self._commits: dict[bytes, dict[tuple[int, int, int, int, bytes], None]] = {}
        """For each block the keys of `_votes` under which COMMITs for it are."""
        self._children: dict[bytes, dict[bytes, None]] = {}
        self._proven: set[bytes] = set()
        self._new_views: dict[int, list[Statement]] = {}
        """All that were heard, by view: of a liar there may be several."""
        self.contradictions: dict[bytes, tuple[Statement, Statement]] = {}
        """The first two statements of an author that exclude each other."""

    # Hearing

    def hear(self, said: Statement) -> bool:
        """A statement crossed the wire; whether it was new. Raises InvariantBroken (I4 and 4)."""
        key = (said.signed, said.signature)
        if key in self._heard:
            return False
        self._heard.add(key)
        if said.author not in self._seats:
            return False
        self._compare(said)
        if said.author not in self._liars and not self.is_durable(said) and self.is_signed(said):
            raise InvariantBroken(f"4: {named(said)} is on the wire and was not durable before")
        if said.kind in (PREPARE, COMMIT):
            self._count(said)
        elif said.kind == NEW_VIEW and said.author == self._founding.primary(said.epoch, said.view):
            self._new_views.setdefault(said.view, []).append(said)
        return True

    def was_heard(self, said: Statement) -> bool:
        """Whether this very signature crossed the wire before."""
        return (said.signed, said.signature) in self._heard

    def learn(self, header: Header) -> None:
        """A header crossed the wire: whoever commits a block commits its ancestors."""
        self._children.setdefault(header.parent, {})[header.hash] = None

    def is_signed(self, said: Statement) -> bool:
        """Whether its author really signed it."""
        key = (said.signed, said.signature)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = holds(said.author, said.signed, said.signature)
        return verdict

    def _compare(self, said: Statement) -> None:
        key = (said.author, said.place)
        first = self._first.setdefault(key, said)
        if first is said:
            return
        if not self.is_signed(first):
            self._first[key] = said
        elif first.signed != said.signed and self.is_signed(said):
            if said.author not in self._liars:
                raise InvariantBroken(f"3, I4: an honest validator signed two statements: {named(said)}")
            self.contradictions.setdefault(said.author, (first, said))

    def _count(self, said: Statement) -> None:
        assert said.block is not None
        key = (said.kind, said.epoch, said.view, *said.block[1:])
        votes = self._votes.setdefault(key, {})
        known = votes.setdefault(said.author, said)
        if known is not said and not self.is_signed(known):
            votes[said.author] = said
        if said.kind == COMMIT:
            self._commits.setdefault(said.block[2], {})[key] = None

    def votes_for(self, said: Statement) -> int:
        """How many seats are said to have cast this vote: nobody can hold more."""
        assert said.block is not None
        return len(self._votes.get((said.kind, said.epoch, said.view, *said.block[1:]), ()))

    # Journals

    def is_durable(self, said: Statement) -> bool:
        """Whether an honest author has journalled it."""
        return self._durable[said.author].get(said.place) == said.signed

    def record(self, said: Statement) -> None:
        """An honest validator journalled a statement: what it may say from now on, and nothing else there."""
        known = self._durable[said.author].setdefault(said.place, said.signed)
        if known != said.signed:
            raise InvariantBroken(f"3, I4: an honest journal holds two statements: {named(said)}")

    def journal_of(self, author: bytes) -> Mapping[tuple[int, int, int, int], bytes]:
        """Everything that an author has ever journalled: signed bytes by place."""
        return self._durable[author]

    # Quorums

    def is_proven(self, block: bytes, by: bytes) -> bool:
        """I3: whether q seats were heard to COMMIT this block, or a descendant of it, in one view.

        The own COMMIT of whoever commits counts from its journal: it may crash between committing and speaking.
        """
        queue = [block]
        while queue:
            candidate = queue.pop()
            if candidate in self._proven or any(self._is_quorum(key, by) for key in self._commits.get(candidate, ())):
                return True
            queue += self._children.get(candidate, ())
        return self._is_alone(block, by)

    def _is_quorum(self, key: tuple[int, int, int, int, bytes], by: bytes) -> bool:
        votes = self._votes[key]
        if len(votes) + 1 < self._founding.q:
            return False
        voters = {author for author, said in votes.items() if self.is_signed(said)}
        if len(voters) >= self._founding.q:
            self._proven.add(key[4])
            return True
        some = next(iter(votes.values()))
        return len(voters) + 1 >= self._founding.q and by not in voters and self._has_journalled(some, by)

    def _has_journalled(self, like: Statement, by: bytes) -> bool:
        """Whether `by` made the same vote durable: the signed bytes end with their author."""
        return self._durable[by].get(like.place) == like.signed[:-32] + by

    def _is_alone(self, block: bytes, by: bytes) -> bool:
        """A consortium of one speaks to nobody."""
        return self._founding.q == 1 and any(
            place[0] == COMMIT and block in signed for place, signed in self._durable[by].items()
        )

    # Blame

    def culprits(self) -> dict[bytes, str]:
        """The validators whose own signatures convict them, each with what it did.

        Three things no honest validator ever signs: two statements for one place; a VIEW-CHANGE that claims less than
        a COMMIT of its author in an earlier view (P9); a PREPARE that no NEW-VIEW of its view allows (P13). Where two
        blocks were committed at one height, at least f + 1 validators did one of them, and all of them were heard.
        """
        guilty = {author: f"said two things: {named(pair[0])}" for author, pair in self.contradictions.items()}
        for said, what in (*self._lowered_claims(), *self._strays()):
            if said.author not in guilty and self.is_signed(said):
                guilty[said.author] = f"{what}: {named(said)}"
        return guilty

    def _lowered_claims(self) -> Iterator[tuple[Statement, str]]:
        committed: dict[bytes, list[Statement]] = {}
        for said in self._first.values():
            if said.kind == COMMIT:
                committed.setdefault(said.author, []).append(said)
        for said in self._first.values():
            if said.kind != VIEW_CHANGE:
                continue
            claimed = (-1, -1) if said.block is None else said.block[:2]
            for vote in committed.get(said.author, ()):
                if vote.view < said.view and claimed < (vote.view, vote.height) and self.is_signed(vote):
                    yield said, f"claims less than its COMMIT at view {vote.view} height {vote.height}"
                    break

    def _strays(self) -> Iterator[tuple[Statement, str]]:
        for said in self._first.values():
            if said.kind != PREPARE or said.view == 0:
                continue
            if not any(_allows(entry, said) and self.is_signed(entry) for entry in self._new_views.get(said.view, ())):
                yield said, "prepares what no NEW-VIEW of that view allows"


def _allows(entry: Statement, vote: Statement) -> bool:
    """P13: nothing below the tip of a NEW-VIEW is prepared in its view, and at its height only the tip."""
    assert vote.block is not None
    if entry.block is None:
        return True
    _, height, tip = entry.block
    return vote.height > height or (vote.height == height and vote.block[2] == tip)
