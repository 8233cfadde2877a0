"""How somebody who holds only the genesis believes a header: a chain of headers that ends in a commit certificate."""

from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from p2pledger.chain.block import Header
from p2pledger.chain.receipt import Executed, ReceiptProof, effects_root_of
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.messages import Certificate
from p2pledger.primitives.codec import Record
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import ChainId, Height

ANCHOR_HEADERS_MAX = 64
"""A root reaches a header within W heights and a certificate follows within W more; 64 is far beyond both."""


class Anchor(Record, frozen=True):
    """Headers linked by hash, the last one committed by `certificate`."""

    headers: Annotated[tuple[Header, ...], Meta(min_length=1, max_length=ANCHOR_HEADERS_MAX)]
    certificate: Certificate


def check_anchor(anchor: Anchor, chain: ChainId, validators: ValidatorSet) -> Header:
    """The first header, now known to be final; raises ProofError naming what does not hold."""
    headers = anchor.headers
    for parent, child in pairwise(headers):
        if child.parent != parent.hash or child.height != parent.height + 1:
            raise ProofError(f"header {child.height} does not follow header {parent.height} of the proof")
    last = headers[-1]
    if any(header.chain != chain for header in headers):
        raise ProofError(f"a header of the proof is of another chain than {chain.hex()}")
    if last.validators_hash != validators.hash:
        raise ProofError("the proof's validators are not those of the genesis")
    certificate = anchor.certificate
    if certificate.kind != "commit":
        raise ProofError("the proof's certificate is not a commit certificate")
    if (certificate.height, certificate.block_hash, certificate.epoch) != (last.height, last.hash, last.epoch):
        raise ProofError(f"the certificate commits height {certificate.height}, not the proof's last header")
    try:
        check_certificate(certificate, chain, validators)
    except InvalidInput as error:
        raise ProofError(str(error)) from error
    return headers[0]


def effects_root_in(header: Header, parent_executed: Height, height: Height) -> bytes:
    """The effects root of `height` that this header carries; raises ProofError if it carries none."""
    index = height - parent_executed - 1
    if not 0 <= index < len(header.effects_roots):
        raise ProofError(f"header {header.height} carries no effects root of height {height}")
    return header.effects_roots[index]


class ReceiptEvidence(Record, frozen=True):
    """All that a client needs to believe a receipt with nothing but the genesis."""

    executed: Executed
    proof: ReceiptProof
    anchor: Anchor
    """Its first header is the one whose `effects_roots` end at `executed_height`."""


def check_receipt(
    evidence: ReceiptEvidence, chain: ChainId, validators: ValidatorSet, is_anchored: bool = False
) -> Executed:
    """The receipt with its events, now known to be final; raises ProofError.

    `is_anchored`: the caller has checked this very anchor before.
    """
    header = evidence.anchor.headers[0] if is_anchored else check_anchor(evidence.anchor, chain, validators)
    executed = evidence.executed
    if not executed.is_whole:
        raise ProofError("the receipt's events do not hash to what the receipt says")
    first = Height(header.executed_height - len(header.effects_roots))
    wanted = effects_root_in(header, first, executed.receipt.height)
    if effects_root_of(executed.receipt, evidence.proof) != wanted:
        raise ProofError(f"the receipt is not in the effects tree of height {executed.receipt.height}")
    return executed
