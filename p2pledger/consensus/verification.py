"""The door of the core: what is signed, by whom, and whether what travels beside it proves itself.

Each message is judged by its own content alone, never by which loose messages were seen before (P11).
"""

from p2pledger.chain.block import Header
from p2pledger.chain.statement import Claim
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.events import Verified
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    statement,
    view_change_statement,
)
from p2pledger.primitives.crypto import Verifier, verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, Epoch


def verify_message(
    signed: Signed, chain: ChainId, epoch: Epoch, validators: ValidatorSet, is_signed: Verifier = verify
) -> Verified:
    """`signed` as something the core accepts; raises InvalidInput naming the rule that it breaks."""
    message = signed.message
    if message.epoch != epoch:
        raise InvalidInput(f"message of epoch {message.epoch}, this is epoch {epoch}")
    if message.author not in validators:
        raise InvalidInput(f"{message.author.hex()} is not a validator of epoch {epoch}")
    if not is_signed(message.author, statement(chain, message), signed.signature):
        raise InvalidInput(f"{type(message).__name__} is not signed by {message.author.hex()}")
    _check_content(message, chain, validators, is_signed)
    return Verified(signed)


def _check_content(message: Message, chain: ChainId, validators: ValidatorSet, is_signed: Verifier) -> None:
    match message:
        case Prepare() | Commit():
            return
        case PrePrepare():
            _check_primary(message, validators)
            _check_header(message.header, chain, message.epoch)
        case ViewChange():
            _check_view_change(message, chain, validators, is_signed)
        case NewView():
            _check_primary(message, validators)
            _check_new_view(message, chain, validators, is_signed)


def _check_primary(message: PrePrepare | NewView, validators: ValidatorSet) -> None:
    primary = validators.primary(message.epoch, message.view)
    if message.author != primary:
        raise InvalidInput(f"{message.author.hex()} is not the primary of view {message.view}, {primary.hex()} is")


def _check_header(header: Header, chain: ChainId, epoch: Epoch) -> None:
    if header.chain != chain:
        raise InvalidInput(f"header of chain {header.chain.hex()}, this is {chain.hex()}")
    if header.epoch != epoch or header.height == 0:
        raise InvalidInput(f"header of epoch {header.epoch} at height {header.height} in epoch {epoch}")


def _check_claim(claim: Claim | None, certificate: Certificate | None) -> None:
    if claim is None or certificate is None:
        if claim is not None or certificate is not None:
            raise InvalidInput("a claim and its certificate come together or not at all")
        return
    if (claim.view, claim.height, claim.block_hash) != (
        certificate.view,
        certificate.height,
        certificate.block_hash,
    ):
        raise InvalidInput(
            f"claim (view {claim.view}, height {claim.height}) does not match its certificate "
            f"(view {certificate.view}, height {certificate.height})"
        )


def _check_view_change(message: ViewChange, chain: ChainId, validators: ValidatorSet, is_signed: Verifier) -> None:
    _check_claim(message.claim, message.lock)
    if message.claim is not None and message.claim.view >= message.view:
        raise InvalidInput(f"claim of view {message.claim.view} in a VIEW-CHANGE for view {message.view}")
    for certificate in (message.lock, message.committed):
        if certificate is not None:
            if certificate.epoch != message.epoch:
                raise InvalidInput(f"certificate of epoch {certificate.epoch} in epoch {message.epoch}")
            check_certificate(certificate, chain, validators, is_signed)
    if message.committed is not None and message.committed.kind != "commit":
        raise InvalidInput("the committed certificate of a VIEW-CHANGE is not a commit certificate")


def _check_new_view(message: NewView, chain: ChainId, validators: ValidatorSet, is_signed: Verifier) -> None:
    claims = message.claims
    if len(claims) != validators.q:
        raise InvalidInput(f"NEW-VIEW with {len(claims)} claims, the quorum is {validators.q}")
    if any(first.author >= second.author for first, second in zip(claims, claims[1:], strict=False)):  # noqa: RUF007
        raise InvalidInput("the claims of a NEW-VIEW must be of distinct validators in ascending order")
    for quoted in claims:
        if quoted.author not in validators:
            raise InvalidInput(f"NEW-VIEW quotes {quoted.author.hex()}, who is not a validator")
        if quoted.claim is not None and quoted.claim.view >= message.view:
            raise InvalidInput(f"NEW-VIEW for view {message.view} quotes a claim of view {quoted.claim.view}")
        said = view_change_statement(chain, message.epoch, message.view, quoted.claim, quoted.author)
        if not is_signed(quoted.author, said, quoted.signature):
            raise InvalidInput(f"NEW-VIEW quotes a claim that {quoted.author.hex()} did not sign")
    tip = message.tip
    _check_claim(tip, message.certificate)
    if tip is not None:
        rivals = {quoted.claim.block_hash for quoted in claims if quoted.claim and quoted.claim.rank == tip.rank}
        if len(rivals) > 1:
            raise InvalidInput(f"two blocks are claimed as prepared at (view {tip.view}, height {tip.height})")
    if message.certificate is not None:
        if message.certificate.epoch != message.epoch:
            raise InvalidInput(f"certificate of epoch {message.certificate.epoch} in epoch {message.epoch}")
        check_certificate(message.certificate, chain, validators, is_signed)
    _check_headers(message, tip)


def _check_headers(message: NewView, tip: Claim | None) -> None:
    headers = message.headers
    if not headers:
        return
    if tip is None or headers[-1].hash != tip.block_hash or headers[-1].height != tip.height:
        raise InvalidInput("the headers of a NEW-VIEW do not end at its tip")
    for parent, child in zip(headers, headers[1:], strict=False):  # noqa: RUF007
        if child.parent != parent.hash or child.height != parent.height + 1:
            raise InvalidInput(f"header {child.height} of a NEW-VIEW does not follow header {parent.height}")
