"""P8 to P14, P16 on one replica: patience, view changes, new views, equivocation, repetition."""

from hashlib import sha512

import msgspec
import pytest
from nacl.bindings import (
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_scalarmult_ed25519_base_noclamp,
)

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import ViewRecord
from p2pledger.consensus.messages import Commit, NewView, Prepare, Signed, ViewChange, statement
from p2pledger.consensus.verification import verify_message
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Epoch, Height, Signature, View
from tests.scenarios.stage import Stage, parameters


@pytest.fixture
def stage() -> Stage:
    """Validator b: primary of view 1."""
    return Stage("b")


@pytest.fixture
def voter() -> Stage:
    """Validator d: not a primary before view 3."""
    return Stage("d")


def _timer_runs(stage: Stage) -> bool:
    """Whether the progress timer was last set, not stopped."""
    timers = [effect for effect in stage.effects if getattr(effect, "timer", "") == "progress"]
    return bool(timers) and isinstance(timers[-1], do.SetTimer)


# P8


def test_an_idle_replica_has_no_progress_timer(voter: Stage) -> None:
    """P8: it runs only while there is work."""
    assert not _timer_runs(voter)
    voter.happens(on.WorkChanged(has_work=True))
    assert _timer_runs(voter)
    voter.happens(on.WorkChanged(has_work=False))
    assert not _timer_runs(voter)


def test_an_accepted_height_is_work(voter: Stage) -> None:
    """P8: an accepted uncommitted height makes it run; its commit stops it."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    assert _timer_runs(voter)
    voter.sees(*voter.commits("abc", block))
    assert not _timer_runs(voter)


def test_the_timeout_doubles_with_each_view_in_vain_and_starts_anew_with_progress(voter: Stage) -> None:
    """P8: base × 2^k, capped; k is 0 after progress."""
    voter.happens(on.WorkChanged(has_work=True))
    delays = []
    for view in range(1, 6):
        voter.fires()
        voter.sees(*(voter.view_change(who, view) for who in "abc"))
        delays.append([effect.delay_ms for effect in voter.effects if _is_progress(effect)][-1])
    assert delays == [2_000, 4_000, 8_000, 8_000, 8_000]
    voter.sees(*voter.commits("abc", voter.block()))
    voter.reaches_view(6)
    assert [effect.delay_ms for effect in voter.effects if _is_progress(effect)][-1] == 2_000


def _is_progress(effect: do.Effect) -> bool:
    return isinstance(effect, do.SetTimer) and effect.timer == "progress"


def test_a_stale_timer_changes_nothing(voter: Stage) -> None:
    """P8: an answer names its question."""
    voter.happens(on.WorkChanged(has_work=True))
    voter.happens(on.WorkChanged(has_work=False))
    voter.fires()
    assert voter.sent == []


# P9


def test_on_expiry_it_asks_for_the_next_view_with_its_lock(voter: Stage) -> None:
    """P9: claim = (view, height, hash) of its lock, with the certificate beside it."""
    block = voter.block()
    voter.sees(voter.proposal(block), *voter.prepares("ab", block))
    voter.fires()
    (change,) = voter.said(ViewChange)
    assert isinstance(change, ViewChange)
    assert change.view == 1
    assert change.claim is not None
    assert (change.claim.rank, change.claim.block_hash) == ((0, 1), block.hash)
    assert change.lock is not None


def test_after_a_view_change_it_says_nothing_more_in_the_old_view(voter: Stage) -> None:
    """P6, P9, found unsafe otherwise: no PREPARE and no COMMIT for a view below the one asked for."""
    first, second = voter.chain_of(2)
    voter.sees(voter.proposal(first))
    voter.fires()
    said = list(voter.sent)
    voter.sees(voter.proposal(second), *voter.prepares("abc", first), *voter.prepares("abc", second))
    voter.fires("retransmit")
    assert [message for message in voter.sent if message not in said] == []
    assert voter.said(Commit) == []


def test_the_claim_of_a_view_change_once_sent_never_changes(voter: Stage) -> None:
    """P9: certificates that come later go into the next one; a restart repeats the same."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    voter.fires()
    voter.sees(*voter.prepares("abc", block))
    assert voter.replica.lock is not None
    voter.fires("retransmit")
    voter.restarts()
    voter.hears_nothing_of_itself()
    (change,) = voter.said(ViewChange)
    assert isinstance(change, ViewChange)
    assert change.claim is None


def test_a_lock_once_claimed_is_never_lost(voter: Stage) -> None:
    """P9, P19, P20: the next claim does not fall back to none, whatever crashed in between."""
    block = voter.block()
    voter.sees(voter.proposal(block), *voter.prepares("ab", block))
    voter.fires()
    voter.restarts()
    voter.hears_nothing_of_itself()
    voter.sees(*(voter.view_change(who, 2) for who in "ab"))
    last = voter.said(ViewChange)[-1]
    assert isinstance(last, ViewChange)
    assert last.view == 2
    assert last.claim is not None
    assert last.claim.rank == (0, 1)


def test_leaving_a_view_makes_the_batches_known_again(voter: Stage) -> None:
    """P9: ViewLeft is the engine's sign to push what waits."""
    voter.happens(on.WorkChanged(has_work=True))
    voter.fires()
    assert voter.asked(do.ViewLeft) == [do.ViewLeft(View(0), View(1))]


# P10, P11


def test_one_validators_large_number_moves_nobody(voter: Stage) -> None:
    """P10: f = 1 is not enough."""
    voter.sees(voter.view_change("a", 9_999))
    assert voter.sent == []


def test_it_joins_the_smallest_view_that_f_plus_one_ask_for(voter: Stage) -> None:
    """P10."""
    voter.sees(voter.view_change("a", 9_999), voter.view_change("c", 2))
    assert [message.view for message in voter.said(ViewChange)] == [2]


def test_one_validator_asking_twice_counts_once(voter: Stage) -> None:
    """P11, P12: distinct validators are counted, not messages."""
    voter.sees(voter.view_change("a", 3), voter.view_change("a", 4), voter.view_change("a", 5))
    assert voter.sent == []


def test_a_claim_must_match_its_certificate(voter: Stage) -> None:
    """P11: and be of a view below the one asked for; a bad one voids nothing but itself."""
    first, second = voter.chain_of(2)
    lock = voter.certificate("prepare", first, who="abc")
    good = voter.view_change("a", 1, lock)
    raised = msgspec.structs.replace(good, claim=msgspec.structs.replace(good.claim, height=Height(2)))
    other = msgspec.structs.replace(good, claim=msgspec.structs.replace(good.claim, block_hash=second.hash))
    bare = msgspec.structs.replace(good, lock=None)
    late = voter.view_change("a", 1, voter.certificate("prepare", first, view=1, who="abc"))
    for bad in (raised, other, bare, late):
        with pytest.raises(InvalidInput):
            verify_message(voter.signed(bad), voter.chain, Epoch(0), voter.founding.validators)
    voter.sees(good, voter.view_change("c", 1))
    assert [message.view for message in voter.said(ViewChange)] == [1]


# P12


def test_the_new_primary_shows_a_quorum_and_the_highest_claim(stage: Stage) -> None:
    """P12: exactly q claims for exactly its view, the highest among them with its certificate."""
    first, second = stage.chain_of(2)
    low, high = stage.certificate("prepare", first), stage.certificate("prepare", second)
    stage.sees(stage.view_change("a", 1), stage.view_change("c", 1, high), stage.view_change("d", 1, low))
    (shown,) = stage.said(NewView)
    assert isinstance(shown, NewView)
    assert len(shown.claims) == 3
    assert shown.certificate == high
    assert shown.headers == (first, second)


def test_claims_are_ordered_by_view_before_height(stage: Stage) -> None:
    """P5, P12, found unsafe otherwise: a later view's lower block outranks an earlier view's higher one."""
    tall = stage.chain_of(3)
    short = stage.block(variant=8)
    old, new = stage.certificate("prepare", tall[2], view=0), stage.certificate("prepare", short, view=2)
    stage.sees(stage.view_change("a", 5, old), stage.view_change("c", 5, new), stage.view_change("d", 5))
    (shown,) = stage.said(NewView)
    assert isinstance(shown, NewView)
    assert shown.tip is not None
    assert shown.tip.block_hash == short.hash


def test_a_primary_that_lacks_the_tip_fetches_it_and_never_starts_afresh(stage: Stage) -> None:
    """P12: no NEW-VIEW before the tip and its bodies are here."""
    block = stage.block()
    stage.withheld.add(block.hash)
    lock = stage.certificate("prepare", block)
    stage.sees(*(stage.view_change(who, 1, lock) for who in "acd"))
    assert stage.said(NewView) == []
    assert stage.asked(do.FetchHeader) == [do.FetchHeader(block.height, block.hash)]
    stage.withheld.clear()
    stage.fires("retransmit")
    assert len(stage.said(NewView)) == 1


def test_two_certified_blocks_of_one_rank_stop_the_primary(stage: Stage) -> None:
    """P12: it cannot happen with at most f faults."""
    block, rival = stage.block(), stage.block(variant=1)
    locks = [stage.certificate("prepare", block), stage.certificate("prepare", rival)]
    stage.sees(stage.view_change("a", 1, locks[0]), stage.view_change("c", 1, locks[1]), stage.view_change("d", 1))
    assert isinstance(stage.last, do.Halt)


def test_a_new_view_needs_q_claims_of_distinct_validators(voter: Stage) -> None:
    """P11, P12: its validity depends on its own content alone."""
    changes = [voter.view_change(who, 1) for who in "abc"]
    good = voter.new_view(1, changes)
    for claims in (good.claims[:2], (good.claims[0], *good.claims[:2]), (*good.claims, good.claims[2])):
        bad = msgspec.structs.replace(good, claims=claims)
        with pytest.raises(InvalidInput):
            verify_message(voter.signed(bad), voter.chain, Epoch(0), voter.founding.validators)
    voter.sees(good)
    assert voter.replica.is_active
    assert voter.replica.view == 1


def test_a_new_view_cannot_hide_the_certificate_of_its_highest_claim(voter: Stage) -> None:
    """P12: the tip comes with its certificate or not at all."""
    lock = voter.certificate("prepare", voter.block(), who="abc")
    good = voter.new_view(1, [voter.view_change("a", 1, lock), *(voter.view_change(who, 1) for who in "bc")])
    for certificate in (None, voter.certificate("prepare", voter.block(variant=2), who="abc")):
        bad = msgspec.structs.replace(good, certificate=certificate)
        with pytest.raises(InvalidInput):
            verify_message(voter.signed(bad), voter.chain, Epoch(0), voter.founding.validators)


# P13


def test_entering_a_view_prepares_the_tip_again(voter: Stage) -> None:
    """P13: and then the next new block is tip + 1."""
    block = voter.block()
    voter.reaches_view(1, voter.certificate("prepare", block, who="abc"), (block,))
    assert voter.said(Prepare) == [voter.prepare("d", block, view=1)]
    child = voter.block(block)
    voter.sees(voter.proposal(child, view=1))
    assert voter.said(Prepare)[-1] == voter.prepare("d", child, view=1)


def test_no_height_below_the_tip_is_prepared_again(voter: Stage) -> None:
    """P13, found unsafe otherwise: a certificate (v', low) would outrank (v, high) though high may be committed."""
    first, second = voter.chain_of(2)
    voter.reaches_view(1, voter.certificate("prepare", second, who="abc"), (first, second))
    voter.sees(voter.proposal(first, view=1), voter.proposal(voter.block(variant=6), view=1))
    assert voter.said(Prepare) == [voter.prepare("d", second, view=1)]


def test_a_view_is_entered_once(voter: Stage) -> None:
    """P13, found unsafe otherwise: a second NEW-VIEW with another base changes nothing and is evidence."""
    block = voter.block()
    lock = voter.certificate("prepare", block, who="abc")
    changes = [voter.view_change(who, 1) for who in "abc"]
    voter.sees(*changes, voter.new_view(1, changes))
    voter.sees(voter.new_view(1, [voter.view_change("a", 1, lock), *changes[1:]], (block,)))
    assert voter.replica.base == (0, voter.genesis.hash)
    assert voter.said(Prepare) == []
    assert len(voter.asked(do.ReportEquivocation)) == 1


def test_a_new_view_said_again_with_another_signature_is_no_evidence(voter: Stage) -> None:
    """P13, P14: one statement has many good signatures; only another statement contradicts it."""
    changes = [voter.view_change(who, 1) for who in "abc"]
    entered = voter.new_view(1, changes)
    voter.sees(*changes, entered)
    again = Signed(entered, with_another_nonce(voter.keys["b"], statement(voter.chain, entered)))
    assert again.signature != voter.signed(entered).signature
    verified = verify_message(again, voter.chain, voter.replica.epoch, voter.founding.validators)
    voter.happens(on.Received(verified))
    assert voter.asked(do.ReportEquivocation) == []


def with_another_nonce(key: SigningKey, message: bytes) -> Signature:
    """A signature as good as the one that `key.sign` makes (RFC 8032, 5.1.6, with a nonce of our own)."""
    secret = bytearray(sha512(key.seed).digest()[:32])
    secret[0] &= 248
    secret[31] = (secret[31] & 127) | 64
    nonce = crypto_core_ed25519_scalar_reduce(sha512(b"another nonce").digest())
    point = crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = crypto_core_ed25519_scalar_reduce(sha512(point + key.public + message).digest())
    private = crypto_core_ed25519_scalar_reduce(bytes(secret) + bytes(32))
    scalar = crypto_core_ed25519_scalar_add(nonce, crypto_core_ed25519_scalar_mul(challenge, private))
    return Signature(point + scalar)


def test_the_base_of_a_view_survives_a_crash(voter: Stage) -> None:
    """P13, P19, found unsafe otherwise: the base is the journal's, never rebuilt from a certificate held later."""
    first, second = voter.chain_of(2)
    voter.reaches_view(1, voter.certificate("prepare", first, who="abc"), (first,))
    voter.sees(*voter.prepares("abc", second))
    voter.restarts()
    voter.hears_nothing_of_itself()
    assert voter.replica.base == (1, first.hash)
    assert voter.replica.is_active
    assert any(isinstance(record, ViewRecord) and record.base_hash == first.hash for record in voter.store.journal())


def test_a_tip_beyond_the_window_is_entered_but_not_voted_on_yet() -> None:
    """P13: it enters, journals the base, and votes once it holds what it needs."""
    stage = Stage("d", parameters=parameters(window=1))
    first, second = stage.chain_of(2)
    stage.reaches_view(1, stage.certificate("prepare", second, who="abc"))
    assert (stage.replica.view, stage.replica.is_active) == (1, True)
    assert stage.sent == [stage.view_change("d", 1)]
    stage.sees(*stage.commits("abc", first))
    assert stage.said(Prepare) == [stage.prepare("d", second, view=1)]


def test_a_tip_that_later_views_left_behind_is_no_fork(voter: Stage) -> None:
    """P13: prepared is not committed; what a later view committed instead wins without stopping anybody."""
    stale = voter.chain_of(2)
    winner = voter.block(variant=5)
    voter.withheld.update(block.hash for block in stale)
    voter.reaches_view(1, voter.certificate("prepare", stale[1], who="abc"))
    voter.sees(*voter.commits("abc", winner, view=2))
    voter.withheld.clear()
    voter.fires("retransmit")
    assert voter.committed == 1
    assert voter.asked(do.Halt) == []
    assert voter.said(Prepare) == []


def test_a_tip_beside_that_which_others_were_shown_is_no_fork(voter: Stage) -> None:
    """P13: a lying primary opens one view with two tips; what is committed under the other one stops nobody."""
    ours = voter.chain_of(3)
    winners = voter.chain_of(2, variant=5)
    voter.reaches_view(1, voter.certificate("prepare", ours[2], who="abc"))
    assert voter.said(Prepare) == [voter.prepare("d", ours[2], view=1)]
    voter.sees(*voter.commits("abc", winners[1], view=1))
    assert voter.asked(do.Halt) == []
    assert voter.committed == 2


# P14


def test_an_equivocators_first_vote_does_not_prevent_a_certificate(voter: Stage) -> None:
    """P14: votes are tallied per block hash; the pair is evidence."""
    block, rival = voter.block(), voter.block(variant=3)
    voter.sees(voter.prepare("a", rival), *voter.prepares("bc", block), voter.prepare("a", block))
    assert voter.replica.lock is not None
    assert voter.replica.lock.block_hash == block.hash
    (evidence,) = voter.asked(do.ReportEquivocation)
    assert isinstance(evidence, do.ReportEquivocation)
    assert {evidence.first.message, evidence.second.message} == {voter.prepare("a", rival), voter.prepare("a", block)}


def test_two_view_changes_that_differ_are_evidence(voter: Stage) -> None:
    """P14."""
    lock = voter.certificate("prepare", voter.block(), who="abc")
    voter.sees(voter.view_change("a", 1, lock), voter.view_change("a", 1))
    assert len(voter.asked(do.ReportEquivocation)) == 1


# P16


def test_it_repeats_itself_with_growing_pauses(voter: Stage) -> None:
    """P16: where it stands and all own votes of this view."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    before = len(voter.sent)
    voter.fires("retransmit")
    assert voter.sent[before:] == [voter.prepare("d", block)]
    assert voter.asked(do.SendStatus) == [do.SendStatus(Epoch(0), View(0), True, Height(0))]
    voter.fires("retransmit")
    pauses = [effect.delay_ms for effect in voter.effects if _is_retransmit(effect)]
    assert pauses[-2:] == [1_000, 2_000]


def _is_retransmit(effect: do.Effect) -> bool:
    return isinstance(effect, do.SetTimer) and effect.timer == "retransmit"


def test_whoever_is_ahead_answers_with_what_moves_the_other_on(voter: Stage) -> None:
    """P16: the commit certificate of its height, and the NEW-VIEW."""
    block = voter.block()
    voter.reaches_view(1, voter.certificate("prepare", block, who="abc"), (block,))
    voter.sees(*voter.commits("abc", block, view=1))
    voter.happens(on.PeerStatus(voter.id("a"), Epoch(0), View(0), True, Height(0)))
    (certified,) = voter.asked(do.SendCertificate)
    assert isinstance(certified, do.SendCertificate)
    assert certified.certificate.height == 1
    assert [type(effect.signed.message) for effect in voter.asked(do.SendSigned)] == [NewView]  # type: ignore[union-attr]


def test_a_peer_of_the_same_view_gets_proposals_and_votes_above_its_height(voter: Stage) -> None:
    """P16."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    voter.happens(on.PeerStatus(voter.id("c"), Epoch(0), View(0), True, Height(0)))
    sent = [effect.signed.message for effect in voter.asked(do.SendSigned)]  # type: ignore[union-attr]
    assert sent == [voter.proposal(block), voter.prepare("d", block)]


def test_a_certificate_never_changes_the_view(voter: Stage) -> None:
    """P2, P16: it makes the replica ask for the NEW-VIEW; until then it follows nobody on that block."""
    block = voter.block()
    voter.sees(*voter.commits("abc", block, view=3))
    assert (voter.committed, voter.replica.view) == (1, 0)
    voter.sees(voter.proposal(voter.block(block)))
    assert voter.said(Prepare) == []
