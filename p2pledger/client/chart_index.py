"""A chart's table of contents: what a reader must know of records to ask for them, and nothing that they say.

The custodian or the patient writes it and gives it away beside the consent card. It names each record with the handles
that stand in its leaf, so that a request declares exactly what the validators will compare (F-05); of names only the
class and the labels. It is nobody's proof: a wrong entry is refused by the validators, which see the leaf.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2pledger.client.records import Manifest
from p2pledger.health.commitments import RecordRef
from p2pledger.primitives.errors import InvalidInput

_FORMAT = "p2pledger/chart-index/1"
_CHARACTERS_MAX = 64 * 1024 * 1024
_REF = re.compile(r"([0-9a-f]{32})/(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One record as its leaf describes it."""

    ref: RecordRef
    resource_class: str
    """Its name; the handle is `class_handle`."""
    class_handle: bytes
    compartments: tuple[bytes, ...]
    labels: tuple[bytes, ...]
    """The handles of its sensitive labels."""
    authors: tuple[bytes, ...]
    encounter: bytes | None
    month: int


@dataclass(frozen=True, slots=True)
class ChartIndex:
    """Records of one patient at one custodian."""

    pid: bytes
    custodian: bytes
    entries: tuple[IndexEntry, ...]

    @staticmethod
    def of(manifests: Sequence[Manifest]) -> "ChartIndex":
        """Of all records of these batches that have capsules. Raises InvalidInput for batches of several charts."""
        owners = {(manifest.pid, manifest.custodian) for manifest in manifests}
        if len(owners) != 1:
            raise InvalidInput(f"{len(manifests)} batches of {len(owners)} charts; an index is of one")
        ((pid, custodian),) = owners
        return ChartIndex(pid, custodian, tuple(entry for manifest in manifests for entry in _entries(manifest)))

    def of_classes(self, *classes: str) -> "ChartIndex":
        """The part of these classes; raises InvalidInput for one without a record."""
        found = {entry.resource_class for entry in self.entries}
        missing = sorted(set(classes) - found)
        if missing:
            raise InvalidInput(f"no record of class {', '.join(missing)}; there are {', '.join(sorted(found))}")
        chosen = tuple(entry for entry in self.entries if entry.resource_class in classes)
        return ChartIndex(self.pid, self.custodian, chosen)

    def of_records(self, refs: Iterable[RecordRef]) -> "ChartIndex":
        """The part with these records; raises InvalidInput for one that is not listed."""
        by_ref = {(entry.ref.batch_id, entry.ref.index): entry for entry in self.entries}
        wanted = list(refs)
        missing = [str(ref) for ref in wanted if (ref.batch_id, ref.index) not in by_ref]
        if missing:
            raise InvalidInput(f"the index does not list record {', '.join(missing)}")
        chosen = tuple(by_ref[ref.batch_id, ref.index] for ref in wanted)
        return ChartIndex(self.pid, self.custodian, chosen)

    @property
    def refs(self) -> tuple[RecordRef, ...]:
        return tuple(entry.ref for entry in self.entries)

    def dump(self) -> str:
        """The index as JSON, always spelled the same."""
        document = {
            "format": _FORMAT,
            "pid": self.pid.hex(),
            "custodian": self.custodian.hex(),
            "records": [_written(entry) for entry in self.entries],
        }
        return json.dumps(document, indent=1) + "\n"

    @staticmethod
    def load(text: str) -> "ChartIndex":
        """The index in a text; raises InvalidInput naming what is wrong."""
        if len(text) > _CHARACTERS_MAX:
            raise InvalidInput(f"chart index of {len(text)} characters, the limit is {_CHARACTERS_MAX}")
        try:
            parts: Mapping[str, Any] = json.loads(text)
            if parts["format"] != _FORMAT:
                raise InvalidInput(f"not a chart index: format {parts['format']!r}, this version reads {_FORMAT!r}")
            entries = tuple(_read(one) for one in parts["records"])
            return ChartIndex(_handle(parts["pid"]), _handle(parts["custodian"]), entries)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"not a chart index: {error}") from error


def _entries(manifest: Manifest) -> Iterable[IndexEntry]:
    for entry, leaf in zip(manifest.entries, manifest.leaves(), strict=True):
        if leaf.capsule is None:
            continue
        assert leaf.resource_class is not None, "every leaf that is made from a manifest names its class"
        yield IndexEntry(
            ref=manifest.ref(entry.index),
            resource_class=entry.resource_class,
            class_handle=leaf.resource_class,
            compartments=leaf.compartments,
            labels=leaf.labels,
            authors=leaf.authors,
            encounter=leaf.encounter,
            month=leaf.month,
        )


def _written(entry: IndexEntry) -> dict[str, Any]:
    return {
        "record": str(entry.ref),
        "class": entry.resource_class,
        "class handle": entry.class_handle.hex(),
        "compartments": [handle.hex() for handle in entry.compartments],
        "labels": [handle.hex() for handle in entry.labels],
        "authors": [handle.hex() for handle in entry.authors],
        "encounter": None if entry.encounter is None else entry.encounter.hex(),
        "month": entry.month,
    }


def _read(parts: Mapping[str, Any]) -> IndexEntry:
    match = _REF.fullmatch(parts["record"])
    if match is None:
        raise InvalidInput(f"not a chart index: {parts['record']!r} is not BATCH/INDEX")
    month = parts["month"]
    if type(month) is not int or not isinstance(parts["class"], str):
        raise InvalidInput(f"not a chart index: record {parts['record']} of class {parts['class']!r}, month {month!r}")
    return IndexEntry(
        ref=RecordRef(bytes.fromhex(match[1]), int(match[2])),
        resource_class=parts["class"],
        class_handle=_handle(parts["class handle"]),
        compartments=_handles(parts["compartments"]),
        labels=_handles(parts["labels"]),
        authors=_handles(parts["authors"]),
        encounter=None if parts["encounter"] is None else _handle(parts["encounter"]),
        month=month,
    )


def _handles(texts: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(_handle(text) for text in texts)


def _handle(text: str) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{32}", text):
        raise InvalidInput(f"not a chart index: {text!r} is not 32 hexadecimal digits")
    return bytes.fromhex(text)
