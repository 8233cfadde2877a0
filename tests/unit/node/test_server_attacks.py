"""Who asks a node's client port for what concerns others: answered without the one rule, E_ROLE with it (T41, F-08)."""

from collections.abc import Awaitable

import pytest

from p2pledger.chain.receipt import executed
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import Now
from p2pledger.engine.ports import StateFlush
from p2pledger.health import keys
from p2pledger.health.application import HealthApplication
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.network.feed_api import Cursor, Subscribe
from p2pledger.node.feed import Feed
from p2pledger.node.metrics import make_metrics
from p2pledger.node.server import Server
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, Height, Nonce
from p2pledger.state import tree
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from tests.attack import Without
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, World

NEIGHBOUR = key("neighbour")
OTHERS = [DOCTOR, NEIGHBOUR, key("stranger")]


def settled(world: World) -> MemoryStateStore:
    """The state of a chain that begins where a `World` stands."""
    writes, state = dict(world.state.scan(b"")), MemoryStateStore()
    _, tree_writes = tree.update(lambda key: None, writes)
    state.flush(StateFlush(Height(0), writes, (), (), tree_writes, ()))
    return state


@pytest.fixture
def server() -> Server:
    """A node of Berg's on which a patient has a consent, and a receipt."""
    world = World()
    world.register("neighbour", "patient", BERG, "Berg")
    world.grant()
    ledger, state = MemoryLedgerStore(world.chain, world.founding.header.hash), settled(world)
    now = Now(0, world.now_ms)
    engine = Engine(world.founding, HealthApplication(), key("node of Berg"), None, ledger, state, now)
    made = Server(engine, ledger, state, make_metrics())
    receipt = executed(Height(0), 0, hash32("transaction"), Code.OK, [b"event"])  # type: ignore[arg-type]
    made.intake.unindexed[AccountKey(PATIENT.public), Nonce(7)] = receipt
    return made


def by(asker: SigningKey) -> Session:
    return Session(AccountKey(asker.public), "as it was at the hello", "127.0.0.1")


async def code_of(answer: Awaitable[api.Reply]) -> Code:
    """OK where there is an answer."""
    try:
        await answer
    except Rejected as refusal:
        return refusal.code
    return Code.OK


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_consents_are_shown_to_their_patient_and_to_members(
    server: Server, without: Without, asker: SigningKey
) -> None:
    question = api.GetConsents(1, PID)
    with without(Server._demand_right, "raise Rejected(Code.E_ROLE"):
        reply = await server.handle(by(asker), question)
        assert isinstance(reply, api.ConsentsReply) and len(reply.consents) == 1
    assert await code_of(server.handle(by(asker), question)) is Code.E_ROLE
    for entitled in (PATIENT, BERG):
        assert await code_of(server.handle(by(entitled), question)) is Code.OK


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_receipts_are_shown_to_who_sent_the_transaction(
    server: Server, without: Without, asker: SigningKey
) -> None:
    """Its events say what was decided about whom."""
    question = api.AwaitReceipt(1, AccountKey(PATIENT.public), Nonce(7), False, 1_000)
    with without(Server._await_receipt, "raise Rejected(Code.E_ROLE"):
        reply = await server.handle(by(asker), question)
        assert isinstance(reply, api.ReceiptReply) and reply.executed.events == (b"event",)
    assert await code_of(server.handle(by(asker), question)) is Code.E_ROLE
    for entitled in (PATIENT, BERG):
        assert await code_of(server.handle(by(entitled), question)) is Code.OK


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", [PATIENT, *OTHERS], ids=["patient", "doctor", "neighbour", "stranger"])
async def test_raw_state_is_shown_to_members(server: Server, without: Without, asker: SigningKey) -> None:
    """Any key: the consents and log heads of everybody. (On a new chain there is no proof to give yet.)"""
    question = api.GetState(1, keys.consents(PID))
    with without(Server._state, "raise Rejected(Code.E_ROLE"), pytest.raises(Unavailable, match="state root"):
        await server.handle(by(asker), question)
    assert await code_of(server.handle(by(asker), question)) is Code.E_ROLE
    with pytest.raises(Unavailable, match="state root"):
        await server.handle(by(BERG), question)


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_a_log_is_shown_to_its_patient_and_to_members(
    server: Server, without: Without, asker: SigningKey
) -> None:
    question = api.GetLog(1, PID)
    with without(Server._log, "self._demand_right("), pytest.raises(Unavailable, match="state root"):
        await server.handle(by(asker), question)
    assert await code_of(server.handle(by(asker), question)) is Code.E_ROLE
    with pytest.raises(Unavailable, match="state root"):
        await server.handle(by(PATIENT), question)


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_a_line_is_shown_to_its_patient_and_to_members(
    server: Server, without: Without, asker: SigningKey
) -> None:
    question = api.GetLine(1, PID, 1)
    with without(Server._line, "self._demand_right("):
        assert await code_of(server.handle(by(asker), question)) is Code.E_NOT_FOUND
    assert await code_of(server.handle(by(asker), question)) is Code.E_ROLE
    assert await code_of(server.handle(by(PATIENT), question)) is Code.E_NOT_FOUND


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_a_feed_is_for_its_patient_and_for_members(server: Server, without: Without, asker: SigningKey) -> None:
    """Judged anew for each page: who loses the right in the middle of a feed hears no more."""
    server.feed.quiet_s = 0.001
    start = Cursor(Height(1), 0)
    question = Subscribe(1, start, ("access",), PID)
    with without(Feed._about, "raise Rejected(Code.E_ROLE"):
        assert await code_of(server.next_page(by(asker), question, start)) is Code.OK
    assert await code_of(server.next_page(by(asker), question, start)) is Code.E_ROLE
    for entitled in (PATIENT, BERG):
        assert await code_of(server.next_page(by(entitled), question, start)) is Code.OK


@pytest.mark.attack("T41")
async def test_an_identity_is_shown_to_its_owner_and_to_members(server: Server, without: Without) -> None:
    """F-20: a patient's own DID document, and nobody else's patient's; practitioners and members are no secret."""
    own = [keys.identity(PID), keys.key_period(PID, 1), keys.key_owner(AccountKey(PATIENT.public))]
    for key_asked in own:
        question = api.GetState(1, key_asked)
        with pytest.raises(Unavailable, match="state root"):
            await server.handle(by(PATIENT), question)
        with without(Server._state, "raise Rejected(Code.E_ROLE"), pytest.raises(Unavailable, match="state root"):
            await server.handle(by(NEIGHBOUR), question)
        for other in OTHERS:
            assert await code_of(server.handle(by(other), question)) is Code.E_ROLE
    did = id16("doctor")
    for public in (keys.organisation(id16("Tal")), keys.credential(did, "physician"), keys.identity(did)):
        with pytest.raises(Unavailable, match="state root"):
            await server.handle(by(NEIGHBOUR), api.GetState(1, public))
        assert await code_of(server.handle(by(key("stranger")), api.GetState(1, public))) is Code.E_ROLE
