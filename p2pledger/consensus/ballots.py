"""Pre-prepares and votes above the committed height, of everybody, within the bounds of P23."""

from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.messages import Ballot, Certificate, Commit, Kind, Prepare, PrePrepare, Signed
from p2pledger.consensus.tally import Tally
from p2pledger.primitives import limits
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


class Ballots:
    """What is kept for W heights above the committed one and for views near the replica's own."""

    def __init__(self, epoch: Epoch, validators: ValidatorSet, window: int) -> None:
        self._epoch = epoch
        self._validators = validators
        self._window = window
        self._committed = Height(0)
        self._view = View(0)
        self.prepares = Tally()
        self.commits = Tally()
        self.proposals: dict[tuple[View, Height], Signed] = {}
        """The first pre-prepare seen for each place."""

    def has_room_for(self, message: PrePrepare | Ballot) -> bool:
        """Whether its place is one for which messages are kept (P23)."""
        oldest = self._view if isinstance(message, PrePrepare) else self._view - limits.VIEWS_AHEAD_MAX
        return (
            self._committed < message.height <= self._committed + self._window
            and oldest <= message.view <= self._view + limits.VIEWS_AHEAD_MAX
        )

    def wants(self, message: PrePrepare | Ballot) -> bool:
        """Whether it is worth verifying: in bounds, and neither known nor superfluous."""
        if not self.has_room_for(message):
            return False
        if isinstance(message, PrePrepare):
            known = self.proposals.get((message.view, message.height))
            return known is None or known.message != message
        tally = self.prepares if isinstance(message, Prepare) else self.commits
        if tally.has(message) or tally.knows_equivocation(message):
            return False
        return len(tally.signatures(message.view, message.height, message.block_hash)) < self._validators.q

    def count(self, signed: Signed, vote: Ballot) -> tuple[Signed | None, Certificate | None]:
        """(an earlier, different vote of its author for that slot, a certificate if there is a quorum now)."""
        tally = self.prepares if isinstance(vote, Prepare) else self.commits
        conflicting = tally.add(signed, vote)
        votes = tally.signatures(vote.view, vote.height, vote.block_hash)
        if len(votes) < self._validators.q:
            return conflicting, None
        kind: Kind = "commit" if isinstance(vote, Commit) else "prepare"
        place = (self._epoch, vote.view, vote.height)
        return conflicting, build_certificate(kind, place, vote.block_hash, votes, self._validators)

    def prepared_in(self, view: View) -> list[tuple[Height, BlockHash]]:
        """What has a quorum of PREPAREs in a view, lowest height first."""
        return self.prepares.quorums(view, self._validators.q)

    def proposals_above(self, view: View, height: Height) -> list[Signed]:
        """The pre-prepares of a view above a height, in order."""
        places = sorted(place for place in self.proposals if place[0] == view and place[1] > height)
        return [self.proposals[place] for place in places]

    def newest_of(self, author: ValidatorId) -> list[Signed]:
        """The newest pre-prepare, PREPARE and COMMIT by a validator (P20)."""
        proposed = [kept for _, kept in sorted(self.proposals.items()) if kept.message.author == author]
        voted = [self.prepares.newest_of(author), self.commits.newest_of(author)]
        return proposed[-1:] + [signed for signed in voted if signed is not None]

    def move_to(self, committed: Height, view: View) -> None:
        """Forget what the new height and view leave behind."""
        self._committed, self._view = committed, view
        oldest = View(max(0, view - limits.VIEWS_AHEAD_MAX))
        self.prepares.prune(committed, oldest)
        self.commits.prune(committed, oldest)
        self.proposals = {
            place: kept for place, kept in self.proposals.items() if place[0] >= view and place[1] > committed
        }

    def __len__(self) -> int:
        return len(self.prepares) + len(self.commits) + len(self.proposals)
