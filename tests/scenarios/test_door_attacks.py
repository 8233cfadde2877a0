"""Statements that do not pass the door of the core (verification.py): each passes without the one rule it breaks."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.chain import statement as statements
from p2pledger.consensus import certificates, verification
from p2pledger.consensus.messages import (
    Certificate,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    SignedClaim,
    Vote,
    ballot_statement,
    statement,
    view_change_statement,
)
from p2pledger.consensus.verification import verify_message
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, Epoch, Height, Signature, ValidatorId, View
from p2pledger.sim.founding import seeded_key
from tests.attack import Check, Without
from tests.scenarios.stage import Stage

STRANGER = seeded_key("stranger")
Forged = Callable[[Stage], Message | Signed]


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def passes_the_door(stage: Stage, forged: Message | Signed) -> bool:
    signed = forged if isinstance(forged, Signed) else stage.signed(forged)
    try:
        verify_message(signed, stage.chain, Epoch(0), stage.founding.validators)
    except InvalidInput:
        return False
    return True


def shown(stage: Stage, forged: Forged, without: Without, check: Check) -> None:
    message = forged(stage)
    with without(*check):
        assert passes_the_door(stage, message)
    assert not passes_the_door(stage, message)


# Who says it


def unsigned(stage: Stage) -> Signed:
    return Signed(stage.prepare("a", stage.block()), Signature(bytes(64)))


def in_anothers_name(stage: Stage) -> Signed:
    vote = stage.prepare("a", stage.block())
    return Signed(vote, stage.keys["b"].sign(statement(stage.chain, vote)))


def by_a_stranger(stage: Stage) -> Signed:
    vote = replace(stage.prepare("a", stage.block()), author=ValidatorId(STRANGER.public))
    return Signed(vote, STRANGER.sign(statement(stage.chain, vote)))


def of_a_later_epoch(stage: Stage) -> Message:
    return replace(stage.prepare("a", stage.block()), epoch=Epoch(1))


def of_another_chain(stage: Stage) -> Signed:
    vote = stage.prepare("a", stage.block())
    return Signed(vote, stage.keys["a"].sign(statement(ChainId(bytes(32)), vote)))


def a_prepare_as_a_commit(stage: Stage) -> Signed:
    """The strongest one: whoever heard q PREPAREs could show a commit certificate."""
    block = stage.block()
    said = stage.signed(stage.prepare("a", block))
    return Signed(stage.commit("a", block), said.signature)


def for_another_height(stage: Stage) -> Signed:
    first, second = stage.chain_of(2)
    said = stage.signed(stage.prepare("a", first))
    return Signed(stage.prepare("a", second), said.signature)


@pytest.mark.attack("T12")
@pytest.mark.parametrize(
    "forged", [unsigned, in_anothers_name, of_another_chain, a_prepare_as_a_commit, for_another_height]
)
def test_a_signature_is_good_for_its_statement_only(stage: Stage, without: Without, forged: Forged) -> None:
    shown(
        stage,
        forged,
        without,
        Check(verification.verify_message, "raise InvalidInput(f'{type(message).__name__} is not signed"),
    )


@pytest.mark.attack("T12")
def test_the_purpose_is_in_what_is_signed(stage: Stage, without: Without, monkeypatch: pytest.MonkeyPatch) -> None:
    """PREPAREs become COMMITs where both sign for one purpose."""
    with without.setup("the purpose in the signed bytes"), monkeypatch.context() as careless:
        careless.setitem(statements._DOMAINS, "commit", statements._DOMAINS["prepare"])
        assert passes_the_door(stage, a_prepare_as_a_commit(stage))
    assert not passes_the_door(stage, a_prepare_as_a_commit(stage))


@pytest.mark.attack("T19")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(verification.verify_message, "if message.author not in validators"), by_a_stranger),
        (Check(verification.verify_message, "if message.epoch != epoch"), of_a_later_epoch),
    ],
)
def test_only_validators_of_the_epoch_vote(stage: Stage, without: Without, check: Check, forged: Forged) -> None:
    shown(stage, forged, without, check)


# Proposals


def out_of_turn(stage: Stage) -> Message:
    return replace(stage.proposal(stage.block()), author=stage.id("c"))


def of_anothers_chain(stage: Stage) -> Message:
    return stage.proposal(replace(stage.block(), chain=ChainId(bytes(32))))


def at_the_genesis(stage: Stage) -> Message:
    return stage.proposal(replace(stage.block(), height=Height(0)))


@pytest.mark.attack("T17")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(verification._check_primary, "if message.author != primary"), out_of_turn),
        (Check(verification._check_header, "if header.chain != chain"), of_anothers_chain),
        (Check(verification._check_header, "if header.epoch != epoch"), at_the_genesis),
    ],
)
def test_a_proposal_is_the_primarys_and_of_this_chain(
    stage: Stage, without: Without, check: Check, forged: Forged
) -> None:
    """P2."""
    shown(stage, forged, without, check)


@pytest.mark.attack("T17")
def test_a_proposal_out_of_turn_gets_no_vote(without: Without) -> None:
    """P2, to the end: without the rule the replica would PREPARE what anybody proposes."""

    def attack() -> list[Message]:
        victim = Stage("d")
        try:
            victim.sees(out_of_turn(victim))
        except InvalidInput:
            return []
        return victim.said(Prepare)

    with without(verification._check_primary, "if message.author != primary"):
        assert len(attack()) == 1
    assert attack() == []


# VIEW-CHANGEs


def lock_of(stage: Stage, view: int = 0) -> Certificate:
    return stage.certificate("prepare", stage.block(), view=view, who="abc")


def with_a_claim_that_nobody_certified(stage: Stage) -> Message:
    return replace(stage.view_change("a", 1, lock_of(stage)), lock=None)


def with_a_raised_claim(stage: Stage) -> Message:
    change = stage.view_change("a", 1, lock_of(stage))
    assert change.claim is not None
    return replace(change, claim=replace(change.claim, height=Height(9)))


def with_a_claim_of_its_own_view(stage: Stage) -> Message:
    return stage.view_change("a", 1, lock_of(stage, view=1))


def with_a_forged_lock(stage: Stage) -> Message:
    lock = lock_of(stage)
    return stage.view_change("a", 1, replace(lock, votes=lock.votes[:1] * 3))


def with_a_lock_of_a_later_epoch(stage: Stage) -> Message:
    bare = replace(lock_of(stage), epoch=Epoch(1))
    seats = [stage.founding.validators.index(stage.id(who)) for who in "abc"]
    votes = [
        Vote(seat or 0, stage.keys[who].sign(ballot_statement(stage.chain, bare, stage.id(who))))
        for seat, who in zip(seats, "abc", strict=True)
    ]
    return stage.view_change("a", 1, replace(bare, votes=tuple(votes)))


def with_prepares_for_commits(stage: Stage) -> Message:
    return stage.view_change("a", 1, committed=lock_of(stage))


@pytest.mark.attack("T20")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(verification._check_claim, "if claim is not None or"), with_a_claim_that_nobody_certified),
        (Check(verification._check_claim, "if (claim.view, claim.height"), with_a_raised_claim),
        (
            Check(verification._check_view_change, "if message.claim is not None and"),
            with_a_claim_of_its_own_view,
        ),
        (Check(verification._check_view_change, "check_certificate("), with_a_forged_lock),
        (Check(verification._check_view_change, "if certificate.epoch"), with_a_lock_of_a_later_epoch),
        (Check(verification._check_view_change, "if message.committed is not None"), with_prepares_for_commits),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_view_change_is_judged_by_its_own_content(
    stage: Stage, without: Without, check: Check, forged: Forged
) -> None:
    """P11."""
    shown(stage, forged, without, check)


# NEW-VIEWs


def new_view(stage: Stage, lock: Certificate | None = None) -> NewView:
    changes = [stage.view_change("a", 1, lock), *(stage.view_change(who, 1) for who in "bc")]
    return stage.new_view(1, changes)


def resigned(stage: Stage, claims: tuple[SignedClaim, ...]) -> Message:
    return replace(new_view(stage), claims=claims)


def with_too_few_claims(stage: Stage) -> Message:
    return resigned(stage, new_view(stage).claims[:2])


def with_one_claim_twice(stage: Stage) -> Message:
    claims = new_view(stage).claims
    return resigned(stage, (claims[0], claims[0], claims[1]))


def quoting(stage: Stage, key: SigningKey, claim_of: Certificate | None = None) -> SignedClaim:
    author = ValidatorId(key.public)
    claim = None if claim_of is None else stage.view_change("a", 1, claim_of).claim
    return SignedClaim(author, claim, key.sign(view_change_statement(stage.chain, Epoch(0), View(1), claim, author)))


def quoting_a_stranger(stage: Stage) -> Message:
    claims = (*new_view(stage).claims[:2], quoting(stage, STRANGER))
    return resigned(stage, tuple(sorted(claims, key=lambda quoted: quoted.author)))


def quoting_what_nobody_said(stage: Stage) -> Message:
    first, *rest = new_view(stage, lock_of(stage)).claims
    return resigned(stage, (replace(first, claim=None), *rest))


def quoting_a_claim_of_its_own_view(stage: Stage) -> Message:
    return new_view(stage, lock_of(stage, view=1))


def hiding_the_certificate(stage: Stage) -> Message:
    return replace(new_view(stage, lock_of(stage)), certificate=None)


def with_a_forged_certificate(stage: Stage) -> Message:
    good = new_view(stage, lock_of(stage))
    assert good.certificate is not None
    return replace(good, certificate=replace(good.certificate, votes=good.certificate.votes[:1] * 3))


def with_rival_claims(stage: Stage) -> Message:
    rival = stage.certificate("prepare", stage.block(variant=3), who="abc")
    changes = [stage.view_change("a", 1, lock_of(stage)), stage.view_change("b", 1, rival), stage.view_change("c", 1)]
    return stage.new_view(1, changes)


def with_headers_beside_the_tip(stage: Stage) -> Message:
    return replace(new_view(stage, lock_of(stage)), headers=(stage.block(variant=5),))


def with_headers_that_are_not_linked(stage: Stage) -> Message:
    first, second = stage.chain_of(2)
    lock = stage.certificate("prepare", second, who="abc")
    return replace(new_view(stage, lock), headers=(stage.block(first, variant=5), second))


def by_another_than_its_primary(stage: Stage) -> Message:
    return replace(new_view(stage), author=stage.id("c"))


@pytest.mark.attack("T20")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(verification._check_primary, "if message.author != primary"), by_another_than_its_primary),
        (Check(verification._check_new_view, "if len(claims) !="), with_too_few_claims),
        (Check(verification._check_new_view, "if any((first.author >="), with_one_claim_twice),
        (Check(verification._check_new_view, "if quoted.author not in validators"), quoting_a_stranger),
        (
            Check(verification._check_new_view, "raise InvalidInput(f'NEW-VIEW quotes a claim that"),
            quoting_what_nobody_said,
        ),
        (
            Check(verification._check_new_view, "if quoted.claim is not None and"),
            quoting_a_claim_of_its_own_view,
        ),
        (Check(verification._check_new_view, "_check_claim("), hiding_the_certificate),
        (Check(verification._check_new_view, "check_certificate("), with_a_forged_certificate),
        (Check(verification._check_new_view, "if len(rivals) > 1"), with_rival_claims),
        (Check(verification._check_headers, "if tip is None or"), with_headers_beside_the_tip),
        (Check(verification._check_headers, "if child.parent"), with_headers_that_are_not_linked),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_new_view_is_judged_by_its_own_content(stage: Stage, without: Without, check: Check, forged: Forged) -> None:
    """P11, P12: q signed claims of distinct validators, the certificate of the highest, headers that end there."""
    shown(stage, forged, without, check)


# Certificates


@pytest.fixture
def seven() -> Stage:
    return Stage("a", n=7)


Change = Callable[[Certificate], Certificate]


@pytest.mark.attack("T19")
@pytest.mark.parametrize(
    ("check", "change"),
    [
        (
            Check(certificates.check_certificate, "if len(votes) != validators.q"),
            lambda good: replace(good, votes=good.votes[:-1]),
        ),
        (
            Check(certificates.check_certificate, "if vote.seat <= last"),
            lambda good: replace(good, votes=(*good.votes[:4], good.votes[3])),
        ),
        (
            Check(certificates.check_certificate, "raise InvalidInput(f'certificate at height"),
            lambda good: replace(good, view=View(3)),
        ),
        (
            Check(certificates.check_certificate, "raise InvalidInput(f'certificate at height"),
            lambda good: replace(good, kind="prepare"),
        ),
        (
            Check(certificates.check_certificate, "raise InvalidInput(f'certificate at height"),
            lambda good: replace(good, votes=(*good.votes[:4], replace(good.votes[3], seat=6))),
        ),
    ],
    ids=["too few", "one twice", "of another view", "of another kind", "borrowed signature"],
)
def test_a_certificate_is_q_distinct_validators_on_one_thing(
    seven: Stage, without: Without, check: Check, change: Change
) -> None:
    """P5, P7."""
    forged = change(seven.certificate("commit", seven.block(), who="bcdef"))

    def accepted() -> bool:
        try:
            certificates.check_certificate(forged, seven.chain, seven.founding.validators)
        except InvalidInput:
            return False
        return True

    with without(*check):
        assert accepted()
    assert not accepted()


@pytest.mark.attack("T19")
def test_a_seat_that_does_not_exist_would_stop_the_verifier(seven: Stage, without: Without) -> None:
    """A number from the wire is bounded before it is used as an index."""
    good = seven.certificate("commit", seven.block(), who="bcdef")
    forged = replace(good, votes=(*good.votes[:4], replace(good.votes[4], seat=49)))
    with without(certificates.check_certificate, "if vote.seat >="), pytest.raises(IndexError):
        certificates.check_certificate(forged, seven.chain, seven.founding.validators)
    with pytest.raises(InvalidInput, match="names seat 49 of 7"):
        certificates.check_certificate(forged, seven.chain, seven.founding.validators)


def test_what_none_of_these_break_passes(stage: Stage) -> None:
    """The instrument is not the attack: the genuine messages pass with every check on."""
    for good in (
        stage.prepare("a", stage.block()),
        PrePrepare(Epoch(0), View(0), stage.block(), stage.id("a")),
        stage.view_change("a", 1, lock_of(stage)),
        new_view(stage, lock_of(stage)),
    ):
        assert passes_the_door(stage, good)
