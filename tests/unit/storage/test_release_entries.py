"""I-9: what is about to be released is written down first, counted once, and kept until the chain knows and after."""

from pathlib import Path

import pytest

from p2pledger.health.release import ReleaseEntry
from p2pledger.primitives.errors import ConfigError
from p2pledger.primitives.ids import Bytes16, Bytes32, ChainId, NodeId
from p2pledger.storage.release_entries import ReleaseEntries
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.key_release import Access

CHAIN, NODE = ChainId(b"c" * 32), NodeId(b"n" * 32)
ONE, TWO = Bytes16(b"1" * 16), Bytes16(b"2" * 16)
BATCH = Bytes16(b"b" * 16)


def entry(access: Bytes16, index: int, key_epoch: int = 1) -> ReleaseEntry:
    label = Label("record", CHAIN, Bytes16(b"o" * 16), Bytes16(b"p" * 16), BATCH, index, key_epoch)
    return ReleaseEntry(Access(access, Bytes32(b"r" * 32)), label, Bytes32(b"h" * 32))


def opened(path: Path, chain: ChainId = CHAIN) -> ReleaseEntries:
    return ReleaseEntries(path, chain, NODE, 2**24)


def test_entries_and_what_is_unreported_are_there_after_a_start(tmp_path: Path) -> None:
    entries = opened(tmp_path)
    assert entries.add([entry(ONE, 0), entry(ONE, 1), entry(TWO, 0)]) == {ONE: 2, TWO: 1}
    entries.close()
    entries = opened(tmp_path)
    assert list(entries) == [entry(ONE, 0), entry(ONE, 1), entry(TWO, 0)]
    assert entries.unreported() == {ONE: 2, TWO: 1}
    entries.close()


def test_a_reader_that_asks_again_is_counted_once(tmp_path: Path) -> None:
    """Also where it names another key epoch for the same record: no access comes to more records than it is about."""
    entries = opened(tmp_path)
    entries.add([entry(ONE, 0)])
    assert entries.add([entry(ONE, 0, 2), entry(ONE, 1)]) == {ONE: 2}
    assert len(list(entries)) == 2
    entries.close()


def test_what_the_chain_knows_is_not_owed_and_not_forgotten(tmp_path: Path) -> None:
    entries = opened(tmp_path)
    entries.add([entry(ONE, 0), entry(TWO, 0)])
    entries.add([entry(TWO, 1)])
    entries.reported({ONE: 1, TWO: 1})
    assert entries.unreported() == {TWO: 2}, "one more was written down since that report"
    entries.reported({TWO: 2})
    assert entries.unreported() == {}
    entries.add([entry(ONE, 0)])
    assert entries.unreported() == {}, "asked again, nothing new"
    assert len(list(entries)) == 3
    entries.close()


def test_the_store_of_another_chain_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(ConfigError, match="chain"):
        opened(tmp_path, ChainId(b"d" * 32))
