"""Where a liar sits: between the real engine of its own identity and the network."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from p2pledger.chain.block import Header, unsettled_after
from p2pledger.consensus.messages import Commit, Message, Prepare, PrePrepare, Signed, statement
from p2pledger.messages import Agreement, Relay, parse_message
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import BlockHash

if TYPE_CHECKING:
    from random import Random

    from p2pledger.sim.node import SimNode
    from p2pledger.sim.world import World


class Adversary:
    """Controls one real validator: holds its keys, hears what it hears, and decides what leaves it.

    This base is honest. A subclass overrides what it lies about; it must draw from `self.chance` only.
    """

    world: "World"
    node: "SimNode"
    chance: "Random"

    def join(self, world: "World", node: "SimNode") -> None:
        """Take over a node, before it starts."""
        self.world = world
        self.node = node
        self.chance = world.chance[f"adversary {node.index}"]

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        """What really goes to `target` instead of `body`."""
        return [body]

    def hearer(self, source: int, body: bytes) -> "SimNode | None":
        """Who gets what arrives; None: nobody. A liar pays no attention when others show it what it said itself."""
        message = parse_message(body)
        if isinstance(message, Relay):
            message = parse_message(message.body)
        is_echo = isinstance(message, Agreement) and message.signed.message.author == self.node.validator
        return None if is_echo else self.node

    def begin(self) -> None:
        """The node runs."""

    def idle(self) -> None:
        """Called every now and then: a chance to speak unasked."""

    # What subclasses need

    def acts(self) -> None:
        """Count one lie of this kind."""
        self.world.observer.reached[f"lie of {type(self).__name__}"] += 1

    def own(self, body: bytes) -> Message | None:
        """The statement of this validator that `body` carries, if it carries one."""
        message = parse_message(body)
        if isinstance(message, Agreement) and message.signed.message.author == self.node.validator:
            return message.signed.message
        return None

    def say(self, message: Message) -> bytes:
        """A statement in this validator's name, properly signed."""
        chain = self.world.consortium.founding.chain
        return encode(Agreement(Signed(message, self.node.consensus.sign(statement(chain, message)))))

    def others(self) -> list[int]:
        """Everybody else."""
        return [index for index in range(self.world.n) if index != self.node.index]


class Rewriter(Adversary):
    """As primary shows everybody another block than its engine built, and builds on what it showed."""

    def __init__(self) -> None:
        self._built: dict[BlockHash, Header] = {}
        self._shown: dict[BlockHash, Header] = {}

    def spoil(self, header: Header) -> Header:
        """The block to show instead; by default the same."""
        return header

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        said = self.own(body)
        if isinstance(said, PrePrepare):
            return [self.say(replace(said, header=self._rewritten(said.header)))]
        if isinstance(said, Prepare | Commit) and said.block_hash in self._shown:
            return [self.say(replace(said, block_hash=self._shown[said.block_hash].hash))]
        return [body]

    def _rewritten(self, header: Header) -> Header:
        if header.hash not in self._shown:
            self._built[header.hash] = header
            parent = self._shown.get(header.parent)
            shown = header if parent is None else self._moved(header, self._built[header.parent], parent)
            self._shown[header.hash] = self.spoil(shown)
        return self._shown[header.hash]

    def _moved(self, header: Header, built: Header, parent: Header) -> Header:
        """On another parent than the one it was built on."""
        interval = self.world.consortium.founding.parameters.checkpoint_interval
        own = header.unsettled - unsettled_after(built, interval)
        return replace(header, parent=parent.hash, unsettled=unsettled_after(parent, interval) + own)
