"""Collects VIEW-CHANGEs and picks what a new view must build on (P10 to P12)."""

from p2pledger.chain.statement import Claim
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.messages import Certificate, Signed, SignedClaim, ViewChange, same_statement
from p2pledger.primitives.ids import ValidatorId, View


class RivalClaims(Exception):
    """Two certified blocks of equal rank: impossible with at most f liars (P12)."""


class ViewChanges:
    """The newest VIEW-CHANGE of each validator; distinct validators are counted, not messages (P11)."""

    def __init__(self, validators: ValidatorSet) -> None:
        self._validators = validators
        self._newest: dict[ValidatorId, tuple[ViewChange, Signed]] = {}

    def add(self, signed: Signed, message: ViewChange) -> Signed | None:
        """Keep it if it is newer; the earlier one of the same view if it says something else (P14)."""
        kept = self._newest.get(message.author)
        if kept is not None and kept[0].view == message.view:
            return None if same_statement(kept[0], message) else kept[1]
        if kept is None or message.view > kept[0].view:
            self._newest[message.author] = (message, signed)
        return None

    def has(self, message: ViewChange) -> bool:
        """Whether this or a newer one of its author is known already."""
        kept = self._newest.get(message.author)
        return kept is not None and (
            kept[0].view > message.view or (kept[0].view == message.view and same_statement(kept[0], message))
        )

    def newest_of(self, author: ValidatorId) -> Signed | None:
        """The newest one by this author."""
        kept = self._newest.get(author)
        return None if kept is None else kept[1]

    def wanted_above(self, view: View) -> View | None:
        """The smallest view above `view` to join: f+1 distinct validators ask for views above it (P10)."""
        views = sorted(message.view for message, _ in self._newest.values() if message.view > view)
        return views[0] if len(views) > self._validators.f else None

    def count_at_least(self, view: View) -> int:
        """How many validators ask for this view or a later one (P9, last sentence)."""
        return sum(1 for message, _ in self._newest.values() if message.view >= view)

    def quorum_for(self, view: View) -> list[tuple[ViewChange, Signed]] | None:
        """q VIEW-CHANGEs for exactly `view`, those with the highest claims, sorted by author; None if too few."""
        exact = [pair for pair in self._newest.values() if pair[0].view == view]
        if len(exact) < self._validators.q:
            return None
        exact.sort(key=lambda pair: (_rank(pair[0].claim), pair[0].author), reverse=True)
        return sorted(exact[: self._validators.q], key=lambda pair: pair[0].author)

    def forget_up_to(self, view: View) -> None:
        """Drop those for views at or below `view`, once it has been entered."""
        self._newest = {author: pair for author, pair in self._newest.items() if pair[0].view > view}

    def __len__(self) -> int:
        return len(self._newest)


def _rank(claim: Claim | None) -> tuple[int, int]:
    return (-1, -1) if claim is None else claim.rank


def select_tip(quorum: list[tuple[ViewChange, Signed]]) -> tuple[Claim | None, Certificate | None]:
    """The highest claim by (view, height), never by height first, with its certificate (P12)."""
    best = max(quorum, key=lambda pair: _rank(pair[0].claim))[0]
    rivals = {
        pair[0].claim.block_hash for pair in quorum if pair[0].claim and _rank(pair[0].claim) == _rank(best.claim)
    }
    if len(rivals) > 1:
        raise RivalClaims(f"two blocks are certified at (view, height) {_rank(best.claim)}")
    return best.claim, best.lock


def quoted(quorum: list[tuple[ViewChange, Signed]]) -> tuple[SignedClaim, ...]:
    """The signed parts, as a NEW-VIEW carries them."""
    return tuple(SignedClaim(message.author, message.claim, signed.signature) for message, signed in quorum)
