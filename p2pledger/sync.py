"""Catching up (P21): ranges of committed blocks from one peer after another, each checked against a certificate.

What a peer sends is believed only for what it proves: links by hash from our own tip, bodies by their hashes, and
a commit certificate of the epoch's validators on the last block of the range.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Block, Header
from p2pledger.chain.pruned import decode_pruned
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.messages import Certificate
from p2pledger.messages import RangeReply, SyncBlock
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, Height, NodeId

RETRY_MS = 1_000
"""A peer that has not answered by then is asked again later; the next one is asked now."""


def check_range(reply: RangeReply, tip: Header, chain: ChainId, validators: ValidatorSet) -> list[Block]:
    """The blocks of a range that continues at `tip`; raises InvalidInput naming what does not hold."""
    parent = tip
    blocks = []
    for block in reply.blocks:
        header = block.header
        if header.height != parent.height + 1 or header.parent != parent.hash:
            raise InvalidInput(f"synced block {header.height} does not follow block {parent.height}")
        if tuple(batch_id(body) for body in block.bodies) != header.batches:
            raise InvalidInput(_why_not(block))
        blocks.append(Block(header, block.bodies))
        parent = header
    for header in reply.tail:
        if header.height != parent.height + 1 or header.parent != parent.hash:
            raise InvalidInput(f"header {header.height} behind a synced range does not follow header {parent.height}")
        parent = header
    certificate = reply.certificate
    if certificate.kind != "commit" or (certificate.height, certificate.block_hash) != (parent.height, parent.hash):
        raise InvalidInput(f"the certificate of a synced range does not commit its last header {parent.height}")
    if certificate.epoch != parent.epoch:
        raise InvalidInput(f"certificate of epoch {certificate.epoch} for a block of epoch {parent.epoch}")
    check_certificate(certificate, chain, validators)
    return blocks


def _why_not(block: SyncBlock) -> str:
    for body in block.bodies:
        try:
            decode_pruned(body)
        except InvalidInput:
            continue
        return (
            f"block {block.header.height} was pruned by its sender, so nobody can execute it: stop this node and "
            "install a member's snapshot ('p2pledger snapshot install')"
        )
    return f"bodies of synced block {block.header.height} do not hash to its batches"


@dataclass(slots=True)
class Syncer:
    """Whom to ask next, one request at a time."""

    target: Certificate | None = None
    asked_at_ms: int = 0
    asked: NodeId | None = None
    _turn: int = 0
    faults: dict[NodeId, int] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        return self.target is not None

    def aim(self, certificate: Certificate) -> None:
        """There is a committed block far ahead."""
        if self.target is None or certificate.height > self.target.height:
            self.target = certificate

    def reached(self, height: Height) -> None:
        """We are there, or beyond."""
        self.asked = None
        if self.target is not None and height >= self.target.height:
            self.target = None

    def next_peer(self, links: Sequence[NodeId], now_ms: int) -> NodeId | None:
        """The peer to ask now, or None while an answer may still come."""
        if self.target is None or not links:
            return None
        if self.asked is not None:
            if self.asked in links and now_ms - self.asked_at_ms < RETRY_MS:
                return None
            self.fault(self.asked)  # silence costs it its turn, or one silent peer could keep us back for ever
        self._turn += 1
        fewest = min(self.faults.get(node, 0) for node in links)
        best = [node for node in sorted(links) if self.faults.get(node, 0) == fewest]
        self.asked = best[self._turn % len(best)]
        self.asked_at_ms = now_ms
        return self.asked

    def fault(self, node: NodeId) -> None:
        """It sent what does not verify, or nothing: the others first."""
        self.faults[node] = self.faults.get(node, 0) + 1
        self.asked = None
