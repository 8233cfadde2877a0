"""Where a vault's bytes lie: one small interface, and the folder of files that stands behind it by default.

    objects/<first two digits>/<name>   32 bytes: a sealed record or a capsule, named by the SHA-256 of its bytes
    manifests/<name>                    16 bytes: a sealed manifest, named by its batch

What lies here is sealed; a store can lose or spoil it, and cannot read it. Calls block: call them in a thread.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, StoreError
from p2pledger.storage.files import create_private, make_private_folder, put_private, read_private, sync_folder

CONTENT_NAME_BYTES = 32
BATCH_NAME_BYTES = 16
OBJECT_BYTES_MAX = limits.FHIR_FILE_BYTES_MAX


class ObjectStore(Protocol):
    """Bytes by name. Every method raises StoreError where the store cannot do it, InvalidInput for no name."""

    def put(self, name: bytes, data: bytes) -> None:
        """Keep it, durable when this returns. The same content again is no error, and mends what was spoiled.

        Raises Rejected with E_COMMIT_MISMATCH where `data` is not the content of that name, E_DUP for a manifest
        that is there already.
        """

    def replace(self, name: bytes, data: bytes) -> None:
        """Keep a manifest in place of the one that may be there: the old or the new one, whatever crashes."""

    def get(self, name: bytes) -> bytes:
        """The bytes. Raises Rejected with E_NOT_FOUND, or E_COMMIT_MISMATCH where the content is not the name's."""

    def has(self, name: bytes) -> bool:
        """Whether something lies there; it may be spoiled."""

    def delete(self, name: bytes) -> None:
        """Have it no longer, durable when this returns; no error where it is not there."""

    def names(self) -> Iterator[bytes]:
        """All names, those of content first, each kind ascending."""


def is_content(name: bytes) -> bool:
    """Whether it names content, not a manifest; raises InvalidInput for what is no name at all."""
    if len(name) not in (CONTENT_NAME_BYTES, BATCH_NAME_BYTES):
        raise InvalidInput(
            f"{name.hex()} names nothing in a vault: contents have {CONTENT_NAME_BYTES} bytes, "
            f"manifests {BATCH_NAME_BYTES}"
        )
    return len(name) == CONTENT_NAME_BYTES


class Spoiled(Rejected):
    """E_COMMIT_MISMATCH: not the content of that name; both hashes are there, for an alert."""

    def __init__(self, name: bytes, found: bytes, detail: str) -> None:
        super().__init__(Code.E_COMMIT_MISMATCH, detail)
        self.name = name
        self.found = found


def checked(name: bytes, data: bytes) -> bytes:
    """The bytes, if they can be those of this name; raises Spoiled."""
    if is_content(name) and sha256(data) != name:
        found = sha256(data)
        raise Spoiled(name, found, f"object {name.hex()} in the vault was changed: its hash is {found.hex()}")
    return data


def missing(name: bytes) -> Rejected:
    """That there is no such thing here."""
    what = "object" if is_content(name) else "batch"
    return Rejected(Code.E_NOT_FOUND, f"{what} {name.hex()} is not in the vault")


def there_already(name: bytes) -> Rejected:
    """That a manifest is not written twice."""
    return Rejected(Code.E_DUP, f"batch {name.hex()} is in the vault already")


class DirectoryStore:
    """Files that only their owner may read, in folders nobody else may enter.

    A file is written beside its name, synced, renamed, and the folder synced: a crash at any moment leaves it there
    as a whole or not at all. What a crash leaves beside a name goes when the name is written or deleted again.
    """

    def __init__(self, root: Path) -> None:
        """Raises ConfigError where the folder is not ours alone."""
        self._root = root
        for folder in (root, self._objects, self._manifests):
            make_private_folder(folder)

    def __repr__(self) -> str:
        return str(self._root)

    @property
    def _objects(self) -> Path:
        return self._root / "objects"

    @property
    def _manifests(self) -> Path:
        return self._root / "manifests"

    def put(self, name: bytes, data: bytes) -> None:
        path = self._path(name)
        if is_content(name):
            self._write(path, checked(name, data))
            return
        try:
            create_private(path, data)
        except InvalidInput as error:
            raise there_already(name) from error

    def replace(self, name: bytes, data: bytes) -> None:
        self._write(self._path(name), checked(name, data))

    def get(self, name: bytes) -> bytes:
        try:
            return checked(name, read_private(self._path(name), OBJECT_BYTES_MAX))
        except FileNotFoundError as error:
            raise missing(name) from error

    def has(self, name: bytes) -> bool:
        return self._path(name).exists()

    def delete(self, name: bytes) -> None:
        path = self._path(name)
        if not path.parent.exists():
            return
        self._sweep(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} cannot be deleted: {error.strerror}") from error
        sync_folder(path.parent)

    def names(self) -> Iterator[bytes]:
        for folder in sorted(self._objects.iterdir()):
            if folder.is_dir():
                yield from _names_in(folder, CONTENT_NAME_BYTES)
        yield from _names_in(self._manifests, BATCH_NAME_BYTES)

    def _write(self, path: Path, data: bytes) -> None:
        if not path.parent.exists():
            make_private_folder(path.parent)
            sync_folder(path.parent.parent)
        self._sweep(path)
        put_private(path, data)
        sync_folder(path.parent)

    def _sweep(self, path: Path) -> None:
        for left in path.parent.glob(f".{path.name}.*"):
            with suppress(OSError):
                left.unlink()

    def _path(self, name: bytes) -> Path:
        digits = name.hex()
        return self._objects / digits[:2] / digits if is_content(name) else self._manifests / digits


def _names_in(folder: Path, size: int) -> Iterator[bytes]:
    for path in sorted(folder.iterdir()):
        with suppress(ValueError):
            name = bytes.fromhex(path.name)
            if len(name) == size and path.name == name.hex():
                yield name


class MemoryStore:
    """Objects in memory, for those who have fetched some from elsewhere."""

    def __init__(self) -> None:
        self._objects: dict[bytes, bytes] = {}

    def put(self, name: bytes, data: bytes) -> None:
        if not is_content(name) and name in self._objects:
            raise there_already(name)
        self._objects[name] = checked(name, data)

    def replace(self, name: bytes, data: bytes) -> None:
        self._objects[name] = checked(name, data)

    def get(self, name: bytes) -> bytes:
        if not self.has(name):
            raise missing(name)
        return self._objects[name]

    def has(self, name: bytes) -> bool:
        is_content(name)
        return name in self._objects

    def delete(self, name: bytes) -> None:
        is_content(name)
        self._objects.pop(name, None)

    def names(self) -> Iterator[bytes]:
        return iter(sorted(self._objects, key=lambda name: (not is_content(name), name)))
