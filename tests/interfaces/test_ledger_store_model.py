"""Both ledger stores side by side through any history of turns, good and bad: they agree, and no promise breaks."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Header
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, VoteRecord
from p2pledger.consensus.messages import same_statement, slot
from p2pledger.engine.ports import LedgerWrite
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, Height
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore
from tests.interfaces.chains import (
    CHAIN,
    GENESIS,
    NODE,
    append,
    body,
    commit,
    header,
    ids,
    pre_prepare,
    prepare,
    proposed,
    standing,
    view_change,
    vote,
)

BODIES = [b"batch %d" % i for i in range(5)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["body", "block", "prepare", "commit", "propose", "change", "enter", "append"]),
        st.integers(0, 4),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=5,
)


class LedgerStores(RuleBasedStateMachine):
    """LMDB and memory are told the same."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.lmdb = LmdbLedgerStore(Path(self.folder.name), CHAIN, NODE, GENESIS)
        self.memory = MemoryLedgerStore(CHAIN, GENESIS)
        self.committed: list[Header] = []

    def candidate(self, above: int, choice: int) -> Header:
        """A block some heights above the tip, one of few, so that the same one comes again."""
        base = self.committed[-1] if self.committed else header(0, bytes(32))
        parent = base
        for height in range(base.height + 1, base.height + above + 2):
            chosen = [BODIES[i] for i in range(len(BODIES)) if (choice + height + i) % 3 == 0]
            parent = header(height, parent.hash, chosen, time_ms=choice)
        return parent

    def write(self, kind: str, a: int, b: int, c: int) -> LedgerWrite:
        block = self.candidate(a % 3, b)
        height = max(0, block.height - c)
        old = self.committed[height - 1].hash if 0 < height <= len(self.committed) else block.hash
        match kind:
            case "body":
                return body(BODIES[a])
            case "block":
                return proposed(block)
            case "prepare":
                return vote(prepare(height, old if b else block.hash, view=c))
            case "commit":
                return vote(commit(height, old if b else block.hash, view=c))
            case "propose":
                return vote(pre_prepare(block, view=c))
            case "change":
                return vote(view_change(c))
            case "enter":
                return standing(c, is_active=b % 2 == 0)
            case _:
                return append(self.candidate(0, b), is_certified=c > 0)

    @rule(steps=STEPS)
    def turn(self, steps: list[tuple[str, int, int, int]]) -> None:
        writes = [self.write(*step) for step in steps]
        answers = []
        for store in (self.lmdb, self.memory):
            try:
                store.apply(writes)
                answers.append("")
            except StoreError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        if not answers[0]:
            for kind, _, b, _ in steps:
                if kind == "append":
                    self.committed.append(self.candidate(0, b))

    @rule(choice=st.integers(0, 3), before=STEPS)
    def commit_next(self, choice: int, before: list[tuple[str, int, int, int]]) -> None:
        """A turn that commits, after steps that are each a turn of their own, refused or not."""
        block = self.candidate(0, choice)
        for step in before:
            if step[0] != "append":
                self.turn([step])
        writes: list[LedgerWrite] = [
            *map(body, [data for data in BODIES if batch_id(data) in block.batches]),
            append(block),
        ]
        self.lmdb.apply(writes)
        self.memory.apply(writes)
        self.committed.append(block)

    @rule()
    def restart(self) -> None:
        self.lmdb.close()
        self.lmdb = LmdbLedgerStore(Path(self.folder.name), CHAIN, NODE, GENESIS)
        self.memory = self.memory.reopened()

    @invariant()
    def they_agree(self) -> None:
        assert self.lmdb.tip() == self.memory.tip() == len(self.committed)
        assert self.lmdb.journal() == self.memory.journal()
        for batch in ids(BODIES):
            assert self.lmdb.body(batch) == self.memory.body(batch)
        for height in range(len(self.committed) + 2):
            assert self.lmdb.block(Height(height)) == self.memory.block(Height(height))
            assert self.lmdb.certified_from(Height(height)) == self.memory.certified_from(Height(height))

    @invariant()
    def promises_hold(self) -> None:
        for height, wanted in enumerate(self.committed, 1):
            record = self.memory.block(Height(height))
            assert isinstance(record, CommittedRecord)
            assert record.header == wanted
            assert all(self.memory.body(BatchId(batch)) is not None for batch in wanted.batches)
        for entry in self.memory.journal():
            if isinstance(entry, BlockRecord):
                assert entry.header.height > self.memory.tip()
            if isinstance(entry, VoteRecord) and slot(entry.message)[0] <= 3:
                assert slot(entry.message)[3] > self.memory.tip()
        votes = [entry.message for entry in self.memory.journal() if isinstance(entry, VoteRecord)]
        for message in votes:
            assert all(same_statement(message, other) for other in votes if slot(other) == slot(message))

    def teardown(self) -> None:
        if hasattr(self, "lmdb"):
            self.lmdb.close()
            self.folder.cleanup()


def test_both_ledger_stores_agree() -> None:
    """Same answers, same content, same refusals in the same words; nothing committed is ever lost or changed."""
    run_state_machine_as_test(
        LedgerStores,
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
