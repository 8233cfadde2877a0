"""Liars among primaries: what they propose, to whom, and what they say of the view that they begin."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2pledger.chain.batch import parse_batch
from p2pledger.chain.block import Header, transaction_root
from p2pledger.consensus.messages import Commit, NewView, Prepare, PrePrepare, SignedClaim, ViewChange
from p2pledger.messages import Agreement, parse_message
from p2pledger.primitives import limits
from p2pledger.primitives.ids import BatchId, Millis, NodeId
from p2pledger.sim.adversaries.base import Adversary, Rewriter

if TYPE_CHECKING:
    from p2pledger.sim.node import SimNode

HOUR_MS = 3_600_000


class Equivocator(Adversary):
    """Shows different blocks to different validators, and votes for all that it sees of itself."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if not isinstance(said, PrePrepare):
            return [body]
        self.acts()
        twin = replace(said.header, time_ms=Millis(said.header.time_ms + 1))
        other = self.say(replace(said, header=twin))
        votes = [
            self.say(kind(said.epoch, said.view, said.height, block, said.author))
            for kind in (Prepare, Commit)
            for block in (said.block_hash, twin.hash)
        ]
        if self.chance.random() < 0.1:
            return [body, other, *votes]
        return [body if self.chance.random() < 0.5 else other, *votes]


class Deceiver(Rewriter):
    """Shows everybody the same bad block, and good ones on top of it."""

    def spoil(self, header: Header) -> Header:
        if self.chance.random() >= 0.3:
            return header
        self.acts()
        spoilt = [
            replace(header, transaction_root=bytes(32)),
            replace(header, executed_height=0, effects_roots=()),
            replace(header, batches=header.batches * 2),
            replace(header, parameters_hash=bytes(32)),
            replace(header, validators_hash=bytes(32)),
            replace(header, unsettled=0 if header.unsettled else limits.CHECKPOINT_TRANSACTIONS),
        ]
        return self.chance.choice(spoilt)


class WrongRoot(Rewriter):
    """Claims other effects or another state than execution gives (P3, P22)."""

    def spoil(self, header: Header) -> Header:
        if header.effects_roots and self.chance.random() < 0.5:
            self.acts()
            return replace(header, effects_roots=(*header.effects_roots[:-1], bytes(32)))
        if header.state_roots:
            self.acts()
            return replace(header, state_roots=tuple(replace(root, root=bytes(32)) for root in header.state_roots))
        return header


class TimeTraveller(Rewriter):
    """Dates blocks at the end of the world, at its beginning, or not later than their parent (T22)."""

    def spoil(self, header: Header) -> Header:
        if self.chance.random() >= 0.4:
            return header
        self.acts()
        times = [1, header.time_ms - HOUR_MS, header.time_ms + HOUR_MS, 2**62]
        return replace(header, time_ms=Millis(self.chance.choice(times)))


class Censor(Rewriter):
    """Leaves one member's transactions out for as long as it is primary (P24)."""

    def spoil(self, header: Header) -> Header:
        engine = self.node.engine
        victim = self.world.nodes[self.others()[0]].id
        if engine is None or not any(self._is_from(victim, id_) for id_ in header.batches):
            return header
        self.acts()
        left_out = sum(len(parse_batch(data).transactions) for data in map(self._body, header.batches) if data)
        unsettled = header.unsettled - left_out
        return replace(header, batches=(), transaction_root=transaction_root([]), unsettled=unsettled)

    def _body(self, batch: BatchId) -> bytes | None:
        return self.node.ledger.body(batch)

    def _is_from(self, victim: NodeId, batch: BatchId) -> bool:
        data = self._body(batch)
        return data is not None and parse_batch(data).origin == victim


class BadNewView(Adversary):
    """Begins its views with too few claims, repeated or changed ones, another tip, or twice (P11, P12, P13)."""

    def __init__(self) -> None:
        self._heard: dict[int, dict[bytes, SignedClaim]] = {}

    def hearer(self, source: int, body: bytes) -> "SimNode | None":
        message = parse_message(body)
        if isinstance(message, Agreement) and isinstance(said := message.signed.message, ViewChange):
            claim = SignedClaim(said.author, said.claim, message.signed.signature)
            self._heard.setdefault(said.view, {})[said.author] = claim
        return super().hearer(source, body)

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if not isinstance(said, NewView):
            return [body]
        self.acts()
        heard = sorted(self._heard.get(said.view, {}).values(), key=lambda claim: claim.author)
        spoilt = [
            replace(said, claims=said.claims[:-1]),
            replace(said, claims=(said.claims[0], *said.claims[:-1])),
            replace(said, claims=tuple(reversed(said.claims))),
            replace(said, claims=tuple(replace(claim, claim=None) for claim in said.claims), certificate=None),
            replace(said, certificate=None),
            replace(said, headers=said.headers[::-1]),
            replace(said, headers=()),
            replace(said, claims=tuple(heard[-len(said.claims) :])),
        ]
        first = self.say(self.chance.choice(spoilt))
        return [first, body] if self.chance.random() < 0.5 else [body, first]
