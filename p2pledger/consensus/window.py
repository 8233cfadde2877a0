"""The blocks above the committed height: which headers are known, whose bodies are held, how they hang together."""

from dataclasses import dataclass, field

from p2pledger.chain.block import Header
from p2pledger.primitives.ids import BlockHash, Height


@dataclass(frozen=True, slots=True)
class Missing:
    """The next thing to fetch before a chain is complete: a header by its hash, or the bodies of a header."""

    height: Height
    block_hash: BlockHash
    header: Header | None
    """None: not even the header is known."""


class ForkError(Exception):
    """A certified block does not descend from the committed one: more than f validators lie."""


@dataclass(slots=True)
class Window:
    """Headers by hash, from the committed one up."""

    committed: Header
    headers: dict[BlockHash, Header] = field(default_factory=dict)
    held: set[BlockHash] = field(default_factory=set)
    """Blocks whose bodies are at hand."""

    def add(self, header: Header) -> None:
        """Know a header above the committed height."""
        if header.height > self.committed.height:
            self.headers[header.hash] = header

    def hold(self, header: Header) -> None:
        """Know a header whose bodies are at hand."""
        if header.height > self.committed.height:
            self.headers[header.hash] = header
            self.held.add(header.hash)

    def chain_to(self, block_hash: BlockHash, height: Height) -> list[Header] | Missing:
        """The headers above the committed one up to this block, oldest first, all held; or the first thing missing.

        Raises ForkError if the chain does not hang on the committed block.
        """
        chain: list[Header] = []
        while height > self.committed.height:
            header = self.headers.get(block_hash)
            if header is None:
                return Missing(height, block_hash, None)
            chain.append(header)
            block_hash, height = header.parent, Height(height - 1)
        if block_hash != self.committed.hash:
            raise ForkError(
                f"certified chain has {block_hash.hex()} at committed height {height}, we {self.committed.hash.hex()}"
            )
        chain.reverse()
        for header in chain:
            if header.hash not in self.held:
                return Missing(header.height, header.hash, header)
        return chain

    def advance(self, committed: Header) -> None:
        """Move up; what lies at or below the new height is forgotten."""
        self.committed = committed
        self.headers = {key: header for key, header in self.headers.items() if header.height > committed.height}
        self.held &= self.headers.keys()
