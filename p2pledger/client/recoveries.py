"""Guardians and the chain: naming them at all custodians at once, starting and ending recoveries, opening old boxes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from p2pledger.client import guardians
from p2pledger.client.guardians import Acceptance, GuardedPlace, Named
from p2pledger.client.guarding import Guarding
from p2pledger.client.identities import Known, OpenAs
from p2pledger.client.joint_keys import newest, of_epoch
from p2pledger.client.keyring import Wallet
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.shares import Heard
from p2pledger.primitives.errors import Code, Rejected, Unavailable
from p2pledger.threshold.key_release import TooFewShares


@dataclass(frozen=True, slots=True)
class Terms:
    """What a patient says of its guardians everywhere alike."""

    threshold: int
    delay_ms: int
    has_escrow: bool


async def name_everywhere(
    open_as: OpenAs, wallet: Wallet, found: Sequence[Known], acceptances: Sequence[Acceptance], terms: Terms
) -> list[Named]:
    """What is to be sent where; nothing is sent yet, since the cards must be safe before the chain names them.

    Raises InvalidInput as `name_guardians` does, and Unavailable where a joint key is wanted and none is proven.
    """
    named = []
    for one in found:
        escrow = None
        async with open_as(one.persona.signing) as ledger:
            if terms.has_escrow:
                _, _, active = await newest(ledger)
                if active is None:
                    raise Unavailable(
                        "no joint key of the validators is proven yet, so no box keys can be kept; try again after the "
                        "key ceremony, or say --without-boxes: then a recovery does not open old records"
                    )
                boxes = wallet.box_secrets(one.persona.organisation)
                escrow = guardians.keep_boxes(one.persona, boxes, ledger.founding.chain, active)
        named.append(guardians.name_guardians(one.persona, acceptances, terms.threshold, terms.delay_ms, escrow))
    return named


async def guardings(
    open_as: OpenAs, wallet: Wallet, organisations: Sequence[bytes]
) -> AsyncIterator[tuple[bytes, bytes, Guarding]]:
    """(organisation, pid, how it stands) wherever this wallet is guarded or is to take a lost one's place."""
    for organisation in organisations:
        persona = wallet.at(organisation)
        identifier = guardians.recovery_id(persona.did, persona.account)
        async with open_as(persona.signing) as ledger:
            try:
                found = await ledger.guarding(persona.did)
                if found.recovery is None:
                    found = await ledger.guarding(persona.did, recovery=identifier)
            except Rejected as error:
                if error.code in (Code.E_NOT_FOUND, Code.E_ROLE):
                    continue
                raise
        yield organisation, persona.did, found


@dataclass(frozen=True, slots=True)
class Opened:
    """What a card has opened."""

    boxes: tuple[bytes, ...]
    wrong: tuple[bytes, ...]
    """Validators that sent something else than their share."""


async def open_place(ledger: LedgerClient, place: GuardedPlace, wallet: Wallet) -> Opened:
    """The secrets of a lost wallet's box keys, with the shares of any t validators.

    Asked in the name of the recovered key. First as many shares as are needed; where those do not open it, all.
    Raises Rejected(E_CAPSULE), TooFewShares, Unavailable naming who refused with which code.
    """
    request = guardians.open_request(place, wallet)
    assert place.escrow is not None, "there was something to ask for"
    active = await of_epoch(ledger, place.escrow.key_epoch)
    if active is None:
        raise Unavailable(f"joint key {place.escrow.key_epoch} is not proven yet; try again after the next checkpoint")
    failure: Exception | None = None
    for enough in (active.key.threshold, None):
        heard = await ledger.shares(request, enough)
        shares = {reply.index: reply.shares[0] for reply in heard.replies}
        try:
            boxes, opened = guardians.open_boxes(place, wallet, ledger.founding.chain, active, shares)
        except TooFewShares as error:
            failure = _refused(heard, error)
            continue
        return Opened(boxes, tuple(active.holders[index - 1] for index in opened.wrong))
    assert failure is not None
    raise failure


def _refused(heard: Heard, error: TooFewShares) -> Exception:
    """What says most: the code of a refusal that more validators gave than may lie, else who is missing and why."""
    codes = {failure.code for _, failure in heard.failures if isinstance(failure, Rejected)}
    if len(codes) == 1 and not heard.replies:
        (code,) = codes
        return Rejected(code, "the validators release no share of the old box keys")
    said = "; ".join(f"{node}: {failure}" for node, failure in heard.failures)
    return Unavailable(f"{error}; {said}") if said else error
