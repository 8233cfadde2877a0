"""Each invariant: a forged history in which it is broken and must be caught, and the same history made honest."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.chain.receipt import effects_leaves
from p2pledger.chain.receipt import executed as receipt_of
from p2pledger.chain.transaction import parse, sign
from p2pledger.consensus.journal import BlockRecord, VoteRecord
from p2pledger.consensus.messages import Signed, statement_of
from p2pledger.execution.evidence import ValidatorEvidence
from p2pledger.messages import Agreement, BatchAnnounce, Certified, Inquiry, InquiryAnswer
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis, Nonce
from p2pledger.primitives.merkle import EMPTY_ROOT, root_of_hashes
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.observer import InvariantBroken, Observer, observer
from p2pledger.sim.observer.judgement import liveness_bound_ms, statements_kept_max, views_bound
from p2pledger.sim.observer.observer import EVIDENCE_GRACE_MS
from p2pledger.state import tree
from tests.unit.sim.histories import History, forged

Told = Callable[[bool], None]
_HISTORIES: list[tuple[str, Told]] = []
OTHER = bytes([7]) * 32


def breaks(invariant: str) -> Callable[[Told], Told]:
    """A history that is told honestly or, with `is_forged`, so that it breaks the invariant."""

    def keep(told: Told) -> Told:
        _HISTORIES.append((invariant, told))
        return told

    return keep


# 1, 2, I6: the chain


@breaks("1, I1")
def two_nodes_commit_different_blocks(is_forged: bool) -> None:
    history = History(2, 3)
    a, b = history.header(), history.header(variant=1)
    history.agree(a, (0,))
    for seat in (2, 3):
        history.utters(history.commit(seat, a))
        history.utters(history.commit(seat, b))
    history.appends(0, a, (0, 2, 3))
    if is_forged:
        history.says(history.commit(1, b))
        history.appends(1, b, (1, 2, 3))
    else:
        history.says(history.commit(1, a))
        history.appends(1, a, (1, 2, 3))


@breaks("2")
def a_block_hangs_on_nothing(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.commits(replace(header, parent=OTHER) if is_forged else header)  # type: ignore[arg-type]


@breaks("2, I6")
def a_height_is_left_out(is_forged: bool) -> None:
    history = History()
    first = history.header()
    second = history.header(first)
    history.agree(first)
    history.agree(second)
    if not is_forged:
        history.appends(0, first)
    history.appends(0, second)


@breaks("2: block 1 names other validators")
def a_header_names_other_validators(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.commits(replace(header, validators_hash=OTHER) if is_forged else header)


@breaks("I6: the time")
def block_time_stands_still(is_forged: bool) -> None:
    history = History()
    first = history.header()
    history.commits(first)
    second = history.header(first)
    history.commits(replace(second, time_ms=first.time_ms) if is_forged else second)


@breaks("I6: node 1 goes back")
def a_view_record_goes_back(is_forged: bool) -> None:
    history = History()
    for view in (2, 1) if is_forged else (1, 2):
        history.observer.wrote(1, encode(history.view_record(view)))


@breaks("I6: node 1 says")
def a_status_goes_back(is_forged: bool) -> None:
    history = History()
    history.observer.wrote(1, encode(history.view_record(2)))
    for view in (2, 1) if is_forged else (1, 2):
        history.sends(1, history.status(view, 0))


@breaks("4, I5: node 1 says")
def a_status_says_more_than_is_durable(is_forged: bool) -> None:
    history = History()
    history.sends(1, history.status(0, 1 if is_forged else 0))


@breaks("I6: node 0 executes")
def a_height_is_told_of_twice(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.commits(header)
    history.executes(0, header)
    history.executes(0 if is_forged else 1, header)


# 3, 4, P20: what is said


@breaks("3, I4: an honest validator signed two")
def an_honest_key_signs_twice_across_a_crash(is_forged: bool) -> None:
    history = History()
    a, b = history.header(), history.header(variant=1)
    history.says(history.prepare(1, a))
    history.observer.crashed(1)
    history.starts(1, [], [VoteRecord(history.prepare(1, a))])
    history.utters(history.prepare(1, b if is_forged else a))


@breaks("3, I4: an honest journal")
def a_journal_holds_two_votes_for_one_place(is_forged: bool) -> None:
    history = History()
    a, b = history.header(), history.header(variant=1)
    for header in (a, b if is_forged else a):
        history.observer.wrote(1, encode(VoteRecord(history.commit(1, header))))


@breaks("3: node 1 journals a vote of another")
def a_node_votes_in_the_name_of_another(is_forged: bool) -> None:
    history = History()
    history.observer.wrote(1, encode(VoteRecord(history.commit(2 if is_forged else 1, history.header()))))


@breaks("4: PREPARE")
def a_vote_is_sent_before_it_is_durable(is_forged: bool) -> None:
    history = History()
    vote = history.prepare(1, history.header())
    if is_forged:
        history.utters(vote)
    history.says(vote)


@breaks("4: COMMIT")
def a_vote_of_a_certificate_was_never_journalled(is_forged: bool) -> None:
    history = History(3)
    header = history.header()
    for seat in (0, 1) if is_forged else (0, 1, 2):
        history.observer.wrote(seat, encode(VoteRecord(history.commit(seat, header))))
    history.sends(3, Certified(history.certificate(header, (0, 1, 2))))


@breaks("4: VIEW-CHANGE")
def a_quoted_claim_was_never_journalled(is_forged: bool) -> None:
    history = History(1)
    changes = [history.view_change(seat, 1) for seat in (0, 1, 2)]
    for seat in (0,) if is_forged else (0, 2):
        history.observer.wrote(seat, encode(VoteRecord(changes[seat])))
    history.utters(history.new_view(changes))


@breaks("4: others hold")
def a_node_reports_that_its_journal_was_rolled_back(is_forged: bool) -> None:
    history = History(3)
    history.observer.noted(2 if is_forged else 3, "rollback_seen")


@breaks("P20")
def a_node_signs_before_it_was_answered(is_forged: bool) -> None:
    history = History()
    history.observer.crashed(1)
    history.observer.started(1)
    history.sends(1, Inquiry(9))
    history.receives(0, 1, encode(InquiryAnswer(9, ())))
    history.receives(2, 1, encode(InquiryAnswer(8 if is_forged else 9, ())))
    history.says(history.prepare(1, history.header()))


# I3: proofs


@breaks("I3: node 0 committed")
def a_block_is_committed_by_fewer_than_a_quorum(is_forged: bool) -> None:
    history = History(3)
    header = history.header()
    history.agree(header, (0, 1) if is_forged else (0, 1, 2))
    history.observer.appended(0, [(encode(header), None)])


@breaks("I3: node 0 committed")
def a_forged_vote_makes_the_quorum(is_forged: bool) -> None:
    history = History(3)
    header = history.header()
    history.agree(header, (0, 1))
    vote = history.signed(history.commit(3, header))
    history.sends(3, Agreement(Signed(vote.message, forged(vote.signature)) if is_forged else vote))
    history.observer.appended(0, [(encode(header), None)])


@breaks("I3: node 0 committed")
def votes_of_two_views_make_the_quorum(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.agree(header, (0, 1))
    history.says(history.commit(2, header, 1 if is_forged else 0))
    history.observer.appended(0, [(encode(header), None)])


@breaks("I3: a signature in the certificate")
def a_certificate_holds_a_forged_signature(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.agree(header)
    certificate = history.certificate(header, (0, 1, 2))
    if is_forged:
        last = certificate.votes[-1]
        votes = (*certificate.votes[:-1], replace(last, signature=forged(last.signature)))
        certificate = replace(certificate, votes=votes)
    history.observer.appended(0, [(encode(header), encode(certificate))])


@breaks("I3: the certificate of block 1 is of seats")
def a_certificate_counts_a_seat_twice(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.agree(header)
    history.appends(0, header, (0, 1, 1) if is_forged else (0, 1, 2))


# 5, I2: transactions


@breaks("5, I2: transaction .* was never submitted")
def something_is_executed_that_nobody_submitted(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    if not is_forged:
        history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    history.executes(0, header, [history.receipt(header, transaction)])


@breaks("5, I2: transaction .* not properly signed")
def something_is_executed_that_was_not_signed(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    if is_forged:
        envelope = transaction.envelope
        transaction = parse(encode(replace(envelope, signatures=(forged(envelope.signatures[0]),))))
    history.decides(transaction)


@breaks("5, I2: transaction .* was executed twice")
def a_failed_transaction_is_executed_again(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction(value=b"refuse")
    history.observer.submitted(transaction.data)
    first = history.block_of(transaction)
    history.commits(first)
    history.executes(0, first, [history.receipt(first, transaction, code=Code.E_STATE)])
    second = history.block_of(transaction, parent=first)
    history.commits(second)
    history.executes(0, second, [history.receipt(second, transaction)] if is_forged else [])


@breaks("5: transaction .* has no receipt")
def a_transaction_in_a_block_is_passed_over(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    history.executes(0, header, [] if is_forged else [history.receipt(header, transaction)])


@breaks("5: receipt 0 of height 1 is for nothing")
def a_receipt_is_for_nothing_in_the_block(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.header() if is_forged else history.block_of(transaction)
    history.commits(header)
    history.executes(0, header, [history.receipt(header, transaction)])


@breaks("5: transaction .* is refused a nonce")
def a_free_nonce_is_refused(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction(nonce=1024 if is_forged else 1025)
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    history.executes(0, header, [history.receipt(header, transaction, code=Code.E_NONCE)])


@breaks("5: the transaction root")
def a_header_names_another_transaction_root(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    header = replace(header, transaction_root=OTHER) if is_forged else header
    history.commits(header)
    history.executes(0, header, [history.receipt(header, transaction)])


@breaks("5: batch .* stands twice")
def a_batch_stands_twice(is_forged: bool) -> None:
    history = History()
    first, _ = history.decides(history.transaction())
    transaction = history.transaction(nonce=2)
    history.observer.submitted(transaction.data)
    second = history.block_of(transaction, parent=first)
    second = replace(second, batches=first.batches) if is_forged else second
    history.commits(second)
    history.executes(0, second, [history.receipt(second, transaction)])


# 6, I8: equal effects


@breaks("6, I8: node 1 has other effects")
def two_nodes_tell_different_receipts(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    history.executes(0, header, [history.receipt(header, transaction)])
    history.executes(1, header, [history.receipt(header, transaction, code=Code.E_STATE if is_forged else Code.OK)])


@breaks("6, I8: header 2 lists another effects root")
def a_header_lists_other_effects(is_forged: bool) -> None:
    history = History()
    first, _ = history.decides(history.transaction())
    root = OTHER if is_forged else EMPTY_ROOT
    history.commits(history.sealing(history.header(first), [root]))


@breaks("6, I8: the effects root of height 1")
def a_node_tells_other_effects_than_a_header_lists(is_forged: bool) -> None:
    history = History()
    first = history.header()
    history.commits(first)
    second = history.sealing(history.header(first), [OTHER])  # type: ignore[list-item]
    history.commits(second)
    history.executes(0, first, root=bytes(32) if is_forged else OTHER)


def _state(history: History) -> dict[bytes, bytes | None]:
    for node in range(history.n):
        history.observer.flushed(node, 0, None, {b"old": b"1", b"gone": b"2"})
    return {b"new": b"3", b"gone": None}


def _root_of(writes: dict[bytes, bytes | None]) -> bytes:
    root, _ = tree.update(lambda key: None, {b"old": b"1", **writes})
    return root


@breaks("6, I8: the state of node 0")
def a_state_has_another_root_than_is_said(is_forged: bool) -> None:
    history = History()
    writes = _state(history)
    history.commits(history.header())
    history.observer.flushed(0, 1, OTHER if is_forged else _root_of(writes), writes)


@breaks("6, I8: node 1 has another state root")
def two_nodes_have_different_states(is_forged: bool) -> None:
    history = History()
    writes = _state(history)
    history.commits(history.header())
    history.observer.flushed(0, 1, _root_of(writes), writes)
    other: dict[bytes, bytes | None] = {**writes, b"new": b"4"} if is_forged else writes
    history.observer.flushed(1, 1, _root_of(other), other)


@breaks("6, I8: header 2 lists another state root")
def a_header_lists_another_state_root(is_forged: bool) -> None:
    history = History()
    writes = _state(history)
    first = history.header()
    history.commits(first)
    root = _root_of(writes)
    history.observer.flushed(0, 1, root, writes)
    history.commits(history.sealing(history.header(first), [EMPTY_ROOT], OTHER if is_forged else root))  # type: ignore[arg-type]


@breaks("6, I8: the effects tree of height 1")
def a_store_keeps_other_effects_than_were_told(is_forged: bool) -> None:
    history = History()
    _state(history)
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    done = receipt_of(header.height, 0, transaction.id, Code.OK, [])
    leaves = effects_leaves([done.receipt], {b"new": b"3"})
    history.executes(0, header, [encode(done)], root_of_hashes(leaves))
    history.observer.flushed(0, 1, None, {}, [(1, b"".join([*leaves[:-1], OTHER] if is_forged else leaves))])


# 9, I5, I7: what clients were told


@breaks("9, I5: the ledger of node 1 ends")
def a_restarted_node_has_lost_a_block(is_forged: bool) -> None:
    history = History()
    first = history.header()
    second = history.header(first)
    history.commits(first)
    history.commits(second)
    history.observer.crashed(1)
    history.starts(1, [first] if is_forged else [first, second])


@breaks("9: the ledger of restarted node 1 has another")
def a_restarted_node_has_another_block(is_forged: bool) -> None:
    history = History()
    first = history.header()
    history.commits(first)
    history.observer.crashed(1)
    history.starts(1, [history.header(variant=1) if is_forged else first])


@breaks("9, I5: the journal of node 1")
def a_restarted_node_has_lost_a_vote(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.says(history.prepare(1, header))
    history.observer.crashed(1)
    history.starts(1, [], [BlockRecord(header)] if is_forged else [VoteRecord(history.prepare(1, header))])


@breaks("9, I5: node 0 tells of block 1")
def receipts_are_told_before_they_are_durable(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.commits(header, [1, 2, 3] if is_forged else [0, 1, 2, 3])
    history.executes(1, header)
    history.executes(0, header)


@breaks("9, I5: node 0 answers from block 1")
def an_answer_is_given_before_it_is_durable(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header, [1, 2, 3] if is_forged else [0, 1, 2, 3])
    history.executes(1, header, [history.receipt(header, transaction)])
    history.observer.answered(0, transaction.id, history.receipt(header, transaction))


@breaks("I7: node 0 answers")
def an_answer_is_not_what_the_chain_says(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    header, _ = history.decides(transaction)
    told = history.receipt(header, transaction, code=Code.E_STATE if is_forged else Code.OK)
    history.observer.answered(0, transaction.id, told)


@breaks("9, I5: answered transaction .* is present twice")
def an_answered_transaction_is_present_twice(is_forged: bool) -> None:
    history = History()
    far = history.transaction(nonce=1025)
    history.observer.submitted(far.data)
    first = history.block_of(far)
    history.commits(first)
    told = history.receipt(first, far, code=Code.E_NONCE)
    history.executes(0, first, [told])
    if is_forged:
        history.observer.answered(0, far.id, told)
    near = history.transaction(nonce=1)
    history.observer.submitted(near.data)
    second = history.block_of(near, far, parent=first)
    history.commits(second)
    history.executes(0, second, [history.receipt(second, near), history.receipt(second, far, 1)])


@breaks("5, I2: transaction .* was never submitted")
def what_was_submitted_after_an_answer_stands_before_it(is_forged: bool) -> None:
    history = History()
    late, answered = history.transaction(nonce=1), history.transaction(nonce=2)
    for transaction in (answered,) if is_forged else (answered, late):
        history.observer.submitted(transaction.data)
    first = history.block_of(late)
    second = history.block_of(answered, parent=first)
    history.commits(first)
    history.commits(second)
    told = history.receipt(second, answered)
    history.executes(0, second, [told])  # it crashed before it could tell of the first
    history.observer.answered(0, answered.id, told)
    history.observer.submitted(late.data)
    history.executes(1, first, [history.receipt(first, late)])


@breaks("I7: node 3 lacks")
def an_answered_transaction_is_missing_at_a_node(is_forged: bool) -> None:
    history = History()
    transaction = history.transaction()
    history.observer.submitted(transaction.data)
    header = history.block_of(transaction)
    history.commits(header)
    receipts = [history.receipt(header, transaction)]
    for node in range(3 if is_forged else 4):
        history.executes(node, header, receipts)
    history.observer.answered(0, transaction.id, receipts[0])
    history.observer.concluded(0)


# I11: evidence


def _shows_two_proposals(history: History, target: int) -> tuple[bytes, bytes]:
    a, b = (history.utters(history.propose(history.header(variant=variant))) for variant in (0, 1))
    for body in (a, b):
        history.receives(0, target, body)
    return a, b


@breaks("I11: node 2 was shown")
def a_contradiction_is_shown_and_not_kept(is_forged: bool) -> None:
    history = History(0)
    _shows_two_proposals(history, 2)
    if not is_forged:
        first, second = (history.propose(history.header(variant=variant)) for variant in (0, 1))
        history.observer.wrote(2, encode(history.evidence(first, second)))
    history.now += EVIDENCE_GRACE_MS + 1
    history.receives(1, 2, encode(BatchAnnounce(())))


@breaks("I11: node 2 keeps evidence against an honest")
def an_honest_validator_is_accused(is_forged: bool) -> None:
    history = History(0)
    a, b = history.header(), history.header(variant=1)
    seat = 1 if is_forged else 0
    history.observer.wrote(2, encode(history.evidence(history.prepare(seat, a), history.prepare(seat, b))))


@breaks("I11: node 2 keeps evidence that proves nothing")
def evidence_is_of_two_places(is_forged: bool) -> None:
    history = History(0)
    a, b = history.header(), history.header(variant=1)
    second = history.prepare(0, b, 1 if is_forged else 0)
    history.observer.wrote(2, encode(history.evidence(history.prepare(0, a), second)))


@breaks("9, I5: the journal of node 2 has lost evidence")
def evidence_is_lost_in_a_crash(is_forged: bool) -> None:
    history = History(0)
    a, b = history.header(), history.header(variant=1)
    record = history.evidence(history.prepare(0, a), history.prepare(0, b))
    history.observer.wrote(2, encode(record))
    history.observer.crashed(2)
    history.starts(2, [], [] if is_forged else [record])


@breaks("I11: the chain keeps evidence that proves nothing")
def evidence_on_the_chain_is_forged(is_forged: bool) -> None:
    history = History(0)
    first, second = (history.signed(history.prepare(0, history.header(variant=variant))) for variant in (0, 1))
    signature = forged(second.signature) if is_forged else second.signature
    operation = ValidatorEvidence(
        history.id(0), statement_of(first.message), first.signature, statement_of(second.message), signature
    )
    until = Millis(WALL_START_MS + 3_600_000)
    transaction = parse(sign(history.founding.chain, history.node_keys[1], Nonce(1), until, [operation]))
    header = history.block_of(transaction)
    history.commits(header)
    history.executes(1, header, [history.receipt(header, transaction)])
    assert history.observer.caught == {history.id(0)}


# 8, I12, I13


@breaks("8, I10")
def a_node_remembers_too_much(is_forged: bool) -> None:
    history = History()
    most = statements_kept_max(4, history.founding.parameters.window)
    history.observer.remembers(0, most + 1 if is_forged else most)


@breaks("I12: unhandled")
def a_node_fails(is_forged: bool) -> None:
    History(3).observer.failed(2 if is_forged else 3, "ZeroDivisionError")


@breaks("an honest node stopped itself")
def a_node_stops(is_forged: bool) -> None:
    History(3).observer.stopped(2 if is_forged else 3, "divergence")


@breaks("I12: honest node 2 sends what cannot be read")
def a_node_sends_what_cannot_be_read(is_forged: bool) -> None:
    History(3).observer.overheard(2 if is_forged else 3, 0, b"\x92\x04\xcd\x00\x05")


@breaks("I13: .* views")
def views_change_for_ever_in_a_healed_world(is_forged: bool) -> None:
    history = History()
    history.observer.healed()
    history.observer.wrote(0, encode(history.view_record(views_bound(1, 0) + is_forged)))
    history.observer.concluded(0)


@breaks("I13: .* messages")
def an_idle_world_talks_more_and_more(is_forged: bool) -> None:
    history = History()
    for messages in (3, 3, 30 if is_forged else 4):
        for _ in range(messages):
            history.sends(0, BatchAnnounce(()))
        history.observer.quiet()


@breaks("3, I4: an honest validator is convicted")
def an_honest_validator_lowers_its_claim(is_forged: bool) -> None:
    history = History()
    header = history.header()
    history.agree(header)
    history.says(history.view_change(1, 1, None if is_forged else header))
    history.observer.concluded(0)


@pytest.mark.parametrize(("invariant", "told"), _HISTORIES, ids=[told.__name__ for _, told in _HISTORIES])
def test_the_forged_history_is_caught_and_the_honest_one_passes(invariant: str, told: Told) -> None:
    """Every invariant of docs/testing.md, with what breaks it."""
    told(False)
    with pytest.raises(InvariantBroken, match=f"^{invariant}"):
        told(True)


# What is no fault


def test_a_statement_that_its_author_did_not_sign_counts_for_nothing() -> None:
    """A liar puts words into an honest mouth: neither a double vote (3) nor a word before its time (4)."""
    history = History(3)
    a, b = history.header(), history.header(variant=1)
    history.says(history.prepare(1, a))
    for message in (history.prepare(1, b), history.commit(2, b)):
        history.sends(3, Agreement(history.signed(message, by=3)))
    assert history.observer.culprits() == {}


def test_a_forged_statement_that_comes_first_does_not_hide_a_double_vote() -> None:
    """The place is not taken by what nobody signed."""
    history = History(3)
    a, b = history.header(), history.header(variant=1)
    history.sends(3, Agreement(history.signed(history.prepare(3, a), by=0)))
    history.utters(history.prepare(3, a))
    history.utters(history.prepare(3, b))
    assert set(history.observer.culprits()) == {history.id(3)}


def test_a_write_that_was_reported_as_failed_may_be_there_after_the_restart() -> None:
    """A sync may fail after the bytes have arrived; what is found is judged like what is written."""
    history = History()
    header = history.header()
    history.agree(header)
    history.observer.crashed(0)
    history.starts(0, [header], [])
    history.sends(0, history.status(0, 1))
    stray = History()
    stray.observer.crashed(0)
    with pytest.raises(InvariantBroken, match="I3"):
        stray.starts(0, [stray.header()], [])


def test_a_descendant_with_a_quorum_commits_its_ancestors() -> None:
    """P21: synced blocks are proven by a certificate on a later one whose headers came along."""
    history = History()
    first = history.header()
    second = history.header(first)
    history.says(history.propose(first))
    history.agree(second)
    history.observer.appended(3, [(encode(first), None)])
    history.observer.appended(3, [(encode(second), encode(history.certificate(second, (0, 1, 2))))])


def test_a_validator_alone_commits_by_its_own_journal() -> None:
    """n = 1: nothing ever crosses a wire."""
    history = History(n=1)
    header = history.header()
    with pytest.raises(InvariantBroken, match="I3"):
        history.observer.appended(0, [(encode(header), None)])
    history = History(n=1)
    history.observer.wrote(0, encode(VoteRecord(history.commit(0, header))))
    history.appends(0, header, (0,))


def test_whoever_tells_of_a_height_later_is_judged_all_the_same() -> None:
    """The first to execute a block may crash before it tells; another one tells of it after the next block."""
    history = History()
    a, b = history.transaction(nonce=1), history.transaction(nonce=2)
    for each in (a, b):
        history.observer.submitted(each.data)
    first = history.block_of(a)
    second = history.block_of(b, a, parent=first)
    history.commits(first)
    history.commits(second)
    history.executes(0, second, [history.receipt(second, b)])
    history.executes(1, first, [history.receipt(first, a)])
    history.executes(1, second, [history.receipt(second, b)])
    assert history.observer.is_executed(a.id) and history.observer.is_executed(b.id)


def test_another_chain_or_other_validators_are_refused_at_the_door() -> None:
    """The observer derives both from the genesis itself."""
    history = History()
    genesis, chain = encode(history.founding.signed), history.founding.chain
    validators = [key.public for key in history.keys]
    with pytest.raises(InvariantBroken, match="the chain of this genesis"):
        Observer(genesis, OTHER, validators)
    with pytest.raises(InvariantBroken, match="names 4 validators"):
        Observer(genesis, chain, validators[:3])
    with pytest.raises(ValueError, match="not signed"):
        signed = history.founding.signed
        bad = replace(signed, signatures=(forged(signed.signatures[0]), *signed.signatures[1:]))
        Observer(encode(bad), chain, validators)


# Bounds


def test_the_liveness_bound_grows_with_what_was_backed_off_to() -> None:
    """7, I9: (f + 2) x (timeout at healing + 6 x the longest delay) + slack."""
    assert liveness_bound_ms(1, 2_400, 20) == 3 * 2_520
    assert liveness_bound_ms(2, 8_000, 50, slack_ms=1_000) == 4 * 8_300 + 1_000


def test_the_memory_formula() -> None:
    """8, I10: ballots, proposals and view changes of everybody."""
    assert statements_kept_max(4, 4) == 2 * 2 * 4 * 4 * 17 + 4 * 9 + 4


# Independence


def test_the_observer_imports_nothing_of_the_node() -> None:
    """Standard library, msgpack, nacl and itself: a fault of the node's code cannot be its own, too."""
    allowed = sys.stdlib_module_names | {"msgpack", "nacl"}
    folder = Path(observer.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            for name in names:
                own = name.startswith("p2pledger.sim.observer")
                assert own or name.split(".")[0] in allowed, f"{path.name} imports {name}"
