"""Backups of a vault: sealed sets, each with a key of its own, so that one can be made unreadable wherever it lies.

    vault-backups/<set>          in the home: what the set is, and its key
    <folder>/<set>.p2pb          wherever backups go: a tar inside one XChaCha20-Poly1305 stream

Who carries a set out of the house carries nothing without its key. Erasing ends every set that has something of the
record: a new one without it is written and read back, and then the old keys and the old files go. A backup of the home
itself must leave `vault-backups` out or be made with the care of a key. Calls block; call them in a thread.
"""

import os
import secrets
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO

from msgspec import Meta
from msgspec.structs import replace
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)
from nacl.exceptions import CryptoError

from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Rejected, StoreError
from p2pledger.primitives.ids import Bytes16, Bytes32, Millis
from p2pledger.storage.files import create_private, make_private_folder, read_private, sync_folder
from p2pledger.vault.objects import OBJECT_BYTES_MAX, ObjectStore, is_content

_MAGIC = b"p2pl/backup/1\n"
_HEADER_BYTES = 24
_CHUNK_BYTES = 64 * 1024
_SEALED_MORE = 17
"""Bytes that sealing adds to a chunk."""
_SET_BYTES_MAX = 64 * 1024 * 1024
"""A set's description: 50 bytes a batch, so for a million batches."""


class BackupSet(Record, frozen=True):
    """One backup: its key, where its file was put, and which manifests are in it."""

    set_id: Bytes16
    key: Bytes32
    created_ms: Millis
    folder: str
    manifests: Annotated[tuple[tuple[Bytes16, Bytes32], ...], Meta(max_length=1_000_000)]
    """Each batch with the SHA-256 of its sealed manifest then."""

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.set_id.hex()}.p2pb"

    def __repr__(self) -> str:
        return f"BackupSet({self.set_id.hex()})"


class Backups:
    """The backups of one vault."""

    def __init__(self, root: Path) -> None:
        """Raises ConfigError where the folder of keys is not ours alone."""
        self._root = root
        make_private_folder(root)

    def sets(self) -> list[BackupSet]:
        """All that have a key, the oldest first."""
        found = [self._read(path) for path in self._root.iterdir() if len(path.name) == 32]
        return sorted(found, key=lambda one: (one.created_ms, one.set_id))

    def set_of(self, set_id: bytes) -> BackupSet:
        """A set by id; raises Rejected(E_NOT_FOUND) where its key is not here."""
        try:
            return self._read(self._key(set_id))
        except FileNotFoundError as error:
            raise Rejected(Code.E_NOT_FOUND, f"no key of a backup {set_id.hex()} in {self._root}") from error

    def make(self, store: ObjectStore, folder: Path, now_ms: int) -> BackupSet:
        """A new set with everything in the store, durable and read back when this returns.

        The key is kept after the bytes that it seals: a crash leaves a file that nobody can read, or a whole set.
        Raises StoreError where folder or store do not take part.
        """
        one = BackupSet(secrets.token_bytes(16), secrets.token_bytes(32), Millis(now_ms), str(folder.absolute()), ())
        partial = one.path.with_suffix(".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in folder.glob("*.partial"):
                left.unlink()
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                one = replace(one, manifests=_write(file, one, store))
                file.flush()
                os.fsync(file.fileno())
            for _ in _members(partial, one):
                pass
            partial.replace(one.path)
            sync_folder(folder)
        except OSError as error:
            raise StoreError(f"backup {one.path} cannot be written: {error.strerror}") from error
        create_private(self._key(one.set_id), encode(one))
        return one

    def check(self, one: BackupSet) -> int:
        """How many files are in it, each whole. Raises ProofError, StoreError."""
        return sum(1 for _ in _members(one.path, one))

    def restore(self, one: BackupSet, store: ObjectStore) -> int:
        """Put a set into a store, objects before manifests; how many files. Raises ProofError, Rejected, StoreError."""
        count = 0
        for name, data in _members(one.path, one):
            if is_content(name):
                store.put(name, data)
            else:
                store.replace(name, data)
            count += 1
        return count

    def affected(self, store: ObjectStore, batches: Collection[bytes]) -> list[BackupSet]:
        """Those that hold one of these batches as it was before, by its manifest."""
        now = {batch: sha256(store.get(batch)) for batch in batches if store.has(batch)}

        def is_old(batch: bytes, manifest: bytes) -> bool:
            return batch in batches and now.get(batch) != manifest

        return [one for one in self.sets() if any(is_old(batch, manifest) for batch, manifest in one.manifests)]

    def drop(self, one: BackupSet) -> bool:
        """Have a set no longer: its key is written over and removed, then its file; whether that was there to remove.

        A copy of the file that lies elsewhere can be read by nobody any more. What a disk keeps of an overwritten
        sector is the medium's matter.
        """
        path = self._key(one.set_id)
        with suppress(FileNotFoundError):
            with path.open("r+b") as file:
                file.write(secrets.token_bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        sync_folder(self._root)
        try:
            one.path.unlink()
            sync_folder(one.path.parent)
        except OSError:
            return False
        return True

    def _read(self, path: Path) -> BackupSet:
        try:
            return decode(BackupSet, read_private(path, _SET_BYTES_MAX), _SET_BYTES_MAX)
        except InvalidInput as error:
            raise StoreError(f"{path} is damaged: {error}") from error

    def _key(self, set_id: bytes) -> Path:
        return self._root / set_id.hex()


class _Sealing:
    """What tar writes to: full chunks leave sealed, the last one says that it is the last."""

    def __init__(self, file: BinaryIO, one: BackupSet) -> None:
        self._file, self._set = file, one
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._rest = bytearray()
        file.write(_MAGIC + one.set_id + crypto_secretstream_xchacha20poly1305_init_push(self._state, one.key))

    def write(self, data: bytes) -> int:
        self._rest += data
        while len(self._rest) > _CHUNK_BYTES:
            self._push(bytes(self._rest[:_CHUNK_BYTES]), crypto_secretstream_xchacha20poly1305_TAG_MESSAGE)
            del self._rest[:_CHUNK_BYTES]
        return len(data)

    def finish(self) -> None:
        self._push(bytes(self._rest), crypto_secretstream_xchacha20poly1305_TAG_FINAL)

    def _push(self, chunk: bytes, tag: int) -> None:
        self._file.write(crypto_secretstream_xchacha20poly1305_push(self._state, chunk, self._set.set_id, tag))


class _Opening:
    """What tar reads from. Raises ProofError where a byte is another or the end is missing."""

    def __init__(self, file: BinaryIO, one: BackupSet) -> None:
        self._file, self._set = file, one
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._ready = bytearray()
        self.is_complete = False
        if file.read(len(_MAGIC) + 16) != _MAGIC + one.set_id:
            raise ProofError(f"{one.path} is not backup {one.set_id.hex()}")
        try:
            header = file.read(_HEADER_BYTES)
            crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, one.key)
        except (CryptoError, ValueError, TypeError) as error:
            raise ProofError(f"{one.path} is cut short") from error

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and not self.is_complete:
            self._ready += self._pull()
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def _pull(self) -> bytes:
        sealed = self._file.read(_CHUNK_BYTES + _SEALED_MORE)
        try:
            chunk, tag = crypto_secretstream_xchacha20poly1305_pull(self._state, sealed, self._set.set_id)
        except (CryptoError, ValueError, TypeError) as error:
            raise ProofError(f"{self._set.path} was changed or cut short") from error
        self.is_complete = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL
        return bytes(chunk)


def _write(file: BinaryIO, one: BackupSet, store: ObjectStore) -> tuple[tuple[Bytes16, Bytes32], ...]:
    """Write everything that is in the store; each manifest that was written with its hash.

    Manifests are listed before contents: of a batch that is being taken in meanwhile there is all or no manifest.
    """
    batches = [name for name in store.names() if not is_content(name)]
    sealing = _Sealing(file, one)
    manifests = []
    with tarfile.open(fileobj=sealing, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name in (*filter(is_content, store.names()), *batches):
            data = store.get(name)
            member = tarfile.TarInfo(f"{'objects' if is_content(name) else 'manifests'}/{name.hex()}")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
            if not is_content(name):
                manifests.append((Bytes16(name), Bytes32(sha256(data))))
    sealing.finish()
    return tuple(manifests)


def _members(path: Path, one: BackupSet) -> Iterator[tuple[bytes, bytes]]:
    """(name, bytes) of everything in a set, in its order; at the end it is sure that nothing is missing."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"backup {path} cannot be read: {error.strerror}") from error
    with file:
        opening = _Opening(file, one)
        try:
            with tarfile.open(fileobj=opening, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None or member.size > OBJECT_BYTES_MAX:
                        raise ProofError(f"{path}: {member.name!r} is no file of a vault")
                    yield bytes.fromhex(member.name.rpartition("/")[2]), content.read()
        except (tarfile.TarError, ValueError) as error:
            raise ProofError(f"{path} is not a backup: {error}") from error
        while opening.read(_CHUNK_BYTES):
            pass
        if file.read(1):
            raise ProofError(f"{path} goes on after its end")
