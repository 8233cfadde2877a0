"""Honest validators accused, and duties usurped: each succeeds without the one rule against it (P14)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.chain import statement
from p2pledger.chain.statement import BlockStatement, Statement
from p2pledger.execution import evidence, execute
from p2pledger.execution.evidence import ValidatorEvidence
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ChainId, Epoch, Height, Signature, View
from p2pledger.sim.application import Put, RegisterApplication
from tests.attack import Check, Without
from tests.unit.execution.ledger import Ledger, hash32, key
from tests.unit.execution.test_evidence import FOUNDING, LIAR, NODE, PREPARES, proof, said

FIRST, SECOND = PREPARES
assert isinstance(FIRST, BlockStatement) and isinstance(SECOND, BlockStatement)


def code_of(accusation: ValidatorEvidence, sender: SigningKey = NODE) -> Code:
    """On a chain of its own."""
    return Ledger(RegisterApplication(), FOUNDING).submit(sender, accusation)


def signed_by_the_accuser() -> ValidatorEvidence:
    return replace(proof(PREPARES), second_signature=NODE.sign(b"whatever"))


def said_on_another_chain() -> ValidatorEvidence:
    elsewhere = said(SECOND, chain=ChainId(hash32("another chain")))
    return replace(proof(PREPARES), second_signature=elsewhere)


def with_one_signature_for_both() -> ValidatorEvidence:
    return replace(proof(PREPARES), second_signature=Signature(proof(PREPARES).first_signature))


def of(other: Statement) -> ValidatorEvidence:
    return proof((FIRST, other))


def at_two_heights() -> ValidatorEvidence:
    """Everybody prepares one block after the other."""
    return of(replace(SECOND, height=Height(8)))


def in_two_views() -> ValidatorEvidence:
    """After a view change another block may be prepared at the same height."""
    return of(replace(SECOND, view=View(4)))


def the_same_twice() -> ValidatorEvidence:
    """Statements are repeated until they arrive (P16)."""
    return of(FIRST)


def against_nobody() -> ValidatorEvidence:
    return proof(PREPARES, key("nobody"))


def of_another_epoch() -> ValidatorEvidence:
    return proof((replace(FIRST, epoch=Epoch(1)), replace(SECOND, epoch=Epoch(1))))


@pytest.mark.attack("T16")
@pytest.mark.parametrize(
    ("check", "accusation", "code"),
    [
        (Check(evidence.fault_of, "if not verify("), signed_by_the_accuser, Code.E_SIG),
        (Check(evidence.fault_of, "if not verify("), said_on_another_chain, Code.E_SIG),
        (Check(evidence.fault_of, "if not verify("), with_one_signature_for_both, Code.E_SIG),
        (Check(statement.contradict, "place_of(first) == place_of(second)"), at_two_heights, Code.E_EVIDENCE),
        (Check(statement.contradict, "place_of(first) == place_of(second)"), in_two_views, Code.E_EVIDENCE),
        (Check(statement.contradict, "first != second"), the_same_twice, Code.E_EVIDENCE),
        (Check(evidence.fault_of, "evidence.first.epoch != seat.since"), of_another_epoch, Code.E_NOT_FOUND),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_honest_validator_is_not_framed(
    without: Without, check: Check, accusation: Callable[[], ValidatorEvidence], code: Code
) -> None:
    with without(*check):
        assert code_of(accusation()) == Code.OK
    assert code_of(accusation()) == code


@pytest.mark.attack("T16")
def test_the_first_proof_stays(without: Without) -> None:
    """A second one would replace what others have already seen proven."""

    def attack() -> Code:
        ledger = Ledger(RegisterApplication(), FOUNDING)
        assert ledger.submit(NODE, proof(PREPARES)) == Code.OK
        return ledger.submit(NODE, proof((SECOND, FIRST)))

    with without(evidence.record, "raise Refused(Code.E_DUP)"):
        assert attack() == Code.OK
    assert attack() == Code.E_DUP


@pytest.mark.attack("T40")
def test_evidence_is_brought_by_validators_nodes(without: Without) -> None:
    """Everybody else would pay nothing for making all nodes check signatures."""
    with without(evidence.record, "raise Refused(Code.E_ROLE)"):
        assert code_of(proof(PREPARES), key("Tal")) == Code.OK
    assert code_of(proof(PREPARES), key("Tal")) == Code.E_ROLE


@pytest.mark.attack("T40")
def test_a_node_key_does_nothing_but_a_validators_duties(without: Without) -> None:
    """It lies on a machine that is always connected; the organisation's account does not."""

    def attack() -> Code:
        return Ledger(RegisterApplication(), FOUNDING).submit(NODE, Put(b"x", b"1"))

    with without(execute._Run._outcome_of, "raise Refused(Code.E_ROLE)"):
        assert attack() == Code.OK
    assert attack() == Code.E_ROLE


def test_a_liar_is_caught() -> None:
    """What the accusations above are changed from."""
    assert code_of(proof(PREPARES, LIAR)) == Code.OK
    assert code_of(against_nobody()) == Code.E_NOT_FOUND
