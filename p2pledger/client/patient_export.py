"""All that a custodian keeps about a patient, in the clear and with proofs, without anybody's leave (F-12, F-44).

The records were sealed to the patient's own box key when they were taken in: neither validators nor capsules have a
part in this. Of the custodian it needs the sealed bytes and nothing else: its vault, or a copy of a part of it
(`hand_over`). The export is a folder:

    records/<type>.ndjson    the resources, one a line        proofs.json       what leads from them to the genesis
    access-log.json          every line, with its proof       verify.py         checks all of it without our software
    SHA256SUMS

NDJSON has no place for line breaks inside a resource; where they stood is in the proofs, since the commitment is to the
exact bytes. Erased records are listed without their content.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import trio

from p2pledger.client.export import read_export
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.records import Manifest, open_manifest
from p2pledger.client.sealing import BoxKey
from p2pledger.client.vault import Progress, Vault, silent
from p2pledger.health import keys
from p2pledger.health.records import Batch
from p2pledger.network.api import StateReply
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Rejected, Unavailable
from p2pledger.storage.files import create_private, make_private_folder
from p2pledger.vault.objects import ObjectStore, is_content

FORMAT = "p2pledger/patient-export/1"
_BREAKS = re.compile(rb"[\r\n]+")


@dataclass(frozen=True, slots=True)
class OwnBatch:
    """A batch that was sealed to us, opened."""

    manifest: Manifest
    data: Mapping[int, bytes] = field(repr=False)
    """Index to exact bytes."""
    absent: Mapping[int, str] = field(default_factory=dict)
    """Index to why the record is not there."""


def own_batches(store: ObjectStore, pid: bytes, boxes: Sequence[BoxKey], progress: Progress = silent) -> list[OwnBatch]:
    """What of a store was sealed to one of these keys for this patient. Blocks: call it in a thread.

    Raises Rejected(E_COMMIT_MISMATCH) naming the record of which a byte was changed.
    """
    names = [name for name in store.names() if not is_content(name)]
    found = []
    for done, name in enumerate(names, start=1):
        for box in boxes:
            manifest = _own_manifest(store, name, box)
            if manifest is not None and manifest.pid == pid:
                found.append(_opened(Vault(store, box), manifest))
                break
        progress(done, len(names))
    return found


def _own_manifest(store: ObjectStore, name: bytes, box: BoxKey) -> Manifest | None:
    try:
        return open_manifest(store.get(name), name, box)
    except InvalidInput:
        return None  # another patient's


def _opened(vault: Vault, manifest: Manifest) -> OwnBatch:
    data: dict[int, bytes] = {}
    absent: dict[int, str] = {gone.index: Code.E_ERASED.name for gone in manifest.erased}
    for entry in manifest.entries:
        try:
            data[entry.index] = vault.open_record(manifest.ref(entry.index))
        except Rejected as error:
            if error.code not in (Code.E_NOT_FOUND, Code.E_ERASED):
                raise
            absent[entry.index] = error.code.name
    return OwnBatch(manifest, data, absent)


def hand_over(vault: Vault, pid: bytes, target: ObjectStore) -> int:
    """Copy what is sealed of one patient, still sealed, into another store; how many records. For custodians.

    Capsules stay: they are for readers, and the patient needs none. Blocks: call it in a thread.
    """
    records = 0
    for batch_id in vault.batches():
        manifest = vault.manifest(batch_id)
        if manifest.pid != pid:
            continue
        for entry in manifest.entries:
            if vault.store.has(entry.object):
                target.put(entry.object, vault.store.get(entry.object))
                records += 1
        target.put(batch_id, vault.sealed_manifest(batch_id))
    return records


async def write_export(ledger: LedgerClient, folder: Path, pid: bytes, batches: Sequence[OwnBatch]) -> int:
    """Write the export into a new folder, as its patient; how many records.

    Raises Unavailable where the last checkpoint does not have a batch yet, ProofError where the chain says something
    else about one, InvalidInput where something lies in the folder already.
    """
    proofs = [(batch, await _proof(ledger, batch)) for batch in batches]
    log = read_export(await ledger.export_log(pid))
    content = _Content(pid, ledger.founding.chain)
    for batch, reply in proofs:
        content.add(batch, reply)
    content.files["proofs.json"] = _dump(content.proofs(log.genesis))
    content.files["access-log.json"] = _dump(
        {
            "format": FORMAT,
            "pid": pid.hex(),
            "height": log.height,
            "lines": [line.hex() for line in log.lines],
            "releases": [report.hex() for report in log.releases],
            "head": None if log.head is None else log.head.hex(),
            "state": encode(log.proof).hex(),
            "anchor": encode(log.anchor).hex(),
        }
    )
    content.files["verify.py"] = (files("p2pledger.client") / "standalone_verify.py").read_bytes()
    await trio.to_thread.run_sync(_write, folder, content.files)
    return sum(len(batch.data) for batch in batches)


async def _proof(ledger: LedgerClient, batch: OwnBatch) -> StateReply:
    manifest = batch.manifest
    reply = await ledger.proven(keys.batch(manifest.batch_id))
    if reply.value is None:
        raise Unavailable(f"checkpoint {reply.height} has no batch {manifest.batch_id.hex()} yet; try again later")
    terms = decode(Batch, reply.value, limits.STATE_VALUE_BYTES_MAX).terms
    if (terms.root, terms.pid) != (manifest.root(), manifest.pid):
        raise ProofError(f"batch {manifest.batch_id.hex()}: its manifest does not lead to the chain's root")
    return reply


class _Content:
    """The files of an export, as they come together."""

    def __init__(self, pid: bytes, chain: bytes) -> None:
        self.files: dict[str, bytes] = {}
        self._pid, self._chain = pid, chain
        self._batches: list[dict[str, Any]] = []
        self._lines: dict[str, int] = {}

    def add(self, batch: OwnBatch, reply: StateReply) -> None:
        assert reply.value is not None, "only a batch that the chain has is added"
        self._batches.append(
            {
                "batch": batch.manifest.batch_id.hex(),
                "height": reply.height,
                "value": reply.value.hex(),
                "state": encode(reply.proof).hex(),
                "anchor": encode(reply.anchor).hex(),
                "records": list(self._records(batch)),
                "absent": [{"index": index, "reason": why} for index, why in sorted(batch.absent.items())],
            }
        )

    def proofs(self, genesis: bytes) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "chain": self._chain.hex(),
            "pid": self._pid.hex(),
            "genesis": genesis.hex(),
            "batches": self._batches,
        }

    def _records(self, batch: OwnBatch) -> Iterator[dict[str, Any]]:
        prove = batch.manifest.proofs()
        for entry in batch.manifest.entries:
            if entry.index not in batch.data:
                continue
            data = batch.data[entry.index]
            if entry.media_type.endswith("json"):
                name, breaks = f"records/{entry.resource_type}.ndjson", _breaks(data)
                self.files[name] = self.files.get(name, b"") + _BREAKS.sub(b"", data) + b"\n"
            else:
                name, breaks = f"records/{batch.manifest.batch_id.hex()}-{entry.index}.bin", []
                self.files[name] = data
            self._lines[name] = self._lines.get(name, 0) + 1
            proof = prove(entry.index)
            yield {
                "index": entry.index,
                "file": name,
                "line": self._lines[name],
                "breaks": breaks,
                "media_type": entry.media_type,
                "salt": entry.salt.hex(),
                "leaf": encode(proof.leaf).hex(),
                "path": [one.hex() for one in proof.path],
            }


def _breaks(data: bytes) -> list[list[int | str]]:
    return [[found.start(), found[0].hex()] for found in _BREAKS.finditer(data)]


def _dump(document: object) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    make_private_folder(folder)
    if any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: an export gets a folder of its own")
    make_private_folder(folder / "records")
    for name, data in contents.items():
        create_private(folder / name, data)
    sums = "".join(f"{sha256(contents[name]).hex()}  {name}\n" for name in sorted(contents))
    create_private(folder / "SHA256SUMS", sums.encode())
