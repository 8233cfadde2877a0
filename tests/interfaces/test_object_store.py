"""Every store of objects keeps the same promises (F-09, F-36)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.vault.bucket import BucketStore
from p2pledger.vault.objects import DirectoryStore, MemoryStore, ObjectStore
from tests.s3 import BUCKET, serving

DATA = b"a sealed record"
NAME = sha256(DATA)
BATCH = b"b" * 16


@pytest.fixture(params=["directory", "bucket", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    if request.param == "directory":
        yield DirectoryStore(tmp_path / "vault")
    elif request.param == "memory":
        yield MemoryStore()
    else:
        with serving(tmp_path) as s3:
            for name, value in s3.credentials.items():
                monkeypatch.setenv(name, value)
            yield BucketStore.at(f"s3://{BUCKET}/some/prefix", s3.endpoint, "us-east-1")


def test_what_was_put_is_there_under_its_name(store: ObjectStore) -> None:
    """F-09: contents first, then manifests, each kind in order."""
    others = [b"another", b"", b"x" * 100_000]
    for data in (DATA, *others):
        store.put(sha256(data), data)
        assert store.get(sha256(data)) == data and store.has(sha256(data))
    store.put(BATCH, b"manifest")
    store.put(b"a" * 16, b"another manifest")
    assert list(store.names()) == [*sorted(map(sha256, (DATA, *others))), b"a" * 16, BATCH]


def test_what_is_not_there_is_said_so(store: ObjectStore) -> None:
    """F-36."""
    for name in (NAME, BATCH):
        assert not store.has(name)
        store.delete(name)
        with pytest.raises(Rejected, match=f"{name.hex()} is not in the vault") as refused:
            store.get(name)
        assert refused.value.code == Code.E_NOT_FOUND
    assert list(store.names()) == []


def test_content_is_only_taken_under_its_own_name(store: ObjectStore) -> None:
    """F-36."""
    with pytest.raises(Rejected) as refused:
        store.put(NAME, DATA + b"!")
    assert refused.value.code == Code.E_COMMIT_MISMATCH
    assert not store.has(NAME)


def test_content_can_be_put_again_and_a_manifest_only_replaced(store: ObjectStore) -> None:
    store.put(NAME, DATA)
    store.put(NAME, DATA)
    store.put(BATCH, b"first")
    with pytest.raises(Rejected, match="is in the vault already") as refused:
        store.put(BATCH, b"second")
    assert refused.value.code == Code.E_DUP
    assert store.get(BATCH) == b"first"
    store.replace(BATCH, b"second")
    assert store.get(BATCH) == b"second"


def test_what_was_deleted_is_gone(store: ObjectStore) -> None:
    store.put(NAME, DATA)
    store.put(BATCH, b"manifest")
    store.delete(NAME)
    store.delete(BATCH)
    assert not store.has(NAME) and not store.has(BATCH) and list(store.names()) == []


def test_names_have_one_of_two_lengths(store: ObjectStore) -> None:
    for use in (store.get, store.has, store.delete, lambda name: store.put(name, b"")):
        with pytest.raises(InvalidInput, match="names nothing in a vault"):
            use(b"short")
