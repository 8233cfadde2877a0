"""Full disks (T30): the first failed commit is final, what was acknowledged is still there, and space heals it."""

import subprocess
import sys
from pathlib import Path

import pytest

from p2pledger.chain.block import Header
from p2pledger.primitives.errors import StoreError
from p2pledger.storage.ledger import LmdbLedgerStore
from tests.interfaces.chains import CHAIN, GENESIS, NODE, chain_of, commit_of, header
from tests.system.conftest import sh

pytestmark = pytest.mark.system
MAP_SIZE = 1 << 30
BODY = bytes(100_000)


def opened(disk: Path) -> LmdbLedgerStore:
    return LmdbLedgerStore(disk / "ledger", CHAIN, NODE, GENESIS, MAP_SIZE)


def blocks_with_bodies(length: int) -> list[tuple[Header, list[bytes]]]:
    """A chain whose blocks weigh 100 kB each."""
    blocks, parent = [], GENESIS
    for height in range(1, length + 1):
        bodies = [height.to_bytes(4, "big") + BODY]
        block = header(height, parent, bodies)
        blocks.append((block, bodies))
        parent = block.hash
    return blocks


def fill_up(store: LmdbLedgerStore, blocks: list[tuple[Header, list[bytes]]]) -> int:
    """Append until the disk is full; the number of acknowledged blocks."""
    for number, (block, bodies) in enumerate(blocks):
        try:
            store.apply(commit_of(block, bodies))
        except StoreError:
            return number
    raise AssertionError("the disk never became full")


def test_a_full_disk_fails_closed_and_keeps_what_was_acknowledged(small_disk: Path) -> None:
    """No write after the first failure, though space came back; after reopening everything acknowledged is there."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3_000_000))
    blocks = blocks_with_bodies(100)
    store = opened(small_disk)
    acknowledged = fill_up(store, blocks)
    assert acknowledged > 10
    ballast.unlink()
    with pytest.raises(StoreError, match="no more writes"):
        store.apply(commit_of(*blocks[acknowledged]))
    assert store.tip() == acknowledged
    store.close()

    again = opened(small_disk)
    assert again.tip() == acknowledged
    for block, bodies in blocks[:acknowledged]:
        record = again.block(block.height)
        assert record is not None and record.header == block
        assert [again.body(batch) for batch in block.batches] == bodies
    again.apply(commit_of(*blocks[acknowledged]))
    assert again.tip() == acknowledged + 1
    again.close()


def test_a_store_on_a_disk_that_is_still_full_can_be_read(small_disk: Path) -> None:
    """Reopening needs no space: an operator can look before making room."""
    blocks = blocks_with_bodies(200)
    store = opened(small_disk)
    acknowledged = fill_up(store, blocks)
    store.close()
    again = opened(small_disk)
    assert again.tip() == acknowledged
    with pytest.raises(StoreError):
        again.apply(commit_of(*blocks[acknowledged]))
    again.close()


_READERS = """
import sys
from pathlib import Path
from tests.system.test_disk import blocks_with_bodies, fill_up, opened
store = opened(Path(sys.argv[1]))
fill_up(store, blocks_with_bodies(200))
with open(Path(sys.argv[1]) / "rest", "wb", buffering=0) as rest:
    try:
        while True:
            rest.write(bytes(512))
    except OSError:
        pass
held = [store._environment.snapshot() for _ in range(512)]
print(len(held))
"""


def test_many_readers_on_a_full_disk_do_not_kill_the_process(small_disk: Path) -> None:
    """LMDB maps its table of readers from a sparse file: on a full disk a new page of it could end in SIGBUS."""
    done = subprocess.run(
        [sys.executable, "-c", _READERS, str(small_disk)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "512"), f"status {done.returncode}: {done.stderr[-500:]}"


def test_a_disk_that_became_read_only_is_a_store_error(small_disk: Path) -> None:
    """EROFS: refused when opening, and nothing is lost once it can be written again."""
    store = opened(small_disk)
    blocks = chain_of(2)
    store.apply(commit_of(*blocks[0]))
    store.close()
    sh("mount", "-o", "remount,ro", str(small_disk))
    with pytest.raises(StoreError):
        opened(small_disk)
    sh("mount", "-o", "remount,rw", str(small_disk))
    again = opened(small_disk)
    assert again.tip() == 1
    again.close()
