"""What a stopped node's stores say: its journal, its blocks, and the roots of its own execution. Changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from struct import Struct

import lmdb

from p2pledger.chain.batch import parse_batch
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import parse
from p2pledger.consensus.journal import BlockRecord, JournalRecord, LockRecord, ViewRecord, VoteRecord
from p2pledger.consensus.messages import Commit
from p2pledger.engine.executor import Executor
from p2pledger.health.application import HealthApplication
from p2pledger.node.home import Home
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BlockHash, Height, View
from p2pledger.primitives.merkle import root_of_hashes
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import BLOCKS, JOURNAL, LmdbLedgerStore
from p2pledger.storage.state_store import LmdbStateStore


class Remains:
    """The stores of a stopped node. Every root here comes from executing its own blocks, not from what headers say."""

    def __init__(self, home: Home, ledger: LmdbLedgerStore, state: LmdbStateStore, executor: Executor) -> None:
        self.home = home
        self._roots: dict[int, bytes] = {}
        """State roots of checkpoints that the node had executed but not flushed yet."""
        self._ledger = ledger
        self._state = state
        self._executor = executor

    def execute_rest(self) -> None:
        """What a restart would execute again; like the node's recovery, but nothing is flushed."""
        for height in range(self._state.height() + 1, self.tip + 1):
            _execute(self._executor, self._ledger, Height(height))
            if self._executor.checkpoint == height:
                self._roots[height] = self._executor.state_roots[Height(height)]

    @property
    def tip(self) -> Height:
        """The last committed height."""
        return self._ledger.tip()

    @property
    def journal(self) -> list[JournalRecord]:
        """Everything above the committed height that the node must not forget."""
        return self._ledger.journal()

    @property
    def view(self) -> View:
        """The view that the node was in."""
        return max((record.view for record in self.journal if isinstance(record, ViewRecord)), default=View(0))

    def prepared(self) -> list[Height]:
        """Heights above the tip whose block was prepared (a COMMIT signed, a certificate locked), but not committed."""
        heights: set[Height] = set()
        for record in self.journal:
            match record:
                case VoteRecord(message=Commit(height=height)):
                    heights.add(height)
                case LockRecord(certificate=certificate):
                    heights.add(certificate.height)
                case _:
                    pass
        return sorted(height for height in heights if height > self.tip)

    def proposed(self) -> list[Height]:
        """Heights above the tip of which the journal keeps a block: accepted, prepared or not."""
        heights = {record.header.height for record in self.journal if isinstance(record, BlockRecord)}
        return sorted(height for height in heights if height > self.tip)

    def block_hash(self, height: int) -> BlockHash:
        """Of a committed block; raises StoreError where there is none."""
        return self._ledger.committed_hash(Height(height))

    def receipts(self, height: int) -> list[Executed]:
        """Of all transactions of a committed height, in order."""
        return self._executor.receipts_at(Height(height))

    def effects_root(self, height: int) -> bytes:
        """The root over a height's receipts and writes."""
        return root_of_hashes(self._executor.effects_leaves(Height(height)))

    def state_root(self, height: int) -> bytes | None:
        """The root of the authenticated state tree, where the height was a checkpoint."""
        known = self._roots.get(height)
        if known is not None:
            return known
        with self._state.snapshot() as snapshot:
            return snapshot.tree(b"r" + height.to_bytes(8, "big"))

    def last_checkpoint(self, upto: int | None = None) -> Height:
        """The highest height, at most `upto`, that has a state root; 0 for none."""
        for height in range(self.tip if upto is None else min(upto, self.tip), 0, -1):
            if self.state_root(height) is not None:
                return Height(height)
        return Height(0)

    def state_digest(self) -> bytes:
        """SHA-256 over every key and value of the state at the tip: equal tips must give equal digests."""
        digest = sha256()
        for key, value in self._executor.state.scan(b""):
            digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
        return digest.digest()


@contextmanager
def remains_of(home: Path) -> Iterator[Remains]:
    """Open the stores of a stopped node; raises ConfigError while it runs, StoreError and Divergence for damage."""
    loaded = Home.load(home, {})
    founding = loaded.founding
    map_size = loaded.config.node.map_gib << 30
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(loaded.layout.lock))
        ledger = LmdbLedgerStore(
            loaded.ledger, founding.chain, loaded.node, founding.header.hash, map_size, may_create=False
        )
        stack.callback(ledger.close)
        state = LmdbStateStore(loaded.state, founding.chain, map_size)
        stack.callback(state.close)
        executor = Executor(founding, HealthApplication(), ledger, state)
        stack.callback(executor.close)
        executor.recover(state.height())
        remains = Remains(loaded, ledger, state, executor)
        remains.execute_rest()
        yield remains


@contextmanager
def watching(home: Path) -> Iterator[Callable[[], bool]]:
    """Whether a *running* node's journal shows a height that is prepared and not committed, now; changes nothing."""
    vote, height = Struct(">cBQQQ"), Struct(">Q")
    with lmdb.open(str(home / "data" / "ledger"), readonly=True, max_dbs=8) as environment:
        journal = environment.open_db(JOURNAL.encode(), create=False)
        blocks = environment.open_db(BLOCKS.encode(), create=False)

        def is_prepared() -> bool:
            with environment.begin() as txn:
                cursor = txn.cursor(db=blocks)
                tip = height.unpack(cursor.key())[0] if cursor.last() else 0
                votes = [vote.unpack(key) for key, _ in txn.cursor(db=journal) if len(key) == vote.size]
            return any(mark == b"s" and kind == 3 and at > tip for mark, kind, _, _, at in votes)

        yield is_prepared


def _execute(executor: Executor, ledger: LmdbLedgerStore, height: Height) -> None:
    record = ledger.block(height)
    if record is None:
        raise StoreError(f"ledger has no block {height} below its tip {ledger.tip()}")
    bodies = []
    for key in record.header.batches:
        data = ledger.body(key)
        if data is None:
            raise StoreError(f"ledger lacks the body of committed batch {key.hex()}")
        batch = parse_batch(data)
        bodies.append((batch, [parse(item) for item in batch.transactions]))
    executor.apply(record.header, bodies)
