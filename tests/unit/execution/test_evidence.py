"""P14: what counts as proof that a validator contradicted itself, who may bring it, and that it cannot be made up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pledger.chain.statement import (
    BlockStatement,
    Claim,
    NewViewStatement,
    Statement,
    ViewChangeStatement,
    contradict,
    place_of,
    signing_bytes,
)
from p2pledger.consensus.messages import NewView, SignedClaim, ViewChange, statement_of
from p2pledger.execution import evidence, keys
from p2pledger.execution.evidence import EquivocationRecorded, ValidatorEvidence
from p2pledger.health.events import decode_event
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import BlockHash, ChainId, Epoch, Height, NodeId, Signature, ValidatorId, View
from p2pledger.sim.application import Put, RegisterApplication
from tests.unit.execution.ledger import Ledger, codes, founding_of, hash32, key

LIAR, OTHER = key("validator of Berg"), key("validator of Tal")
NODE, OWN_NODE = key("node of See"), key("node of Berg")
NAMES = ["Berg", "Tal", "See", "Wald"]
FOUNDING = founding_of(NAMES)
ONE, TWO = BlockHash(hash32("one")), BlockHash(hash32("two"))
PAIRS: list[tuple[Statement, Statement]] = [
    *(
        (
            BlockStatement(kind, Epoch(0), View(3), Height(7), ONE),
            BlockStatement(kind, Epoch(0), View(3), Height(7), TWO),
        )
        for kind in ("pre-prepare", "prepare", "commit")
    ),
    (
        ViewChangeStatement(Epoch(0), View(3), None),
        ViewChangeStatement(Epoch(0), View(3), Claim(View(2), Height(7), ONE)),
    ),
    (NewViewStatement(Epoch(0), View(3), hash32("one")), NewViewStatement(Epoch(0), View(3), hash32("two"))),
]
PREPARES = PAIRS[1]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(RegisterApplication(), FOUNDING)


def said(statement: Statement, author: SigningKey = LIAR, chain: ChainId = FOUNDING.chain) -> Signature:
    return author.sign(signing_bytes(statement, chain, ValidatorId(author.public)))


def proof(pair: tuple[Statement, Statement], author: SigningKey = LIAR) -> ValidatorEvidence:
    first, second = pair
    return ValidatorEvidence(ValidatorId(author.public), first, said(first, author), second, said(second, author))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: place_of(pair[0])[0])
def test_two_statements_for_one_place_are_proof(ledger: Ledger, pair: tuple[Statement, Statement]) -> None:
    """P14, P13: of every kind; the whole proof stands in the state, and an event says what it is about."""
    effects = ledger.run(ledger.signed(NODE, proof(pair)))
    assert codes(effects) == [Code.OK]
    kept = evidence.caught(ValidatorId(LIAR.public), ledger.state)
    assert kept == evidence.Caught(Height(1), NodeId(NODE.public), proof(pair))
    assert list(evidence.all_caught(ledger.state)) == [kept]
    (event,) = (decode_event(data) for data in effects.receipts[0].events)
    assert event == EquivocationRecorded(ValidatorId(LIAR.public), *place_of(pair[0]))


def test_the_first_proof_against_a_validator_wins(ledger: Ledger) -> None:
    """P14: a second one about the same validator is E_DUP, whoever sends it and whatever it is about."""
    assert ledger.submit(NODE, proof(PREPARES)) == Code.OK
    assert ledger.submit(OWN_NODE, proof(PAIRS[0])) == Code.E_DUP
    assert ledger.submit(NODE, proof(PAIRS[0], OTHER)) == Code.OK
    assert {kept.evidence.validator for kept in evidence.all_caught(ledger.state)} == {LIAR.public, OTHER.public}


def test_only_validators_nodes_bring_evidence_and_they_bring_nothing_else(ledger: Ledger) -> None:
    """P14: a node key is an account for a validator's duties; nobody else's account is."""
    assert ledger.submit(key("Tal"), proof(PREPARES)) == Code.E_ROLE
    assert ledger.submit(key("nobody"), proof(PREPARES)) == Code.E_UNKNOWN_SENDER
    assert ledger.submit(NODE, Put(b"x", b"1")) == Code.E_ROLE
    assert ledger.submit(NODE, proof(PREPARES), Put(b"x", b"1")) == Code.E_ROLE
    assert evidence.caught(ValidatorId(LIAR.public), ledger.state) is None
    assert ledger.submit(NODE, proof(PREPARES)) == Code.OK


def test_what_is_no_contradiction_is_refused(ledger: Ledger) -> None:
    """P14: one statement twice, two places, two kinds, no validator, another epoch, another chain, another's word."""
    block, rival = PREPARES
    assert isinstance(block, BlockStatement) and isinstance(rival, BlockStatement)
    for other in (block, replace(rival, height=8), replace(rival, view=4), replace(rival, kind="commit")):
        assert ledger.submit(NODE, proof((block, other))) == Code.E_EVIDENCE
    assert ledger.submit(NODE, proof(PREPARES, key("nobody"))) == Code.E_NOT_FOUND
    assert ledger.submit(NODE, proof((replace(block, epoch=1), replace(rival, epoch=1)))) == Code.E_NOT_FOUND
    good = proof(PREPARES)
    elsewhere = said(rival, chain=ChainId(hash32("another chain")))
    for wrong in (elsewhere, said(block), said(rival, OTHER), said(replace(rival, kind="commit")), bytes(64)):
        assert ledger.submit(NODE, replace(good, second_signature=Signature(wrong))) == Code.E_SIG
        assert (
            ledger.submit(NODE, replace(good, first_signature=Signature(wrong), first=rival, second=block))
            == Code.E_SIG
        )
    assert ledger.submit(NODE, good) == Code.OK


def test_evidence_is_small_whatever_the_messages_carried(ledger: Ledger) -> None:
    """P14: a NEW-VIEW of fifty claims is evidence by the hash of its claims, in a transaction below one kilobyte."""
    claim = SignedClaim(ValidatorId(OTHER.public), Claim(View(2), Height(7), ONE), Signature(bytes(64)))
    large = NewView(Epoch(0), View(3), (claim,) * 50, None, (FOUNDING.header,) * 8, ValidatorId(LIAR.public))
    other = replace(large, claims=(claim,) * 49)
    data = ledger.signed(NODE, proof((statement_of(large), statement_of(other))))
    assert len(data) < 1024
    assert codes(ledger.run(data)) == [Code.OK]
    last, claim_of_all = 2**63 - 1, Claim(View(2**63 - 1), Height(2**63 - 1), ONE)
    largest = [
        BlockStatement("pre-prepare", Epoch(last), View(last), Height(last), ONE),
        ViewChangeStatement(Epoch(last), View(last), claim_of_all),
        NewViewStatement(Epoch(last), View(last), hash32("claims")),
    ]
    assert max(len(encode(proof((one, one)))) for one in largest) < 320


hashes = st.sampled_from([ONE, TWO])
claims = st.none() | st.builds(Claim, st.sampled_from([View(0), View(1)]), st.just(Height(1)), hashes)
epochs, views, heights = (st.sampled_from([0, 1]) for _ in range(3))
statements = st.one_of(
    st.builds(BlockStatement, st.sampled_from(["pre-prepare", "prepare", "commit"]), epochs, views, heights, hashes),
    st.builds(ViewChangeStatement, epochs, views, claims),
    st.builds(NewViewStatement, epochs, views, hashes),
)


@settings(deadline=None)
@given(st.lists(statements, min_size=1), st.lists(statements, min_size=2, max_size=4), st.data())
def test_an_honest_validator_cannot_be_framed(
    drawn: list[Statement], made_up: list[Statement], data: st.DataObject
) -> None:
    """P14, P19: who says one thing at each place is never caught, whatever is put together from what was signed.

    The adversary has every signature that the honest key ever made here and on another chain, those of a liar's own
    key, and statements of its own invention; the same two statements of one place, really signed, are proof.
    """
    chains = (FOUNDING.chain, ChainId(hash32("another chain")))
    honest = [{place_of(statement): statement for statement in drawn}, {place_of(one): one for one in reversed(drawn)}]
    signatures = [said(one, OTHER, chain) for chain, kept in zip(chains, honest, strict=True) for one in kept.values()]
    signatures += [said(one, LIAR) for one in made_up]
    pool = [*drawn, *made_up]
    parts = [data.draw(st.sampled_from(choices)) for choices in (pool, signatures, pool, signatures)]
    state = Ledger(RegisterApplication(), FOUNDING).state
    accused = ValidatorEvidence(ValidatorId(OTHER.public), *parts)
    assert evidence.fault_of(accused, FOUNDING.chain, state) != Code.OK
    first, second = parts[0], parts[2]
    is_proof = contradict(first, second) and first.epoch == 0
    fault = evidence.fault_of(proof((first, second), OTHER), FOUNDING.chain, state)
    assert (fault == Code.OK) == is_proof


def test_what_travels_beside_a_view_change_is_not_evidence() -> None:
    """P9, P14: an honest replica may send its VIEW-CHANGE again with a newer commit certificate beside it."""
    plain = ViewChange(Epoch(0), View(1), None, ValidatorId(OTHER.public), None, None)
    assert not contradict(statement_of(plain), statement_of(replace(plain, committed="anything")))


def test_a_contract_cannot_write_evidence(ledger: Ledger) -> None:
    """The key stands among the ledger's own, which applications are kept away from."""
    assert keys.caught(ValidatorId(LIAR.public))[0] < keys.APPLICATION_FIRST
