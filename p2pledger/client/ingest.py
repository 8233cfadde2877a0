"""From a FHIR file to a batch: all of its records sealed and committed to, or nothing at all (F-35).

Everything that can be wrong with the file is found before anything is kept: preparing changes nothing,
`Vault.put_batch` keeps, and the RecordBatch is submitted after that, so that the chain never commits to records
that nobody holds. After a crash in between, `batch_operation` of the kept manifest gives the same RecordBatch again.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from p2pledger.client.records import (
    Custodian,
    HandleName,
    Manifest,
    ManifestEntry,
    Patient,
    encounter_name,
    seal_manifest,
    seal_record,
)
from p2pledger.client.sealing import new_key
from p2pledger.client.vault import Progress, silent
from p2pledger.fhir.compartments import Label, class_of, labels_of, restricted
from p2pledger.fhir.resources import (
    author_references,
    clinical_date,
    encounter_reference,
    local_id,
    month_of,
    organisation_references,
    patient_reference,
    references,
)
from p2pledger.fhir.spans import Extracted, extract_bundle, extract_ndjson
from p2pledger.health.commitments import AUTHORS_MAX, FHIR_JSON, SALT_BYTES, RecordRef, commit
from p2pledger.health.deposits import DepositTable
from p2pledger.health.operations import CompartmentCount, RecordBatch
from p2pledger.health.release import label_of
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import ChainId
from p2pledger.threshold.key_release import KeyRelease
from p2pledger.threshold.long_term import JointKey, LongTerm
from p2pledger.threshold.one_time import ONE_TIME_EPOCH

_BUNDLE_SCHEMA, _NDJSON_SCHEMA = 1, 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is ready to be kept and submitted."""

    operation: RecordBatch
    manifest: Manifest
    sealed_manifest: bytes
    objects: Mapping[bytes, bytes]
    """Name to sealed object or capsule; each record has an object, and unless its origin makes none a capsule."""


class Capsules:
    """Seals content keys to the validators together, so that whom the chain allows can be given them."""

    def __init__(self, release: KeyRelease, key_epoch: int, chain: ChainId) -> None:
        self.key_epoch, self.chain = key_epoch, chain
        self._release = release

    @staticmethod
    def to_key(key: JointKey, chain: ChainId) -> "Capsules":
        """To a joint key. Raises InvalidInput where it has a commitment that is no point."""
        return Capsules(LongTerm(key), key.key_epoch, chain)

    @staticmethod
    def one_time(table: DepositTable, chain: ChainId) -> "Capsules":
        """To the deposit keys of a table, each record by itself. Raises InvalidInput where too few stand in it."""
        return Capsules(table.release, ONE_TIME_EPOCH, chain)

    @property
    def is_one_time(self) -> bool:
        """Whether nobody can be given anything before the validators have acknowledged their shares."""
        return self.key_epoch == ONE_TIME_EPOCH

    def seal(self, content_key: bytes, ref: RecordRef, pid: bytes, custodian: bytes) -> bytes:
        """The capsule of the key of this record, and of no other."""
        label = label_of(ref, pid, custodian, self.chain, self.key_epoch)
        return self._release.wrap(content_key, label, secrets.token_bytes)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the records of a batch come from."""

    custodian: Custodian
    author_org: bytes | None = None
    """None: the custodian itself."""
    received: datetime | None = None
    """Undated records count for this month; None: now."""
    capsules: Capsules | None = None
    """None: nobody but custodian and patient can ever be given these records' keys."""

    @property
    def month(self) -> int:
        received = self.received or datetime.now(UTC)
        return received.year * 100 + received.month

    def capsule_of(self, key: bytes, ref: RecordRef, pid: bytes) -> bytes | None:
        """The capsule of a record's content key, where its origin makes any."""
        if self.capsules is None:
            return None
        return self.capsules.seal(key, ref, pid, self.custodian.organisation)


def prepare_bundle(data: bytes, origin: Origin, patient: Patient, progress: Progress = silent) -> Prepared:
    """A Bundle about one patient as one batch; every entry becomes a record, shared ones like Organization too.

    The same bytes for the same patient give the same batch id, so that taking a file in twice ends in E_DUP.
    Raises Rejected(E_FHIR_INVALID) naming the entry and the rule.
    """
    items = extract_bundle(data)
    _check_one_patient(items)
    return _prepare(items, origin, patient, (data, _BUNDLE_SCHEMA), progress)


def prepare_ndjson(
    files: Sequence[bytes], origin: Origin, find: Callable[[str], Patient | None], progress: Progress = silent
) -> dict[str, Prepared]:
    """Bulk export files as one batch per patient, by the patients' FHIR ids.

    `find` names the pid and box key of a FHIR patient id, None for one who is not to be taken in. Resources about
    nobody (organisations, practitioners, locations) belong to no patient's batch and are left out.
    Raises Rejected(E_FHIR_INVALID) naming the file, the line and the rule.
    """
    by_patient: dict[str, list[Extracted]] = {}
    for number, data in enumerate(files):
        try:
            items = extract_ndjson(data)
        except Rejected as error:
            raise Rejected(error.code, f"file {number}, {error.detail}") from error
        for item in items:
            about = patient_reference(item.resource)
            if about is not None:
                by_patient.setdefault(about, []).append(item)
    batches = {}
    total = sum(len(items) for items in by_patient.values())
    done = 0
    for about, items in by_patient.items():
        patient = find(about)
        if patient is not None:
            source = b"\n".join(item.data for item in items)
            batches[about] = _prepare(items, origin, patient, (source, _NDJSON_SCHEMA), silent)
        done += len(items)
        progress(done, total)
    return batches


def _check_one_patient(items: Sequence[Extracted]) -> None:
    patients = [item for item in items if item.resource_type == "Patient"]
    if len(patients) != 1:
        raise Rejected(Code.E_FHIR_INVALID, f"bundle: {len(patients)} Patient resources, one batch is about one")
    patient = patients[0]
    names = {patient.resource.get("id")}
    if patient.full_url is not None:
        names.add(local_id(patient.full_url))
    for item in items:
        about = patient_reference(item.resource)
        if about is not None and about not in names:
            raise Rejected(Code.E_FHIR_INVALID, f"entry {item.index}: it is about another patient than the bundle")


def _prepare(
    items: Sequence[Extracted], origin: Origin, patient: Patient, source: tuple[bytes, int], progress: Progress
) -> Prepared:
    custodian = origin.custodian
    if len(items) > limits.FHIR_ENTRIES_MAX:
        raise Rejected(Code.E_FHIR_INVALID, f"{len(items)} records, the limit is {limits.FHIR_ENTRIES_MAX}")
    batch_id = custodian.derived(b"batch" + patient.pid + sha256(source[0]))
    handles: dict[tuple[str, str], HandleName] = {}

    def handle(kind: str, name: str) -> bytes:
        if (kind, name) not in handles:
            handles[kind, name] = HandleName(custodian.handle(patient.pid, kind, name), kind, name)  # type: ignore[arg-type]
        return handles[kind, name].handle

    chart = _Chart.of(items)
    entries: list[ManifestEntry] = []
    objects: dict[bytes, bytes] = {}
    for index, item in enumerate(items):
        about = _read(item, chart, origin)
        ref, key = RecordRef(batch_id, index), new_key()
        name, sealed = seal_record(item.data, ref, custodian, patient, key)
        objects[name] = sealed
        capsule = origin.capsule_of(key, ref, patient.pid)
        if capsule is not None:
            objects[sha256(capsule)] = capsule
        salt = secrets.token_bytes(SALT_BYTES)
        for label in about.labels:
            handle("label", label)
        handle("class", about.resource_class)
        for author in about.authors:
            handle("author", author)
        if about.encounter is not None:
            handle("encounter", encounter_name(about.encounter))
        entries.append(
            ManifestEntry(
                index=index,
                object=name,
                salt=salt,
                commitment=commit(salt, FHIR_JSON, item.data),
                media_type=FHIR_JSON,
                size=len(item.data),
                resource_type=item.resource_type,
                resource_id=about.resource_id,
                clinical_date=about.date,
                month=about.month,
                resource_class=about.resource_class,
                labels=about.labels,
                compartment=handle("compartment", compartment_name(about.resource_class, about.labels)),
                encounter=about.encounter,
                organisations=organisation_references(item.resource),
                capsule=None if capsule is None else sha256(capsule),
                authors=about.authors,
            )
        )
        progress(index + 1, len(items))
    author_org = origin.author_org or custodian.organisation
    manifest = Manifest(
        batch_id=batch_id,
        pid=patient.pid,
        custodian=custodian.organisation,
        author_org=author_org,
        entries=tuple(entries),
        handles=tuple(handles.values()),
        schema=source[1],
        key_epoch=0 if origin.capsules is None else origin.capsules.key_epoch,
    )
    return Prepared(batch_operation(manifest), manifest, seal_manifest(manifest, custodian, patient), objects)


def compartment_name(resource_class: str, labels: Sequence[str]) -> str:
    """`class` for what is not sensitive, `class/label+label` for what is."""
    sensitive = [label for label in labels if label != "N"]
    return f"{resource_class}/{'+'.join(sensitive)}" if sensitive else resource_class


@dataclass(frozen=True, slots=True)
class _Facts:
    resource_id: str | None
    date: str | None
    month: int
    resource_class: str
    labels: tuple[Label, ...]
    authors: tuple[str, ...]
    encounter: str | None


@dataclass(frozen=True, slots=True)
class _Chart:
    """What the other resources of a file say about one."""

    conditions: Mapping[str, tuple[Label, ...]]
    """Labels of the sensitive conditions by their ids."""
    types: Mapping[str, str]

    @staticmethod
    def of(items: Sequence[Extracted]) -> "_Chart":
        return _Chart(_labels_of_conditions(items), _types_of(items))


def _read(item: Extracted, chart: _Chart, origin: Origin) -> _Facts:
    try:
        date = clinical_date(item.resource)
        month = origin.month if date is None else month_of(date)
    except Rejected as error:
        raise Rejected(error.code, f"entry {item.index}: {error.detail}") from error
    labels: set[Label] = set(labels_of(item.resource))
    for reference in references(item.resource):
        labels.update(chart.conditions.get(reference, ()))
    own = item.resource.get("id")
    return _Facts(
        resource_id=own if isinstance(own, str) else None,
        date=date,
        month=month,
        resource_class=class_of(item.resource),
        labels=restricted(labels),
        authors=_authors(item, chart.types),
        encounter=encounter_reference(item.resource),
    )


def _authors(item: Extracted, types: Mapping[str, str]) -> tuple[str, ...]:
    found = author_references(item.resource, types)
    if len(found) > AUTHORS_MAX:
        raise Rejected(Code.E_FHIR_INVALID, f"entry {item.index}: {len(found)} authors, the limit is {AUTHORS_MAX}")
    return found


def _types_of(items: Sequence[Extracted]) -> dict[str, str]:
    """Of what type the resources with these ids are: a reference by `urn:uuid:` does not say."""
    types = {}
    for item in items:
        for name in (item.resource.get("id"), item.full_url and local_id(item.full_url)):
            if isinstance(name, str):
                types[name] = item.resource_type
    return types


def _labels_of_conditions(items: Sequence[Extracted]) -> dict[str, tuple[Label, ...]]:
    """Labels of the sensitive conditions by their ids: a bill or a plan for one is as sensitive as the condition."""
    found: dict[str, tuple[Label, ...]] = {}
    for item in items:
        if item.resource_type != "Condition":
            continue
        labels = labels_of(item.resource)
        own = item.resource.get("id")
        for name in (own, item.full_url and local_id(item.full_url)):
            if isinstance(name, str) and "R" in labels:
                found[name] = labels
    return found


def batch_operation(manifest: Manifest) -> RecordBatch:
    """What the chain is told about a batch: handles, counts, months and the root.

    Raises Rejected(E_ERASED) for a batch of which something was erased: the chain has it, and it is not taken in again.
    """
    if manifest.erased:
        raise Rejected(
            Code.E_ERASED, f"batch {manifest.batch_id.hex()}: {len(manifest.erased)} records of it were erased"
        )
    counts = Counter(entry.compartment for entry in manifest.entries)
    months = [entry.month for entry in manifest.entries]

    def handles(kind: str) -> tuple[bytes, ...]:
        return tuple(sorted(name.handle for name in manifest.handles if name.kind == kind))

    if len(counts) > 256:
        raise InvalidInput(f"{len(counts)} compartments in one batch, the limit is 256: split the file")
    return RecordBatch(
        batch_id=manifest.batch_id,
        pid=manifest.pid,
        custodian=manifest.custodian,
        author_org=manifest.author_org,
        n=len(manifest.entries),
        root=manifest.root(),
        compartments=tuple(CompartmentCount(handle, counts[handle]) for handle in sorted(counts)),
        classes=handles("class"),
        labels=handles("label"),
        months=(min(months), max(months)),
        schema=manifest.schema,
    )
