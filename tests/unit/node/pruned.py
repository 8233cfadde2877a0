"""A chain of one member that is long enough to be pruned, on real LMDB stores."""

from pathlib import Path

from p2pledger.chain.transaction import parse, sign
from p2pledger.health.pruning_operations import Prune
from p2pledger.node.home import Home
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Height, Millis, Nonce
from tests.unit.node.lone import Lone, home_of_one, lone_node

PEOPLE = 55


def home_that_lived(folder: Path) -> Home:
    """Enough heights for a horizon that lies well below the tip."""
    home = home_of_one(folder)
    with lone_node(home) as node:
        node.perform(node.engine.start())
        for person in range(1, PEOPLE + 1):
            node.register(person)
    return home


def horizon(node: Lone) -> Height:
    """The highest that is allowed for the next block."""
    return Height(node.engine.executor.executed - 99)


def approve(node: Lone, operation: Prune, nonce: int = 1) -> Code:
    """Sent by the only organisation, which is a majority; executed, sealed and flushed."""
    expires = Millis(node.now.wall_ms + 60_000)
    key, chain = node.home.office().account, node.home.founding.chain
    height = node.submit(parse(sign(chain, key, Nonce(nonce), expires, [operation])))
    (executed,) = node.engine.executor.receipts_at(height)
    return Code(executed.receipt.code)
