"""Nodes to talk to: real client ports in front of one chain in memory, some of them misbehaving."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from msgspec.structs import replace

from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import check_signatures, parse
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.client.links import Node
from p2pledger.client.patience import Patience
from p2pledger.execution import keys as ledger_keys
from p2pledger.execution.windows import EMPTY, Window
from p2pledger.health import integrity, queries
from p2pledger.network.api import (
    Accepted,
    AccountReply,
    AlertsReply,
    AwaitReceipt,
    BlockReply,
    ConsentsReply,
    ErasuresReply,
    Failure,
    GetAccount,
    GetAlerts,
    GetBlock,
    GetConsents,
    GetErasures,
    GetGuardians,
    GetLine,
    GetLog,
    GetOrganisations,
    GetReviews,
    GetState,
    GuardiansReply,
    OrganisationsReply,
    Outcomes,
    ReceiptReply,
    Refusal,
    Reply,
    Request,
    ReviewsReply,
    Submit,
    SubmitMany,
)
from p2pledger.network.certificates import make_certificate
from p2pledger.network.clients import ClientServer, Decided, Session
from p2pledger.network.feed_api import Cursor, FeedReply, Subscribe
from p2pledger.node.feed import Feed
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Nonce
from tests.unit.client.chain import Chain
from tests.unit.execution.ledger import key

QUICK = Patience(silence_s=1.0, busy_first_s=0.01, busy_most_s=0.05, total_s=60.0)
Behaviour = Callable[["HonestNode", Request], Awaitable[Reply | None]]
"""Answers a request, or None to let the honest node answer."""


class HonestNode:
    """Takes a transaction in, runs it at once in a block of its own, and proves what it says."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.submitted: list[bytes] = []
        self.open = 0
        self.open_most = 0
        self.page_bytes = 2**30
        """Of log lines in one reply."""
        self._grown = trio.Event()
        chain.on_block.append(self._on_block)
        self.feed = Feed(
            chain, chain.tip, chain.sealed, lambda executed: chain.evidence(executed).proof, self.next_block
        )

    def _on_block(self) -> None:
        grown, self._grown = self._grown, trio.Event()
        grown.set()

    async def next_block(self) -> None:
        await self._grown.wait()

    async def next_page(self, session: Session, request: Subscribe, place: Cursor) -> FeedReply:
        """As a node's server."""
        return await self.feed.next_page(session.account, request, place)

    async def answer(self, session: Session, request: Request) -> Reply:
        self.open += 1
        self.open_most = max(self.open, self.open_most)
        try:
            return await self._answer(session, request)
        finally:
            self.open -= 1

    async def _answer(self, session: Session, request: Request) -> Reply:
        chain = self.chain
        match request:
            case Submit():
                return self.take_in(request)
            case AwaitReceipt():
                executed = chain.receipts.get((request.account, request.nonce))
                if executed is None:
                    return Failure(request.id, Code.E_BUSY, "no receipt yet")
                return ReceiptReply(request.id, executed, chain.evidence(executed))
            case GetAccount():
                next_nonce = Nonce(self.nonces(session.account).highest + 1)
                _, identity = queries.identity_of(session.account, chain.state)
                return AccountReply(request.id, session.role, next_nonce, identity)
            case GetLog():
                if not queries.may_see_patient(session.account, request.pid, chain.state):
                    raise Rejected(Code.E_ROLE, "not your log")
                page = chain.log_reply(request.pid, request.first, self.page_bytes, request.first_release)
                return replace(page, id=request.id)
            case GetLine():
                return replace(chain.line_reply(request.pid, request.sequence), id=request.id)
            case GetOrganisations():
                known = queries.organisations(chain.state)
                return OrganisationsReply(request.id, tuple((one.id, one.name, one.kind) for one in known))
            case GetConsents():
                return ConsentsReply(request.id, queries.consents_of(request.pid, chain.state))
            case GetErasures():
                is_own = request.pid is not None and queries.may_see_patient(session.account, request.pid, chain.state)
                if not is_own and not queries.may_see_all(session.account, chain.state):
                    raise Rejected(Code.E_ROLE, "not your records")
                return ErasuresReply(request.id, queries.erasures(request.pid, chain.state))
            case GetAlerts():
                return AlertsReply(request.id, integrity.alerts_of(request.pid, chain.state))
            case GetGuardians():
                if not queries.may_see_guardians(session.account, request.pid, request.salt, chain.state):
                    raise Rejected(Code.E_ROLE, "not your guardians")
                guarded = queries.guardianship(request.pid, request.recovery, chain.state)
                if guarded is None:
                    raise Rejected(Code.E_NOT_FOUND, "nobody guards it")
                return GuardiansReply(request.id, *guarded)
            case GetReviews():
                return ReviewsReply(request.id, queries.pending_reviews(chain.state))
            case GetState():
                if not queries.may_read_state(session.account, request.key, chain.state):
                    raise Rejected(Code.E_ROLE, "not about you")
                return replace(chain.state_reply(request.key), id=request.id)
            case GetBlock():
                header = chain.headers[(request.height or chain.height) - 1]
                return BlockReply(request.id, header, chain.certificate(header), (), 0)
        raise Rejected(Code.E_FORMAT, f"{type(request).__name__} is not served here")

    def take_in(self, request: Submit) -> Reply:
        transaction = parse(request.transaction)
        check_signatures(transaction)
        self.submitted.append(request.transaction)
        if self.nonces(transaction.body.sender).is_used(transaction.body.nonce):
            raise Rejected(Code.E_NONCE, f"nonce {transaction.body.nonce} was used")
        self.chain.run(request.transaction)
        self.chain.tick()
        return Accepted(request.id, transaction.id)

    def take(self, session: Session, request: Request, decided: Decided) -> bool:
        """What a node's client port answers without a task: here SubmitMany alone, in two replies."""
        if not isinstance(request, SubmitMany):
            return False
        outcomes = [self.outcome(place, data) for place, data in enumerate(request.transactions)]
        self.chain.tick()
        half = len(outcomes) // 2
        for some, is_last in ((outcomes[:half], False), (outcomes[half:], True)):
            receipts = tuple((place, one) for place, one in some if isinstance(one, Executed))
            refusals = tuple(Refusal(place, one.code, one.detail) for place, one in some if isinstance(one, Rejected))
            decided(Outcomes(request.id, receipts, refusals, is_last))
        return True

    def outcome(self, place: int, data: bytes) -> tuple[int, Executed | Rejected]:
        transaction = parse(data)
        self.submitted.append(data)
        sender, nonce = transaction.body.sender, transaction.body.nonce
        if not self.nonces(sender).is_used(nonce):
            self.chain.run(data)
        executed = self.chain.receipts[sender, nonce]
        if executed.receipt.transaction == transaction.id:
            return place, executed
        return place, Rejected(Code.E_NONCE, f"nonce {nonce} was used")

    def nonces(self, account: AccountKey) -> Window:
        number = ledger_keys.account_number(account, self.chain.state)
        return EMPTY if number is None else ledger_keys.window_at(ledger_keys.nonces(number), self.chain.state)


class MisbehavingNode(HonestNode):
    """Does what `behaviour` says where it says something."""

    def __init__(self, chain: Chain, behaviour: Behaviour) -> None:
        super().__init__(chain)
        self.behaviour = behaviour

    async def _answer(self, session: Session, request: Request) -> Reply:
        reply = await self.behaviour(self, request)
        return await super()._answer(session, request) if reply is None else reply


@asynccontextmanager
async def client_of(
    chain: Chain, nodes: Sequence[HonestNode], account: SigningKey, patience: Patience = QUICK
) -> AsyncIterator[LedgerClient]:
    """A client that prefers the first node; every node behind a port of its own."""
    async with trio.open_nursery() as nursery:
        places = []
        for number, node in enumerate(nodes):
            own = key(f"port {number}")
            server = ClientServer(
                own,
                make_certificate(own),
                chain.chain,
                node.answer,
                lambda account: queries.role_of(account, chain.state),
                taker=node.take,
                feeder=node.next_page,
            )
            port = await nursery.start(server.serve, "127.0.0.1", 0)
            places.append(Node("127.0.0.1", port, server.node))
        async with open_ledger(chain.founding, places, account, patience, lambda: chain.now_ms / 1000) as client:
            yield client
        nursery.cancel_scope.cancel()
