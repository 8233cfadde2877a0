"""Validators who say whatever a seed makes them say, properly signed unless the lie is in the signature."""

from collections.abc import Sequence
from functools import lru_cache
from random import Random

from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.statement import Claim
from p2pledger.consensus.messages import (
    Certificate,
    Kind,
    Message,
    NewView,
    Signed,
    SignedClaim,
    ViewChange,
    Vote,
    ballot_statement,
    statement,
)
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Epoch, Signature, ValidatorId, View
from p2pledger.sim.core.host import block_on
from p2pledger.sim.core.signatures import Oracle
from p2pledger.sim.founding import Consortium, found
from p2pledger.sim.observer import InvariantBroken

EPOCH = Epoch(0)
CONSORTIUM = lru_cache(maxsize=64)(found)


def require(holds: bool, rule: str, what: str) -> None:
    """Raises InvariantBroken."""
    if not holds:
        raise InvariantBroken(f"{rule}: {what}")


class Voices:
    """All validators of a consortium, by their seats."""

    def __init__(self, random: Random, n: int, parameters: Parameters | None = None) -> None:
        self.random = random
        self.n = n
        self.f = (n - 1) // 3
        self.q = (n + self.f + 2) // 2
        """⌈(n+f+1)/2⌉, computed here and not by the code under test."""
        self.consortium: Consortium = CONSORTIUM(n, parameters or Parameters())
        self.founding = self.consortium.founding
        self.chain = self.founding.chain
        self.ids: list[ValidatorId] = [member.id for member in self.founding.validators.members]
        self.signatures = Oracle(_by_seat(self.consortium))
        self._branches: dict[int, list[Header]] = {}

    def primary(self, view: int) -> int:
        """Its seat."""
        return view % self.n

    def branch(self, name: int) -> list[Header]:
        """A chain of eight blocks from the genesis, another for each name."""
        if name not in self._branches:
            headers = [self.founding.header]
            while len(headers) < 9:
                headers.append(block_on(headers[-1], len(headers), b"branch %d" % name))
            self._branches[name] = headers[1:]
        return self._branches[name]

    def sign(self, seat: int, message: Message) -> Signed:
        """What this seat says, whoever `message` says that its author is."""
        return Signed(message, self.signatures.sign(seat, statement(self.chain, message)))

    def said(self, message: Message) -> Signed:
        """Signed by its author."""
        return self.sign(self.ids.index(message.author), message)

    def seats(self, count: int) -> list[int]:
        """So many distinct ones, ascending."""
        return sorted(self.random.sample(range(self.n), count))

    def vote(self, certificate: Certificate, seat: int) -> Vote:
        """This seat's part of a certificate."""
        return Vote(seat, self.signatures.sign(seat, ballot_statement(self.chain, certificate, self.ids[seat])))

    def certificate(self, kind: Kind, view: int, header: Header, seats: Sequence[int] | None = None) -> Certificate:
        """By a random quorum, or by these."""
        bare = Certificate(kind, EPOCH, View(view), header.height, header.hash, ())
        return replace(bare, votes=tuple(self.vote(bare, seat) for seat in seats or self.seats(self.q)))

    def view_change(
        self, seat: int, view: int, lock: Certificate | None = None, committed: Certificate | None = None
    ) -> ViewChange:
        """A claim and the certificate that belongs to it."""
        return ViewChange(EPOCH, View(view), claim_of(lock), self.ids[seat], lock, committed)

    def quote(self, change: ViewChange) -> SignedClaim:
        """As a NEW-VIEW quotes it."""
        return SignedClaim(change.author, change.claim, self.said(change).signature)

    def new_view(self, changes: Sequence[ViewChange], headers: Sequence[Header] = ()) -> NewView:
        """What the primary makes of these: the highest claim by (view, height), worked out here."""
        view = changes[0].view
        ordered = sorted(changes, key=lambda change: change.author)
        locks = [change.lock for change in changes if change.lock is not None]
        best = max(locks, key=lambda lock: (lock.view, lock.height), default=None)
        author = self.ids[self.primary(view)]
        return NewView(EPOCH, view, tuple(self.quote(one) for one in ordered), best, tuple(headers), author)


def claim_of(lock: Certificate | None) -> Claim | None:
    """The claim that a lock proves."""
    return None if lock is None else Claim(lock.view, lock.height, lock.block_hash)


def noise(random: Random) -> Signature:
    """What nobody signed."""
    return Signature(random.randbytes(64))


def _by_seat(consortium: Consortium) -> list[SigningKey]:
    by_id = {key.public: key for key in consortium.consensus}
    return [by_id[member.id] for member in consortium.founding.validators.members]
