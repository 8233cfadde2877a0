"""Many transactions in one request, over real connections: outcomes in order, and what misbehaving nodes cannot do."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.chain.transaction import parse
from p2pledger.client.bulk import REQUEST_BYTES_MAX, Told, requests
from p2pledger.client.ledger import Outcome, Receipt
from p2pledger.client.patience import Patience
from p2pledger.health.operations import CredentialIssue, RecordBatch
from p2pledger.network.api import AwaitReceipt, Failure, Outcomes, Refusal, Reply, Request, SubmitMany
from p2pledger.network.clients import Decided, Session
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected, Unavailable
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import QUICK, HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import BERG, batch

Answer = Callable[["TakingNode", SubmitMany, Decided], bool]


@pytest.fixture
def chain() -> Chain:
    chain = Chain()
    chain.tick()
    return chain


class TakingNode(HonestNode):
    """Does what `answer` says with a request in bulk, and what an honest node does where that says False."""

    def __init__(self, chain: Chain, answer: Answer) -> None:
        super().__init__(chain)
        self.asked = 0
        self._answer_to = answer

    def take(self, session: Session, request: Request, decided: Decided) -> bool:
        if isinstance(request, SubmitMany):
            self.asked += 1
            if self._answer_to(self, request, decided):
                return True
        return super().take(session, request, decided)


def recorded(number: int) -> list[RecordBatch]:
    return [batch(batch_id=id16(f"batch {number}"))]


def not_ours() -> list[CredentialIssue]:
    """What Berg may not do: the doctor is nobody it registered."""
    return [CredentialIssue(id16("nobody"), "physician", hash32("licence"), 0, 2**50)]


def codes(outcomes: list[Outcome]) -> list[int]:
    return [int(one.code) if isinstance(one, Told | Receipt | Rejected) else -1 for one in outcomes]


async def test_outcomes_come_in_order_and_a_bad_one_touches_no_other(chain: Chain) -> None:
    """Told, not proven; what the chain refuses has its code; `told` hears of each."""
    node = HonestNode(chain)
    heard: dict[int, Outcome] = {}
    async with client_of(chain, [node], BERG) as client:
        outcomes = await client.submit_all([recorded(1), not_ours(), recorded(2)], told=heard.__setitem__)
    assert codes(outcomes) == [Code.OK, outcomes[1].code, Code.OK] and outcomes[1].code != Code.OK  # type: ignore[union-attr]
    assert all(isinstance(one, Told) for one in outcomes)
    assert [heard[place] for place in range(3)] == outcomes
    assert len(node.submitted) == 3


async def test_more_than_one_request_and_one_nonce_window_hold(chain: Chain) -> None:
    """Eleven hundred: three requests at least, each nonce once, never more under way than the window allows."""
    widths: list[int] = []

    def note(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
        widths.append(len(request.transactions))
        return False

    patience = Patience(silence_s=100.0, total_s=200.0)
    async with client_of(chain, [TakingNode(chain, note)], BERG, patience) as client:
        outcomes = await client.submit_all([recorded(number) for number in range(1_100)])
    assert codes(outcomes) == [Code.OK] * 1_100
    assert sum(widths) == 1_100 and max(widths) == limits.BATCH_TRANSACTIONS_MAX
    nonces = {chain.receipts[account, nonce].receipt.transaction for account, nonce in chain.receipts}
    assert {one.executed.receipt.transaction for one in outcomes if isinstance(one, Told)} <= nonces


async def test_with_proofs_each_receipt_is_verified(chain: Chain) -> None:
    async with client_of(chain, [HonestNode(chain)], BERG) as client:
        outcomes = await client.submit_all([recorded(1), recorded(2)], prove=True)
    assert all(isinstance(one, Receipt) and one.code == Code.OK for one in outcomes)


async def test_what_a_node_lies_about_is_found_out_with_proofs_only(chain: Chain) -> None:
    """A refusal told as a success: believed without a proof, as documented, and not with one."""

    def lie(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
        def forged(reply: Reply | Rejected) -> None:
            assert isinstance(reply, Outcomes)
            receipts = tuple(
                (place, replace(one, receipt=replace(one.receipt, code=int(Code.OK)))) for place, one in reply.receipts
            )
            decided(replace(reply, receipts=receipts))

        return HonestNode.take(node, Session(BERG.public, "organisation", ""), request, forged)  # type: ignore[arg-type]

    async with client_of(chain, [TakingNode(chain, lie)], BERG) as client:
        assert codes(await client.submit_all([not_ours()])) == [Code.OK]
        [proven] = await client.submit_all([not_ours()], prove=True)
    assert isinstance(proven, Receipt) and proven.code != Code.OK


async def test_a_busy_node_gets_the_rest_again(chain: Chain) -> None:
    """First the whole request is refused, then all places but one, then none."""

    def busy(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
        if node.asked == 1:
            decided(Failure(request.id, Code.E_BUSY, "full"))
        elif node.asked == 2:
            _, executed = node.outcome(0, request.transactions[0])
            refused = tuple(
                Refusal(place, Code.E_BUSY, "full")
                for place in range(1, len(request.transactions))  # type: ignore[arg-type]
            )
            decided(Outcomes(request.id, ((0, executed),), refused, True))  # type: ignore[arg-type]
        return node.asked <= 2

    node = TakingNode(chain, busy)
    async with client_of(chain, [node], BERG) as client:
        assert codes(await client.submit_all([recorded(number) for number in range(5)])) == [Code.OK] * 5
    assert node.asked == 3 and len(node.submitted) == 5


def silent(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
    """Takes everything in and never says so."""
    for place, data in enumerate(request.transactions):
        node.outcome(place, data)
    return True


def half(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
    """Says that it was all, after the first."""
    decided(Outcomes(request.id, (node.outcome(0, request.transactions[0]),), (), True))  # type: ignore[arg-type]
    return True


def twice(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
    first = node.outcome(0, request.transactions[0])
    decided(Outcomes(request.id, (first, first), (), False))  # type: ignore[arg-type]
    return True


def beyond(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
    decided(Outcomes(request.id, (), (Refusal(len(request.transactions), Code.E_ROLE, "no"),), False))
    return True


def swapped(node: TakingNode, request: SubmitMany, decided: Decided) -> bool:
    """The first receipt for the second transaction."""
    _, first = node.outcome(0, request.transactions[0])
    decided(Outcomes(request.id, ((1, first),), (), False))  # type: ignore[arg-type]
    return True


@pytest.mark.parametrize("answer", [silent, half, twice, beyond, swapped])
async def test_a_node_that_misbehaves_is_passed_over_with_the_identical_bytes(chain: Chain, answer: Answer) -> None:
    """Silence, places left out, named twice or unknown, another's receipt: the next one decides, each executes once."""
    bad, good = TakingNode(chain, answer), HonestNode(chain)
    before = len(chain.receipts)
    patience = Patience(silence_s=0.5, busy_first_s=0.01, busy_most_s=0.05, total_s=60.0)
    async with client_of(chain, [bad, good], BERG, patience) as client:
        assert codes(await client.submit_all([recorded(number) for number in range(4)])) == [Code.OK] * 4
    assert len(chain.receipts) == before + 4
    assert set(bad.submitted) <= set(good.submitted) or answer in (half, twice)


async def test_nobody_answers_in_time(chain: Chain) -> None:
    patience = Patience(silence_s=0.3, busy_first_s=0.01, busy_most_s=0.01, total_s=0.5)
    async with client_of(chain, [TakingNode(chain, lambda *_: True)], BERG, patience) as client:
        outcomes = await client.submit_all([recorded(1), recorded(2)])
    assert all(isinstance(one, Unavailable) and "may still execute" in str(one) for one in outcomes)


async def test_what_was_signed_before_is_sent_as_it_is_and_answered_again(chain: Chain) -> None:
    """In an earlier life, or by others; a nonce that went to another transaction is rejected."""
    node = HonestNode(chain)
    async with client_of(chain, [node], BERG) as client:
        signed = [await client.sign(*recorded(number)) for number in range(3)]
        assert codes(await client.send_all(signed[:2])) == [Code.OK] * 2
        assert codes(await client.send_all(signed, prove=True)) == [Code.OK] * 3
        client._nonce = parse(signed[0]).body.nonce
        [clash] = await client.submit_all([recorded(9)])
        assert isinstance(clash, Rejected) and clash.code is Code.E_NONCE
        assert codes(await client.submit_all([recorded(9)])) == [Code.OK]  # it has asked for its next nonce anew


async def test_a_proof_that_the_node_cannot_give_comes_from_another(chain: Chain) -> None:
    async def mute(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, AwaitReceipt):
            return Failure(request.id, Code.E_INTERNAL, "no proofs here")
        return None

    nodes = [MisbehavingNode(chain, mute), HonestNode(chain), HonestNode(chain)]
    async with client_of(chain, nodes, BERG, QUICK) as client:
        outcomes = await client.submit_all([recorded(1)], prove=True)
    assert [type(one) for one in outcomes] == [Receipt]


def test_requests_hold_what_one_frame_may(chain: Chain) -> None:
    large = parse(chain.signed(BERG, *recorded(1)))
    large = replace(large, data=bytes(limits.TRANSACTION_BYTES_MAX))
    groups = list(requests([large] * 40))
    assert [place for group in groups for place in group] == list(range(40))
    assert max(sum(len(one.data) + 5 for one in group.values()) for group in groups) <= REQUEST_BYTES_MAX
    assert len(groups) == 3
