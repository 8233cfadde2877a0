"""Transactions in bulk: every place answered once, as single Submits are, durably, and nothing is left over."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger.chain.transaction import assemble, parse
from p2pledger.network import api
from p2pledger.node import intake
from p2pledger.node.intake import BULK_OF_STRANGER_MAX, SUBMISSIONS_MAX, Intake
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey
from p2pledger.sim.founding import seeded_key
from tests.unit.node.counter import ACCOUNT, Asked, Counterpart, counterpart, session, transaction

DECIDED = [transaction(nonce, value) for nonce, value in ((1, b"v"), (2, b"refuse"))]
"""On the chain before anything else."""
STRANGER = seeded_key("stranger")


def forged(nonce: int) -> bytes:
    """The body of `transaction(nonce)`, signed by somebody else."""
    whole = parse(transaction(nonce)).envelope
    return assemble(whole.body, whole.operations, [STRANGER.sign(whole.body)])


PLACES = st.one_of(
    st.integers(3, 6).map(transaction),
    st.integers(3, 6).map(lambda nonce: transaction(nonce, b"another")),
    st.integers(3, 6).map(lambda nonce: transaction(nonce, b"refuse")),
    st.integers(3, 6).map(forged),
    st.sampled_from(DECIDED),
    st.sampled_from(
        [
            transaction(1, b"another"),
            transaction(90_000),
            transaction(7, expires_ms=-1),
            transaction(1, sender=STRANGER),
            transaction(3)[:-1],
            b"",
        ]
    ),
)


def begun() -> Counterpart:
    at = counterpart()
    assert Asked(at, DECIDED).send().codes == {}
    at.settle()
    return at


def one_by_one(at: Counterpart, transactions: list[bytes]) -> dict[int, int]:
    """The code of each as single Submits and the chain say it; of what the chain has decided already, its first."""
    codes: dict[int, int] = {}

    def submit(place: int, data: bytes) -> None:
        def decided(reply: api.Reply | Rejected) -> None:
            if isinstance(reply, Rejected):
                codes[place] = reply.code

        try:
            at.server.take(session(), api.Submit(1, data), decided)
        except Rejected as refusal:
            codes[place] = refusal.code

    for place, data in enumerate(transactions):
        submit(place, data)
    at.settle()
    heights = range(1, at.ledger.tip() + 1)
    receipts = [one.receipt for height in heights for one in at.engine.executor.receipts_at(height)]  # type: ignore[arg-type]
    known = {receipt.transaction: receipt.code for receipt in receipts}
    for place, data in enumerate(transactions):
        if codes.get(place, Code.OK) in (Code.OK, Code.E_NONCE):
            codes[place] = known.get(parse(data).id, codes.get(place, -1))
    return dict(sorted(codes.items()))


def is_empty(of: Intake) -> bool:
    return not (of._bulks or of._awaited or of._under_way or of._all_under_way)


@given(st.lists(PLACES, min_size=1, max_size=10), st.one_of(st.none(), st.integers(0, 6)))
@settings(max_examples=40, deadline=None)
def test_every_place_is_answered_once_and_as_single_submits_are(transactions: list[bytes], room: int | None) -> None:
    """Valid, refused by a contract, forged, malformed, repeated, clashing, decided before, and more than there is room
    for: whatever stands beside it. Each signature is checked once, and nothing is remembered after the last answer."""
    many, single = begun(), begun()
    for at in (many, single):
        at.checked.clear()
        at.verifier.submissions_waiting = 0 if room is None else SUBMISSIONS_MAX - room
    asked = Asked(many, transactions).send()
    many.settle()
    assert asked.is_over
    found, expected = list(asked.codes.values()), list(one_by_one(single, transactions).values())
    taken = found.index(Code.E_BUSY) if Code.E_BUSY in found else len(found)
    assert found[:taken] == expected[:taken]
    assert found[taken:] == [Code.E_BUSY] * (len(found) - taken)  # without a look: single ones are parsed first
    assert taken == len(found) or room is not None
    assert all(count == 1 for count in many.checked.values())
    assert is_empty(many.server.intake)


def test_what_one_block_decides_is_one_reply() -> None:
    """Two hundred places: one round of refusals, one block, two replies, four jobs for the verifier."""
    at = begun()
    asked = Asked(at, [*(transaction(nonce) for nonce in range(3, 203)), b"no transaction"]).send()
    assert len(at.jobs) == 4 and max(len(job.transactions) for job in at.jobs) == 64
    at.settle()
    assert [(len(reply.receipts), len(reply.refusals)) for reply in asked.replies] == [(0, 1), (200, 0)]


def test_what_is_not_decided_in_time_is_told_so_and_may_still_be() -> None:
    at = begun()
    asked = Asked(at, [transaction(3), transaction(4)], timeout_ms=1_000).send()
    at.server.expire({asked.by})
    assert not asked.replies
    at.pass_ms(1_000)
    at.server.expire({asked.by})
    assert asked.codes == {0: Code.E_BUSY, 1: Code.E_BUSY} and asked.is_over
    assert is_empty(at.server.intake)
    at.settle()
    assert len(asked.replies) == 1
    again = Asked(at, asked.transactions).send()
    assert again.codes == {0: Code.OK, 1: Code.OK}


def test_a_nonce_that_another_transaction_has_used_meanwhile_is_named() -> None:
    """So that nobody sends for ever what can never be executed."""
    at = begun()
    slow = Asked(at, [transaction(3)]).send()
    jobs, at.jobs = at.jobs, []
    Asked(at, [transaction(3, b"another")]).send()
    at.settle()
    at.pass_ms(60_000)
    at.server.expire({slow.by})
    assert slow.codes == {0: Code.E_NONCE}
    at.jobs = jobs
    at.settle()
    assert is_empty(at.server.intake)


@pytest.mark.parametrize("progress", ["checked", "taken in", "neither"])
def test_a_session_that_ends_frees_everything(progress: str) -> None:
    """Whatever stage its transactions are at; those of others with the same bytes go on."""
    at = begun()
    Asked(at, [transaction(3), transaction(4)]).send()
    stays = Asked(at, [transaction(3)]).send()
    if progress != "neither":
        at.check()
    if progress == "taken in":
        at.take_in()
    at.server.expire({stays.by})
    assert at.server.intake._under_way == {stays.by: 1}
    at.settle()
    assert stays.codes == {0: Code.OK}
    assert is_empty(at.server.intake)


@pytest.mark.parametrize("role", ["stranger", "patient"])
def test_one_session_gets_no_more_than_its_share(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is told at once, and finds room when the first are decided."""
    monkeypatch.setattr(intake, "BULK_OF_SESSION_MAX", BULK_OF_STRANGER_MAX + 5)
    at, by = begun(), session(role=role)
    most = BULK_OF_STRANGER_MAX + (0 if role == "stranger" else 5)
    first = Asked(at, [transaction(nonce) for nonce in range(3, 3 + most)], by).send()
    second = Asked(at, [transaction(nonce) for nonce in range(3 + most, 6 + most)], by).send()
    assert second.codes == dict.fromkeys(range(3), Code.E_BUSY) and second.is_over
    other = Asked(at, [transaction(1_000)], session(role=role)).send()
    at.settle()
    assert set(first.codes.values()) == set(other.codes.values()) == {Code.OK}
    third = Asked(at, second.transactions, by).send()
    at.settle()
    assert set(third.codes.values()) == {Code.OK}


def test_all_sessions_together_get_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BULK_MAX", 3)
    at = begun()
    Asked(at, [transaction(3), transaction(4)]).send()
    asked = Asked(at, [transaction(5), transaction(6)]).send()
    assert asked.codes == {1: Code.E_BUSY}
    at.settle()
    assert asked.codes == {0: Code.OK, 1: Code.E_BUSY} and is_empty(at.server.intake)


def test_somebody_else_s_receipt_comes_without_its_events() -> None:
    """Who carries a transaction learns what became of it; what was decided about whom is its sender's business. Of what
    was decided before, a stranger learns nothing: it need not have the signature to ask."""
    at, by = begun(), session(STRANGER)
    carried, own = Asked(at, [transaction(3), DECIDED[0]], by).send(), Asked(at, [transaction(4)]).send()
    at.settle()
    assert carried.codes == {0: Code.OK, 1: Code.E_NONCE}
    [(_, executed)] = carried.replies[-1].receipts
    assert executed.events is None and executed.receipt.code == Code.OK
    [(_, executed)] = own.replies[-1].receipts
    assert executed.events == (b"4",) and AccountKey(ACCOUNT.public) == own.by.account
