"""What members ask when keys fell into others' hands, and when a member itself must be stopped (F-20..F-22).

Each of these takes back what somebody else could do with a key; none lets its sender act as another. Two signatures
stand behind everything that puts a new key in the place of an old one.
"""

from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32


class KeyRevoke(Record, frozen=True, tag=8):
    """An employer declares the key of one of its people stolen: it signs for nobody from this block on."""

    did: Bytes16
    key: AccountKey
    """The stolen one: a revocation that a rotation has overtaken must not hit the new key."""


class IdentityRekey(Record, frozen=True, tag=9):
    """A new key in place of a revoked one: sent by the new key, cosigned by the employer and another organisation."""

    did: Bytes16
    key: AccountKey
    box: Bytes32


class OrganisationSuspend(Record, frozen=True, tag=12):
    """Stop an organisation and all its people: by a majority of the others, at least two of them."""

    organisation: Bytes16


class OrganisationResume(Record, frozen=True, tag=13):
    """Let a suspended organisation act again: by a majority of the others, at least two of them."""

    organisation: Bytes16


class OrganisationKeyRotate(Record, frozen=True, tag=14):
    """Replace an organisation's own keys: sent by the old account, cosigned by the new one."""

    account: AccountKey
    box: Bytes32


class OrganisationRekey(Record, frozen=True, tag=15):
    """New keys for a suspended organisation: by a majority of the others, and cosigned by the new account."""

    organisation: Bytes16
    account: AccountKey
    box: Bytes32
