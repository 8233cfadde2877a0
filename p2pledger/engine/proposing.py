"""The replica's questions about blocks: build one (P1, P15), check one (P3), get the bodies of a certified one."""

from collections.abc import Callable, Iterator

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as replica_event
from p2pledger.consensus.replica import Replica
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.dissemination import FETCH_RETRY_MS, Bodies, Dissemination
from p2pledger.engine.events import EngineEffect, Note
from p2pledger.engine.executor import Executor
from p2pledger.engine.proposals import OriginWindows, Selection, Verdict, build, judge, select, structure_fault
from p2pledger.primitives import limits
from p2pledger.primitives.ids import BlockHash, Height

Tell = Callable[[replica_event.Event], Iterator[EngineEffect]]
FindHeader = Callable[[Height, BlockHash], Header | None]


PARTS_OF_TIMEOUT = 2
"""A block that takes half of the time that others grant a primary is too large."""


class Pace:
    """How many transactions our next blocks should hold, so that one follows the other within `time_ms`.

    Under overload blocks as large as they may be take longer than the timeout on a slow machine, and views would change
    although nobody is at fault. Falls by half, rises by a quarter; local policy, no vote depends on it.
    """

    def __init__(self, time_ms: int) -> None:
        self.transactions = limits.BLOCK_TRANSACTIONS_TARGET
        self._time_ms = time_ms
        self._open: dict[Height, int] = {}
        """Transactions of the blocks that we have proposed and not executed, ascending."""
        self._since_ms = 0
        """When the block before the first of them was executed; if that is longer ago, when it was built."""

    def built(self, height: Height, transactions: int, now_ms: int) -> None:
        """We propose this block now."""
        if not self._open:
            self._since_ms = now_ms
        self._open[height] = transactions

    def forget(self) -> None:
        """What was built may never be executed."""
        self._open.clear()

    def executed(self, height: Height, now_ms: int) -> None:
        """All blocks up to this one are."""
        done = [self._open.pop(one) for one in list(self._open) if one <= height]
        if not done:
            return
        took_ms, self._since_ms = (now_ms - self._since_ms) // len(done), now_ms
        if took_ms > self._time_ms:
            self.transactions = max(min(max(done), self.transactions) // 2, limits.BLOCK_TRANSACTIONS_LEAST)
        elif 2 * max(done) > self.transactions:
            self.transactions = min(self.transactions * 5 // 4, limits.BLOCK_TRANSACTIONS_TARGET)


class Proposing:
    """Open questions, each answered as soon as what it waits for is here."""

    def __init__(
        self,
        founding: Founding,
        replica: Replica,
        executor: Executor,
        batches: Dissemination,
        agenda: Agenda,
        tell: Tell,
        find_header: FindHeader,
    ) -> None:
        self._founding = founding
        self._replica = replica
        self._executor = executor
        self._batches = batches
        self._agenda = agenda
        self._tell = tell
        self._find_header = find_header
        self._build: do.BuildProposal | None = None
        self._checks: dict[BlockHash, do.CheckProposal] = {}
        self._wanted: dict[BlockHash, Header] = {}
        self._pace = Pace(founding.parameters.timeout_ms // PARTS_OF_TIMEOUT)
        self._selected: tuple[tuple[BlockHash, Height, int], Selection] | None = None
        """The last selection, and what it was made from: every event asks for it."""

    @property
    def is_waiting(self) -> bool:
        return bool(self._checks or self._wanted)

    def wanted_headers(self) -> Iterator[Header]:
        """The blocks whose bodies are needed, whoever sends them."""
        yield from self._wanted.values()
        for check in self._checks.values():
            yield check.header

    def view_changed(self) -> None:
        """Questions of the view before are stale."""
        self._checks.clear()
        self._pace.forget()
        if self._build is not None and self._build.view != self._replica.view:
            self._build = None

    def ask_build(self, question: do.BuildProposal) -> None:
        self._build = question

    def check(self, question: do.CheckProposal) -> Iterator[EngineEffect]:
        """P3, as far as it can be said now."""
        header, replica = question.header, self._replica
        self._checks[header.hash] = question
        if (question.epoch, question.view) != (replica.epoch, replica.view) or header.height <= replica.committed:
            del self._checks[header.hash]
            return
        fault = structure_fault(header, question.parent, self._founding)
        if fault:
            del self._checks[header.hash]
            yield Note("proposal_refused", (("height", header.height), ("reason", fault)))
            return
        bodies = self._batches.bodies(header)
        windows = self._windows(question.parent)
        if bodies is None or windows is None:
            yield from self._batches.ask_missing(header)
            yield from self._batches.ask_missing(question.parent)
            return
        wall_ms = self._agenda.now.wall_ms
        judgement = judge(header, question.parent, bodies, windows, self._executor, self._founding, wall_ms)
        if judgement.verdict is Verdict.WAIT:
            self._agenda.after("fetch", FETCH_RETRY_MS)
            return
        del self._checks[header.hash]
        if judgement.verdict is Verdict.BAD:
            yield Note("proposal_refused", (("height", header.height), ("reason", judgement.reason)))
            return
        yield from self._tell(
            replica_event.ProposalChecked(question.epoch, question.view, header.height, header.hash),
        )

    def hold(self, header: Header) -> Iterator[EngineEffect]:
        """A certified block needs its bodies only."""
        self._wanted[header.hash] = header
        if header.height <= self._replica.committed:
            del self._wanted[header.hash]
        elif self._batches.bodies(header) is None:
            yield from self._batches.ask_missing(header)
        else:
            del self._wanted[header.hash]
            yield from self._tell(replica_event.BlockHeld(header))

    def try_again(self) -> Iterator[EngineEffect]:
        """Something arrived or time passed: judge and hold again what was waiting for it."""
        for question in list(self._checks.values()):
            yield from self.check(question)
        for header in list(self._wanted.values()):
            yield from self.hold(header)

    def _windows(self, parent: Header) -> OriginWindows | None:
        """Batch sequences used up to and including `parent`; None if a body on the way is missing."""
        open_blocks: list[Bodies] = []
        header: Header | None = parent
        while header is None or header.height > self._executor.executed:
            bodies = None if header is None else self._batches.bodies(header)
            if header is None or bodies is None:
                return None
            open_blocks.append(bodies)
            header = self._find_header(Height(header.height - 1), header.parent)
        windows = OriginWindows({origin: self._batches.window_of(origin) for origin in self._batches.origins})
        for bodies in reversed(open_blocks):
            for batch, _ in bodies:
                windows.use(batch)
        return windows

    def build_due(self) -> Iterator[EngineEffect]:
        """Answer the replica's request once there is something to propose."""
        request = self._build
        if request is None:
            return
        parent, executed = request.parent, self._executor.executed
        if request.view != self._replica.view or parent.height < executed:
            self._build = None  # asked for before the chain moved on
            return
        if executed < max(parent.executed_height, parent.height + 1 - self._founding.parameters.window):
            return
        now_ms = self._agenda.monotonic_ms
        self._pace.executed(executed, now_ms)
        chosen = self._select(parent)
        if chosen is None:
            return
        if chosen.batches:
            is_behind = parent.height != executed
            delay_ms = limits.BLOCK_DELAY_MS if is_behind else self._batches.gather_ms // 4
            ripe_ms = chosen.batches[0].held_since_ms + delay_ms
            if chosen.transactions < self._pace.transactions and now_ms < ripe_ms:
                self._agenda.at("build", ripe_ms)
                return
        elif self._executor.has_unsealed(parent.executed_height):
            quiet_ms = self._batches.ordered_ms + self._quiet_for_ms()
            if now_ms < quiet_ms:  # transactions that come soon carry the roots, and spare everybody a checkpoint
                self._agenda.at("build", quiet_ms)
                return
        elif not self.is_heartbeat_due(parent):
            return
        self._build = None
        self._agenda.cancel("build")
        header = build(parent, chosen, self._executor, self._founding, self._agenda.now.wall_ms)
        self._pace.built(header.height, chosen.transactions, now_ms)
        yield from self._tell(replica_event.ProposalBuilt(request.epoch, request.view, header))

    def _quiet_for_ms(self) -> int:
        """How long nothing must have come before roots are sealed: as long as the last transactions took, for whoever
        waits for those sends the next ones only then; and much less than what others take for silence (P8).
        """
        return max(limits.QUIET_MS, min(self._batches.waited_ms, self._founding.parameters.timeout_ms // 4))

    def _select(self, parent: Header) -> Selection | None:
        """What a block on `parent` would hold now; None if a body on the way is missing."""
        made_from = (parent.hash, self._executor.executed, self._batches.pool.changes)
        if self._selected is None or self._selected[0] != made_from:
            windows = self._windows(parent)
            if windows is None:
                return None
            self._selected = made_from, select(self._batches.pool, windows, self._pace.transactions)
        return self._selected[1]

    def is_heartbeat_due(self, parent: Header) -> bool:
        """P15: one empty block per heartbeat of quiet."""
        heartbeat_ms = self._founding.parameters.heartbeat_ms
        if heartbeat_ms == 0 or parent.height != self._executor.executed:
            return False
        due_in = parent.time_ms + heartbeat_ms - self._agenda.now.wall_ms
        if due_in > 0:
            self._agenda.after("heartbeat", due_in)
            return False
        return True
