"""Sealed records and their manifest: what a custodian keeps, and what it hands to the patient.

A record is encrypted with a key of its own, which is sealed to the custodian and to the patient. The manifest says
what each record is and holds the salts; it is sealed to the same two. The chain sees roots and handles only.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from p2pledger.client.sealing import Algorithm, BoxKey, decrypt, encrypt, new_key, seal_to
from p2pledger.health.commitments import RecordLeaf, RecordProof, RecordRef
from p2pledger.health.vocabulary import Month, Schema
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import U64, Bytes16, Bytes32

_OBJECT_BYTES_MAX = limits.FHIR_RESOURCE_BYTES_MAX + 4096
_MANIFEST_BYTES_MAX = 1024 * limits.FHIR_ENTRIES_MAX
"""An entry is about 350 bytes."""


@dataclass(frozen=True, slots=True)
class Custodian:
    """An organisation's secrets for keeping records."""

    organisation: bytes
    box: BoxKey
    handle_key: bytes
    algorithm: Algorithm = Algorithm.XCHACHA20_POLY1305
    """What it encrypts records and manifests with; it opens both."""

    def __repr__(self) -> str:
        return f"Custodian({self.organisation.hex()})"

    @staticmethod
    def of_box_seed(organisation: bytes, box_seed: bytes) -> "Custodian":
        """From the secret of the organisation's X25519 key alone."""
        handle_key = blake2b(b"handles", key=box_seed, digest_size=32, person=b"p2pl/vault/1").digest()
        return Custodian(organisation, BoxKey(box_seed), handle_key)

    def handle(self, pid: bytes, kind: str, name: str) -> bytes:
        """The handle of a class, label or compartment of one patient: stable for us, random to everybody else."""
        return self.derived(encode(("handle", pid, kind, name)))

    def derived(self, data: bytes) -> bytes:
        """16 bytes that only we can compute."""
        return blake2b(data, key=self.handle_key, digest_size=16, person=b"p2pl/vault/1").digest()


@dataclass(frozen=True, slots=True)
class Patient:
    """To whom a batch belongs: a pid at this custodian and the patient's box key there."""

    pid: bytes
    box: bytes


class ManifestEntry(Record, frozen=True):
    """What one record is, for those who may know."""

    index: U64
    object: Bytes32
    """SHA-256 of the sealed object: its name in the vault."""
    salt: Bytes32
    commitment: Bytes32
    media_type: str
    size: U64
    resource_type: str
    resource_id: str | None
    clinical_date: str | None
    month: Month
    resource_class: str
    labels: tuple[str, ...]
    compartment: Bytes16
    encounter: str | None
    organisations: tuple[str, ...]
    """Ids of the organisations the resource refers to, as the resource writes them."""
    capsule: Bytes32 | None = None
    """SHA-256 of the key capsule: its name in the vault; None where validators hold no share of this key."""
    authors: tuple[str, ...] = ()
    """Who the resource says made it, like `Practitioner/7`."""


class SealedRecord(Record, frozen=True):
    """What a reader needs of one record, beside the shares of its key."""

    ref: RecordRef
    object: bytes
    """The sealed object."""
    capsule: bytes
    key_epoch: U64
    """Of the joint key that the capsule is sealed to; 0: a one-time secret."""
    proof: RecordProof
    salt: Bytes32
    media_type: str


def encounter_name(identifier: str) -> str:
    """What the handle of an encounter is made from, and what FHIR Consents call it."""
    return f"Encounter/{identifier}"


class ErasedEntry(Record, frozen=True):
    """What is left of an erased record: with it the others of the batch still prove, and of it nothing can be told."""

    index: U64
    leaf: Bytes32
    """Hash of its leaf: over hashes of random bytes that nobody has any more."""


class HandleName(Record, frozen=True):
    """What a handle on the chain stands for."""

    handle: Bytes16
    kind: Literal["class", "label", "compartment", "author", "encounter"]
    name: str
    """For a compartment `class` or `class/label+label`; for an encounter `Encounter/ID`."""


class Manifest(Record, frozen=True):
    """A batch as its custodian and its patient know it."""

    batch_id: Bytes16
    pid: Bytes16
    custodian: Bytes16
    author_org: Bytes16
    entries: Annotated[tuple[ManifestEntry, ...], Meta(max_length=limits.FHIR_ENTRIES_MAX)]
    handles: tuple[HandleName, ...]
    schema: Schema
    erased: Annotated[tuple[ErasedEntry, ...], Meta(max_length=limits.FHIR_ENTRIES_MAX)] = ()
    key_epoch: U64 = 0
    """Of the joint key that the capsules are sealed to; 0 where there are none."""

    def leaves(self) -> list[RecordLeaf]:
        """The leaves of the batch's tree as far as they are known: those of erased records are not."""
        handles: dict[tuple[str, str], bytes] = {(name.kind, name.name): name.handle for name in self.handles}
        return [self._leaf(entry, handles) for entry in self.entries]

    def _leaf(self, entry: ManifestEntry, handles: Mapping[tuple[str, str], bytes]) -> RecordLeaf:
        authors = sorted({handles["author", name] for name in entry.authors})
        return RecordLeaf(
            entry.index,
            entry.commitment,
            entry.capsule,
            entry.object,
            self.author_org,
            entry.month,
            (entry.compartment,),
            resource_class=handles["class", entry.resource_class],
            labels=tuple(sorted(handles["label", label] for label in entry.labels if label != "N")),
            authors=tuple(authors) or (self.author_org,),
            encounter=None if entry.encounter is None else handles["encounter", encounter_name(entry.encounter)],
        )

    def leaf_hashes(self) -> list[bytes]:
        """The hashes of all leaves in order; their root stands on the chain."""
        hashes = {leaf.index: merkle.leaf_hash(encode(leaf)) for leaf in self.leaves()}
        hashes |= {entry.index: entry.leaf for entry in self.erased}
        return [hashes[index] for index in sorted(hashes)]

    def root(self) -> bytes:
        """The root of the batch, whatever of it was erased."""
        return merkle.root_of_hashes(self.leaf_hashes())

    def prove(self, index: int) -> RecordProof:
        """That a record is in the batch. Raises Rejected as `entry` does."""
        self.entry(index)
        hashes = self.leaf_hashes()
        (leaf,) = (leaf for leaf in self.leaves() if leaf.index == index)
        return RecordProof(leaf, len(hashes), merkle.inclusion_path(hashes, index))

    def proofs(self) -> Callable[[int], RecordProof]:
        """As `prove`, for many records of one batch."""
        tree = merkle.Tree(self.leaf_hashes())
        leaves = {leaf.index: leaf for leaf in self.leaves()}
        return lambda index: RecordProof(leaves[index], tree.size, tree.path(index))

    def entry(self, index: int) -> ManifestEntry:
        """The record of this index. Raises Rejected with E_ERASED, or E_NOT_FOUND where the batch is shorter."""
        found = next((entry for entry in self.entries if entry.index == index), None)
        if found is not None:
            return found
        if any(entry.index == index for entry in self.erased):
            raise Rejected(Code.E_ERASED, f"record {self.ref(index)}: it was erased")
        size = len(self.entries) + len(self.erased)
        raise Rejected(Code.E_NOT_FOUND, f"record {self.ref(index)}: its batch has {size} records")

    def without(self, indices: Collection[int]) -> "Manifest":
        """The manifest with these records erased: their salts, keys' places and everything said of them are gone."""
        hashes = self.leaf_hashes()
        gone = [ErasedEntry(entry.index, hashes[entry.index]) for entry in self.entries if entry.index in indices]
        kept = tuple(entry for entry in self.entries if entry.index not in indices)
        named = {("compartment", entry.compartment) for entry in kept}
        said = {("class", entry.resource_class) for entry in kept}
        said |= {("label", label) for entry in kept for label in entry.labels}
        said |= {("author", author) for entry in kept for author in entry.authors}
        said |= {("encounter", encounter_name(entry.encounter)) for entry in kept if entry.encounter is not None}
        return replace(
            self,
            entries=kept,
            handles=tuple(
                one for one in self.handles if (one.kind, one.handle) in named or (one.kind, one.name) in said
            ),
            erased=tuple(sorted((*self.erased, *gone), key=lambda entry: entry.index)),
        )

    def ref(self, index: int) -> RecordRef:
        return RecordRef(self.batch_id, index)

    def compartments(self, *classes: str) -> tuple[bytes, ...]:
        """The handles of all compartments of these classes, sensitive ones too, ascending."""
        names = self.handles
        return tuple(sorted(n.handle for n in names if n.kind == "compartment" and n.name.split("/")[0] in classes))


class _Sealed(Record, frozen=True):
    """An encrypted object with its key, once for each who may open it."""

    algorithm: Algorithm
    nonce: Annotated[bytes, Meta(min_length=12, max_length=24)]
    ciphertext: bytes
    keys: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=4)]
    """Sealed boxes: the custodian's first, then the patient's."""


def _seal(data: bytes, context: bytes, readers: Sequence[bytes], algorithm: Algorithm, key: bytes) -> bytes:
    keys = tuple(seal_to(reader, key) for reader in readers)
    nonce, ciphertext = encrypt(key, data, _bound(context, algorithm, keys), algorithm)
    return encode(_Sealed(algorithm, nonce, ciphertext, keys))


def _bound(context: bytes, algorithm: Algorithm, keys: tuple[bytes, ...]) -> bytes:
    """One reader's key cannot be spoiled without the other noticing, and one cipher not be taken for the other."""
    return encode((context, algorithm, keys))


def _open(sealed: bytes, context: bytes, reader: BoxKey, bytes_max: int) -> bytes:
    parts = decode(_Sealed, sealed, bytes_max)
    for box in parts.keys:
        try:
            key = reader.open(box)
        except InvalidInput:
            continue  # sealed to the other of the two
        return _decrypted(parts, context, key)
    raise InvalidInput(f"not sealed to key {reader.public.hex()}")


def _decrypted(parts: _Sealed, context: bytes, key: bytes) -> bytes:
    bound = _bound(context, parts.algorithm, parts.keys)
    return decrypt(key, parts.nonce, parts.ciphertext, bound, parts.algorithm)


def _record_context(ref: RecordRef, pid: bytes, custodian: bytes) -> bytes:
    return encode(("p2pl/record/1", ref, pid, custodian))


def seal_record(
    data: bytes, ref: RecordRef, custodian: Custodian, patient: Patient, key: bytes | None = None
) -> tuple[bytes, bytes]:
    """(name, sealed object) of a record, for its custodian and its patient. Raises InvalidInput for a bad key.

    `key` is a fresh content key that goes into a capsule as well; without it, one is made that nobody else gets.
    """
    context = _record_context(ref, patient.pid, custodian.organisation)
    sealed = _seal(data, context, (custodian.box.public, patient.box), custodian.algorithm, key or new_key())
    return sha256(sealed), sealed


def open_record(sealed: bytes, ref: RecordRef, manifest: Manifest, reader: BoxKey) -> bytes:
    """The bytes of a record; raises InvalidInput for another reader, another record or a changed byte."""
    return _open(sealed, _record_context(ref, manifest.pid, manifest.custodian), reader, _OBJECT_BYTES_MAX)


def open_with_key(sealed: bytes, ref: RecordRef, pid: bytes, custodian: bytes, key: bytes) -> bytes:
    """The bytes of a record, with the content key from its capsule; raises InvalidInput as `open_record` does."""
    return _decrypted(decode(_Sealed, sealed, _OBJECT_BYTES_MAX), _record_context(ref, pid, custodian), key)


_MANIFEST_CONTEXT = b"p2pl/manifest/1"


def seal_manifest(manifest: Manifest, custodian: Custodian, patient: Patient) -> bytes:
    """The manifest for its custodian and its patient."""
    readers = (custodian.box.public, patient.box)
    return _seal(encode(manifest), _MANIFEST_CONTEXT + manifest.batch_id, readers, custodian.algorithm, new_key())


def open_manifest(sealed: bytes, batch_id: bytes, reader: BoxKey) -> Manifest:
    """The manifest of a batch; raises InvalidInput for another reader, another batch or a changed byte."""
    data = _open(sealed, _MANIFEST_CONTEXT + batch_id, reader, _MANIFEST_BYTES_MAX + 4096)
    return decode(Manifest, data, _MANIFEST_BYTES_MAX)
