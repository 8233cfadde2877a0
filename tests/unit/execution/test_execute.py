"""Blocks run the same everywhere, and every transaction at most once."""

from collections.abc import Mapping, Sequence

import pytest

from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import ReceiptProof, effects_root_of
from p2pledger.execution import keys
from p2pledger.execution.contract import Application, Call, Outcome
from p2pledger.execution.execute import BlockEffects, execute_block
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused, Rejected
from p2pledger.primitives.ids import AccountKey
from p2pledger.state.view import StateView, Writes
from tests.unit.execution.ledger import HOUR_MS, Ledger, codes, founding_of, key

ALICE, BOB, EVE = key("alice"), key("bob"), key("eve")


class Put(Record, frozen=True, tag=1):
    """Write a value."""

    name: bytes
    value: bytes


class Add(Record, frozen=True, tag=2):
    """Append to a value: running it twice shows."""

    name: bytes
    value: bytes


class Fail(Record, frozen=True, tag=3):
    """Be refused, or break in another way."""

    how: str


class Join(Record, frozen=True, tag=4):
    """Register the sender."""


FAULTS: Mapping[str, BaseException] = {
    "refused": Refused(Code.E_STATE),
    "bug": KeyError("a bug in a contract"),
    "memory": MemoryError(),
    "recursion": RecursionError(),
    "disk": OSError("disk"),
}


class Notes(Application):
    """A small application that is not about health."""

    def genesis_writes(self, founding: Founding) -> Writes:
        return {keys.account(AccountKey(ALICE.public)): encode(1), keys.NEXT_ACCOUNT: encode(2)}

    def decode(self, operations: bytes) -> Sequence[Record]:
        try:
            return decode(tuple[Put | Add | Fail | Join, ...], operations, 65_536)
        except Exception as error:
            raise Rejected(Code.E_UNKNOWN_KIND, "not one of mine") from error

    def opens_account(self, operations: Sequence[Record], call: Call, state: StateView) -> bool:
        return isinstance(operations[0], Join)

    def may_send(self, author: AccountKey, state: StateView) -> bool:
        return True

    def execute(self, operation: Record, call: Call, state: StateView) -> Outcome:
        match operation:
            case Put(name, value):
                return Outcome({b"\x20" + name: value}, [b"put"])
            case Add(name, value):
                before = state.get(b"\x20" + name) or b""
                return Outcome({b"\x20" + name: before + value}, [b"added"])
            case Fail("ledger key"):
                return Outcome({keys.nonces(1): b""})
            case Fail(how):
                raise FAULTS[how]
            case _:
                return Outcome({b"\x20joined": call.author}, [b"joined"])


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Notes(), founding_of(["Berg", "Tal", "See", "Wald"]))


def note(ledger: Ledger, name: bytes) -> bytes | None:
    return ledger.state.get(b"\x20" + name)


def test_operations_of_a_transaction_see_each_other_and_succeed_together(ledger: Ledger) -> None:
    """Later operations work on what earlier ones wrote; the receipt has the events of all."""
    effects = ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), Add(b"x", b"2")))
    assert note(ledger, b"x") == b"12"
    assert effects.receipts[0].events == (b"put", b"added")
    assert effects.receipt_keys == [(1, 1)]


def test_operations_fail_together(ledger: Ledger) -> None:
    """One refused operation undoes the others, and the receipt has its code and no events."""
    effects = ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), Fail("refused"), Put(b"y", b"1")))
    assert codes(effects) == [Code.E_STATE]
    assert effects.receipts[0].events == ()
    assert note(ledger, b"x") is None and note(ledger, b"y") is None


def test_transactions_of_a_block_see_the_ones_before(ledger: Ledger) -> None:
    """A block is a sequence, not a set."""
    ledger.run(*[ledger.signed(ALICE, Add(b"x", b"%d" % digit)) for digit in range(5)])
    assert note(ledger, b"x") == b"01234"


def test_a_failing_transaction_consumes_its_nonce(ledger: Ledger) -> None:
    """Whatever a signed transaction led to, it never runs again (F-11)."""
    failing = ledger.signed(ALICE, Fail("refused"))
    assert ledger.run(failing).receipt_keys == [(1, 1)]
    again = ledger.run(failing)
    assert again.receipts == []


def test_a_replay_gets_no_receipt_and_changes_nothing(ledger: Ledger) -> None:
    """F-11: with its nonce window forgotten a replay runs twice; as it is, it leaves no trace at all."""
    added = ledger.signed(ALICE, Add(b"x", b"1"))
    ledger.run(added)
    ledger.state.apply({keys.nonces(1): None})  # the check switched off
    ledger.run(added)
    assert note(ledger, b"x") == b"11"

    effects = ledger.run(added, added)  # once more, and twice in one block
    assert note(ledger, b"x") == b"11"
    assert effects.receipts == [] and effects.receipt_keys == []
    assert list(effects.writes) == [keys.origin(ledger.batch(added)[0].origin)]


def test_another_body_with_a_used_nonce_does_not_run(ledger: Ledger) -> None:
    """F-11: a nonce is used by whatever came first, not by a hash."""
    first, second = (ledger.signed(ALICE, Add(b"x", value), nonce=7) for value in (b"a", b"b"))
    effects = ledger.run(first, second)
    assert note(ledger, b"x") == b"a"
    assert codes(effects) == [Code.OK]


def test_a_duplicate_does_not_shift_the_receipts_after_it(ledger: Ledger) -> None:
    """Indexes count receipts, so that a receipt's index is its leaf in the effects tree."""
    first = ledger.signed(ALICE, Put(b"x", b"1"))
    effects = ledger.run(first, first, ledger.signed(ALICE, Put(b"y", b"1")))
    assert [done.receipt.index for done in effects.receipts] == [0, 1]
    for index, done in enumerate(effects.receipts):
        proof = ReceiptProof(len(effects.leaves), merkle.inclusion_path(effects.leaves, index))
        assert effects_root_of(done.receipt, proof) == effects.root


def test_a_nonce_outside_the_window_writes_nothing(ledger: Ledger) -> None:
    """Too far ahead or fallen out behind: E_NONCE, a receipt that no account's index names."""
    for nonce, code in ((1025, Code.E_NONCE), (1024, Code.OK), (1025, Code.OK), (1, Code.E_NONCE)):
        effects = ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), nonce=nonce))
        assert codes(effects) == [code]
        assert effects.receipt_keys == [(0, 0) if code else (1, nonce)]
        assert (keys.nonces(1) in effects.writes) == (code == Code.OK)


def test_nonces_may_arrive_out_of_order(ledger: Ledger) -> None:
    """A gateway has many transactions in flight."""
    effects = ledger.run(*[ledger.signed(ALICE, Put(b"x", b"1"), nonce=nonce) for nonce in (5, 1, 900, 2)])
    assert codes(effects) == [Code.OK] * 4


def test_expiry_is_by_block_time(ledger: Ledger) -> None:
    """Valid through its last millisecond; not before it is at most a day ahead."""
    for ahead, code in (
        (-1, Code.E_TX_EXPIRED),
        (0, Code.OK),
        (limits.EXPIRY_AHEAD_MS_MAX, Code.OK),
        (limits.EXPIRY_AHEAD_MS_MAX + 1, Code.E_TX_EXPIRED),
    ):
        effects = ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), expires_ms=ledger.now_ms + ahead))
        assert codes(effects) == [code], ahead


def test_an_expired_transaction_consumes_its_nonce(ledger: Ledger) -> None:
    """One too far ahead today would be in time tomorrow."""
    early = ledger.signed(ALICE, Put(b"x", b"1"), expires_ms=ledger.now_ms + 25 * HOUR_MS)
    assert codes(ledger.run(early)) == [Code.E_TX_EXPIRED]
    ledger.now_ms += 2 * HOUR_MS
    assert ledger.run(early).receipts == []
    assert note(ledger, b"x") is None


def test_a_stranger_leaves_no_trace(ledger: Ledger) -> None:
    """Nobody can fill the state with accounts that no contract opened."""
    effects = ledger.run(ledger.signed(EVE, Put(b"x", b"1")))
    assert codes(effects) == [Code.E_UNKNOWN_SENDER]
    assert effects.receipt_keys == [(0, 0)]
    assert [written[:1] for written in effects.writes] == [keys.ORIGIN]


def test_registering_opens_an_account_once(ledger: Ledger) -> None:
    """A registration that succeeds gets the next number, uses its nonce, and cannot be replayed."""
    joining = ledger.signed(BOB, Join())
    effects = ledger.run(joining, joining, ledger.signed(BOB, Put(b"x", b"1")))
    assert effects.receipt_keys == [(6, 1), (6, 2)], "after Alice and the four validators' nodes"
    assert ledger.run(joining).receipts == []
    assert ledger.run(ledger.signed(EVE, Join())).receipt_keys == [(7, 1)]


def test_a_failed_registration_opens_nothing(ledger: Ledger) -> None:
    """Its code is in a receipt; state and numbers stay as they were."""
    effects = ledger.run(ledger.signed(BOB, Join(), Fail("refused")))
    assert codes(effects) == [Code.E_STATE] and effects.receipt_keys == [(0, 0)]
    assert keys.account_number(AccountKey(BOB.public), ledger.state) is None
    far = ledger.run(ledger.signed(BOB, Join(), nonce=1025))
    assert codes(far) == [Code.E_NONCE]


def test_undecodable_operations_fail_with_the_decoder_s_code(ledger: Ledger) -> None:
    """Whoever proposes can order any signed bytes; what the application cannot read is a failed receipt."""

    class Other(Record, frozen=True, tag=99):
        pass

    effects = ledger.run(ledger.signed(ALICE, Other()))
    assert codes(effects) == [Code.E_UNKNOWN_KIND]
    assert effects.receipt_keys == [(1, 1)]


@pytest.mark.parametrize("how", ["bug", "ledger key", "no such fault"])
def test_a_broken_contract_fails_its_transaction_and_raises_an_alarm(ledger: Ledger, how: str) -> None:
    """E_INTERNAL: no writes, nonce consumed, the chain goes on, and somebody is told."""
    effects = ledger.run(
        ledger.signed(ALICE, Put(b"x", b"1"), Fail(how)),
        ledger.signed(ALICE, Put(b"y", b"1")),
    )
    assert codes(effects) == [Code.E_INTERNAL, Code.OK]
    assert len(effects.alarms) == 1
    assert note(ledger, b"x") is None and note(ledger, b"y") == b"1"


@pytest.mark.parametrize("how", ["memory", "recursion", "disk"])
def test_what_may_differ_between_machines_stops_the_node(ledger: Ledger, how: str) -> None:
    """Another node may have more memory; a receipt about ours would fork the state."""
    with pytest.raises(type(FAULTS[how])):
        ledger.effects(ledger.signed(ALICE, Fail(how)))


def test_a_batch_sequence_stands_in_the_chain_once(ledger: Ledger) -> None:
    """Proposals are checked for it; a chain in which one stands twice is our own fault, and asserted."""
    batch = ledger.batch(ledger.signed(ALICE, Put(b"x", b"1")))
    effects = execute_block(ledger.application, ledger.chain, ledger.header(), [batch], ledger.state)
    ledger.state.apply(effects.writes)
    with pytest.raises(AssertionError, match="twice"):
        execute_block(ledger.application, ledger.chain, ledger.header(), [batch], ledger.state)


def test_execution_leaves_the_given_state_alone(ledger: Ledger) -> None:
    """Effects are returned, never performed."""
    before = dict(ledger.state.scan(b""))
    ledger.effects(ledger.signed(ALICE, Put(b"x", b"1")))
    assert dict(ledger.state.scan(b"")) == before


def test_an_empty_block_has_the_empty_root(ledger: Ledger) -> None:
    """A height without batches has an effects root too."""
    effects = execute_block(ledger.application, ledger.chain, ledger.header(), [], ledger.state)
    assert effects == BlockEffects([], [], {}, [], merkle.EMPTY_ROOT, [])


class Backwards(Notes):
    """The same contracts, whose dicts were filled the other way round."""

    def execute(self, operation: Record, call: Call, state: StateView) -> Outcome:
        done = super().execute(operation, call, state)
        extra = {b"\x20a": b"1", b"\x20b": b"2", **done.writes}
        return Outcome(dict(reversed(list(extra.items()))) if self.is_reversed else extra, done.events)

    def __init__(self, is_reversed: bool) -> None:
        self.is_reversed = is_reversed


def test_the_root_depends_on_values_and_not_on_the_order_of_insertion() -> None:
    """Two runs of the same block, and one with every dict reversed, have equal roots."""
    roots = set()
    for is_reversed in (False, False, True):
        ledger = Ledger(Backwards(is_reversed), founding_of(["Berg", "Tal", "See", "Wald"]))
        roots.add(ledger.run(ledger.signed(ALICE, Put(b"z", b"1"), Add(b"c", b"2"))).root)
    assert len(roots) == 1
