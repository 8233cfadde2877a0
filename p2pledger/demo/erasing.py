"""Step 9: one record is erased at the patient's wish, and what the chain proves of the others stays."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from p2pledger.client.backup import Backups
from p2pledger.client.custody import committed_root
from p2pledger.client.erasure import EraseLetter, House, Papers, carry_out, certify, parts_of, proven_erasure
from p2pledger.client.records import Manifest
from p2pledger.demo.narrator import Narrator
from p2pledger.demo.search import files_with
from p2pledger.demo.stage import A, Stage, client_of, now_ms, refusal, when_proven
from p2pledger.health.commitments import RecordRef, check_record
from p2pledger.health.erasure_operations import EraseDecision
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code


async def erase(stage: Stage, manifest: Manifest) -> RecordRef:
    """Asked for, decided, carried out, certified; searched for before and after. The record that is gone."""
    narrator, vault, patient = stage.narrator, stage.vault(A), stage.patient[A]
    narrator.step(9, "The patient has one record erased")
    ref = next(manifest.ref(one.index) for one in manifest.entries if one.resource_class == "condition")
    home, custodian = stage.cluster.homes[A], stage.organisations[A].custodian
    chain, backups = stage.cluster.founding.chain, Backups(home / "vault-backups")
    house = House(vault, chain, custodian, backups, Papers(home / "erasures"))
    house.backups.make(vault.store, stage.folder / "tapes", now_ms())
    needles = _needles(stage, manifest, ref)
    places = [*stage.cluster.homes.values(), stage.folder / "tapes", stage.folder / "wallets"]
    before = files_with(places, needles)
    narrator.check("the record lies in the vault: sealed object and capsule", len(before) == 2, _names(before))
    letter = EraseLetter.of(patient.did, [ref])
    asked = letter.request("patient")
    hospital = stage.clients[A]
    async with AsyncExitStack() as stack:
        wallet = await client_of(stack, stage, patient.signing, A)
        await stage.submit(wallet, asked)
    opened = EraseLetter.opened(letter.sealed(custodian.box.public), custodian.box, asked)
    parts = parts_of(opened.refs, lambda batch: len(manifest.entries))
    await stage.submit(hospital, EraseDecision(asked.erase_id, "accept", None, parts, opened.salt))
    decided = await when_proven(lambda: proven_erasure(hospital, asked.erase_id))
    steps = await trio.to_thread.run_sync(lambda: list(carry_out(decided, house, patient.patient, now_ms())))
    await certify(hospital, house.papers, asked.erase_id)
    (told,) = [one.status for one in await hospital.erasures(patient.did) if one.request == asked]
    narrator.check(
        "asked for by the patient, decided and certified by the hospital, each on the chain",
        told == "erased",
        f"{len(steps)} steps; backups with it have lost their key",
    )
    after = files_with(places, needles)
    narrator.check("no byte of it is in any home, backup or wallet any more", not after, _names(after))
    await _check_the_rest(narrator, stage, manifest, ref)
    return ref


def _needles(stage: Stage, manifest: Manifest, ref: RecordRef) -> list[bytes]:
    """Whatever would show the record, or open it: plain, sealed, capsule, salt."""
    vault, entry = stage.vault(A), manifest.entry(ref.index)
    assert entry.capsule is not None, "hospital A seals with capsules"
    kept = [vault.store.get(entry.object), vault.store.get(entry.capsule), vault.open_record(ref)]
    return [entry.salt, entry.commitment, encode(entry), *(piece for data in kept for piece in _pieces(data))]


def _pieces(data: bytes) -> Iterator[bytes]:
    """24 bytes out of each 60: so much of anything that is kept is found."""
    yield from (data[start : start + 24] for start in range(0, max(1, len(data) - 24), 60))


def _names(paths: set[Path]) -> str:
    return ", ".join(sorted(f"{path.parent.name}/{path.name[:8]}…" for path in paths))


async def _check_the_rest(narrator: Narrator, stage: Stage, manifest: Manifest, gone: RecordRef) -> None:
    """The record is refused by name; every other one of its batch still proves against the chain's root."""
    vault = stage.vault(A)
    left = vault.manifest(manifest.batch_id)
    code = await refusal(trio.to_thread.run_sync(vault.open_record, gone))
    root = await committed_root(stage.clients[A], gone)
    prove = left.proofs()
    proven = [check_record(prove(entry.index), root).index for entry in left.entries]
    narrator.check(
        f"asked for it, the vault says {code.name}; its {len(proven)} siblings still prove against the chain's root",
        code == Code.E_ERASED and len(proven) == len(manifest.entries) - 1,
    )
