"""Who votes, as the state knows it: each validator's seat, and the account of the node that speaks for it.

A validator's duties need transactions, which nobody but its node can send unasked: the node key is an account that may
send duties (the ledger's own and the application's) and nothing else. The application does not open these accounts.
"""

from p2pledger.chain.genesis import Founding
from p2pledger.execution import keys
from p2pledger.execution.contract import Application
from p2pledger.primitives.codec import Record, Value, decode, encode
from p2pledger.primitives.ids import AccountKey, Epoch, ValidatorId
from p2pledger.state.memory import remembered
from p2pledger.state.overlay import Overlay
from p2pledger.state.view import NOTHING, StateView, Writes

_SEAT_BYTES_MAX = 16


class Seat(Record, frozen=True):
    """A validator's place among those who vote."""

    since: Epoch
    """The epoch from which on it votes; always 0 as long as there is no other (P17)."""


def genesis_writes(application: Application, founding: Founding) -> Writes:
    """The state at height 0: the application's, then the seats, and the accounts of the validators' nodes.

    The application numbers its accounts from 1; those of the nodes follow in the order of the seats.
    """
    state = Overlay(NOTHING)
    state.apply(application.genesis_writes(founding))
    for validator in founding.validators.members:
        state.apply(keys.open_account(AccountKey(validator.node), state))
        state.apply({keys.speaker(validator.node): validator.id, keys.seat(validator.id): encode(Seat(Epoch(0)))})
    return state.freeze()


class Sender(Value, frozen=True):
    """What the ledger itself has about a key with an account."""

    number: int
    is_validator: bool
    """Whether it is the key of a validator's node."""


@remembered
def sender_of(account: AccountKey, state: StateView) -> Sender | None:
    """Whose account this is to the ledger; None for a stranger."""
    number = keys.account_number(account, state)
    return None if number is None else Sender(number, validator_of(account, state) is not None)


def validator_of(account: AccountKey, state: StateView) -> ValidatorId | None:
    """The validator whose duties this account is for; None for everybody else's account."""
    data = state.get(keys.speaker(account))
    return None if data is None else ValidatorId(data)


def seat_of(validator: ValidatorId, state: StateView) -> Seat | None:
    """A validator's seat, or None for who has none."""
    data = state.get(keys.seat(validator))
    return None if data is None else decode(Seat, data, _SEAT_BYTES_MAX)


def members(state: StateView) -> tuple[ValidatorId, ...]:
    """All who have a seat, ascending: in the order of the validator set."""
    return tuple(ValidatorId(key[len(keys.SEAT) :]) for key, _ in state.scan(keys.SEAT))
