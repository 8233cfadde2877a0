"""The state store in LMDB: state, receipts and the authenticated tree up to one height. Derived, so it can be rebuilt.

Receipts stand once, under (height, index), which only ever grows; what is looked up by account and nonce is an index of
twelve bytes per row. `flush` belongs to one writer thread; snapshots may be taken and read in any thread.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import lmdb

from p2pledger.chain.receipt import Executed
from p2pledger.engine.ports import Forgetting, StateFlush
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import ChainId, Height
from p2pledger.storage.environment import MAP_SIZE, META, Environment, decoded, seal, unseal
from p2pledger.storage.rules import FORMAT, check_flush

STATE, TREE, INDEX, RECEIPTS, EFFECTS = "state", "tree", "index", "receipts", "effects"
_HEIGHT = b"height"
_FORGOTTEN = b"forgotten"


class LmdbStateStore:
    """A `StateStore` on disk."""

    def __init__(self, path: Path, chain: ChainId, map_size: int = MAP_SIZE) -> None:
        """Open or create; raises ConfigError for a store of another chain or format, StoreError for damage."""
        labels = {"kind": b"state", "format": str(FORMAT).encode(), "chain": chain}
        self._environment = Environment(path, labels, (STATE, TREE, INDEX, RECEIPTS, EFFECTS), {}, map_size)
        try:
            self._done = self._load()
        except BaseException:
            self._environment.close()
            raise

    def _load(self) -> Height | None:
        value = self._environment.meta("height")
        return None if value is None else Height(int.from_bytes(value, "big"))

    @property
    def is_new(self) -> bool:
        """Whether nothing was flushed yet, not even the genesis at height 0."""
        return self._done is None

    def height(self) -> Height:
        """The height up to which this store has executed; 0 for a new one."""
        return self._done or Height(0)

    def flush(self, flush: StateFlush) -> None:
        """Write it all or nothing, in the order of keys; raises StoreError.

        Sorted keys touch neighbouring pages one after the other, which is what makes a B-tree fast.
        """
        check_flush(flush, self._done)
        table = self._environment.tables
        index, receipts = _receipt_rows(flush)
        with self._environment.writing() as txn:
            for name, writes in ((STATE, flush.writes), (TREE, flush.tree)):
                with txn.cursor(db=table[name]) as cursor:
                    cursor.putmulti([(key, value) for key in sorted(writes) if (value := writes[key]) is not None])
                for key in sorted(key for key, value in writes.items() if value is None):
                    txn.delete(key, db=table[name])
            with txn.cursor(db=table[RECEIPTS]) as cursor:
                cursor.putmulti(sorted(receipts.items()), append=True)
            with txn.cursor(db=table[INDEX]) as cursor:
                cursor.putmulti(sorted(index.items()), overwrite=False)
            with txn.cursor(db=table[EFFECTS]) as cursor:
                rows = [(height.to_bytes(8, "big"), seal(leaves)) for height, leaves in sorted(flush.effects)]
                cursor.putmulti(rows, append=True)
            if flush.forgetting is not None:
                self._forget(txn, flush.forgetting)
            txn.put(_HEIGHT, flush.height.to_bytes(8, "big"), db=table[META])
        self._done = flush.height

    def _forget(self, txn: "lmdb.Transaction[bytes]", step: Forgetting) -> None:
        table = self._environment.tables
        for height, number in step.places:
            place = _place(height, number)
            value = txn.get(place, db=table[RECEIPTS])
            if value is None:
                raise StoreError(f"the receipt at {place.hex()} is to lose its events, but it is not there")
            txn.put(place, encode(_executed(place, value).pruned()), db=table[RECEIPTS])
        cursor = step.number.to_bytes(8, "big") + step.upto.to_bytes(8, "big")
        txn.put(_FORGOTTEN, cursor, db=table[META])

    def snapshot(self) -> "LmdbStateSnapshot":
        """A consistent read view; close it after use. Unavailable when too many are open."""
        return LmdbStateSnapshot(self._environment)

    def room(self) -> int:
        """Bytes that can still be written."""
        return self._environment.room()

    def close(self) -> None:
        """Close the store and whatever snapshots are left."""
        self._environment.close()


class LmdbStateSnapshot:
    """A read transaction over the state store, for one thread at a time.

    An old one keeps pages from being reused: close it soon.
    """

    def __init__(self, environment: Environment) -> None:
        self._table = environment.tables
        self._state = self._table[STATE]
        self._txn = environment.snapshot()
        self._height = Height(int.from_bytes(self._get(META, _HEIGHT) or b"", "big"))

    @property
    def height(self) -> Height:
        """The height this snapshot shows."""
        return self._height

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        if not key:
            return None
        try:
            return self._txn.get(key, db=self._state)
        except lmdb.Error as error:
            raise StoreError(f"reading table {STATE} failed: {error}") from error

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all keys that begin with `prefix`, from `prefix + start` on, ascending."""
        return self._rows(STATE, prefix, prefix + start)

    def tree(self, key: bytes) -> bytes | None:
        """A record of the authenticated tree."""
        return self._get(TREE, key)

    def receipt(self, account: int, nonce: int) -> Executed | None:
        """The receipt of a sender's transaction."""
        place = self._get(INDEX, _index_key(account, nonce))
        if place is None:
            return None
        value = self._get(RECEIPTS, place)
        if value is None:
            raise StoreError(f"the receipt of account {account} nonce {nonce} is missing at {place.hex()}")
        return _executed(place, value)

    def receipts_at(self, height: Height) -> Iterator[Executed]:
        """All receipts of a height, in order."""
        prefix = height.to_bytes(8, "big")
        return (_executed(key, value) for key, value in self._rows(RECEIPTS, prefix, prefix))

    def effects_leaves(self, height: Height) -> list[bytes]:
        """The leaf hashes of a height's effects tree; empty where nothing was executed."""
        value = self._get(EFFECTS, height.to_bytes(8, "big"))
        if value is None:
            return []
        leaves = unseal(value, f"the effects of height {height}")
        return [leaves[i : i + 32] for i in range(0, len(leaves), 32)]

    def forgotten(self) -> tuple[int, Height]:
        """The last pruning that was begun, and the height up to which it is done."""
        value = self._get(META, _FORGOTTEN)
        if value is None:
            return (0, Height(0))
        return int.from_bytes(value[:8], "big"), Height(int.from_bytes(value[8:], "big"))

    def close(self) -> None:
        """End the read transaction; twice does no harm."""
        self._txn.abort()

    def __enter__(self) -> "LmdbStateSnapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, table: str, key: bytes) -> bytes | None:
        if not key:
            return None
        try:
            return self._txn.get(key, db=self._table[table])
        except lmdb.Error as error:
            raise StoreError(f"reading table {table} failed: {error}") from error

    def _rows(self, table: str, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._txn.cursor(db=self._table[table]) as cursor:
                found = cursor.set_range(start) if start else cursor.first()
                while found and cursor.key().startswith(prefix):
                    yield cursor.item()
                    found = cursor.next()
        except lmdb.Error as error:
            raise StoreError(f"reading table {table} failed: {error}") from error


def _receipt_rows(flush: StateFlush) -> tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]:
    """The rows of the index and of the receipts."""
    index: dict[bytes, bytes] = {}
    receipts: dict[bytes, bytes] = {}
    for executed, (account, nonce) in zip(flush.receipts, flush.receipt_keys, strict=True):
        place = _place(executed.receipt.height, executed.receipt.index)
        receipts[place] = encode(executed)
        if account:  # senders without an account have no number, and no index row
            index.setdefault(_index_key(account, nonce), place)
    return index, receipts


def _place(height: int, index: int) -> bytes:
    return height.to_bytes(8, "big") + index.to_bytes(4, "big")


def _index_key(account: int, nonce: int) -> bytes:
    return account.to_bytes(4, "big") + nonce.to_bytes(8, "big")


def _executed(place: bytes, value: bytes) -> Executed:
    return decoded(Executed, value, f"the receipt at {place.hex()}")
