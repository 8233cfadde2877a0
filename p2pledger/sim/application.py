"""The smallest application: registers of bytes. Simulations of agreement need no more."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from p2pledger.chain.genesis import Founding
from p2pledger.execution import keys
from p2pledger.execution.contract import Application, Call, Outcome, Pruning
from p2pledger.execution.evidence import ValidatorEvidence
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected
from p2pledger.primitives.ids import AccountKey
from p2pledger.state.overlay import Overlay
from p2pledger.state.view import NOTHING, StateView, Writes

_PREFIX = b"\x7f"


class Put(Record, frozen=True, tag=1):
    """Set a register. Value `refuse` is refused, so that failing transactions occur too."""

    key: Annotated[bytes, Meta(max_length=32)]
    value: Annotated[bytes, Meta(max_length=256)]


class RegisterApplication(Application):
    """Founding members' accounts may set registers."""

    def genesis_writes(self, founding: Founding) -> Writes:
        """Accounts of the founding members, numbered from 1."""
        state = Overlay(NOTHING)
        for card in founding.genesis.cards:
            state.apply(keys.open_account(card.account, state))
        return state.freeze()

    def decode(self, operations: bytes) -> Sequence[Record]:
        """The Puts of a transaction, or a validator's duties; raises Rejected(E_FORMAT)."""
        try:
            return decode(tuple[Put | ValidatorEvidence, ...], operations, limits.TRANSACTION_BYTES_MAX)
        except InvalidInput as error:
            raise Rejected(Code.E_FORMAT, str(error)) from error

    def opens_account(self, operations: Sequence[Record], call: Call, state: StateView) -> bool:
        return False

    def may_send(self, author: AccountKey, state: StateView) -> bool:
        return True

    def pruning(self, number: int, state: StateView) -> Pruning | None:
        return None

    def execute(self, operation: Any, call: Call, state: StateView) -> Outcome:
        assert isinstance(operation, Put)
        if operation.value == b"refuse":
            raise Refused(Code.E_STATE)
        return Outcome({_PREFIX + operation.key: operation.value}, (operation.key,))
