"""Runs committed blocks over the state, remembers their effects roots, and decides what is flushed when.

The state store only ever holds the state at a checkpoint, together with the authenticated tree of that very state, so
that a proof against the last checkpoint's root can always be made. What was executed since lives in memory and
is executed again from the ledger after a restart.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from p2pledger.chain.batch import Batch, parse_batch
from p2pledger.chain.block import Header, StateRoot, is_checkpoint
from p2pledger.chain.genesis import Founding
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction, parse
from p2pledger.engine.ports import Forgetting, LedgerStore, StateFlush, StateSnapshot, StateStore
from p2pledger.execution import seats
from p2pledger.execution.contract import Application
from p2pledger.execution.execute import BlockEffects, execute_block
from p2pledger.primitives.errors import Divergence, StoreError
from p2pledger.primitives.ids import Height
from p2pledger.primitives.merkle import root_of_hashes
from p2pledger.state import tree
from p2pledger.state.overlay import Overlay
from p2pledger.state.view import StateView

Bodies = list[tuple[Batch, list[Transaction]]]


class WrongRoot(Divergence):
    """A committed header lists another root than our own execution has (P22)."""

    def __init__(self, header: Header, kind: str, height: int, listed: bytes, own: bytes) -> None:
        super().__init__(
            f"header {header.height} has {kind} root {listed.hex()} for height {height}, our own is {own.hex()}"
        )
        self.header = header
        self.kind = kind
        self.height = height
        self.listed = listed
        self.own = own


@dataclass(slots=True)
class _Since:
    """What was executed since the last freeze."""

    receipts: list[Executed] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    leaves: dict[Height, list[bytes]] = field(default_factory=dict)
    index: dict[tuple[int, int], Executed] = field(default_factory=dict)
    """By (account number, nonce)."""


class Executor:
    """Owns the state as of the last executed height, which is always the last committed one."""

    def __init__(self, founding: Founding, application: Application, ledger: LedgerStore, store: StateStore) -> None:
        self._founding = founding
        self._application = application
        self._ledger = ledger
        self._store = store
        self._snapshot: StateSnapshot = store.snapshot()
        self._overlay = Overlay(self._snapshot)
        self._tree: dict[bytes, bytes | None] = {}
        self._tree_frozen: dict[bytes, bytes | None] = {}
        self._nodes: tree.Nodes | None = None
        """Of the tree as it stands at the last checkpoint, and what has changed since; None before the first block."""
        self._since = _Since()
        self._frozen = _Since()
        self._flushing: Height | None = None
        self.executed: Height = Height(0)
        self.checkpoint = Height(0)
        self.last: Header = founding.header
        self.effects_roots: dict[Height, bytes] = {}
        self.state_roots: dict[Height, bytes] = {}
        self.significant: set[Height] = set()
        """Heights whose roots must reach a header even if nothing else happens (P15)."""

    @property
    def state(self) -> StateView:
        return self._overlay

    def recover(self, tip: Height) -> None:
        """Execute again what the ledger holds above the state store. Nothing is answered or sent.

        Raises WrongRoot if the chain's roots are not ours (P22), StoreError if the stores do not fit together.
        """
        for _ in self.replay(tip):
            pass

    def replay(self, tip: Height) -> Iterator[Header]:
        """`recover`, block by block, for who wants to look on: each header after it was executed."""
        base = self._store.height()
        if base > tip:
            raise StoreError(f"state store is at height {base}, the ledger only at {tip}; restore both together")
        self.executed = self.checkpoint = base
        if base > 0:
            self.last = self._header(base)
            self._recall_roots(base)
        for height in range(base + 1, tip + 1):
            record = self._ledger.block(Height(height))
            if record is None:
                raise StoreError(f"ledger has no block {height} below its tip {tip}")
            self.apply(record.header, [_parsed(self._body(key)) for key in record.header.batches])
            flush = self.take_flush()
            if flush is not None:
                self._store.flush(flush)
                self.flushed(flush.height)
            yield record.header

    def _body(self, key: bytes) -> bytes:
        body = self._ledger.body(key)  # type: ignore[arg-type]
        if body is None and self._ledger.pruned(key) is not None:  # type: ignore[arg-type]
            raise StoreError(
                f"batch {key.hex()} was pruned, so its block cannot be executed again: install another member's "
                "snapshot ('p2pledger snapshot install')"
            )
        if body is None:
            raise StoreError(f"ledger lacks the body of committed batch {key.hex()}")
        return body

    def _header(self, height: Height) -> Header:
        record = self._ledger.block(height)
        if record is None:
            raise StoreError(f"ledger has no block {height}")
        return record.header

    def _recall_roots(self, base: Height) -> None:
        """Roots of the last heights at or below the store's height: headers to come may still have to list them."""
        for height in range(max(1, base - 2 * self._founding.parameters.window), base + 1):
            header = self._header(Height(height))
            leaves = self._snapshot.effects_leaves(Height(height))
            self.effects_roots[Height(height)] = root_of_hashes(leaves)
            parent_is_empty = height == 1 or self._header(Height(height - 1)).is_empty
            self._note_significant(header, parent_is_empty)
        self.state_roots[base] = tree.root(self._snapshot.tree)
        for height in self.significant:
            if height != base and height not in self.state_roots and self._is_due(height):
                root = self._snapshot.tree(_root_key(height))
                if root is not None:
                    self.state_roots[height] = root

    def _is_due(self, height: Height) -> bool:
        header = self._header(height)
        parent_is_empty = height == 1 or self._header(Height(height - 1)).is_empty
        return is_checkpoint(header, parent_is_empty, self._founding.parameters.checkpoint_interval)

    def _note_significant(self, header: Header, parent_is_empty: bool) -> bool:
        due = is_checkpoint(header, parent_is_empty, self._founding.parameters.checkpoint_interval)
        if due or not header.is_empty:
            self.significant.add(header.height)
        return due

    def has_applied(self, header: Header) -> bool:
        """Whether this block was executed before; raises Divergence if another one was, at its height (P7)."""
        if header.height > self.executed:
            return False
        known = self._ledger.block(header.height)
        if known is not None and known.header.hash != header.hash:
            raise Divergence(f"two blocks are committed at height {header.height}")
        return True

    def apply(self, header: Header, bodies: Bodies) -> BlockEffects:
        """Execute the next committed block; raises WrongRoot where its roots are not ours (P22)."""
        assert header.height == self.executed + 1, f"block {header.height} executed after {self.executed}"
        self.compare(header)
        effects = execute_block(self._application, self._founding.chain, header, bodies, self._overlay)
        self._overlay.apply(effects.writes, effects.memory)
        self._tree_nodes().note(effects.writes)
        self._since.receipts += effects.receipts
        self._since.keys += effects.receipt_keys
        self._since.leaves[header.height] = effects.leaves
        self._since.index.update(zip(effects.receipt_keys, effects.receipts, strict=True))
        self.effects_roots[header.height] = effects.root
        parent_is_empty = self.last.is_empty
        self.last = header
        self.executed = header.height
        if self._note_significant(header, parent_is_empty):
            self._update_tree(header.height)
        self._forget_below(Height(header.executed_height - 1))
        return effects

    def compare(self, header: Header) -> None:
        """Hold the roots that the next header lists against our own; raises WrongRoot at the first that differs."""
        first = self.last.executed_height + 1
        for offset, root in enumerate(header.effects_roots):
            own = self.effects_roots.get(Height(first + offset))
            if own is not None and own != root:
                raise WrongRoot(header, "effects", first + offset, root, own)
        for state_root in header.state_roots:
            own = self.state_roots.get(state_root.height)
            if own is not None and own != state_root.root:
                raise WrongRoot(header, "state", state_root.height, state_root.root, own)

    def _update_tree(self, height: Height) -> None:
        root, writes = self._tree_nodes().settle(self._read_tree)
        self._tree.update(writes)
        self._tree[_root_key(height)] = root
        self.state_roots[height] = root
        self.checkpoint = height

    def _tree_nodes(self) -> tree.Nodes:
        if self._nodes is None:
            self._nodes = tree.Nodes(self._read_tree)
        return self._nodes

    def learn_tree(self) -> None:
        """Read the tree of the last checkpoint before there is work, so that the first one to come need not."""
        self._tree_nodes().learn(self._read_tree)

    def _read_tree(self, key: bytes) -> bytes | None:
        for layer in (self._tree, self._tree_frozen):
            if key in layer:
                return layer[key]
        return self._snapshot.tree(key)

    def _forget_below(self, height: Height) -> None:
        """Roots that every header to come has behind it."""
        for known in (self.effects_roots, self.state_roots):
            for old in [key for key in known if key < height]:
                del known[old]
        self.significant = {key for key in self.significant if key >= height}

    # Roots for headers

    def roots_between(self, above: Height, upto: Height) -> tuple[tuple[bytes, ...], tuple[StateRoot, ...]]:
        """(effects roots, state roots of checkpoints) of the heights in (above, upto], as a header lists them."""
        heights = range(above + 1, upto + 1)
        effects = tuple(self.effects_roots[Height(height)] for height in heights)
        states = tuple(
            StateRoot(Height(height), self.state_roots[Height(height)])
            for height in heights
            if Height(height) in self.state_roots
        )
        return effects, states

    def has_unsealed(self, above: Height) -> bool:
        """Whether a root above this height must still reach a header (P15)."""
        return any(height > above for height in self.significant)

    # Flushing

    @property
    def unflushed(self) -> int:
        """Receipts that the state store does not hold yet: what a restart would execute again."""
        return len(self._since.receipts) + len(self._frozen.receipts)

    @property
    def may_flush(self) -> bool:
        """Whether the state stands exactly at a checkpoint that is not in the store, and no flush is under way."""
        return self._flushing is None and self.executed == self.checkpoint and self.executed != self._store.height()

    @property
    def durable(self) -> Height:
        """The height that the state store shows: nothing up to it is ever executed again."""
        return self._snapshot.height

    @property
    def forgotten(self) -> tuple[int, Height]:
        """The last pruning that was begun, and the height up to which it is done."""
        return self._snapshot.forgotten()

    def take_flush(self, forgetting: Forgetting | None = None) -> StateFlush | None:
        """What to write now, or None where nothing may be flushed."""
        if not self.may_flush:
            return None
        self._flushing = self.executed
        self._frozen, self._since = self._since, _Since()
        self._tree_frozen, self._tree = self._tree, {}
        return StateFlush(
            height=self.executed,
            writes=self._overlay.freeze(),
            receipts=self._frozen.receipts,
            receipt_keys=self._frozen.keys,
            tree=self._tree_frozen,
            effects=[(height, b"".join(leaves)) for height, leaves in self._frozen.leaves.items()],
            forgetting=forgetting,
        )

    def flushed(self, height: Height) -> None:
        """That flush is in the store: read from it."""
        assert self._flushing == height
        self._flushing = None
        old, self._snapshot = self._snapshot, self._store.snapshot()
        self._overlay.thaw(self._snapshot)
        self._tree_frozen = {}
        self._frozen = _Since()
        old.close()

    # Reading for clients

    def recent_receipt(self, account: int, nonce: int) -> Executed | None:
        """A receipt that is not in the state store yet."""
        for since in (self._since, self._frozen):
            executed = since.index.get((account, nonce))
            if executed is not None:
                return executed
        return None

    def receipt(self, account: int, nonce: int) -> Executed | None:
        """The receipt of a decided transaction."""
        return self.recent_receipt(account, nonce) or self._snapshot.receipt(account, nonce)

    def receipts_at(self, height: Height) -> list[Executed]:
        """All receipts of an executed height."""
        for since in (self._since, self._frozen):
            if height in since.leaves:
                first = bisect_left(since.receipts, height, key=_height)
                return since.receipts[first : bisect_right(since.receipts, height, key=_height)]
        return list(self._snapshot.receipts_at(height))

    def effects_leaves(self, height: Height) -> list[bytes]:
        """The leaf hashes of an executed height's effects tree."""
        for since in (self._since, self._frozen):
            if height in since.leaves:
                return since.leaves[height]
        return self._snapshot.effects_leaves(height)

    def close(self) -> None:
        self._snapshot.close()


def genesis_flush(application: Application, founding: Founding) -> StateFlush:
    """The first flush of a new state store: the state at height 0."""
    writes = seats.genesis_writes(application, founding)
    _, tree_writes = tree.update(lambda key: None, writes)
    return StateFlush(Height(0), dict(writes), (), (), tree_writes, ())


def _height(executed: Executed) -> Height:
    return executed.receipt.height


def _root_key(height: int) -> bytes:
    return b"r" + height.to_bytes(8, "big")


def _parsed(data: bytes) -> tuple[Batch, list[Transaction]]:
    batch = parse_batch(data)
    return batch, [parse(item) for item in batch.transactions]


def parse_bodies(bodies: Iterable[bytes]) -> Bodies:
    """Bodies whose signatures a quorum has checked already."""
    return [_parsed(body) for body in bodies]
