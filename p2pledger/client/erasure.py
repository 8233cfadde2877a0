"""Erasing at a holder: everything that could open the record is destroyed, step by step, each of them repeatable.

    letter   the patient tells its custodian, sealed, which records it means; the chain has a commitment to them
    order    what the chain has decided, as names of objects: kept before the first is deleted, since nothing says
             afterwards what they were called
    objects, capsules and what a crash of taking them in has left behind   deleted in every store
    manifest   sealed anew without the entries; what a leaf hashed to stays, so that the others of the batch prove
    backups  a new set is written and read back, then every set that has something of it loses its key and its file
    report   what was deleted where; the certificate on the chain names its hash

After a crash anywhere, doing it again ends in the same. Only one order is worked on at a time: the manifest that one
of them seals must not bring back what another one has erased. Calls block; call them in a thread.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain as chain_of
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta

from p2pledger.client.backup import Backups
from p2pledger.client.ledger import LedgerClient, Receipt
from p2pledger.client.records import Custodian, Manifest, Patient, open_record, seal_manifest
from p2pledger.client.sealing import BoxKey, seal_to
from p2pledger.client.vault import Vault, names_of
from p2pledger.health import keys
from p2pledger.health.commitments import SALT_BYTES, RecordRef, scope_commit
from p2pledger.health.directory import Organisation
from p2pledger.health.erasure import ErasedOf, Erasure, decode_erasure
from p2pledger.health.erasure_operations import Asker, EraseCertificate, ErasedPart, EraseRequest
from p2pledger.health.release import label_of
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, sha256, signed_bytes, verify
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected, StoreError, Unavailable
from p2pledger.primitives.ids import U64, Bytes16, Bytes32, ChainId, Millis, Signature
from p2pledger.storage.files import create_private, make_private_folder, read_private, sync_folder
from p2pledger.threshold.capsule import CAPSULE_BYTES_MAX, check_capsule
from p2pledger.vault.objects import ObjectStore, is_content

T = TypeVar("T")

_FILE_BYTES_MAX = 4 * 1024 * 1024
"""An order or a letter about ten thousand records is below one."""


# The letter


class EraseLetter(Record, frozen=True):
    """What the custodian is told and the chain is not."""

    erase_id: Bytes16
    pid: Bytes16
    salt: Bytes32
    refs: Annotated[tuple[RecordRef, ...], Meta(min_length=1, max_length=limits.FHIR_ENTRIES_MAX)]

    def request(self, asker: Asker) -> EraseRequest:
        """What the chain is told."""
        return EraseRequest(self.erase_id, self.pid, asker, scope_commit(self.salt, self.refs), len(self.refs))

    def sealed(self, custodian_box: bytes) -> bytes:
        """For the custodian alone."""
        return seal_to(custodian_box, encode(self))

    @staticmethod
    def of(pid: bytes, refs: Collection[RecordRef]) -> "EraseLetter":
        """A new request about these records; raises InvalidInput for none, too many, or one that is named twice."""
        named = tuple(sorted(refs, key=lambda ref: (ref.batch_id, ref.index)))
        if not 1 <= len(named) <= limits.FHIR_ENTRIES_MAX or len(set(named)) < len(named):
            raise InvalidInput(f"{len(named)} records to erase; each once, and 1 to {limits.FHIR_ENTRIES_MAX}")
        return EraseLetter(secrets.token_bytes(16), Bytes16(pid), Bytes32(secrets.token_bytes(SALT_BYTES)), named)

    @staticmethod
    def opened(sealed: bytes, box: BoxKey, asked: EraseRequest) -> "EraseLetter":
        """The letter of a request. Raises InvalidInput where it is sealed to another or is another request's."""
        letter = decode(EraseLetter, box.open(sealed), _FILE_BYTES_MAX)
        if letter.request(asked.asker) != asked:
            raise InvalidInput(f"the letter is not about the records of request {asked.erase_id.hex()}")
        return letter


def parts_of(refs: Collection[RecordRef], sizes: Callable[[bytes], int]) -> tuple[ErasedPart, ...]:
    """The records as a decision names them: a batch of which all are meant without its indices."""
    by_batch: dict[bytes, list[int]] = {}
    for ref in sorted(refs, key=lambda ref: (ref.batch_id, ref.index)):
        by_batch.setdefault(ref.batch_id, []).append(ref.index)
    return tuple(
        ErasedPart(Bytes16(batch), () if len(indices) == sizes(batch) else tuple(indices))
        for batch, indices in by_batch.items()
    )


# What the chain has decided


async def proven_erasure(ledger: LedgerClient, erase_id: bytes) -> Erasure:
    """The request as the chain proves it; members only. Nothing is destroyed because a node says so.

    Raises Unavailable where no checkpoint has it as decided yet: then a later one has.
    """
    height, data = await ledger.state(keys.erasure(erase_id))
    found = None if data is None else decode_erasure(data)
    if found is None or found.decided is None:
        raise Unavailable(
            f"erasure {erase_id.hex()} is not decided at checkpoint {height}: what is decided is proven from the next "
            "checkpoint on"
        )
    return found


async def certify(ledger: LedgerClient, papers: "Papers", erase_id: bytes) -> Receipt | None:
    """Sign the report on the chain; None where the chain has it already. Then the order goes: nobody needs it.

    Raises Rejected(E_NOT_FOUND) without a report, and what `LedgerClient.submit` raises.
    """
    report = papers.report(erase_id)
    if report is None:
        raise Rejected(Code.E_NOT_FOUND, f"no report on erasure {erase_id.hex()} here: 'erase run' comes first")
    try:
        receipt = await ledger.submit(report.certificate())
    except Refused as error:
        if error.code is not Code.E_DUP:
            raise
        receipt = None
    papers.finish(erase_id)
    return receipt


# The order


class EraseOrder(Record, frozen=True):
    """What to delete, by name. It holds no salt, no key and nothing of the record."""

    erase_id: Bytes16
    pid: Bytes16
    custodian: Bytes16
    parts: Annotated[tuple[ErasedPart, ...], Meta(min_length=1, max_length=limits.ERASED_BATCHES_MAX)]
    names: Annotated[tuple[Bytes32, ...], Meta(max_length=4 * limits.FHIR_ENTRIES_MAX)]
    """Objects and capsules, ascending."""

    @property
    def batches(self) -> tuple[bytes, ...]:
        return tuple(part.batch_id for part in self.parts)


class SignedOrder(Record, frozen=True):
    """An order for a holder of replicas, which must not delete because just anybody says so."""

    order: EraseOrder
    manifests: Annotated[tuple[tuple[Bytes16, Bytes32], ...], Meta(max_length=limits.ERASED_BATCHES_MAX)]
    """Each batch with the hash of its new sealed manifest; of others nothing is kept."""
    signature: Signature


def sign_order(order: EraseOrder, store: ObjectStore, chain: ChainId, custodian: SigningKey) -> SignedOrder:
    """The order in the custodian's name, once its own store is done."""
    there = [batch for batch in order.batches if store.has(batch)]
    manifests = tuple((Bytes16(batch), Bytes32(sha256(store.get(batch)))) for batch in there)
    signature = custodian.sign(signed_bytes(Domain.ERASE_ORDER, chain, encode((order, manifests))))
    return SignedOrder(order, manifests, signature)


async def account_of(ledger: LedgerClient, organisation: bytes) -> bytes:
    """The account key of an organisation as the chain proves it; members only. Raises Rejected(E_NOT_FOUND)."""
    height, data = await ledger.state(keys.organisation(organisation))
    if data is None:
        raise Rejected(Code.E_NOT_FOUND, f"no organisation {organisation.hex()} at checkpoint {height}")
    return decode(Organisation, data, limits.STATE_VALUE_BYTES_MAX).account


def check_order(data: bytes, chain: ChainId, account: bytes, asked: Erasure) -> SignedOrder:
    """The order of an erasure that the chain has decided. Raises InvalidInput where it is not the custodian's."""
    signed = decode(SignedOrder, data, _FILE_BYTES_MAX)
    order = signed.order
    if not verify(
        account, signed_bytes(Domain.ERASE_ORDER, chain, encode((order, signed.manifests))), signed.signature
    ):
        raise InvalidInput(f"order {order.erase_id.hex()} is not signed by account {account.hex()}")
    decided = () if asked.decided is None else asked.decided.terms.parts
    if (order.erase_id, order.custodian, order.parts) != (asked.request.erase_id, asked.custodian, decided):
        raise InvalidInput(f"order {order.erase_id.hex()} says something else than the chain")
    return signed


def make_order(vault: Vault, box: BoxKey, chain: ChainId, asked: Erasure) -> EraseOrder:
    """What a decided erasure means in the custodian's vault. Raises Rejected where the vault is spoiled."""
    assert asked.decided is not None, "an order follows a decision"
    parts, request = asked.decided.terms.parts, asked.request
    return EraseOrder(request.erase_id, request.pid, asked.custodian, parts, _names_in(vault, box, chain, parts))


def _names_in(vault: Vault, box: BoxKey, chain: ChainId, parts: Collection[ErasedPart]) -> tuple[Bytes32, ...]:
    """Everything in a vault that could open these records, ascending."""
    names: set[bytes] = set()
    referenced = {
        name for batch in vault.batches() for entry in vault.manifest(batch).entries for name in names_of(entry)
    }
    about: list[tuple[Manifest, Collection[int]]] = []
    for part in parts:
        if not vault.has_batch(part.batch_id):
            continue  # the vault was lost, and so was what it held
        manifest = vault.manifest(part.batch_id)
        indices = indices_of(part, manifest)
        about.append((manifest, indices))
        names.update(name for entry in manifest.entries if entry.index in indices for name in names_of(entry))
    names.update(_left_behind(vault.store, referenced, about, (box, chain)))
    return tuple(map(Bytes32, sorted(names)))


def indices_of(part: ErasedPart, manifest: Manifest) -> frozenset[int]:
    """Which records of a batch a part means."""
    return frozenset(part.indices or range(len(manifest.entries) + len(manifest.erased)))


def _left_behind(
    store: ObjectStore,
    referenced: Collection[bytes],
    about: Sequence[tuple[Manifest, Collection[int]]],
    opener: tuple[BoxKey, ChainId],
) -> Iterator[bytes]:
    """Objects and capsules of these records that no manifest names: a crash while a batch was taken in leaves such."""
    for name in store.names():
        if not is_content(name) or name in referenced:
            continue
        try:
            sealed = store.get(name)
        except Rejected:
            continue  # spoiled, so nobody can open it
        if any(_is_of(sealed, manifest, index, *opener) for manifest, indices in about for index in indices):
            yield name


def _is_of(sealed: bytes, manifest: Manifest, index: int, box: BoxKey, chain: ChainId) -> bool:
    """Whether this is a sealed object of the record, or a capsule with its label."""
    ref = manifest.ref(index)
    try:
        if len(sealed) <= CAPSULE_BYTES_MAX:
            check_capsule(sealed, label_of(ref, manifest.pid, manifest.custodian, chain, manifest.key_epoch))
        else:
            open_record(sealed, ref, manifest, box)
    except (InvalidInput, ProofError):
        return False
    return True


# Carrying it out


def erase_in_vault(order: EraseOrder, vault: Vault, custodian: Custodian, patient: Patient) -> Iterator[str]:
    """The custodian's own store; after each step, which is durable, its name."""
    for name in order.names:
        vault.store.delete(name)
    yield "objects"
    for part in order.parts:
        if vault.has_batch(part.batch_id):
            _seal_without(part, vault, custodian, patient)
        yield f"manifest {part.batch_id.hex()}"


def _seal_without(part: ErasedPart, vault: Vault, custodian: Custodian, patient: Patient) -> None:
    manifest = vault.manifest(part.batch_id)
    without = manifest.without(indices_of(part, manifest))
    if without != manifest:
        vault.store.replace(part.batch_id, seal_manifest(without, custodian, patient))


def erase_in_replica(signed: SignedOrder, store: ObjectStore) -> Iterator[str]:
    """A replica: objects and old manifests go; a new one that the custodian has not sent yet comes with its repair."""
    order, fresh = signed.order, dict(signed.manifests)
    for name in order.names:
        store.delete(name)
    for batch in order.batches:
        if store.has(batch) and sha256(store.get(batch)) != fresh.get(Bytes16(batch)):
            store.delete(batch)
    yield "replica"


def erase_in_backups(order: EraseOrder, store: ObjectStore, backups: Backups, now_ms: int) -> Iterator[str]:
    """A new set, then the end of every set that has something of it. Raises StoreError where it cannot be written."""
    affected = backups.affected(store, order.batches)
    if affected and not _is_newest_clean(affected, backups):
        fresh = backups.make(store, Path(affected[-1].folder), now_ms)
        yield f"new backup {fresh.set_id.hex()}"
    for one in affected:
        was_there = backups.drop(one)
        yield f"old backup {one.set_id.hex()}{'' if was_there else ', its file was not there: unreadable now'}"


def _is_newest_clean(affected: Sequence[object], backups: Backups) -> bool:
    """Whether the new set was made already, before a crash."""
    return backups.sets()[-1] not in affected


def remains(order: EraseOrder, stores: Sequence[ObjectStore]) -> list[bytes]:
    """Names of the order that still lie in one of the stores."""
    return [name for name in order.names if any(store.has(name) for store in stores)]


# After a restore


async def erased_parts(ledger: LedgerClient, batches: Collection[bytes]) -> list[ErasedPart]:
    """What of these batches is erased, as the chain proves it; members only."""
    found = []
    for batch_id in batches:
        _, data = await ledger.state(keys.erased(batch_id))
        if data is not None:
            gone = decode(ErasedOf, data, limits.STATE_VALUE_BYTES_MAX)
            indices = () if gone.is_whole else tuple(gone.indices())
            found.append(ErasedPart(Bytes16(batch_id), indices))
    return found


def recheck(house: "House", parts: Mapping[ErasedPart, Patient]) -> int:
    """Delete again what came back out of a copy or an old backup; how many objects that were. Raises as `carry_out`."""
    vault, custodian = house.vault, house.custodian
    names = [name for name in _names_in(vault, custodian.box, house.chain, parts) if vault.store.has(name)]
    for name in names:
        vault.store.delete(name)
    for part, patient in parts.items():
        _seal_without(part, vault, custodian, patient)
    return len(names)


# The papers in the home


class EraseReport(Record, frozen=True):
    """What a holder has done; the chain has its hash."""

    erase_id: Bytes16
    holder: Bytes16
    names: U64
    """Objects and capsules that were deleted."""
    steps: tuple[str, ...]
    finished_ms: Millis

    def certificate(self) -> EraseCertificate:
        """What the chain is told."""
        return EraseCertificate(self.erase_id, Bytes32(sha256(encode(self))), self.finished_ms)


class Papers:
    """Orders that are being carried out, and reports, in a folder of the home."""

    def __init__(self, root: Path) -> None:
        """Raises ConfigError where the folder is not ours alone."""
        self._root = root
        make_private_folder(root)

    def order(self, erase_id: bytes) -> EraseOrder | None:
        """The order that is being carried out, where there is one. Raises StoreError."""
        return self._read(EraseOrder, self._path(erase_id, "order"))

    def begin(self, order: EraseOrder) -> None:
        """Keep an order, durable when this returns. Raises InvalidInput while another one is not finished."""
        others = [path.stem for path in self._root.glob("*.order") if path.stem != order.erase_id.hex()]
        if others:
            raise InvalidInput(f"erasure {others[0]} is not finished here: run and certify it first")
        create_private(self._path(order.erase_id, "order"), encode(order))

    def report(self, erase_id: bytes) -> EraseReport | None:
        """The report, where it is done. Raises StoreError."""
        return self._read(EraseReport, self._path(erase_id, "report"))

    def keep(self, report: EraseReport) -> None:
        """Keep the report, durable when this returns."""
        create_private(self._path(report.erase_id, "report"), encode(report))

    def finish(self, erase_id: bytes) -> None:
        """The chain has the certificate: nobody needs the names any more."""
        with suppress(FileNotFoundError):
            self._path(erase_id, "order").unlink()
        sync_folder(self._root)

    def _path(self, erase_id: bytes, kind: str) -> Path:
        return self._root / f"{erase_id.hex()}.{kind}"

    def _read(self, kind: type[T], path: Path) -> T | None:
        try:
            return decode(kind, read_private(path, _FILE_BYTES_MAX), _FILE_BYTES_MAX)
        except FileNotFoundError:
            return None
        except InvalidInput as error:
            raise StoreError(f"{path} is damaged: {error}") from error


# All of it, for a custodian


@dataclass(frozen=True, slots=True)
class House:
    """Where a custodian keeps what an erasure ends."""

    vault: Vault
    chain: ChainId
    custodian: Custodian
    backups: Backups
    papers: Papers


def carry_out(asked: Erasure, house: House, patient: Patient, now_ms: int) -> Iterator[str]:
    """Every step of an erasure in the custodian's house up to the report; after each step, which is durable, its name.

    Raises InvalidInput while another one is not finished, Rejected, StoreError. Doing it again after a crash goes on;
    when it is done, it does nothing.
    """
    erase_id = asked.request.erase_id
    if house.papers.report(erase_id) is not None:
        return
    order = house.papers.order(erase_id)
    if order is None:
        order = make_order(house.vault, house.custodian.box, house.chain, asked)
        house.papers.begin(order)
        yield "order"
    steps = []
    in_vault = erase_in_vault(order, house.vault, house.custodian, patient)
    in_backups = erase_in_backups(order, house.vault.store, house.backups, now_ms)
    for step in chain_of(in_vault, in_backups):  # lazily: a step is done when it is named
        steps.append(step)
        yield step
    left = remains(order, [house.vault.store])
    if left:
        raise StoreError(f"{len(left)} objects of erasure {erase_id.hex()} are still there, {left[0].hex()} for one")
    holder = house.custodian.organisation
    house.papers.keep(EraseReport(erase_id, Bytes16(holder), len(order.names), tuple(steps), Millis(now_ms)))
    yield "report"
