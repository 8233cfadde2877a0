"""A wallet and the chain: where its owner is known, and how its keys are replaced everywhere (F-20).

The chain has the last word: what a phrase restored, and what a crash left half done, is completed from it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias, get_args

from p2pledger.client.keyring import Persona, Wallet, WalletFile
from p2pledger.client.ledger import LedgerClient, Receipt, Standing
from p2pledger.health import keys
from p2pledger.health.directory import Credential, Identity, KeyPeriod
from p2pledger.health.operations import KeyRotate
from p2pledger.health.queries import STRANGER
from p2pledger.health.vocabulary import Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, Unavailable

OpenAs: TypeAlias = Callable[[SigningKey], AbstractAsyncContextManager[LedgerClient]]
"""A client in the name of a key; a person has another one at each organisation."""


@dataclass(frozen=True, slots=True)
class Known:
    """The owner of a wallet at an organisation where the chain knows it."""

    persona: Persona
    kind: str
    """`patient`, `practitioner`, `auditor`, …"""


async def known(open_as: OpenAs, wallet: Wallet, organisations: Sequence[bytes]) -> list[Known]:
    """Where the chain knows the current keys of this wallet. Raises Unavailable."""
    found = []
    for organisation in organisations:
        persona = wallet.at(organisation)
        standing = await _standing(open_as, persona)
        if standing.identity is not None:
            found.append(Known(replace(persona, did=standing.identity), standing.role))
    return found


async def recognised(open_as: OpenAs, wallet: Wallet, organisations: Sequence[bytes]) -> tuple[Wallet, list[Known]]:
    """A wallet that was restored from phrases, with the ids that the chain has for its keys (F-20).

    Where some organisations still have the keys of the former phrase, its rotation was not finished: the wallet that
    comes back is in the middle of it, and rotating goes on. Raises Unavailable.
    """
    current = await known(open_as, wallet, organisations)
    learnt = wallet
    for one in current:
        learnt = learnt.known_as(one.persona.organisation, one.persona.did)
    if not wallet.former:
        return learnt, current
    rest = [organisation for organisation in organisations if organisation not in learnt.ids]
    before = Wallet(wallet.former[0], wallet.former[1:])
    left_behind = await known(open_as, before, rest)
    if not left_behind:
        return learnt, current
    for one in left_behind:
        learnt = learnt.known_as(one.persona.organisation, one.persona.did)
    moved = frozenset(one.persona.organisation for one in current)
    halfway = Wallet(before.secret, before.former, wallet.secret, moved, learnt.ids)
    return halfway, [*current, *left_behind]


@dataclass(frozen=True, slots=True)
class Rotated:
    """One organisation has the new key."""

    known: Known
    receipt: Receipt | None
    """None where the chain had it already."""


async def rotate(open_as: OpenAs, file: WalletFile, organisations: Sequence[bytes]) -> AsyncIterator[Rotated]:
    """Put the keys of the pending secret in place wherever the owner is known, then make it the wallet's secret.

    The wallet must be rotating already (`Wallet.rotating`) and kept so: the file has both secrets until the last
    organisation has the new key. Doing it again after a crash or a refusal goes on where it stood. Raises InvalidInput
    where the chain knows this wallet nowhere, and what `LedgerClient.submit` raises.
    """
    assert file.wallet.pending is not None, "the next secret is kept before it is used"
    done = 0
    for organisation in organisations:
        old, new = file.wallet.at(organisation), file.wallet.next_at(organisation)
        receipt = None
        standing = await _standing(open_as, new)
        if standing.identity is None:
            standing = await _standing(open_as, old)
            if standing.identity is None:
                continue
            rotation = KeyRotate(standing.identity, new.account, new.box.public)
            async with open_as(old.signing) as ledger:
                receipt = await ledger.submit(rotation, cosigners=[new.signing])
        learnt = file.wallet.known_as(organisation, standing.identity)
        file = file.keep(learnt.moved_at(organisation))
        done += 1
        yield Rotated(Known(replace(new, did=standing.identity), standing.role), receipt)
    if not done:
        raise InvalidInput("the chain knows this wallet at no organisation: there is nothing to rotate")
    file.keep(file.wallet.rotated())


async def _standing(open_as: OpenAs, persona: Persona) -> Standing:
    async with open_as(persona.signing) as ledger:
        standing = await ledger.standing()
    return standing if standing.role != STRANGER else Standing(STRANGER, None)


# What the chain says of them


async def as_known(ledger: LedgerClient, one: Known) -> dict[str, object]:
    """Since when the current key counts, and the roles with their ends, proven at the last checkpoint.

    A key or a role that is newer than the checkpoint says so: it is proven from the next one on.
    """
    try:
        height, data = await ledger.state(keys.identity(one.persona.did))
    except Unavailable as error:
        return {"key since": None, "may act as": f"not proven yet: {error}"}
    if data is None:
        return {"key since": f"after height {height}", "may act as": f"not proven before the checkpoint after {height}"}
    identity = decode(Identity, data, limits.STATE_VALUE_BYTES_MAX)
    _, period = await ledger.state(keys.key_period(identity.did, identity.periods))
    since = None if period is None else decode(KeyPeriod, period, limits.STATE_VALUE_BYTES_MAX).since
    roles = []
    for role in get_args(Role):
        _, held = await ledger.state(keys.credential(identity.did, role))
        if held is not None:
            roles.append(decode(Credential, held, limits.STATE_VALUE_BYTES_MAX))
    may = [f"{role.role} {_until(role)}" for role in roles]
    return {"key since": since, "may act as": may or ["itself"]}


def _until(role: Credential) -> str:
    if role.revoked is not None:
        return f"until height {role.revoked} (taken back)"
    end = datetime.fromtimestamp(role.valid_to_ms / 1000, UTC)
    return f"until {end:%Y-%m-%d %H:%M:%S} UTC"
