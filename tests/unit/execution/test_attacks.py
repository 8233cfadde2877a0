"""What must not run, or not run again: each runs without the one rule that it breaks."""

import pytest

from p2pledger.execution import execute, keys
from p2pledger.execution.execute import BlockEffects, execute_block
from p2pledger.execution.windows import WINDOW, Window
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code
from tests.attack import Without
from tests.unit.execution.ledger import Ledger, codes, founding_of
from tests.unit.execution.test_execute import ALICE, EVE, Add, Notes, Put, note


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Notes(), founding_of(["Berg", "Tal", "See", "Wald"]))


@pytest.mark.attack("T13")
def test_a_replayed_transaction_does_not_run_again(ledger: Ledger, without: Without) -> None:
    """F-11: with its window forgotten a replay runs twice."""
    added = ledger.signed(ALICE, Add(b"x", b"1"))
    ledger.run(added)
    with without.setup("the memory of used nonces"):
        ledger.state.apply({keys.nonces(1): None})
        ledger.run(added)
        assert note(ledger, b"x") == b"11"
    ledger.run(added)
    assert note(ledger, b"x") == b"11"


@pytest.mark.attack("T13")
def test_a_huge_nonce_is_refused(ledger: Ledger, without: Without) -> None:
    """It would push every number below it out of the window, used or not."""

    def attack() -> list[Code]:
        return codes(ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), nonce=1_000_000)))

    ledger.run(ledger.signed(ALICE, Put(b"x", b"1")))
    genuine = dict(ledger.state.scan(keys.NONCES))
    with without(Window.use, "ahead > WINDOW"):
        assert attack() == [Code.OK]
    ledger.state.apply(genuine)
    assert attack() == [Code.E_NONCE]


@pytest.mark.attack("T13")
def test_a_number_that_fell_out_of_the_window_does_not_come_back(without: Without) -> None:
    """Nobody remembers any more whether it was used."""
    moved = Window().use(WINDOW)
    assert moved is not None
    moved = moved.use(2 * WINDOW)
    assert moved is not None
    with without(Window.use, "behind >= WINDOW"), without(Window.use, "not self.unused >> behind & 1"):
        assert moved.use(1) is not None
    assert moved.use(1) is None
    assert moved.use(WINDOW * 2) is None


@pytest.mark.attack("T15", "T13")
@pytest.mark.parametrize("ahead", [-1, limits.EXPIRY_AHEAD_MS_MAX + 1])
def test_a_transaction_runs_in_its_time_only(ledger: Ledger, without: Without, ahead: int) -> None:
    """Whatever admission said when it came, block time decides, for every node alike."""

    def attack() -> list[Code]:
        return codes(ledger.run(ledger.signed(ALICE, Put(b"x", b"1"), expires_ms=ledger.now_ms + ahead)))

    with without(execute._Run._is_in_time, "return"):
        assert attack() == [Code.OK]
    assert attack() == [Code.E_TX_EXPIRED]


@pytest.mark.attack("T15", "T40")
def test_a_stranger_runs_nothing(ledger: Ledger, without: Without) -> None:
    """Whoever proposes can order any signed bytes; without an account they do nothing but register."""

    def attack() -> list[Code]:
        return codes(ledger.run(ledger.signed(EVE, Put(b"x", b"1"), nonce=1)))

    genuine = dict(ledger.state.scan(b""))
    with without(execute._Run._operate, "raise Refused(Code.E_UNKNOWN_SENDER)"):
        assert attack() == [Code.OK]
    for name, _ in list(ledger.state.scan(b"")):
        ledger.state.apply({name: genuine.get(name)})
    assert attack() == [Code.E_UNKNOWN_SENDER]


@pytest.mark.attack("T12")
def test_a_transaction_of_another_chain_is_never_executed(ledger: Ledger, without: Without) -> None:
    """No batch can hold one; should it ever, the node stops rather than run it."""
    elsewhere = Ledger(Notes(), founding_of(["Berg", "Tal"]))
    foreign = elsewhere.batch(elsewhere.signed(ALICE, Put(b"x", b"1")))

    def attack() -> BlockEffects:
        return execute_block(ledger.application, ledger.chain, ledger.header(), [foreign], ledger.state)

    with without(execute._Run.execute, "assert body.chain == self.chain"):
        assert codes(attack()) == [Code.OK]
    with pytest.raises(AssertionError, match="is for another chain"):
        attack()
