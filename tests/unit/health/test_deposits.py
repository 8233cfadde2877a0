"""One-time secrets on the chain: deposit keys, their tables, acknowledgements, and release after t of them."""

import pytest

from p2pledger.health import deposit_check, deposits, keys, release
from p2pledger.health.application import HealthApplication
from p2pledger.health.deposit_check import Shown, ToCheck
from p2pledger.health.deposit_operations import (
    DepositAck,
    DepositAcknowledged,
    DepositKey,
    DepositTableMade,
    bits_of,
    indices_of,
)
from p2pledger.health.events import decode_event
from p2pledger.health.key_duties import Duty
from p2pledger.health.operations import decode_operations
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, ProofError, Refused
from p2pledger.threshold.key_release import Opened
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from p2pledger.threshold.sealing import BoxSecret
from tests.unit.execution.ledger import Ledger, founding_of, hash32, id16, key
from tests.unit.health.ceremonies import Keeper, keepers_of
from tests.unit.health.charts import READER, changed
from tests.unit.health.one_time import OneTimeChart, announce, secret_of
from tests.unit.health.world import BERG


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(HealthApplication(), founding_of(["Berg", "Tal", "See", "Wald"]))


@pytest.fixture
def keepers(ledger: Ledger) -> list[Keeper]:
    return keepers_of(ledger)


@pytest.fixture
def chart() -> OneTimeChart:
    made = OneTimeChart()
    assert made.world.grant() == Code.OK
    return made


# Deposit keys


def test_each_announcement_makes_the_next_table_and_old_ones_stay(ledger: Ledger, keepers: list[Keeper]) -> None:
    assert deposits.newest_table(ledger.state) is None
    newest = announce(ledger, keepers)
    assert (newest.number, newest.threshold, newest.is_usable) == (4, 3, True)
    assert newest.holders == tuple(sorted(keeper.validator for keeper in keepers))
    assert newest.boxes == tuple(secret_of(keeper).public for keeper in keepers)
    tables = [deposits.table_of(number, ledger.state) for number in range(1, 5)]
    assert [table is not None and len(table.holders) for table in tables] == [1, 2, 3, 4]
    assert [table is not None and table.is_usable for table in tables] == [False, False, True, True]


def test_a_new_key_takes_the_place_of_the_old_one_in_the_next_table(ledger: Ledger, keepers: list[Keeper]) -> None:
    before = announce(ledger, keepers)
    fresh = secret_of(keepers[1], "fresh").public
    effects = ledger.run(ledger.signed(keepers[1].node, DepositKey(fresh)))
    assert [decode_event(data) for data in effects.receipts[0].events] == [
        DepositTableMade(5, keepers[1].validator, 4, 3)
    ]
    after = deposits.newest_table(ledger.state)
    assert after is not None and after.boxes == (before.boxes[0], fresh, *before.boxes[2:])
    assert deposits.table_of(before.number, ledger.state) == before


def test_only_validators_nodes_announce(ledger: Ledger) -> None:
    assert ledger.submit(key("Berg"), DepositKey(secret_of(keepers_of(ledger)[0]).public)) == Code.E_ROLE


@pytest.mark.parametrize(
    "box",
    [
        bytes(32),
        b"\x01" + bytes(31),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 19 + 9).to_bytes(32, "little"),
        hash32("box")[:31] + b"\xff",
    ],
    ids=["zero", "one", "order", "nine again", "top bit"],
)
def test_keys_of_small_order_or_of_another_spelling_are_refused(
    ledger: Ledger, keepers: list[Keeper], box: bytes
) -> None:
    assert ledger.submit(keepers[0].node, DepositKey(box)) == Code.E_FORMAT
    assert deposits.newest_number(ledger.state) == 0


def test_a_key_is_announced_once_whoever_has_it(ledger: Ledger, keepers: list[Keeper]) -> None:
    box = DepositKey(secret_of(keepers[0]).public)
    assert ledger.submit(keepers[0].node, box) == Code.OK
    assert ledger.submit(keepers[0].node, box) == Code.E_DUP
    assert ledger.submit(keepers[1].node, box) == Code.E_DUP, "a copied key"


def test_a_validator_has_so_many_keys_and_no_more(ledger: Ledger, keepers: list[Keeper]) -> None:
    """Tables stay for ever, so nobody may make as many of them as it likes."""
    boxes = [BoxSecret(sha256(bytes([number]))).public for number in range(limits.DEPOSIT_KEYS_MAX + 1)]
    codes = [ledger.submit(keepers[0].node, DepositKey(box)) for box in boxes]
    assert codes == [Code.OK] * limits.DEPOSIT_KEYS_MAX + [Code.E_QUOTA]
    assert ledger.submit(keepers[1].node, DepositKey(boxes[-1])) == Code.OK, "others still may"


# Acknowledgements


def test_acknowledgements_add_up(chart: OneTimeChart) -> None:
    first = chart.keepers[0]
    said = DepositAck(chart.batch_id, chart.table.number, bits_of([0, 7]))
    effects = chart.world.run(chart.world.signed(first.node, said))
    assert [decode_event(data) for data in effects.receipts[0].events] == [
        DepositAcknowledged(chart.batch_id, first.validator, chart.table.number, 2)
    ]
    assert chart.acknowledge(first, 3, 7) == Code.OK
    found = deposits.deposited_by(first.validator, chart.batch_id, chart.world.state)
    assert found is not None and indices_of(found.records) == (0, 3, 7)
    assert [index for index in range(20) if found.has(index)] == [0, 3, 7]


def test_what_was_said_before_is_refused(chart: OneTimeChart) -> None:
    first = chart.keepers[0]
    assert chart.acknowledge(first, 0, 3) == Code.OK
    assert chart.acknowledge(first, 3) == Code.E_DUP


def test_only_members_of_the_table_acknowledge(chart: OneTimeChart) -> None:
    """I-1: who has no share of a record has nothing to say of it."""
    first, *others = chart.keepers
    said = DepositAck(chart.batch_id, chart.table.number, bits_of([0]))
    assert chart.world.submit(BERG, said) == Code.E_ROLE, "a member's own account"
    oldest = deposits.table_of(1, chart.world.state)
    assert oldest is not None and oldest.holders == (first.validator,)
    for other in others:
        assert chart.acknowledge(other, 0, table=1) == Code.E_ROLE
    assert chart.acknowledge(first, 0, table=1) == Code.OK


def test_a_validator_speaks_of_one_table_about_a_batch(chart: OneTimeChart) -> None:
    first = chart.keepers[0]
    assert chart.acknowledge(first, 0, table=1) == Code.OK
    assert chart.acknowledge(first, 1) == Code.E_STATE


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (DepositAck(id16("elsewhere"), 4, (1,)), Code.E_NOT_FOUND),
        (DepositAck(id16("batch"), 5, (1,)), Code.E_NOT_FOUND),
        (DepositAck(id16("batch"), 4, (0x100,)), Code.E_FORMAT),
        (DepositAck(id16("batch"), 4, (1, 0)), Code.E_FORMAT),
        (DepositAck(id16("batch"), 4, (0,)), Code.E_FORMAT),
    ],
    ids=["no such batch", "no such table", "no such record", "zeros at the end", "no record"],
)
def test_words_about_nothing_are_refused(chart: OneTimeChart, said: Duty, code: Code) -> None:
    keeper = chart.keepers[0]
    assert chart.world.submit(keeper.node, said) == code
    assert not list(chart.world.state.scan(keys.DEPOSITED))


def test_the_longest_acknowledgement_fits(chart: OneTimeChart) -> None:
    longest = DepositAck(chart.batch_id, 4, bits_of(range(limits.FHIR_ENTRIES_MAX)))
    data = encode((longest,))
    assert decode_operations(data) == (longest,)
    assert len(data) < 1_700


# Release


def test_nothing_leaves_before_t_validators_have_seen_good_shares(chart: OneTimeChart) -> None:
    """I-1, rule 3.6: E_DEAL, and from the t-th acknowledgement of that record on it is released."""
    request = chart.allow(0)
    for keeper in chart.keepers[:2]:
        assert chart.acknowledge(keeper) == Code.OK
    assert chart.code(request) == Code.E_DEAL
    assert chart.acknowledge(chart.keepers[2], 1, 2) == Code.OK, "of other records"
    assert chart.code(request) == Code.E_DEAL
    assert chart.acknowledge(chart.keepers[2], 0) == Code.OK
    assert chart.code(request) == Code.OK


def test_the_doctor_opens_the_allergies_without_any_joint_key(chart: OneTimeChart) -> None:
    chart.deposit()
    answer = chart.may_release(chart.allow(*range(7)))
    assert not isinstance(answer, Code), answer
    for index, entry in enumerate(answer):
        assert entry.label == chart.label(index)
        shares = {
            holder.index: release.share_of(entry, chart.capsules[index], holder, chart.random)
            for holder in chart.holders[1:]
        }
        opened = chart.table.release.open(chart.capsules[index], entry.label, entry.access, READER, shares)
        assert opened == Opened(chart.content_keys[index], ())


def test_acknowledgements_of_another_table_do_not_count(chart: OneTimeChart) -> None:
    """I-1: its members have other keys, or other indices, so they have not seen these shares."""
    for keeper in chart.keepers[:3]:
        assert chart.acknowledge(keeper, 0, table=3) == Code.OK
    assert chart.code(chart.allow(0)) == Code.E_DEAL


def test_old_capsules_open_after_a_validator_has_a_new_key(chart: OneTimeChart) -> None:
    """As long as it has kept the old one, or t others have theirs."""
    chart.deposit()
    fresh = DepositKey(secret_of(chart.keepers[0], "fresh").public)
    assert chart.world.submit(chart.keepers[0].node, fresh) == Code.OK
    assert chart.code(chart.allow(0)) == Code.OK


def test_a_capsule_for_no_table_of_this_chain_is_refused(chart: OneTimeChart) -> None:
    boxes = [secret_of(keeper).public for keeper in chart.keepers]
    chart.capsules = chart.sealed(OneTime(boxes, 3, 9))
    chart.batch_id = id16("another batch")
    chart.capsules = chart.sealed(OneTime(boxes, 3, 9))
    chart.commit()
    assert chart.code(chart.allow(0)) == Code.E_NOT_FOUND


def test_what_is_no_one_time_capsule_is_refused(chart: OneTimeChart) -> None:
    chart.batch_id = id16("another batch")
    chart.capsules = [bytes([index]) * 187 for index in range(chart.n)]
    chart.commit()
    assert chart.code(chart.allow(0)) == Code.E_CAPSULE


def test_an_opening_says_which_of_the_two_it_is(chart: OneTimeChart) -> None:
    """There is no joint key; a one-time capsule is not opened as if there were."""
    chart.deposit()
    assert chart.code(changed(chart.allow(0), key_epoch=1)) == Code.E_NOT_FOUND


def test_holders_find_a_share_that_is_not_of_this_record(chart: OneTimeChart) -> None:
    """Which is why they do not acknowledge it, and release nothing of it whatever others have said."""
    chart.deposit()
    answer = chart.may_release(chart.allow(1))
    assert not isinstance(answer, Code)
    (entry,) = answer
    for holder in chart.holders:
        holder.check(chart.capsules[1], entry.label)
        with pytest.raises(ProofError, match="not sealed for"):
            holder.check(chart.capsules[0], entry.label)


def test_what_does_not_fit_is_not_good(chart: OneTimeChart) -> None:
    """I-1: a holder vouches for the shares that it has opened and found on their polynomials, and for no others."""
    moved = Shown(chart.label(1), chart.capsules[0])
    work = ToCheck(chart.batch_id, chart.table, (moved, Shown(chart.label(0), chart.capsules[0])))
    for holder in chart.holders:
        assert deposit_check.good_of(work, holder) == (0,)


def test_holders_of_another_table_open_nothing(chart: OneTimeChart) -> None:
    """Even where key and index are the same."""
    chart.deposit()
    answer = chart.may_release(chart.allow(0))
    assert not isinstance(answer, Code)
    (entry,) = answer
    table = OneTime(chart.table.boxes, 3, chart.table.number + 1)
    holder = OneTimeHolder(table, secret_of(chart.keepers[0]))
    with pytest.raises(Refused, match="E_CAPSULE"):
        release.share_of(entry, chart.capsules[0], holder, chart.random)


def test_bits_name_records_in_one_way_only() -> None:
    for indices in ((0,), (7, 8), (9_999,), tuple(range(182))):
        assert indices_of(bits_of(indices)) == indices
        assert bits_of(indices_of(bits_of(indices))) == bits_of(indices)
    assert bits_of([0, 0, 33]) == (1, 2)
