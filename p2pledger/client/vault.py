"""A custodian's sealed records and their manifests, over any store of objects (`vault/objects.py`).

The manifest of a batch is written last: a batch is there as a whole or not at all. Nothing in it is readable without
the custodian's or the patient's box key. Its calls block; call them in a thread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from p2pledger.client.records import Manifest, ManifestEntry, SealedRecord, open_manifest, open_record
from p2pledger.client.sealing import BoxKey
from p2pledger.health.commitments import RecordProof, RecordRef, check_commitment
from p2pledger.health.release import RecordOpening
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.vault.objects import DirectoryStore, ObjectStore, Spoiled, is_content

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


def silent(done: int, total: int) -> None:
    """The progress callback of those who do not look."""


class Vault:
    """Sealed records in one store, opened with one reader's box key."""

    def __init__(self, place: Path | ObjectStore, reader: BoxKey) -> None:
        """In a folder, or in any other store. Raises ConfigError where the folder is not ours alone."""
        self.store: ObjectStore = DirectoryStore(place) if isinstance(place, Path) else place
        self._reader = reader

    def __repr__(self) -> str:
        return f"Vault({self.store})"

    def over(self, store: ObjectStore) -> "Vault":
        """The same reader's vault in another store."""
        return Vault(store, self._reader)

    def can_open(self, batch_id: bytes, sealed: bytes) -> bool:
        """Whether these bytes are a manifest of that batch, sealed to this reader, with no byte changed."""
        try:
            open_manifest(sealed, batch_id, self._reader)
        except InvalidInput:
            return False
        return True

    def put_batch(
        self, batch_id: bytes, manifest: bytes, objects: Mapping[bytes, bytes], progress: Progress = silent
    ) -> None:
        """Keep the sealed objects and then the sealed manifest, durable when this returns.

        Raises Rejected(E_DUP) where the batch is there already, StoreError where the store does not take it. What a
        crash leaves of an unfinished batch is unreadable, unreferenced, and taken over by the next attempt.
        """
        if self.has_batch(batch_id):
            raise Rejected(Code.E_DUP, f"batch {batch_id.hex()} is in the vault already")
        for done, (name, data) in enumerate(objects.items(), start=1):
            self.store.put(name, data)
            progress(done, len(objects))
        self.store.put(batch_id, manifest)

    def has_batch(self, batch_id: bytes) -> bool:
        """Whether the batch is here as a whole."""
        return self.store.has(batch_id)

    def batches(self) -> Iterator[bytes]:
        """The ids of all batches, ascending."""
        return (name for name in self.store.names() if not is_content(name))

    def manifest(self, batch_id: bytes) -> Manifest:
        """What the batch holds. Raises Rejected with E_NOT_FOUND, or E_COMMIT_MISMATCH where the file was changed."""
        sealed = self.sealed_manifest(batch_id)
        try:
            return open_manifest(sealed, batch_id, self._reader)
        except InvalidInput as error:
            raise Rejected(Code.E_COMMIT_MISMATCH, f"manifest of batch {batch_id.hex()}: {error}") from error

    def sealed_manifest(self, batch_id: bytes) -> bytes:
        """The manifest as it is kept, for the patient to open. Raises Rejected(E_NOT_FOUND)."""
        return self.store.get(batch_id)

    def open_record(self, ref: RecordRef, root: bytes | None = None) -> bytes:
        """The exact bytes that were committed to; with the batch's `root` from the chain, proven to be.

        Raises Rejected naming the record: E_NOT_FOUND, E_ERASED, or E_COMMIT_MISMATCH where a byte of object, manifest
        or root is not what it was (F-36).
        """
        manifest = self.manifest(ref.batch_id)
        entry = manifest.entry(ref.index)
        if root is not None and manifest.root() != root:
            raise Rejected(
                Code.E_COMMIT_MISMATCH, f"record {ref}: its manifest does not lead to the batch's root {root.hex()}"
            )
        data = self._opened(manifest, entry, ref)
        check_commitment(ref, entry.commitment, entry.salt, entry.media_type, data)
        return data

    def _opened(self, manifest: Manifest, entry: ManifestEntry, ref: RecordRef) -> bytes:
        sealed = self._kept(entry.object, f"record {ref}")
        try:
            return open_record(sealed, ref, manifest, self._reader)
        except InvalidInput as error:
            raise Rejected(Code.E_COMMIT_MISMATCH, f"record {ref}: {error}") from error

    def ref_of(self, name: bytes, refs: Sequence[RecordRef]) -> RecordRef:
        """To which of these records an object or capsule belongs. Raises Rejected(E_NOT_FOUND)."""
        for ref in refs:
            if name in names_of(self.manifest(ref.batch_id).entry(ref.index)):
                return ref
        raise Rejected(Code.E_NOT_FOUND, f"{name.hex()} belongs to none of {len(refs)} records")

    def wanted(self) -> list[bytes]:
        """All that must be there: the manifests, and what those name that are whole."""
        found: dict[bytes, None] = {}
        for batch_id in self.batches():
            found[batch_id] = None
            with suppress(Rejected):  # a changed one is found by whoever reads or audits it
                for entry in self.manifest(batch_id).entries:
                    found |= dict.fromkeys(names_of(entry))
        return list(found)

    def sealed_record(self, ref: RecordRef) -> SealedRecord:
        """As `sealed_records`, of one."""
        (found,) = self.sealed_records([ref])
        return found

    def sealed_records(self, refs: Sequence[RecordRef]) -> tuple[SealedRecord, ...]:
        """What a reader is given of records, in their order, each with its place in the batch's tree.

        Raises Rejected: E_NOT_FOUND, E_ERASED, E_COMMIT_MISMATCH for a changed byte, E_CAPSULE for a record whose key
        no validator has a share of.
        """
        batches = {batch_id: self.manifest(batch_id) for batch_id in {ref.batch_id for ref in refs}}
        proofs = {batch_id: manifest.proofs() for batch_id, manifest in batches.items()}
        return tuple(self._sealed(ref, batches[ref.batch_id], proofs[ref.batch_id]) for ref in refs)

    def _sealed(self, ref: RecordRef, manifest: Manifest, prove: Callable[[int], RecordProof]) -> SealedRecord:
        entry = manifest.entry(ref.index)
        if entry.capsule is None:
            raise Rejected(Code.E_CAPSULE, f"record {ref}: its key is sealed to custodian and patient only")
        return SealedRecord(
            ref=ref,
            object=self._kept(entry.object, f"record {ref}"),
            capsule=self._kept(entry.capsule, f"record {ref}: capsule"),
            key_epoch=manifest.key_epoch,
            proof=prove(ref.index),
            salt=entry.salt,
            media_type=entry.media_type,
        )

    def openings(self, batch_id: bytes) -> tuple[RecordOpening, ...]:
        """What validators are shown of all records of a batch that have capsules; raises as `sealed_records`."""
        manifest = self.manifest(batch_id)
        prove = manifest.proofs()
        return tuple(
            RecordOpening(
                manifest.batch_id,
                prove(entry.index),
                manifest.key_epoch,
                self._kept(entry.capsule, f"record {manifest.ref(entry.index)}: capsule"),
            )
            for entry in manifest.entries
            if entry.capsule is not None
        )

    def prove(self, ref: RecordRef) -> RecordProof:
        """That the record is in its batch; raises Rejected(E_NOT_FOUND, E_ERASED)."""
        return self.manifest(ref.batch_id).prove(ref.index)

    def _kept(self, name: bytes, what: str) -> bytes:
        """An object or capsule; raises Rejected naming the record it belongs to."""
        try:
            return self.store.get(name)
        except Spoiled as error:
            raise Spoiled(error.name, error.found, f"{what}: {error.detail}") from error
        except Rejected as error:
            raise Rejected(error.code, f"{what}: {error.detail}") from error


def names_of(entry: ManifestEntry) -> tuple[bytes, ...]:
    """Under which names what belongs to a record lies, its object first."""
    return (entry.object,) if entry.capsule is None else (entry.object, entry.capsule)
