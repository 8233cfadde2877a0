"""F-09, F-26: a vault is mended from its replicas, and what the chain says is erased stays away."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from p2pledger.client.records import Manifest, Patient
from p2pledger.client.restoring import mend
from p2pledger.client.vault import Vault, names_of
from p2pledger.health import erasure
from p2pledger.health.erasure_operations import ErasedPart
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Unavailable
from tests.unit.client.test_erasure import CUSTODIAN, GONE, WHO, Case, case, check_erased, prepared
from tests.unit.vault.stage import Holder, replicas

__all__ = ["case", "prepared"]
OBJECTS = 2 * 182


@pytest.fixture
def see(tmp_path: Path, case: Case) -> Holder:
    """A replica with all of the chart, as it was before anything was erased."""
    made = Holder("See", tmp_path)
    for name, sealed in case.prepared.objects.items():
        made.store().put(name, sealed)
    made.store().put(case.batch_id, case.prepared.sealed_manifest)
    return made


def of_chain(case: Case):
    """What the state of the chain says, as its proofs would."""

    async def erased_of(manifests: Sequence[Manifest]) -> list[tuple[ErasedPart, Patient]]:
        found = ((one.batch_id, erasure.erased_of(one.batch_id, case.world.state)) for one in manifests)
        return [
            (ErasedPart(batch, () if gone.is_whole else tuple(gone.indices())), WHO)
            for batch, gone in found
            if gone != erasure.NOTHING
        ]

    return erased_of


async def restored(case: Case, see: Holder, *, is_lost: bool = True):
    vault = case.house.vault
    async with see.up():
        copies = replicas(vault.store, see, copies=1, check=vault.can_open)
        return await mend(vault, CUSTODIAN, copies, of_chain(case), await copies.known() if is_lost else ())


async def test_a_lost_vault_comes_back_without_what_was_erased(case: Case, see: Holder, tmp_path: Path) -> None:
    """The replica was away when it was erased, and still has all of it; afterwards it has our manifest."""
    case.run(case.decide(*GONE))
    (case.root / "vault").rename(tmp_path / "lost")
    see.store().put(sha256(b"of no manifest"), b"of no manifest")
    done = await restored(case, see)
    assert (done.mended.restored, done.mended.lost, done.unnamed) == (OBJECTS - 2 * len(GONE), [], 1)
    assert done.erased == {name for at in GONE for name in names_of(case.prepared.manifest.entries[at])}
    check_erased(case, *GONE)
    assert see.store().get(case.batch_id) == case.house.vault.sealed_manifest(case.batch_id)


async def test_an_old_manifest_of_our_own_brings_nothing_back(case: Case, see: Holder) -> None:
    """As out of an old backup: it names what is erased, and the replica has it."""
    case.run(case.decide(*GONE))
    case.house.vault.store.replace(case.batch_id, case.prepared.sealed_manifest)
    done = await restored(case, see, is_lost=False)
    assert (done.mended.restored, done.wanted) == (0, OBJECTS - 2 * len(GONE) + 1)
    check_erased(case, *GONE)


async def test_of_a_batch_that_is_erased_as_a_whole_the_manifest_of_hashes_comes_back(
    case: Case, see: Holder, tmp_path: Path
) -> None:
    case.run(case.decide())
    (case.root / "vault").rename(tmp_path / "lost")
    done = await restored(case, see)
    assert (done.mended.restored, done.wanted, len(done.erased)) == (0, 1, OBJECTS)
    manifest = case.house.vault.manifest(case.batch_id)
    assert manifest.entries == () and manifest.root() == case.prepared.operation.root


async def test_nothing_is_written_before_the_chain_has_said_what_is_erased(
    case: Case, see: Holder, tmp_path: Path
) -> None:
    """Without a node there is no proof, and so no restore."""

    async def silent(manifests: Sequence[Manifest]) -> list[tuple[ErasedPart, Patient]]:
        raise Unavailable("no node answers")

    (case.root / "vault").rename(tmp_path / "lost")
    vault = Vault(case.root / "vault", CUSTODIAN.box)
    async with see.up():
        copies = replicas(vault.store, see, copies=1, check=vault.can_open)
        with pytest.raises(Unavailable, match="no node answers"):
            await mend(vault, CUSTODIAN, copies, silent, await copies.known())
    assert list(vault.store.names()) == []
