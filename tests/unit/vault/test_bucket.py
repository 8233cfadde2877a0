"""A vault in a bucket, against a real S3-compatible server: spoiled, refused, gone."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, ConfigError, Rejected, StoreError
from p2pledger.vault.bucket import BucketStore
from tests.s3 import BUCKET, S3, serving

DATA = b"a sealed record"
NAME = sha256(DATA)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with serving(tmp_path) as server:
        for name, value in server.credentials.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_changed_byte_is_found(s3: S3) -> None:
    """F-36: a bucket is trusted with nothing but to keep what it is given."""
    store = BucketStore.at(f"s3://{BUCKET}/vault", s3.endpoint, "us-east-1")
    store.put(NAME, DATA)
    s3.file(f"vault/objects/{NAME.hex()[:2]}/{NAME.hex()}").write_bytes(b"A" + DATA[1:])
    with pytest.raises(Rejected, match="was changed: its hash is") as refused:
        store.get(NAME)
    assert refused.value.code == Code.E_COMMIT_MISMATCH


def test_two_vaults_share_a_bucket(s3: S3) -> None:
    """One prefix does not show what lies under another, nor under one that begins like it."""
    first = BucketStore.at(f"s3://{BUCKET}/vault", s3.endpoint, "us-east-1")
    second = BucketStore.at(f"s3://{BUCKET}/vault/copies/ab", s3.endpoint, "us-east-1")
    second.put(NAME, DATA)
    assert not first.has(NAME) and list(first.names()) == [] and list(second.names()) == [NAME]


def test_a_server_that_refuses_or_is_gone_is_a_store_error(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-09: never "there is no such record"."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret altogether")
    stranger = BucketStore.at(f"s3://{BUCKET}/vault", s3.endpoint, "us-east-1")
    for use in (stranger.get, stranger.has, stranger.delete, lambda name: stranger.put(name, DATA)):
        with pytest.raises(StoreError, match=f"s3://{BUCKET}/vault: "):
            use(NAME)
    with ExitStack() as stack, pytest.raises(StoreError):
        gone = stack.enter_context(serving(s3.folder.parent / "another"))
        store = BucketStore.at(f"s3://{BUCKET}/vault", gone.endpoint, "us-east-1")
        stack.close()
        store.get(NAME)


@pytest.mark.parametrize(
    ("url", "endpoint", "words"),
    [
        ("s3:/records", "", "is not s3://BUCKET/PREFIX"),
        ("https://records", "", "is not s3://BUCKET/PREFIX"),
        ("s3://records", "http://s3.example.org", "is not https"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str, endpoint: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BucketStore.at(url, endpoint, "us-east-1")
