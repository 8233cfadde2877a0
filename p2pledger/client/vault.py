"""A custodian's store of sealed records: files named by their content, in folders nobody else may enter.

    objects/<first two digits>/<SHA-256 of the sealed object>
    manifests/<batch id>          written last: a batch is there as a whole or not at all

Nothing in it is readable without the custodian's or the patient's box key. Its calls block; call them in a thread.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from p2pledger.client.files import create_private, make_private_folder, put_private, read_private, sync_folder
from p2pledger.client.records import Manifest, ManifestEntry, open_manifest, open_record
from p2pledger.client.sealing import BoxKey
from p2pledger.health.commitments import RecordProof, RecordRef, check_commitment, prove_record, record_root
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""

_FILE_BYTES_MAX = limits.FHIR_FILE_BYTES_MAX


def silent(done: int, total: int) -> None:
    """The progress callback of those who do not look."""


class Vault:
    """Sealed records under one folder, opened with one reader's box key."""

    def __init__(self, root: Path, reader: BoxKey) -> None:
        """Raises ConfigError where the folder is not ours alone."""
        self._root = root
        self._reader = reader
        for folder in (root, root / "objects", root / "manifests"):
            make_private_folder(folder)

    def __repr__(self) -> str:
        return f"Vault({self._root})"

    def put_batch(
        self, batch_id: bytes, manifest: bytes, objects: Mapping[bytes, bytes], progress: Progress = silent
    ) -> None:
        """Keep the sealed objects and then the sealed manifest, durable when this returns.

        Raises Rejected(E_DUP) where the batch is there already, StoreError where the disk does not take it. What a
        crash leaves of an unfinished batch is unreadable, unreferenced, and taken over by the next attempt.
        """
        if self.has_batch(batch_id):
            raise Rejected(Code.E_DUP, f"batch {batch_id.hex()} is in the vault already")
        folders = set()
        for done, (name, data) in enumerate(objects.items(), start=1):
            assert sha256(data) == name, "objects are named by their content"
            path = self._object(name)
            make_private_folder(path.parent)
            put_private(path, data)
            folders.add(path.parent)
            progress(done, len(objects))
        for folder in (*folders, self._root / "objects"):
            sync_folder(folder)
        try:
            create_private(self._manifest(batch_id), manifest)
        except InvalidInput as error:
            raise Rejected(Code.E_DUP, f"batch {batch_id.hex()} is in the vault already") from error

    def has_batch(self, batch_id: bytes) -> bool:
        """Whether the batch is here as a whole."""
        return self._manifest(batch_id).exists()

    def batches(self) -> Iterator[bytes]:
        """The ids of all batches, ascending."""
        for path in sorted((self._root / "manifests").iterdir()):
            if len(path.name) == 32 and not path.name.startswith("."):
                yield bytes.fromhex(path.name)

    def manifest(self, batch_id: bytes) -> Manifest:
        """What the batch holds. Raises Rejected with E_NOT_FOUND, or E_COMMIT_MISMATCH where the file was changed."""
        sealed = self.sealed_manifest(batch_id)
        try:
            return open_manifest(sealed, batch_id, self._reader)
        except InvalidInput as error:
            raise Rejected(Code.E_COMMIT_MISMATCH, f"manifest of batch {batch_id.hex()}: {error}") from error

    def sealed_manifest(self, batch_id: bytes) -> bytes:
        """The manifest as it is kept, for the patient to open. Raises Rejected(E_NOT_FOUND)."""
        try:
            return read_private(self._manifest(batch_id), _FILE_BYTES_MAX)
        except FileNotFoundError as error:
            raise Rejected(Code.E_NOT_FOUND, f"no batch {batch_id.hex()} in the vault") from error

    def open_record(self, ref: RecordRef, root: bytes | None = None) -> bytes:
        """The exact bytes that were committed to; with the batch's `root` from the chain, proven to be.

        Raises Rejected naming the record: E_NOT_FOUND, or E_COMMIT_MISMATCH where a byte of object, manifest or root
        is not what it was (F-36).
        """
        manifest = self.manifest(ref.batch_id)
        entry = _entry(manifest, ref)
        if root is not None and record_root(manifest.leaves()) != root:
            raise Rejected(
                Code.E_COMMIT_MISMATCH, f"record {ref}: its manifest does not lead to the batch's root {root.hex()}"
            )
        data = self._opened(manifest, entry, ref)
        check_commitment(ref, entry.commitment, entry.salt, entry.media_type, data)
        return data

    def _opened(self, manifest: Manifest, entry: ManifestEntry, ref: RecordRef) -> bytes:
        try:
            sealed = read_private(self._object(entry.object), _FILE_BYTES_MAX)
        except FileNotFoundError as error:
            raise Rejected(
                Code.E_NOT_FOUND, f"record {ref}: object {entry.object.hex()} is not in the vault"
            ) from error
        if sha256(sealed) != entry.object:
            raise Rejected(Code.E_COMMIT_MISMATCH, f"record {ref}: the object in the vault was changed")
        try:
            return open_record(sealed, ref, manifest, self._reader)
        except InvalidInput as error:
            raise Rejected(Code.E_COMMIT_MISMATCH, f"record {ref}: {error}") from error

    def prove(self, ref: RecordRef) -> RecordProof:
        """That the record is in its batch; raises Rejected(E_NOT_FOUND)."""
        manifest = self.manifest(ref.batch_id)
        _entry(manifest, ref)
        return prove_record(manifest.leaves(), ref.index)

    def _object(self, name: bytes) -> Path:
        digits = name.hex()
        return self._root / "objects" / digits[:2] / digits

    def _manifest(self, batch_id: bytes) -> Path:
        return self._root / "manifests" / batch_id.hex()


def _entry(manifest: Manifest, ref: RecordRef) -> ManifestEntry:
    if ref.index >= len(manifest.entries):
        raise Rejected(Code.E_NOT_FOUND, f"record {ref}: its batch has {len(manifest.entries)} records")
    return manifest.entries[ref.index]
