"""A vault in a bucket of any S3-compatible store, through `obstore` (the extra `s3`).

The store sees sealed bytes under random-looking names. Its credentials come from where its users keep them: AWS_*
variables or an instance role. It must not keep old versions: what is erased would stay there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.vault.objects import BATCH_NAME_BYTES, CONTENT_NAME_BYTES, checked, is_content, missing, there_already

if TYPE_CHECKING:
    from obstore.store import S3Store

_TIMEOUT = "30s"
_RETRIES = 3
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9/_.-]*))?")


class BucketStore:
    """Objects under a prefix of one bucket. A write is durable when the store has answered it."""

    def __init__(self, bucket: "S3Store", prefix: str, title: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._title = title

    @staticmethod
    def at(url: str, endpoint: str, region: str) -> "BucketStore":
        """The store at s3://BUCKET/PREFIX; raises ConfigError naming what is wrong with the address."""
        match = _URL.fullmatch(url)
        if match is None:
            raise ConfigError(f"{url!r} is not s3://BUCKET/PREFIX")
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise ConfigError(f"{url}: a bucket needs the package obstore; install p2pledger[s3]") from error
        options: dict[str, Any] = {
            "region": region,
            "client_options": {"timeout": _TIMEOUT, "allow_http": _may_be_plain(endpoint)},
            "retry_config": {"max_retries": _RETRIES},
        }
        if endpoint:
            options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        return BucketStore(S3Store(match[1], **options), match[2] or "", url)

    def __repr__(self) -> str:
        return self._title

    def put(self, name: bytes, data: bytes) -> None:
        if is_content(name):
            self._write(name, checked(name, data), "overwrite")
            return
        if self.has(name):  # a store that knows no conditional write overwrites
            raise there_already(name)
        self._write(name, data, "create")

    def replace(self, name: bytes, data: bytes) -> None:
        self._write(name, checked(name, data), "overwrite")

    def get(self, name: bytes) -> bytes:
        path = self._path(name)
        with self._as_store_error():
            try:
                found = bytes(self._bucket.get(path).bytes())
            except FileNotFoundError as error:
                raise missing(name) from error
        return checked(name, found)

    def has(self, name: bytes) -> bool:
        path = self._path(name)
        with self._as_store_error():
            try:
                self._bucket.head(path)
            except FileNotFoundError:
                return False
        return True

    def delete(self, name: bytes) -> None:
        path = self._path(name)
        with self._as_store_error():
            try:
                self._bucket.delete(path)
            except FileNotFoundError:
                return

    def names(self) -> Iterator[bytes]:
        yield from self._names_under("objects", CONTENT_NAME_BYTES)
        yield from self._names_under("manifests", BATCH_NAME_BYTES)

    def _names_under(self, kind: str, size: int) -> Iterator[bytes]:
        found = []
        with self._as_store_error():
            for page in self._bucket.list(f"{self._prefix}{kind}"):
                found += [str(item["path"]).rsplit("/", 1)[-1] for item in page]
        for text in sorted(found):
            if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text):
                yield bytes.fromhex(text)

    def _write(self, name: bytes, data: bytes, mode: Any) -> None:
        from obstore.exceptions import AlreadyExistsError

        path = self._path(name)
        with self._as_store_error():
            try:
                self._bucket.put(path, data, mode=mode)
            except AlreadyExistsError as error:
                raise there_already(name) from error

    def _path(self, name: bytes) -> str:
        digits = name.hex()
        folder = f"objects/{digits[:2]}" if is_content(name) else "manifests"
        return f"{self._prefix}{folder}/{digits}"

    @contextmanager
    def _as_store_error(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(f"{self._title}: {words[:300]}") from error


def _may_be_plain(endpoint: str) -> bool:
    """Only on this machine: elsewhere everybody on the way could see and change what is stored."""
    if not endpoint.startswith("http://"):
        return False
    host = urlsplit(endpoint).hostname or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here:
        raise ConfigError(f"{endpoint!r} is not https; only a store on this machine may be reached without")
    return True
