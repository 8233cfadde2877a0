"""Mending a custodian's vault from its replicas, without what the chain says is erased (F-09, F-26).

A replica that was away when a record was erased still has it. So the manifests come first: each is held against what
the chain proves of its batch and sealed anew without the erased entries where it names some. Then comes back what these
manifests name, and nothing else: what no manifest names belongs to no record that anybody could be owed.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import trio

from p2pledger.client.custody import patient_of
from p2pledger.client.erasure import erased_parts, indices_of
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.records import Custodian, Manifest, Patient, open_manifest, seal_manifest
from p2pledger.client.vault import Vault, names_of
from p2pledger.health.erasure_operations import ErasedPart
from p2pledger.primitives.errors import Unavailable
from p2pledger.vault.objects import is_content
from p2pledger.vault.replicas import Mended, Replicas

ErasedOf = Callable[[Sequence[Manifest]], Awaitable[Sequence[tuple[ErasedPart, Patient]]]]
"""What of these batches is erased, as the chain proves it, and to whom their manifests are sealed."""


async def proven_erased(ledger: LedgerClient, manifests: Sequence[Manifest]) -> list[tuple[ErasedPart, Patient]]:
    """As the chain proves it at a checkpoint; members only. Raises what `LedgerClient.state` raises."""
    pids = {manifest.batch_id: manifest.pid for manifest in manifests}
    parts = await erased_parts(ledger, list(pids))
    return [(part, await patient_of(ledger, pids[part.batch_id])) for part in parts]


async def nothing_erased(manifests: Sequence[Manifest]) -> list[tuple[ErasedPart, Patient]]:
    """For who has no replicas: nobody is there to bring anything back."""
    return []


@dataclass(slots=True)
class Restored:
    """What came of it."""

    mended: Mended
    wanted: int
    erased: set[bytes] = field(default_factory=set)
    """Objects and capsules of erased records that somebody still has; not taken back."""
    unnamed: int = 0
    """Objects at replicas that no manifest names; not taken back."""


async def mend(
    vault: Vault, custodian: Custodian, replicas: Replicas, erased_of: ErasedOf, known: Sequence[bytes] = ()
) -> Restored:
    """Have everything in our own store and at every replica again; raises what `erased_of` does, before it writes.

    `known` is what replicas keep for us (`Replicas.known`), for who has lost batches: those among it come back, too.
    """
    batches = sorted({*await trio.to_thread.run_sync(_batches, vault), *(one for one in known if not is_content(one))})
    manifests, lost = await _manifests(replicas, custodian, batches)
    wanted: dict[bytes, None] = {}
    erased: set[bytes] = set()
    gone = {part.batch_id: (part, patient) for part, patient in await erased_of(manifests)}
    for manifest in manifests:
        kept = manifest
        if manifest.batch_id in gone:
            part, patient = gone[manifest.batch_id]
            indices = indices_of(part, manifest)
            erased |= _names(manifest, indices)
            kept = manifest.without(indices)
            if kept != manifest:
                sealed = seal_manifest(kept, custodian, patient)
                await trio.to_thread.run_sync(vault.store.replace, manifest.batch_id, sealed)
        wanted |= dict.fromkeys((kept.batch_id, *(name for entry in kept.entries for name in names_of(entry))))
    mended = await replicas.repair(wanted)
    mended.lost += lost
    contents = {name for name in known if is_content(name)}
    left = erased & contents | await trio.to_thread.run_sync(_there, vault, erased)
    return Restored(mended, len(wanted) + len(lost), left, len(contents - wanted.keys() - erased))


def _batches(vault: Vault) -> list[bytes]:
    return list(vault.batches())


def _there(vault: Vault, names: Collection[bytes]) -> set[bytes]:
    return {name for name in names if vault.store.has(name)}


async def _manifests(
    replicas: Replicas, custodian: Custodian, batches: Collection[bytes]
) -> tuple[list[Manifest], list[bytes]]:
    """(those of our own store or else of a replica, batches whose manifest is to be had nowhere)."""
    found, lost = [], []
    for batch_id in batches:
        try:
            found.append(open_manifest(await replicas.get(batch_id), batch_id, custodian.box))
        except Unavailable:
            lost.append(batch_id)
    return found, lost


def _names(manifest: Manifest, indices: Collection[int]) -> set[bytes]:
    return {name for entry in manifest.entries if entry.index in indices for name in names_of(entry)}
