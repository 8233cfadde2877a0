"""What the client port answers: submissions, receipts with proofs, logs, blocks and status."""

from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import assert_never

import trio

from p2pledger import __version__
from p2pledger.chain.block import Header
from p2pledger.chain.receipt import Executed, ReceiptProof
from p2pledger.consensus.anchor import ANCHOR_HEADERS_MAX, Anchor, ReceiptEvidence
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import BlockExecuted
from p2pledger.engine.ports import LedgerStore, StateSnapshot, StateStore
from p2pledger.execution import keys
from p2pledger.health import integrity, queries
from p2pledger.health.log import decode_line
from p2pledger.network import api
from p2pledger.network.clients import Decided, Session
from p2pledger.network.feed_api import Cursor, FeedReply, Subscribe
from p2pledger.node.deposits import Depositing
from p2pledger.node.driver import Driver
from p2pledger.node.feed import Feed
from p2pledger.node.intake import WAIT_MS_MAX, Intake, remember
from p2pledger.node.metrics import Metrics
from p2pledger.node.release import Releasing
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Value
from p2pledger.primitives.errors import Code, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, Height, Nonce
from p2pledger.state import tree

HEIGHTS_MAX = 32
"""Heights whose proofs are remembered: receipts are asked for soon after they were made."""


class _Expected(Value, frozen=True):
    """A receipt that a session waits for."""

    session: Session
    request: api.AwaitReceipt
    decided: Decided
    until_ms: int


@dataclass
class Server:
    """Answers requests from the engine's state, on the driver's thread."""

    engine: Engine
    ledger: LedgerStore
    state: StateStore
    metrics: Metrics
    driver: Driver = field(init=False)
    releasing: Releasing = field(init=False)
    depositing: Depositing = field(init=False)
    feed: Feed = field(init=False)
    intake: Intake = field(init=False)
    _executed: trio.Event = field(default_factory=trio.Event)
    """Set at the next block."""
    _awaited: dict[tuple[int, int], trio.lowlevel.ParkingLot] = field(default_factory=dict)
    """Those who wait for a receipt, by (account number, nonce): a block wakes only whom it concerns."""
    _expected: dict[tuple[int, int], list["_Expected"]] = field(default_factory=dict)
    """Those who wait for the receipt of their own without a task, by the same."""
    _trees: OrderedDict[Height, merkle.Tree] = field(default_factory=OrderedDict)
    log_page_bytes: int = limits.LOG_PAGE_BYTES_MAX
    """Of log lines in one reply."""
    _anchors: OrderedDict[Height, Anchor] = field(default_factory=OrderedDict)
    """Of the last heights' receipts: made once for all that a block holds."""

    def __post_init__(self) -> None:
        self.intake = Intake(self.engine, self.ledger, self.metrics, lambda: self.driver)
        self.feed = Feed(self.engine.executor, self.ledger.tip, self._sealed, self._proof, self.next_block)

    def role_of(self, account: AccountKey) -> str:
        """What the chain knows a key as."""
        return queries.role_of(account, self.engine.executor.state)

    def on_executed(self, block: BlockExecuted) -> None:
        """Wake those who wait for receipts."""
        self.intake.on_executed(block)
        if self._awaited or self._expected:
            for key in block.keys:
                waiting = self._awaited.get(key)
                if waiting is not None:
                    waiting.unpark_all()
                self._tell_expecting(key)
        event, self._executed = self._executed, trio.Event()
        event.set()

    async def next_page(self, session: Session, request: Subscribe, place: Cursor) -> FeedReply:
        """The next reply of a subscription (F-08); raises Rejected(E_ROLE)."""
        return await self.feed.next_page(session.account, request, place)

    async def next_block(self) -> None:
        """Wait until one more block was executed."""
        await self._executed.wait()

    async def handle(self, session: Session, request: api.Question) -> api.Reply:
        """The answer to one request; raises Rejected and Unavailable, which the client port puts into words."""
        match request:
            case api.Submit():
                return await self._submit(request)
            case api.AwaitReceipt():
                return await self._await_receipt(session, request)
            case api.GetStatus():
                return self._status(request)
            case api.GetBlock():
                return self._block(session, request)
            case api.GetState():
                return self._state(session, request)
            case api.GetLog():
                return self._log(session, request)
            case api.GetLine():
                return self._line(session, request)
            case api.GetAccount():
                return self._account(session, request)
            case api.GetConsents():
                self._demand_right(session, request.pid)
                found = queries.consents_of(request.pid, self.engine.executor.state)
                return api.ConsentsReply(request.id, found)
            case api.GetAlerts():
                self._demand_right(session, request.pid)
                return api.AlertsReply(request.id, integrity.alerts_of(request.pid, self.engine.executor.state))
            case api.GetOrganisations():
                found_names = queries.organisations(self.engine.executor.state)
                return api.OrganisationsReply(request.id, tuple((one.id, one.name, one.kind) for one in found_names))
            case api.GetReviews():
                return self._reviews(session, request)
            case api.GetGuardians():
                return self._guardians(session, request)
            case api.GetShares():
                return await self.releasing.shares(session, request)
            case api.Deposit():
                return await self.depositing.deposit(session, request)
            case api.Judge():
                if not self._is_member(session):
                    raise Rejected(Code.E_ROLE, f"key {session.account.hex()} is no member's: readers ask for shares")
                return self.releasing.judge(request)
            case api.GetErasures():
                return self._erasures(session, request)
            case _:
                assert_never(request)

    # Transactions

    def take(self, session: Session, request: api.Request, decided: Decided) -> bool:
        """Take in transactions, or note who waits for the receipt of its own; False for everything else."""
        match request:
            case api.SubmitMany():
                self.intake.take_many(session, request, decided)
                return True
            case api.Submit():
                self.intake.take_one(request, decided)
                return True
            case api.AwaitReceipt() if request.account == session.account and not request.proven:
                return self._expect(session, request, decided)
            case _:
                return False

    def _expect(self, session: Session, request: api.AwaitReceipt, decided: Decided) -> bool:
        executed = self._receipt(request.account, request.nonce)
        if executed is not None:
            decided(api.ReceiptReply(request.id, executed, None))
            return True
        number = keys.account_number(request.account, self.engine.executor.state)
        if number is None:
            return False
        until_ms = self.driver.now.monotonic_ms + min(request.timeout_ms, WAIT_MS_MAX)
        expected = _Expected(session, request, decided, until_ms)
        self._expected.setdefault((number, int(request.nonce)), []).append(expected)
        return True

    def _tell_expecting(self, key: tuple[int, int]) -> None:
        waiting = self._expected.get(key, ())
        for one in waiting:
            executed = self._receipt(one.request.account, one.request.nonce)
            if executed is None:
                return  # not durable yet
            one.decided(api.ReceiptReply(one.request.id, executed, None))
        if waiting:
            del self._expected[key]

    def expire(self, live: Container[Session]) -> None:
        """Called now and then: who has waited long enough is told so, and who is gone is forgotten."""
        now_ms = self.driver.now.monotonic_ms
        self.intake.expire(live, now_ms)
        for key, waiting in list(self._expected.items()):
            kept = [one for one in waiting if one.session in live and one.until_ms > now_ms]
            for one in waiting:
                if one.session in live and one.until_ms <= now_ms:
                    one.decided(_not_yet(one.request))
            if kept:
                self._expected[key] = kept
            else:
                del self._expected[key]

    async def _submit(self, request: api.Submit) -> api.Reply:
        """As `Intake.take_one`, for who waits."""
        ready = trio.Event()
        decisions: list[api.Reply | Rejected] = []

        def decided(decision: api.Reply | Rejected) -> None:
            decisions.append(decision)
            ready.set()

        self.intake.take_one(request, decided)
        await ready.wait()
        if isinstance(decisions[0], Rejected):
            raise decisions[0]
        return decisions[0]

    async def _await_receipt(self, session: Session, request: api.AwaitReceipt) -> api.Reply:
        if request.account != session.account and not self._is_member(session):
            raise Rejected(Code.E_ROLE, f"key {session.account.hex()} may ask for its own receipts only")
        with trio.move_on_after(min(request.timeout_ms, WAIT_MS_MAX) / 1000):
            while (executed := self._receipt(request.account, request.nonce)) is None:
                await self._wait_for(request.account, request.nonce)
            if not request.proven:
                return api.ReceiptReply(request.id, executed, None)
            while (evidence := self._evidence(executed)) is None:
                await self._executed.wait()
            return api.ReceiptReply(request.id, executed, evidence)
        return _not_yet(request)

    async def _wait_for(self, account: AccountKey, nonce: Nonce) -> None:
        """Return when there may be a receipt: a stranger's has no number to wait for, so any block will do."""
        number = keys.account_number(account, self.engine.executor.state)
        if number is None:
            await self._executed.wait()
            return
        key = (number, int(nonce))
        waiting = self._awaited.setdefault(key, trio.lowlevel.ParkingLot())
        try:
            await waiting.park()
        finally:
            if not waiting and self._awaited.get(key) is waiting:
                del self._awaited[key]

    def _receipt(self, account: AccountKey, nonce: Nonce) -> Executed | None:
        number = keys.account_number(account, self.engine.executor.state)
        if number is not None:
            executed = self.engine.executor.receipt(number, nonce)
            if executed is not None:
                return executed if executed.receipt.height <= self.ledger.tip() else None
        return self.intake.unindexed.get((account, nonce))

    def _evidence(self, executed: Executed) -> ReceiptEvidence | None:
        """The proof of a receipt, once a committed header carries its height's effects root."""
        anchor = self._sealed(executed.receipt.height)
        return None if anchor is None else ReceiptEvidence(executed, self._proof(executed), anchor)

    def _sealed(self, height: Height) -> Anchor | None:
        """What proves the effects root of a height, once a committed header carries it."""
        anchor = self._anchors.get(height) or self._anchor(height, lambda header_executed: header_executed >= height)
        if anchor is not None:
            remember(self._anchors, height, anchor, HEIGHTS_MAX)
        return anchor

    def _proof(self, executed: Executed) -> ReceiptProof:
        effects = self._effects_tree(executed.receipt.height)
        return ReceiptProof(effects.size, effects.path(executed.receipt.index))

    def _effects_tree(self, height: Height) -> merkle.Tree:
        known = self._trees.get(height)
        if known is None:
            known = merkle.Tree(self.engine.executor.effects_leaves(height))
            remember(self._trees, height, known, HEIGHTS_MAX)
        return known

    def _anchor(self, above: Height, is_wanted: Callable[[Height], bool]) -> Anchor | None:
        """The headers from the first above a height that is wanted up to one with a certificate of its own."""
        tip = self.ledger.tip()
        headers: list[Header] = []
        for height in range(above + 1, min(tip, above + ANCHOR_HEADERS_MAX) + 1):
            record = self.ledger.block(Height(height))
            if record is None:
                return None
            if headers or is_wanted(record.header.executed_height):
                headers.append(record.header)
                if record.certificate is not None:
                    return Anchor(tuple(headers), record.certificate)
        return None

    # State and logs

    def _demand_right(self, session: Session, pid: bytes) -> None:
        if not queries.may_see_patient(session.account, pid, self.engine.executor.state):
            raise Rejected(Code.E_ROLE, f"key {session.account.hex()} may not see what concerns pid {pid.hex()}")

    def _reviews(self, session: Session, request: api.GetReviews) -> api.Reply:
        state = self.engine.executor.state
        if not queries.may_see_all(session.account, state):
            raise Rejected(
                Code.E_ROLE, f"key {session.account.hex()} is no member's: reviews are for member organisations"
            )
        return api.ReviewsReply(request.id, queries.pending_reviews(state))

    def _guardians(self, session: Session, request: api.GetGuardians) -> api.Reply:
        state = self.engine.executor.state
        if not queries.may_see_guardians(session.account, request.pid, request.salt, state):
            raise Rejected(Code.E_ROLE, f"key {session.account.hex()} may not see who guards pid {request.pid.hex()}")
        found = queries.guardianship(request.pid, request.recovery, state)
        if found is None:
            raise Rejected(Code.E_NOT_FOUND, f"nobody guards pid {request.pid.hex()}")
        return api.GuardiansReply(request.id, *found)

    def _erasures(self, session: Session, request: api.GetErasures) -> api.Reply:
        state = self.engine.executor.state
        if request.pid is not None:
            self._demand_right(session, request.pid)
        elif not queries.may_see_all(session.account, state):
            raise Rejected(Code.E_ROLE, f"key {session.account.hex()} is no member's: say about which pid")
        return api.ErasuresReply(request.id, queries.erasures(request.pid, state))

    def _checkpoint(self) -> tuple[StateSnapshot, Anchor]:
        """A snapshot of the last flushed checkpoint with an anchor of its root; the caller closes the snapshot."""
        snapshot = self.state.snapshot()
        height = snapshot.height
        anchor = None if height == 0 else self._anchor(height, lambda executed: executed >= height)
        if anchor is None:
            snapshot.close()
            raise Unavailable(f"the state root of checkpoint {height} is not in a committed header yet; try again soon")
        return snapshot, anchor

    def _state(self, session: Session, request: api.GetState) -> api.Reply:
        if not queries.may_read_state(session.account, request.key, self.engine.executor.state):
            raise Rejected(Code.E_ROLE, "this state is for member organisations and for those it is about")
        snapshot, anchor = self._checkpoint()
        try:
            proof = tree.prove(snapshot.tree, request.key)
            return api.StateReply(request.id, snapshot.height, snapshot.get(request.key), proof, anchor)
        finally:
            snapshot.close()

    def _log(self, session: Session, request: api.GetLog) -> api.Reply:
        self._demand_right(session, request.pid)
        snapshot, anchor = self._checkpoint()
        try:
            key = queries.log_head_key(request.pid)
            lines = queries.log_page(request.pid, snapshot, request.first, self.log_page_bytes)
            reached = request.first - 1 + len(lines)
            is_last = reached >= queries.log_head(request.pid, snapshot).count
            room = self.log_page_bytes - sum(map(len, lines)) if is_last else 0
            releases = queries.release_page(request.pid, snapshot, request.first_release, room) if room > 0 else ()
            room -= sum(map(len, releases))
            state = self.engine.executor.state
            newer = queries.log_page(request.pid, state, reached + 1, room) if room > 0 else ()
            proof = tree.prove(snapshot.tree, key)
            return api.LogReply(
                request.id, request.pid, snapshot.height, lines, snapshot.get(key), proof, anchor, newer, releases
            )
        finally:
            snapshot.close()

    def _line(self, session: Session, request: api.GetLine) -> api.Reply:
        self._demand_right(session, request.pid)
        data = queries.log_line(request.pid, request.sequence, self.engine.executor.state)
        if data is None:
            raise Rejected(Code.E_NOT_FOUND, f"the log of pid {request.pid.hex()} has no line {request.sequence}")
        line = decode_line(data)
        receipts = self.engine.executor.receipts_at(line.height) if line.height <= self.ledger.tip() else []
        executed = next((one for one in receipts if one.receipt.transaction == line.transaction), None)
        if executed is not None and executed.events is None:
            raise Rejected(Code.E_NOT_FOUND, f"the events that prove line {request.sequence} were pruned")
        evidence = None if executed is None else self._evidence(executed)
        if evidence is None:
            raise Unavailable(f"height {line.height} of line {request.sequence} is not sealed by a header yet")
        return api.LineReply(request.id, data, evidence)

    def _account(self, session: Session, request: api.GetAccount) -> api.Reply:
        state = self.engine.executor.state
        number = keys.account_number(session.account, state)
        highest = 0 if number is None else keys.window_at(keys.nonces(number), state).highest
        role, identity = queries.identity_of(session.account, state)
        return api.AccountReply(request.id, role, Nonce(highest + 1), identity)

    # Blocks and status

    def _is_member(self, session: Session) -> bool:
        """Member organisations validate everything anyway; everybody else sees what is their own."""
        return self.role_of(session.account) == "organisation"

    def _block(self, session: Session, request: api.GetBlock) -> api.Reply:
        height = request.height or self.ledger.tip()
        record = self.ledger.block(Height(height)) if height else None
        if record is None:
            raise Rejected(Code.E_NOT_FOUND, f"there is no block {height}; the tip is {self.ledger.tip()}")
        receipts = tuple(self.engine.executor.receipts_at(Height(height)))
        shown = receipts if self._is_member(session) else ()
        return api.BlockReply(request.id, record.header, record.certificate, shown, len(receipts))

    def _status(self, request: api.GetStatus) -> api.Reply:
        engine = self.engine
        replica = engine.replica
        founding = engine.founding
        names = {card.node: card.name for card in founding.genesis.cards}
        primary = founding.validators.node_of(replica.primary)
        peers = tuple(
            api.ValidatorStatus(
                name,
                node,
                node in engine.router.links,
                engine.statuses[node].committed if node in engine.statuses else Height(0),
            )
            for node, name in sorted(names.items(), key=lambda item: item[1])
            if node != engine.me
        )
        return api.StatusReply(
            id=request.id,
            chain=founding.chain,
            version=__version__,
            node=engine.me,
            is_ready=engine.is_ready,
            epoch=replica.epoch,
            view=replica.view,
            is_active=replica.is_active,
            height=self.ledger.tip(),
            executed=engine.executor.executed,
            block_time_ms=engine.executor.last.time_ms,
            primary=names[primary],
            n=founding.validators.n,
            f=founding.tolerated_faults,
            q=founding.validators.q,
            pending_transactions=len(engine.admission.mempool) + engine.pool.transactions,
            view_changes=engine.view_changes,
            equivocations=tuple(
                api.Equivocation(names[founding.validators.node_of(one.author)], one.author, *one.place, one.recorded)
                for one in engine.evidence.known()
            ),
            peers=peers,
        )


def _not_yet(request: api.AwaitReceipt) -> api.Failure:
    return api.Failure(request.id, int(Code.E_BUSY), f"no receipt of nonce {request.nonce} yet")
