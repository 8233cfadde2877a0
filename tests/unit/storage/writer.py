"""A process to be killed: it votes and commits without end and says so after each durable turn.

The chain it makes is the same every time, so whoever looks at the store afterwards knows what must stand there.
"""

import os
import sys
from pathlib import Path

from p2pledger.chain.block import Header
from p2pledger.engine.ports import LedgerWrite
from p2pledger.primitives.ids import Height
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import LmdbLedgerStore
from tests.interfaces.chains import CHAIN, GENESIS, NODE, append, body, commit, header, prepare, proposed, vote

STEPS = ("prepared", "voted", "committed")


def bodies_of(height: int) -> list[bytes]:
    """One of some pages, so that a body does not fit into the page of its key, and a small one."""
    return [b"%d large " % height * 2000, b"%d small" % height]


def block_at(height: int, parent: bytes) -> Header:
    return header(height, parent, bodies_of(height))


def turns(block: Header) -> list[list[LedgerWrite]]:
    """What a replica writes on the way to a committed block, one durable turn each."""
    bodies = [body(data) for data in bodies_of(block.height)]
    return [
        [*bodies, proposed(block), vote(prepare(block.height, block.hash))],
        [vote(commit(block.height, block.hash))],
        [append(block)],
    ]


def main(home: Path) -> None:
    with exclusive_lock(home / "lock"):
        store = LmdbLedgerStore(home / "ledger", CHAIN, NODE, GENESIS)
        os.write(1, b"open 0\n")
        while True:
            height = Height(store.tip() + 1)
            for step, writes in zip(STEPS, turns(block_at(height, store.committed_hash(store.tip()))), strict=True):
                store.apply(writes)
                os.write(1, f"{step} {height}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
