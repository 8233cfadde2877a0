"""The blocks above the committed height: which headers are known, whose bodies are held, how they hang together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from p2pledger.chain.block import Header
from p2pledger.consensus import effects as do
from p2pledger.consensus.effects import Effect
from p2pledger.primitives.ids import BlockHash, Height


@dataclass(frozen=True, slots=True)
class Missing:
    """The next thing to fetch before a chain is complete: a header by its hash, or the bodies of a header."""

    height: Height
    block_hash: BlockHash
    header: Header | None
    """None: not even the header is known."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The chain does not hang on the committed block; whether that proves more than f liars, the caller knows."""

    committed: Header
    found: BlockHash
    """What the chain has at the committed height."""

    def __str__(self) -> str:
        return (
            f"a certified chain has {self.found.hex()} at the committed height {self.committed.height}, "
            f"we {self.committed.hash.hex()}"
        )


class ForkError(Exception):
    """A certified block contradicts the committed one: more than f validators lie."""


@dataclass(slots=True)
class Window:
    """Headers by hash, from the committed one up."""

    committed: Header
    headers: dict[BlockHash, Header] = field(default_factory=dict)
    held: set[BlockHash] = field(default_factory=set)
    """Vouched for (checked here, or certified) and all bodies at hand."""
    _asked: set[tuple[bool, BlockHash]] = field(default_factory=set)

    def add(self, header: Header) -> None:
        """Know a header above the committed height."""
        if header.height > self.committed.height:
            self.headers[header.hash] = header

    def hold(self, header: Header) -> None:
        """Know a header that was checked or is certified, and whose bodies are at hand."""
        if header.height > self.committed.height:
            self.headers[header.hash] = header
            self.held.add(header.hash)

    def vouches_for(self, header: Header) -> bool:
        """Whether what follows this block may be checked: it is committed, or held (P3)."""
        return header.hash == self.committed.hash or header.hash in self.held

    def chain_to(self, block_hash: BlockHash, height: Height) -> list[Header] | Missing | Conflict:
        """The headers above the committed one up to this block, oldest first, all held; or what keeps it from that."""
        chain: list[Header] = []
        while height > self.committed.height:
            header = self.headers.get(block_hash)
            if header is None:
                return Missing(height, block_hash, None)
            chain.append(header)
            block_hash, height = header.parent, Height(height - 1)
        if block_hash != self.committed.hash:
            return Conflict(self.committed, block_hash)
        chain.reverse()
        for header in chain:
            if header.hash not in self.held:
                return Missing(header.height, header.hash, header)
        return chain

    def ask(self, missing: Missing) -> Iterator[Effect]:
        """Fetch what is missing, unless that was asked for already."""
        key = (missing.header is None, missing.block_hash)
        if key in self._asked:
            return
        self._asked.add(key)
        if missing.header is None:
            yield do.FetchHeader(missing.height, missing.block_hash)
        else:
            yield do.FetchBodies(missing.header)

    def ask_again(self) -> None:
        """Answers may have been lost: the next need asks anew."""
        self._asked.clear()

    def advance(self, committed: Header) -> None:
        """Move up; what lies at or below the new height is forgotten."""
        self.committed = committed
        self.headers = {key: header for key, header in self.headers.items() if header.height > committed.height}
        self.held &= self.headers.keys()
        self._asked.clear()
