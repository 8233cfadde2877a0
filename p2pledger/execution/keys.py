"""Where the ledger itself keeps its state: one prefix byte a kind. The application's prefixes begin at 0x10.

| prefix | key                     | value                                    |
|--------|-------------------------|------------------------------------------|
| 0x01   | account key (32)        | its number, a u32 from 1, never reused   |
| 0x02   | account number (4, BE)  | its nonce window                         |
| 0x03   | node id (32)            | the window of that origin's batches      |
| 0x04   | –                       | the next free account number             |
| 0x05   | node id (32)            | the validator that this node speaks for  |
| 0x06   | validator (32)          | Seat: since which epoch it votes         |
| 0x07   | validator (32)          | Caught: it contradicted itself (P14)     |

Numbers stand for keys in indexes because they are short and arrive in order.
"""

from typing import Annotated

from msgspec import Meta

from p2pledger.execution.windows import EMPTY, Window
from p2pledger.primitives.codec import Shape, decode_again, encode
from p2pledger.primitives.ids import AccountKey, NodeId, ValidatorId
from p2pledger.state.view import StateView

ACCOUNT = b"\x01"
NONCES = b"\x02"
ORIGIN = b"\x03"
NEXT_ACCOUNT = b"\x04"
SPEAKER = b"\x05"
SEAT = b"\x06"
CAUGHT = b"\x07"
APPLICATION_FIRST = 0x10
"""The ledger keeps the prefixes below this one to itself."""

_ACCOUNT_NUMBER: Shape[int] = Shape(Annotated[int, Meta(ge=1, le=2**32 - 1)])


def account(key: AccountKey) -> bytes:
    """Where the number of an account stands."""
    return ACCOUNT + key


def nonces(number: int) -> bytes:
    """Where the nonce window of an account stands."""
    return NONCES + number.to_bytes(4, "big")


def origin(node: NodeId) -> bytes:
    """Where the window of an origin's batch sequences stands."""
    return ORIGIN + node


def speaker(node: bytes) -> bytes:
    """Where the validator of a node stands; the node's key is an account for that validator's duties."""
    return SPEAKER + node


def seat(validator: ValidatorId) -> bytes:
    """Where the seat of a validator stands."""
    return SEAT + validator


def caught(validator: ValidatorId) -> bytes:
    """Where the proof that a validator contradicted itself stands."""
    return CAUGHT + validator


def account_number(key: AccountKey, state: StateView) -> int | None:
    """The number of an account, or None for a stranger."""
    data = state.get(account(key))
    return None if data is None else _number(data)


def window_at(key: bytes, state: StateView) -> Window:
    """The window that stands at `key`; an empty one where nothing was used yet."""
    data = state.get(key)
    return EMPTY if data is None else Window.decode(data)


def open_account(key: AccountKey, state: StateView) -> dict[bytes, bytes | None]:
    """The writes that give `key` the next number; asserts that it has none."""
    assert state.get(account(key)) is None, f"account {key.hex()} exists"
    data = state.get(NEXT_ACCOUNT)
    number = 1 if data is None else _number(data)
    return {account(key): encode(number), NEXT_ACCOUNT: encode(number + 1)}


def _number(data: bytes) -> int:
    number: int = decode_again(_ACCOUNT_NUMBER, data, 5)
    return number
