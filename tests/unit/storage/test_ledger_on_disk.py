"""What can happen to a ledger store on a disk: foreign, damaged, shortened, emptied, full (T29 to T31)."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from p2pledger.chain.batch import batch_id
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import BlockHash, ChainId, Height, NodeId
from p2pledger.storage.environment import SAFE_FLAGS, Environment
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore
from p2pledger.storage.rules import FORMAT
from p2pledger.storage.state_store import LmdbStateStore
from tests.interfaces.chains import CHAIN, GENESIS, NODE, body, fill, prepare, vote


def opened(path: Path, may_create: bool = True, map_size: int = 1 << 30) -> LmdbLedgerStore:
    return LmdbLedgerStore(path, CHAIN, NODE, GENESIS, map_size=map_size, may_create=may_create)


def closed_store(path: Path, length: int = 3) -> Path:
    """A store with some blocks and a vote; its data file."""
    store = opened(path)
    fill(store, length)
    store.apply([vote(prepare(length + 1, b"x" * 32))])
    store.close()
    return path / "data.mdb"


def flip(data: Path, at: bytes, offset: int = 0) -> None:
    """Flip one bit of every copy of these bytes in the file."""
    content = bytearray(data.read_bytes())
    spot = content.find(at)
    assert spot >= 0
    while spot >= 0:
        content[spot + offset] ^= 1
        spot = content.find(at, spot + 1)
    data.write_bytes(content)


def test_the_flags_are_the_safe_ones(tmp_path: Path) -> None:
    """Anything else loses or corrupts at a power failure (T29)."""
    flags = opened(tmp_path)._environment._env.flags()
    assert {name: value for name, value in flags.items() if name in SAFE_FLAGS} == SAFE_FLAGS


def test_a_store_of_another_chain_or_node_is_refused(tmp_path: Path) -> None:
    """With both values, so that the operator sees which home was mixed up."""
    closed_store(tmp_path)
    with pytest.raises(ConfigError, match=f"has chain {CHAIN.decode()}, not {'d' * 32}"):
        LmdbLedgerStore(tmp_path, ChainId(b"d" * 32), NODE, GENESIS)
    with pytest.raises(ConfigError, match=r"has node n+, not m+"):
        LmdbLedgerStore(tmp_path, CHAIN, NodeId(b"m" * 32), GENESIS)
    assert opened(tmp_path).tip() == 3


def test_a_store_of_another_format_or_kind_is_refused(tmp_path: Path) -> None:
    """Never guessed at, never converted in passing."""
    later = {"kind": b"ledger", "format": str(FORMAT + 1).encode(), "chain": CHAIN, "node": NODE}
    Environment(tmp_path / "later", later, ["blocks"], {}, 1 << 20).close()
    with pytest.raises(ConfigError, match=f"has format {FORMAT + 1}, not {FORMAT}"):
        opened(tmp_path / "later")
    LmdbStateStore(tmp_path / "state", CHAIN, map_size=1 << 20).close()
    with pytest.raises(ConfigError, match="has kind state, not ledger"):
        opened(tmp_path / "state")
    Environment(tmp_path / "old", {"kind": b"state", "format": b"0", "chain": CHAIN}, [], {}, 1 << 20).close()
    with pytest.raises(ConfigError, match=f"has format 0, not {FORMAT}"):
        LmdbStateStore(tmp_path / "old", CHAIN, map_size=1 << 20)
    with pytest.raises(ConfigError, match="has chain"):
        LmdbStateStore(tmp_path / "state", ChainId(b"d" * 32), map_size=1 << 20)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """Refused, and not a byte is written into it."""
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(b"somebody", b"else")
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(ConfigError, match="not one of this program's stores"):
        opened(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Wrong file, wrong error is a wrong page."""
    (tmp_path / "data.mdb").write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError, match="cannot be opened"):
        opened(tmp_path)


@pytest.mark.parametrize("loss", ["missing", "empty"])
def test_an_emptied_store_of_a_node_that_has_signed_is_refused(tmp_path: Path, loss: str) -> None:
    """LMDB opens a zero-length file as an empty database, silently; who has signed before must not go on with that."""
    data = closed_store(tmp_path)
    if loss == "missing":
        data.unlink()
    else:
        data.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"is {loss}, but this node has signed before.*--accept-resign-risk"):
        opened(tmp_path, may_create=False)
    store = opened(tmp_path)  # the check switched off: a journal that remembers nothing
    assert (store.tip(), store.journal()) == (0, [])


def test_a_shortened_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Reading a lost page would be SIGBUS, with no chance to say why."""
    data = closed_store(tmp_path, 30)
    length = data.stat().st_size
    for lost in (1, 4096, length - 8192):
        content = data.read_bytes()
        data.write_bytes(content[: length - lost])
        with pytest.raises(StoreError, match="was shortened"):
            opened(tmp_path)
        data.write_bytes(content)
    assert opened(tmp_path).tip() == 30


def test_a_flipped_bit_in_a_block_is_noticed(tmp_path: Path) -> None:
    """LMDB hands out the changed bytes; their hash does not fit."""
    store = opened(tmp_path)
    headers = fill(store, 150)
    store.close()
    data = tmp_path / "data.mdb"
    intact = data.read_bytes()
    flip(data, encode(headers[149]))
    with pytest.raises(StoreError, match="block 150 is damaged"):
        opened(tmp_path)
    data.write_bytes(intact)
    flip(data, encode(headers[9]))
    store = opened(tmp_path)  # deeper than what is checked at the start: found when it is read
    assert store.block(Height(10 - 1)) is not None
    with pytest.raises(StoreError, match="block 10 is damaged"):
        store.block(Height(10))


def test_a_flipped_bit_in_a_vote_or_a_body_is_noticed(tmp_path: Path) -> None:
    """A changed vote would let the node contradict the one it has sent."""
    data = closed_store(tmp_path)
    intact = data.read_bytes()
    flip(data, encode(prepare(4, b"x" * 32)), offset=20)
    with pytest.raises(StoreError, match=r"journal record .* is damaged"):
        opened(tmp_path)
    data.write_bytes(intact)
    flip(data, b"body 0 of 2")
    store = opened(tmp_path)
    assert store.body(batch_id(b"body 0 of 1")) == b"body 0 of 1"
    with pytest.raises(StoreError, match=r"body of batch .* is damaged"):
        store.body(batch_id(b"body 0 of 2"))


def test_blocks_of_another_genesis_are_noticed(tmp_path: Path) -> None:
    """The chain of hashes ends at the genesis that the node was given."""
    closed_store(tmp_path)
    with pytest.raises(StoreError, match=r"block 1 .* does not follow block 0"):
        LmdbLedgerStore(tmp_path, CHAIN, NODE, BlockHash(b"g" * 32))


def test_a_missing_block_is_noticed(tmp_path: Path) -> None:
    """A hole below the tip, however it came."""
    store = opened(tmp_path)
    fill(store, 5)
    with store._environment.writing() as txn:
        txn.delete((2).to_bytes(8, "big"), db=store._environment.tables["blocks"])
    store.close()
    with pytest.raises(StoreError, match="has 4 blocks, but its last one is 5"):
        opened(tmp_path)


def test_a_full_map_stops_the_store_for_good(tmp_path: Path) -> None:
    """The failed turn is not there, no later one is taken, what was durable stays readable (T30)."""
    store = opened(tmp_path, map_size=1 << 18)
    fill(store, 3)
    assert 0 < store.room() < 1 << 18
    with pytest.raises(StoreError, match="MDB_MAP_FULL"):
        store.apply([vote(prepare(4, b"x" * 32)), body(bytes(1 << 18))])
    with pytest.raises(StoreError, match="takes no more writes"):
        store.apply([vote(prepare(4, b"x" * 32))])
    assert (store.tip(), store.journal()) == (3, [])
    store.close()
    larger = opened(tmp_path)
    assert (larger.tip(), larger.journal()) == (3, [])
    larger.apply([vote(prepare(4, b"x" * 32)), body(bytes(1 << 18))])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond `size`, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_stops_the_store_for_good(tmp_path: Path) -> None:
    """P19: the first failed write is final, even when the disk recovers: a failed write is never retried as success."""
    store = opened(tmp_path)
    fill(store, 3)
    with files_of_at_most((tmp_path / "data.mdb").stat().st_size), pytest.raises(StoreError, match="failed"):
        store.apply([vote(prepare(4, b"x" * 32)), body(bytes(1 << 18))])
    with pytest.raises(StoreError, match="takes no more writes"):
        store.apply([vote(prepare(4, b"y" * 32))])
    store.close()
    again = opened(tmp_path)
    assert (again.tip(), again.journal()) == (3, [])


def test_the_memory_store_fails_as_a_disk_does() -> None:
    """The simulator's full disk: nothing of the turn, no more turns, and all that was durable after a restart."""
    store = MemoryLedgerStore(CHAIN, GENESIS)
    fill(store, 3)
    store.fail_next_apply = True
    for _ in range(2):
        with pytest.raises(StoreError):
            store.apply([vote(prepare(4, b"x" * 32))])
    again = store.reopened()
    assert (again.tip(), again.journal()) == (3, [])
    again.apply([vote(prepare(4, b"y" * 32))])
    with pytest.raises(StoreError, match="closed"):
        store.apply([])


def test_a_vote_that_another_process_wrote_is_found_in_the_same_transaction(tmp_path: Path) -> None:
    """Without the lock, two daemons: the second writer's guard is the journal on disk, not its own memory."""
    store = opened(tmp_path)
    theirs = vote(prepare(1, b"x" * 32))
    store.apply([theirs])
    stale = store._facts
    store._facts = type(stale)(stale.tip, stale.tip_hash, {}, stale.loose)  # as if it had been opened before
    with pytest.raises(StoreError, match="that this process has not written"):
        store.apply([vote(prepare(1, b"y" * 32))])
    store.close()
    assert opened(tmp_path).journal() == [theirs.record]
