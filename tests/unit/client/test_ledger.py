"""The ledger client over real connections: proofs before belief, and identical bytes through others on silence."""

import pytest
import trio
from msgspec.structs import replace

from p2pledger.chain.transaction import parse
from p2pledger.client.export import verify_export
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.client.signing import Draft
from p2pledger.health import keys
from p2pledger.health.events import AccessDecided, decode_event
from p2pledger.health.operations import CredentialIssue, RecordBatch
from p2pledger.network.api import (
    Accepted,
    AccountReply,
    AwaitReceipt,
    Failure,
    GetAccount,
    GetLog,
    GetOrganisations,
    OrganisationsReply,
    ReceiptReply,
    Reply,
    Request,
    Submit,
)
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, NodeId, Nonce
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import QUICK, HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, batch, registration


@pytest.fixture
def chain() -> Chain:
    chain = Chain()
    chain.tick()
    return chain


def recorded(number: int = 0) -> RecordBatch:
    """What Berg may submit as often as it likes."""
    return batch(batch_id=id16(f"batch {number}"))


def credential() -> CredentialIssue:
    """What no patient may issue."""
    return CredentialIssue(id16("doctor"), "physician", hash32("licence"), 0, 2**50)


async def silent(node: HonestNode, request: Request) -> Reply | None:
    """Takes transactions in and never says a word about them."""
    if isinstance(request, Submit):
        node.take_in(request)
    if isinstance(request, Submit | AwaitReceipt):
        await trio.sleep_forever()
    return None


async def test_a_submitted_operation_comes_back_with_a_proven_receipt(chain: Chain) -> None:
    async with client_of(chain, [HonestNode(chain)], DOCTOR) as client:
        assert chain.grant() == Code.OK
        receipt = await client.submit(chain.request())
    (event,) = receipt.executed.events
    decided = decode_event(event)
    assert isinstance(decided, AccessDecided) and decided.is_allowed


async def test_what_the_chain_refuses_is_refused_with_its_code(chain: Chain) -> None:
    """Refused: executed and written down. Rejected: not even taken in, with the words of the node."""
    async with client_of(chain, [HonestNode(chain)], PATIENT) as client:
        with pytest.raises(Refused) as refused:
            await client.submit(credential())
        assert refused.value.code is Code.E_ROLE
        with pytest.raises(Rejected) as rejected:
            await client.log(id16("somebody else"))
        assert (rejected.value.code, rejected.value.detail) == (Code.E_ROLE, "not your log")


async def test_a_busy_node_is_asked_again(chain: Chain) -> None:
    """Five times full, then not: one receipt, one execution."""
    refusals = iter(range(5))

    async def busy(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, Submit) and next(refusals, None) is not None:
            return Failure(request.id, Code.E_BUSY, "full")
        return None

    node = MisbehavingNode(chain, busy)
    async with client_of(chain, [node], BERG) as client:
        await client.submit(recorded())
    assert len(node.submitted) == 1 and next(refusals, None) is None


async def test_after_silence_the_identical_bytes_go_through_others_and_execute_once(chain: Chain) -> None:
    """The silent node did take it in; f + 1 others get the same bytes; one execution, one receipt."""
    nodes = [MisbehavingNode(chain, silent), *(HonestNode(chain) for _ in range(3))]
    before = len(chain.receipts)
    async with client_of(chain, nodes, BERG) as client:
        receipt = await client.submit(recorded())
    asked = [node for node in nodes if node.submitted]
    assert len({node.submitted[0] for node in asked}) == 1
    assert 2 <= len(asked) <= 1 + chain.founding.validators.f + 1
    assert len(chain.receipts) == before + 1
    assert receipt.code == Code.OK


async def test_a_node_that_breaks_off_after_accepting_is_passed_over(chain: Chain) -> None:
    """And from then on the next one is asked first."""

    async def break_off(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, AwaitReceipt):
            return Accepted(request.id, bytes(32))  # nonsense: the client must not take it for a receipt
        return None

    nodes = [MisbehavingNode(chain, break_off), HonestNode(chain), HonestNode(chain), HonestNode(chain)]
    async with client_of(chain, nodes, BERG) as client:
        await client.submit(recorded(1))
        await client.submit(recorded(2))
    assert len(nodes[0].submitted) == 1
    assert len(nodes[1].submitted) == 2


async def test_a_node_that_cannot_be_reached_is_passed_over(chain: Chain) -> None:
    honest = HonestNode(chain)
    async with client_of(chain, [honest], BERG) as client:
        (reachable,) = client._links.in_order()
        nowhere = Node("127.0.0.1", 1, NodeId(key("nowhere").public))
        async with open_ledger(chain.founding, [nowhere, reachable], BERG, QUICK, client._now_s) as other:
            await other.submit(recorded())
            with pytest.raises(Unavailable):
                await other.status(nowhere)
    assert len(honest.submitted) == 1


async def _lie_about(chain: Chain, request: Request, code: int) -> Reply | None:
    if not isinstance(request, AwaitReceipt):
        return None
    executed = chain.receipts[request.account, request.nonce]
    evidence = chain.evidence(executed)
    forged = replace(executed, receipt=replace(executed.receipt, code=code))
    return ReceiptReply(request.id, forged, replace(evidence, executed=forged))


async def test_a_forged_receipt_is_not_believed(chain: Chain) -> None:
    """A refusal that reads as a success: the client without the check would take it, the real one asks others."""

    async def lie(node: HonestNode, request: Request) -> Reply | None:
        return await _lie_about(chain, request, int(Code.OK))

    class Credulous(LedgerClient):
        def _believed(self, reply, transaction):  # type: ignore[no-untyped-def]
            return reply.executed

    liar = MisbehavingNode(chain, lie)
    async with client_of(chain, [liar], PATIENT) as client:
        credulous = Credulous(client.founding, client._links, PATIENT, client._patience, client._now_s)
        believed = await credulous.send(await client.sign(credential()))
        assert believed.receipt.code == Code.OK  # deceived
    async with client_of(chain, [liar, HonestNode(chain), HonestNode(chain)], PATIENT) as client:
        with pytest.raises(Refused) as refused:
            await client.submit(credential())
    assert refused.value.code is Code.E_ROLE


async def test_a_genuine_receipt_of_another_transaction_is_not_ours(chain: Chain) -> None:
    """A node answers with somebody else's proven success."""
    chain.run(chain.signed(BERG, recorded(7)))
    chain.tick()
    other = chain.receipts[BERG.public, chain.nonces[BERG.public]]

    async def swap(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, AwaitReceipt):
            return ReceiptReply(request.id, other, chain.evidence(other))
        return None

    async with client_of(chain, [MisbehavingNode(chain, swap), HonestNode(chain)], PATIENT) as client:
        with pytest.raises(Refused) as refused:  # by the honest node's proof, which is about ours
            await client.submit(credential())
    assert refused.value.code is Code.E_ROLE


async def test_nobody_proves_anything_in_time(chain: Chain) -> None:
    """Unavailable, with what went wrong at each node; it may still execute."""
    patience = Patience(silence_s=1.0, busy_first_s=0.01, busy_most_s=0.01, total_s=1.3)
    async with client_of(chain, [MisbehavingNode(chain, silent)], BERG, patience) as client:
        with pytest.raises(Unavailable, match=r"it may still execute until it expires; node .*: silence"):
            await client.submit(recorded())


async def test_five_hundred_transactions_are_in_flight_at_once(chain: Chain) -> None:
    """The node answers none of them before it holds 500 open questions; they go over several sessions."""
    all_in = trio.Event()

    async def gather(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, AwaitReceipt):
            if node.open >= 500:
                all_in.set()
            await all_in.wait()
        return None

    node = MisbehavingNode(chain, gather)
    codes: list[int] = []
    patience = Patience(silence_s=100.0, total_s=100.0)
    async with client_of(chain, [node], BERG, patience) as client:

        async def one(number: int) -> None:
            codes.append((await client.submit(recorded(number))).code)

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one, number)
    assert codes == [Code.OK] * 500
    assert len(set(node.submitted)) == 500 and node.open_most >= 500


async def test_nonces_follow_the_account_and_a_lying_node_s_low_one_is_outvoted(chain: Chain) -> None:
    """f + 1 nodes are asked; the highest answer counts, so that no used nonce is taken again."""

    async def low(node: HonestNode, request: Request) -> Reply | None:
        return AccountReply(request.id, "organisation", Nonce(1), None) if isinstance(request, GetAccount) else None

    chain.submit(BERG, recorded(1))
    chain.tick()
    async with client_of(chain, [MisbehavingNode(chain, low), HonestNode(chain)], BERG) as client:
        assert await client.next_nonce() == chain.nonces[BERG.public] + 1
        assert await client.next_nonce() == chain.nonces[BERG.public] + 2


async def test_a_stranger_registers_itself_with_a_draft_that_its_sponsor_signed(chain: Chain) -> None:
    nurse = key("nurse")
    async with client_of(chain, [HonestNode(chain)], nurse) as client:
        nonce = await client.next_nonce()
        draft = Draft.new(
            chain.chain,
            client.account,
            nonce,
            client.expiry(),
            [registration("nurse", "practitioner", "Berg")],
            [AccountKey(BERG.public)],
        )
        receipt = await client.send(draft.signed(nurse).signed(BERG).transaction().data)
        assert receipt.code == Code.OK
        with pytest.raises(Refused) as again:
            await client.submit(registration("nurse", "practitioner", "Berg"), cosigners=[BERG])
    assert again.value.code is Code.E_DUP


async def test_a_patient_gets_its_verified_log_and_a_file_that_verifies_alone(chain: Chain) -> None:
    chain.grant()
    chain.ask("first")
    chain.tick()
    async with client_of(chain, [HonestNode(chain)], PATIENT) as client:
        log = await client.log(PID)
        file = await client.export_log(PID)
        (consent,) = await client.consents(PID)
        block = await client.block()
        _, value = await client.state(keys.identity(PID))
    assert [line.decision for line in log.lines] == [Code.OK]
    assert verify_export(file, chain.chain) == log
    assert consent.terms.pid == PID
    assert block.header == chain.headers[-1] and value is not None


async def test_a_node_that_hides_lines_is_passed_over(chain: Chain) -> None:
    """Its answer does not verify; the next node's does. Where all hide, nothing is returned."""
    chain.grant()
    chain.ask("first")
    chain.ask("second")
    chain.tick()

    async def hide(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, GetLog):
            genuine = chain.log_reply(PID)
            return replace(genuine, id=request.id, lines=genuine.lines[:1])
        return None

    async with client_of(chain, [MisbehavingNode(chain, hide), HonestNode(chain)], PATIENT) as client:
        assert len((await client.log(PID)).lines) == 2
    async with client_of(chain, [MisbehavingNode(chain, hide)], PATIENT) as client:
        with pytest.raises(ProofError, match=r"^lines: "):
            await client.log(PID)


async def test_the_sent_bytes_are_what_was_signed(chain: Chain) -> None:
    node = HonestNode(chain)
    async with client_of(chain, [node], BERG) as client:
        data = await client.sign(recorded())
        await client.send(data)
    assert node.submitted == [data]
    assert parse(data).body.expires_ms > chain.now_ms


async def test_a_client_needs_distinct_nodes(chain: Chain) -> None:
    node = Node("127.0.0.1", 1, NodeId(key("n").public))
    async with trio.open_nursery() as nursery:
        for nodes in ([], [node, node]):
            with pytest.raises(InvalidInput, match="at least one, and each once"):
                Links(nursery, chain.chain, nodes, BERG)


async def test_names_of_founders_are_those_of_the_genesis_and_others_need_agreement(chain: Chain) -> None:
    """F-14: a recipient's name in an accounting is not what one node says."""
    newcomer = (id16("Neu"), "New Clinic", "hospital")

    async def invents(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, GetOrganisations):
            return OrganisationsReply(request.id, ((id16("Berg"), "Evil Hospital", "hospital"), newcomer))
        return None

    genuine = {card.organisation: (card.name, card.kind) for card in chain.founding.genesis.cards}
    liar, honest = MisbehavingNode(chain, invents), HonestNode(chain)
    async with client_of(chain, [liar, honest], PATIENT) as client:
        assert await client.organisations() == genuine
    async with client_of(chain, [liar], PATIENT) as client:
        assert await client.organisations() == {**genuine, newcomer[0]: newcomer[1:]}
