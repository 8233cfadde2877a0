"""What the consortium has agreed on for the health layer: the parameters of the genesis that contracts read."""

from typing import Literal

from p2pledger.chain.genesis import Parameters
from p2pledger.health import keys
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.ids import U64
from p2pledger.state.memory import remembered
from p2pledger.state.view import StateView


class Rules(Record, frozen=True):
    """The health layer's part of the chain's parameters, as `chain.genesis.Parameters` explains them."""

    default_policy: Literal["deny", "basic-normal", "all-normal", "break-glass-only"]
    break_glass_review_ms: U64
    break_glass_window_ms: U64
    break_glass_alarm_uses: U64
    break_glass_alarm_permille: U64
    refusals_window_ms: U64
    refusals_max: U64
    erase_decision_ms: U64
    recovery_delay_min_ms: U64
    recovery_long_ms: U64
    freeze_max_ms: U64

    def break_glass_window(self, time_ms: int) -> int:
        """The number of the window that this block time lies in."""
        return time_ms // self.break_glass_window_ms

    def is_too_often(self, broken: int, accesses: int) -> bool:
        """Whether so much broken glass among so many accesses concerns the consortium (F-16)."""
        is_many = broken >= self.break_glass_alarm_uses
        return is_many and 1000 * broken >= self.break_glass_alarm_permille * accesses

    def refusals_window(self, time_ms: int) -> int:
        """The number of the window in which refusals are counted together."""
        return time_ms // self.refusals_window_ms


def genesis_writes(parameters: Parameters) -> dict[bytes, bytes | None]:
    """The rules as the genesis says them."""
    rules = Rules(
        parameters.default_policy,
        parameters.break_glass_review_ms,
        parameters.break_glass_window_ms,
        parameters.break_glass_alarm_uses,
        parameters.break_glass_alarm_permille,
        parameters.refusals_window_ms,
        parameters.refusals_max,
        parameters.erase_decision_ms,
        parameters.recovery_delay_min_ms,
        parameters.recovery_long_ms,
        parameters.freeze_max_ms,
    )
    return {keys.RULES: encode(rules)}


def of(state: StateView) -> Rules:
    """The rules that hold in this state."""
    return _rules(keys.RULES, state)


@remembered
def _rules(key: bytes, state: StateView) -> Rules:
    data = state.get(key)
    assert data is not None, "the genesis wrote the rules"
    return decode(Rules, data, 256)
