"""Validators that lie: each controls a real identity and changes what leaves it. Named after the misdeed."""

from typing import TYPE_CHECKING, Protocol

import msgspec

from p2pledger.chain.block import Header
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


class Deceiver:
    """As primary shows everybody the same bad block, and good ones on top of it."""

    def __init__(self) -> None:
        self._shown: dict[bytes, Header] = {}

    def outgoing(self, world: "World", node: "SimNode", target: int, body: bytes) -> list[bytes]:
        message = parse_message(body)
        if not isinstance(message, Agreement) or message.signed.message.author != node.consensus.public:
            return [body]
        said = message.signed.message
        if isinstance(said, PrePrepare):
            shown = msgspec.structs.replace(said, header=self._spoilt(world, said.header))
            return [_signed(world, node, shown)]
        if isinstance(said, Prepare | Commit) and said.block_hash in self._shown:
            vote = msgspec.structs.replace(said, block_hash=self._shown[said.block_hash].hash)
            return [_signed(world, node, vote)]
        return [body]

    def _spoilt(self, world: "World", header: Header) -> Header:
        if header.hash not in self._shown:
            parent = self._shown.get(header.parent)
            shown = header if parent is None else msgspec.structs.replace(header, parent=parent.hash)
            if world.random.random() < 0.3:
                world.observer.reached["bad block"] += 1
                shown = world.random.choice(
                    [
                        msgspec.structs.replace(shown, transaction_root=bytes(32)),
                        msgspec.structs.replace(shown, effects_roots=(*shown.effects_roots[:-1], bytes(32))),
                        msgspec.structs.replace(shown, executed_height=0, effects_roots=()),
                        msgspec.structs.replace(shown, time_ms=1),
                        msgspec.structs.replace(shown, batches=shown.batches * 2),
                    ]
                )
            self._shown[header.hash] = shown
        return self._shown[header.hash]


def _signed(world: "World", node: "SimNode", message: PrePrepare | Prepare | Commit) -> bytes:
    chain = world.consortium.founding.chain
    return encode(Agreement(Signed(message, node.consensus.sign(statement(chain, message)))))
