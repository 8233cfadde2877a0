"""What lying validators of the core simulation do: each changes what leaves its host, and signs with its own key."""

from collections.abc import Iterator
from random import Random
from typing import Protocol

from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.statement import Claim
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    Vote,
)
from p2pledger.primitives.ids import Epoch, Height, Millis, View
from p2pledger.sim.core.host import Host, Wire, block_on


class Accomplice(Protocol):
    """What a liar needs of the world."""

    random: Random
    now: int

    def sign_as(self, host: Host, message: Message) -> Signed:
        """Anything at all, under the liar's own key."""

    def know(self, header: Header) -> Header:
        """A block that was built; others may learn of it from now on."""


class Misdeed(Protocol):
    """Sits between a lying host and the network."""

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        """What really goes to one receiver instead of `wire`."""


class Silent:
    """Says nothing at all."""

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        return []


class Withholder:
    """Speaks to some, by chance."""

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        return [wire] if world.random.random() < 0.5 else []


class Twin:
    """One of two copies of the honest code under one key; that is the whole misdeed."""

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        return [wire]


class Deceiver(Twin):
    """Builds bad blocks and finds them good (the world asks by type)."""


class Equivocator:
    """As primary shows different blocks to different validators, and votes for both."""

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        said = wire.message if isinstance(wire, Signed) else None
        if not isinstance(said, PrePrepare) or said.author != host.id:
            return [wire]
        other = world.know(replace(said.header, time_ms=Millis(said.header.time_ms + 1)))
        host.held.add(other.hash)
        votes: list[Wire] = [
            world.sign_as(host, kind(said.epoch, said.view, said.height, block, said.author))
            for kind in (Prepare, Commit)
            for block in (said.block_hash, other.hash)
        ]
        lie = world.sign_as(host, replace(said, header=other))
        chance = world.random.random()
        shown: list[Wire] = [wire, lie] if chance < 0.1 else [wire] if chance < 0.55 else [lie]
        return shown + votes


class Undercutter:
    """Enters a new view as its primary, and then proposes other blocks below and beside the tip (P13)."""

    def __init__(self) -> None:
        self._shown: dict[View, list[Wire]] = {}

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        said = wire.message if isinstance(wire, Signed) else None
        if not isinstance(said, NewView) or said.author != host.id or said.tip is None:
            return [wire]
        return [wire, *self.lies(world, host, said)]

    def lies(self, world: Accomplice, host: Host, said: NewView) -> list[Wire]:
        """The blocks and votes, the same for everybody."""
        if said.view not in self._shown:
            tip = host.replica.committed if said.tip is None else said.tip.height
            self._shown[said.view] = list(self._undercut(world, host, said.view, tip))
        return self._shown[said.view]

    def _undercut(self, world: Accomplice, host: Host, view: View, tip: Height) -> Iterator[Wire]:
        parent = host.replica.window.committed
        while parent.height < tip:
            parent = world.know(block_on(parent, world.now, b"undercut %d" % view))
            host.held.add(parent.hash)
            yield world.sign_as(host, PrePrepare(Epoch(0), view, parent, host.id))
            for kind in (Prepare, Commit):
                yield world.sign_as(host, kind(Epoch(0), view, parent.height, parent.hash, host.id))


class Forger:
    """Passes on what others did not sign, and claims what no certificate proves. Nobody may believe any of it."""

    def __init__(self) -> None:
        self._undercutter = Undercutter()

    def outgoing(self, world: Accomplice, host: Host, wire: Wire) -> list[Wire]:
        if world.random.random() < 0.7:
            return [wire]
        if isinstance(wire, Certificate):
            return [self._spoilt(world, wire)]
        if not isinstance(wire, Signed):
            return [wire]
        message = wire.message
        if isinstance(message, NewView) and message.author == host.id:
            return [
                world.sign_as(host, self._without_tip(world, message)),
                *self._undercutter.lies(world, host, message),
            ]
        if isinstance(message, Commit) and message.author == host.id:
            return [wire, self._of_one_voice(world, host, message)]
        forged = self._forged(world, host, wire)
        return [wire] if forged is None else [forged, wire] if world.random.random() < 0.5 else [wire, forged]

    def _of_one_voice(self, world: Accomplice, host: Host, said: Commit) -> Certificate:
        """A commit certificate of a block that nobody else ever saw: one's own vote, q times."""
        header = world.know(block_on(host.replica.window.committed, world.now, b"forged"))
        host.held.add(header.hash)
        vote = world.sign_as(host, replace(said, height=header.height, block_hash=header.hash))
        votes = (Vote(host.seat, vote.signature),) * host.founding.validators.q
        return Certificate("commit", said.epoch, said.view, header.height, header.hash, votes)

    def _forged(self, world: Accomplice, host: Host, wire: Signed) -> Signed | None:
        message = wire.message
        others = [member.id for member in host.founding.validators.members if member.id != host.id]
        match message:
            case Prepare() | Commit() | PrePrepare():
                return Signed(replace(message, author=world.random.choice(others)), wire.signature)
            case ViewChange():
                if message.author != host.id:
                    return Signed(replace(message, claim=None, lock=None), wire.signature)
                lock = message.lock or message.committed
                if lock is None:
                    return None
                lock = self._spoilt(world, lock)
                claim = Claim(lock.view, lock.height, lock.block_hash)
                return world.sign_as(host, replace(message, claim=claim, lock=lock))
            case NewView():
                return None

    def _without_tip(self, world: Accomplice, message: NewView) -> NewView:
        claims = message.claims
        plain = [quoted for quoted in claims if quoted.claim is None] or [replace(claims[0], claim=None)]
        forged = world.random.choice(
            [
                tuple(replace(quoted, claim=None) for quoted in claims),  # not what they signed
                (plain[0],) * len(claims),  # one voice counted often
                tuple(plain),  # too few
                claims[:-1],
            ]
        )
        return replace(message, claims=forged, certificate=None, headers=())

    def _spoilt(self, world: Accomplice, certificate: Certificate) -> Certificate:
        votes = certificate.votes
        return world.random.choice(
            [
                replace(certificate, view=View(certificate.view + 1)),
                replace(certificate, height=Height(certificate.height + 1)),
                replace(certificate, kind="commit" if certificate.kind == "prepare" else "prepare"),
                replace(certificate, votes=(votes[0],) * len(votes)),
                replace(certificate, votes=votes[:-1]),
            ]
        )


MISDEEDS: dict[str, type[Misdeed]] = {
    "silent": Silent,
    "withholder": Withholder,
    "twin": Twin,
    "deceiver": Deceiver,
    "equivocator": Equivocator,
    "forger": Forger,
    "undercutter": Undercutter,
}
