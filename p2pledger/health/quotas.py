"""What keeps one key from filling blocks and logs: refusals are counted by key and window of block time (F-16, F-73).

A refusal is a denied access or a failed transaction. Who has used up the quota of a window is turned away until the
next one, before anything is written. It is a person's own quota: nobody else's requests are touched, and breaking the
glass is left open to those who may. Organisations answer with their name and are not counted.
"""

from p2pledger.health import directory, keys, rules
from p2pledger.primitives.codec import Record, decode_again, encode
from p2pledger.primitives.ids import U64, AccountKey
from p2pledger.state.view import StateView, Writes


class Refusals(Record, frozen=True):
    """How many refusals a key has drawn in one window."""

    window: U64
    count: U64


def refusals_of(author: AccountKey, time_ms: int, state: StateView) -> Refusals:
    """The refusals of a key in the window of this block time."""
    return _refusals_in(rules.of(state).refusals_window(time_ms), author, state)


def _refusals_in(window: int, author: AccountKey, state: StateView) -> Refusals:
    data = state.get(keys.refusals(author))
    stored = None if data is None else decode_again(Refusals, data, 32)
    return stored if stored is not None and stored.window == window else Refusals(window, 0)


def is_used_up(author: AccountKey, time_ms: int, state: StateView) -> bool:
    """Whether this key may draw no more refusals in this window. Who never drew one may: a quota is 1 at least."""
    if state.get(keys.refusals(author)) is None:
        return False
    chain = rules.of(state)
    return _refusals_in(chain.refusals_window(time_ms), author, state).count >= chain.refusals_max


def counted(author: AccountKey, time_ms: int, state: StateView) -> Writes:
    """The writes that count one more refusal of a person's key."""
    if directory.identity_by_key(author, state) is None:
        return {}
    before = refusals_of(author, time_ms, state)
    return {keys.refusals(author): encode(Refusals(before.window, before.count + 1))}
