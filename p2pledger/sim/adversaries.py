"""Validators that lie: each controls a real identity and changes what leaves it. Named after the misdeed."""

from typing import TYPE_CHECKING, Protocol

import msgspec

from p2pledger.consensus.messages import Commit, Prepare, PrePrepare, Signed, statement
from p2pledger.messages import Agreement, parse_message
from p2pledger.primitives.codec import encode

if TYPE_CHECKING:
    from p2pledger.sim.world import SimNode, World


class Adversary(Protocol):
    """Sits between a node and the network."""

    def outgoing(self, world: "World", node: "SimNode", target: int, body: bytes) -> list[bytes]:
        """What really goes to `target` instead of `body`."""


class Silent:
    """Says nothing at all."""

    def outgoing(self, world: "World", node: "SimNode", target: int, body: bytes) -> list[bytes]:
        return []


class Withholder:
    """Speaks to some, by chance."""

    def outgoing(self, world: "World", node: "SimNode", target: int, body: bytes) -> list[bytes]:
        return [body] if world.random.random() < 0.5 else []


class Equivocator:
    """As primary shows different blocks to different validators, and votes for all that it sees of itself."""

    def outgoing(self, world: "World", node: "SimNode", target: int, body: bytes) -> list[bytes]:
        message = parse_message(body)
        if not isinstance(message, Agreement):
            return [body]
        said = message.signed.message
        if isinstance(said, PrePrepare) and said.author == node.consensus.public:
            twin_header = msgspec.structs.replace(said.header, time_ms=said.header.time_ms + 1)
            twin = msgspec.structs.replace(said, header=twin_header)
            world.observer.reached["equivocation"] += 1
            other = _signed(world, node, twin)
            votes = [
                _signed(world, node, kind(said.epoch, said.view, said.height, block, said.author))
                for kind in (Prepare, Commit)
                for block in (said.block_hash, twin_header.hash)
            ]
            shown = [body] if world.random.random() < 0.5 else [other]
            if world.random.random() < 0.1:
                shown = [body, other]
            return shown + votes
        return [body]


def _signed(world: "World", node: "SimNode", message: PrePrepare | Prepare | Commit) -> bytes:
    chain = world.consortium.founding.chain
    return encode(Agreement(Signed(message, node.consensus.sign(statement(chain, message)))))
