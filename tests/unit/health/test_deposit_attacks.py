"""One-time secrets in bad company: writers that deal badly, validators and strangers that speak out of turn."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.health import deposit_check, deposits, release
from p2pledger.health.commitments import prove_record
from p2pledger.health.deposit_check import ToCheck, good_of, to_check
from p2pledger.health.deposit_operations import DepositAck, DepositKey
from p2pledger.health.release import RecordOpening
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from p2pledger.threshold import sharing
from p2pledger.threshold.group import random_scalar
from p2pledger.threshold.one_time import ONE_TIME_BYTES_MAX, OneTimeCapsule
from p2pledger.threshold.sealing import BoxSecret
from p2pledger.threshold.sharing import Polynomial
from tests.attack import Check, Without
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import changed
from tests.unit.health.one_time import OneTimeChart, secret_of
from tests.unit.health.world import BERG, SEE

Attack = Callable[[OneTimeChart], Code]


def permitted() -> OneTimeChart:
    chart = OneTimeChart()
    assert chart.world.grant() == Code.OK
    return chart


# What is released


def before_t_have_seen_it(chart: OneTimeChart) -> Code:
    chart.deposit(2)
    return chart.code(chart.allow(0))


def seen_of_another_record(chart: OneTimeChart) -> Code:
    for keeper in chart.keepers:
        assert chart.acknowledge(keeper, 1) == Code.OK
    return chart.code(chart.allow(0))


def seen_of_another_table(chart: OneTimeChart) -> Code:
    """Three of them stand in table 3 as well, with other indices to come."""
    for keeper in chart.keepers[:3]:
        assert chart.acknowledge(keeper, 0, table=3) == Code.OK
    return chart.code(chart.allow(0))


@pytest.mark.attack("T76")
@pytest.mark.parametrize(
    ("attack", "check"),
    [
        (before_t_have_seen_it, Check(release._deposit, "if not deposits.is_deposited(")),
        (seen_of_another_record, Check(deposits.is_deposited, "one.has(index)")),
        (seen_of_another_table, Check(deposits.is_deposited, "one.table == table.number")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_secret_opens_that_was_not_seen_to_be_dealt_well(attack: Attack, check: Check, without: Without) -> None:
    """Rule 3.6: a reader would get shares that open nothing, and the custodian could say that it had done its part."""
    with without(*check):
        assert attack(permitted()) == Code.OK
    assert attack(permitted()) == Code.E_DEAL


@pytest.mark.attack("T76")
def test_a_one_time_secret_passes_for_one_of_the_joint_key(without: Without) -> None:
    """Which would need no acknowledgement: there has to be a joint key of that epoch."""
    chart = permitted()
    request = changed(chart.allow(0), key_epoch=1)
    with without(release._entry, "if batch is None or not _has_holders(opening, state)"):
        assert chart.code(request) == Code.OK
    assert chart.code(request) == Code.E_NOT_FOUND


# What is acknowledged


def by_one_who_is_not_in_the_table(chart: OneTimeChart) -> Code:
    """Its own word would count once it stood there."""
    return chart.acknowledge(chart.keepers[1], 0, table=1)


def of_a_record_that_is_not_there(chart: OneTimeChart) -> Code:
    """A state that grows with every index that anybody thinks of."""
    return chart.acknowledge(chart.keepers[0], 9_999)


def in_another_spelling(chart: OneTimeChart) -> Code:
    said = DepositAck(chart.batch_id, chart.table.number, (1, 0, 0))
    return chart.world.submit(chart.keepers[0].node, said)


def of_a_second_table(chart: OneTimeChart) -> Code:
    assert chart.acknowledge(chart.keepers[0], 0, table=1) == Code.OK
    return chart.acknowledge(chart.keepers[0], 1)


def again_and_again(chart: OneTimeChart) -> Code:
    """Each time an event, for nothing."""
    assert chart.acknowledge(chart.keepers[0], 0) == Code.OK
    return chart.acknowledge(chart.keepers[0], 0)


@pytest.mark.attack("T76")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (
            by_one_who_is_not_in_the_table,
            Check(deposits.acknowledge, "if table.index_of(validator) is None"),
            Code.E_ROLE,
        ),
        (of_a_record_that_is_not_there, Check(deposits.acknowledge, "indices[-1] >= batch.terms.n"), Code.E_FORMAT),
        (in_another_spelling, Check(deposits.acknowledge, "bits_of(indices) != operation.records"), Code.E_FORMAT),
        (
            of_a_second_table,
            Check(deposits.acknowledge, "if before is not None and before.table != operation.table"),
            Code.E_STATE,
        ),
        (again_and_again, Check(deposits.acknowledge, "if not added"), Code.E_DUP),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_words_out_of_turn(attack: Attack, check: Check, code: Code, without: Without) -> None:
    with without(*check):
        assert attack(permitted()) == Code.OK
    assert attack(permitted()) == code


# What is deposited


def shown(chart: OneTimeChart, index: int, capsule: bytes | None = None) -> RecordOpening:
    opening = chart.opening(index)
    return opening if capsule is None else replace(opening, capsule=capsule)


def asked(chart: OneTimeChart, opening: RecordOpening, account: SigningKey = BERG) -> Code | ToCheck:
    return to_check(chart.world.state, chart.world.chain, AccountKey(account.public), [opening])


@pytest.mark.attack("T77")
def test_a_writer_deals_shares_that_do_not_fit(without: Without) -> None:
    """No honest validator acknowledges them, so nobody waits for a record that cannot be opened."""
    chart = permitted()
    chart.batch_id = id16("another batch")
    chart.capsules = chart.sealed(chart.table.release)
    parts = decode(OneTimeCapsule, chart.capsules[0], ONE_TIME_BYTES_MAX)
    other = Polynomial.through(random_scalar(chart.random), 3, chart.random).commitments()
    chart.capsules[0] = encode(replace(parts, commitments=other))
    chart.commit()
    with without(sharing.check_share, "if base_times(share) != public_share(commitments, index)"):
        assert good_of(deposited(chart, 0), chart.holders[0]) == (0,)
    assert [good_of(deposited(chart, 0), holder) for holder in chart.holders] == [()] * 4
    assert good_of(deposited(chart, 1), chart.holders[0]) == (1,)


def deposited(chart: OneTimeChart, index: int) -> ToCheck:
    work = asked(chart, chart.opening(index))
    assert isinstance(work, ToCheck)
    return work


@pytest.mark.attack("T77")
def test_a_good_capsule_is_shown_in_the_place_of_the_committed_one(without: Without) -> None:
    """Validators would vouch for what no reader is ever given."""
    chart = permitted()
    good = chart.capsules[0]
    chart.batch_id = id16("another batch")
    chart.capsules = chart.sealed(chart.table.release)
    good, chart.capsules[0] = chart.capsules[0], good
    chart.commit()
    with without(deposit_check._shown, "if sha256(opening.capsule) != leaf.capsule"):
        work = asked(chart, shown(chart, 0, good))
        assert isinstance(work, ToCheck) and good_of(work, chart.holders[0]) == (0,)
    assert asked(chart, shown(chart, 0, good)) == Code.E_CAPSULE
    work = asked(chart, shown(chart, 0))
    assert isinstance(work, ToCheck) and good_of(work, chart.holders[0]) == ()


@pytest.mark.attack("T77")
def test_a_stranger_keeps_validators_busy_with_boxes(without: Without) -> None:
    """0.6 ms of a processor each; another member, too, has no business with them."""
    chart = permitted()
    with without(deposit_check.to_check, "if not may_deposit(account, batch, state)"):
        assert isinstance(asked(chart, chart.opening(0), SEE), ToCheck)
    assert asked(chart, chart.opening(0), SEE) == Code.E_ROLE


@pytest.mark.attack("T77")
def test_a_deposit_under_a_forged_proof(without: Without) -> None:
    chart = permitted()
    proof = prove_record(chart.leaves(), 0)
    smaller = replace(chart.opening(0), proof=replace(proof, size=proof.size - 1))
    with without(deposit_check._shown, "if opening.proof.size != terms.n"):
        assert isinstance(asked(chart, smaller), ToCheck)
    assert asked(chart, smaller) == Code.E_COMMIT_MISMATCH


@pytest.mark.attack("T77")
def test_records_of_several_batches_in_one_deposit(without: Without) -> None:
    """One that is one's own, and others that are not."""
    chart = permitted()
    own = chart.opening(0)
    foreign = replace(chart.opening(1), batch_id=id16("elsewhere"))
    both = [own, foreign]

    def attack() -> Code | ToCheck:
        return to_check(chart.world.state, chart.world.chain, AccountKey(BERG.public), both)

    with without(deposit_check.to_check, "if any("):
        assert isinstance(attack(), ToCheck)
    assert attack() == Code.E_FORMAT


# Deposit keys


def of_small_order(chart: OneTimeChart) -> Code:
    return chart.world.submit(chart.keepers[0].node, DepositKey(bytes(32)))


def spelled_in_another_way(chart: OneTimeChart) -> Code:
    """The same key as 9, which could so stand in a table twice."""
    return chart.world.submit(chart.keepers[0].node, DepositKey((2**255 - 19 + 9).to_bytes(32, "little")))


def copied(chart: OneTimeChart) -> Code:
    return chart.world.submit(chart.keepers[1].node, DepositKey(secret_of(chart.keepers[0]).public))


def without_end(chart: OneTimeChart) -> Code:
    for number in range(limits.DEPOSIT_KEYS_MAX - 1):
        box = DepositKey(BoxSecret(sha256(bytes([number]))).public)
        assert chart.world.submit(chart.keepers[0].node, box) == Code.OK
    return chart.world.submit(chart.keepers[0].node, DepositKey(secret_of(chart.keepers[0], "more").public))


@pytest.mark.attack("T77")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (of_small_order, Check(deposits.announce, "not is_box_key(operation.box)"), Code.E_FORMAT),
        (spelled_in_another_way, Check(deposits.announce, "not is_canonical(operation.box)"), Code.E_FORMAT),
        (copied, Check(deposits.announce, "if operation.box in (one.box for one in present.values())"), Code.E_DUP),
        (without_end, Check(deposits.announce, "if count > limits.DEPOSIT_KEYS_MAX"), Code.E_QUOTA),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_keys_that_are_none(attack: Attack, check: Check, code: Code, without: Without) -> None:
    """Nothing could be sealed to it, or it would be another's, or tables would fill the state."""
    with without(*check):
        assert attack(permitted()) == Code.OK
    assert attack(permitted()) == code
