"""F-09: records outlive the loss of a vault; copies are proven, read one after the other, and mended."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, Unavailable
from p2pledger.vault import objects
from p2pledger.vault.connection import open_vault
from p2pledger.vault.objects import DirectoryStore
from p2pledger.vault.wire import GetObject, ObjectReply
from tests.attack import Without
from tests.network.stage import CHAIN, member
from tests.unit.vault.stage import NAMES, Holder, organisation, replicas

CONTENTS = [b"sealed record %d" % number for number in range(20)]
BATCH = b"b" * 16
MANIFEST = BATCH + b": the manifest"
EVERYTHING = [*sorted(map(sha256, CONTENTS)), BATCH]


@pytest.fixture
def own(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "own")
    for data in CONTENTS:
        store.put(sha256(data), data)
    store.put(BATCH, MANIFEST)
    return store


@pytest.fixture
def tal(tmp_path: Path) -> Holder:
    return Holder("Tal", tmp_path)


@pytest.fixture
def see(tmp_path: Path) -> Holder:
    return Holder("See", tmp_path)


def path_of(holder: Holder, name: bytes) -> Path:
    return holder.folder / holder.name / organisation("Berg").hex() / "objects" / name.hex()[:2] / name.hex()


async def test_what_is_kept_lies_at_every_replica(own: DirectoryStore, tal: Holder, see: Holder) -> None:
    """F-09."""
    async with tal.up(), see.up():
        kept = await replicas(own, tal, see).keep(EVERYTHING)
    assert (kept.copies, kept.failures) == (3, ())
    for holder in (tal, see):
        assert list(holder.store().names()) == EVERYTHING
        assert holder.store().get(BATCH) == MANIFEST


async def test_a_record_counts_as_kept_with_the_promised_copies(own: DirectoryStore, tal: Holder, see: Holder) -> None:
    """F-09: one replica of two may be away; with both away the custodian is told who, and nothing is committed to."""
    async with see.up():
        pass
    async with tal.up():
        kept = await replicas(own, tal, see).keep(EVERYTHING)
        assert kept.copies == 2 and "the vault of See" in kept.failures[0]
    with pytest.raises(Unavailable, match=r"1 of 2 copies are durable.*See.*Tal"):
        await replicas(own, tal, see).keep(EVERYTHING)


async def test_a_lost_store_is_read_from_the_others_and_restored(
    own: DirectoryStore, tal: Holder, see: Holder, tmp_path: Path
) -> None:
    """F-09: the custodian starts with an empty store; all of it comes back, from whoever still has it."""
    async with tal.up(), see.up():
        await replicas(own, tal, see).keep(EVERYTHING)
        tal.store().delete(EVERYTHING[0])
        empty = replicas(DirectoryStore(tmp_path / "new disk"), tal, see)
        assert [await empty.get(sha256(data)) for data in CONTENTS] == CONTENTS
        assert await empty.known() == EVERYTHING
        mended = await empty.repair(await empty.known())
    assert mended.restored == len(EVERYTHING) and mended.lost == []
    assert mended.sent == {"Tal": 1, "See": 0}
    assert list(empty.own.names()) == EVERYTHING and empty.own.get(BATCH) == MANIFEST


async def test_only_when_all_copies_fail_is_a_record_unavailable(
    own: DirectoryStore, tal: Holder, see: Holder, tmp_path: Path
) -> None:
    """F-09: and then every one that failed is named, with what was wrong with it."""
    name = EVERYTHING[0]
    ours = replicas(own, tal, see)
    async with tal.up():
        async with see.up():
            ours = replicas(own, tal, see)
            await ours.keep(EVERYTHING)
        own.delete(name)
        assert sha256(await ours.get(name)) == name
        path_of(tal, name).write_bytes(b"something else")
        with pytest.raises(Unavailable) as failed:
            await ours.get(name)
    said = str(failed.value)
    assert said.startswith(f"E_UNAVAILABLE: {name.hex()}")
    for words in ("our own store: E_NOT_FOUND", "vault of Tal", "was changed", "vault of See"):
        assert words in said


async def test_an_audit_finds_who_has_lost_or_changed_what(own: DirectoryStore, tal: Holder, see: Holder) -> None:
    """F-09: by random challenge; a flipped byte, a lost object, and a holder that does not answer."""
    lost, changed, spoiled = EVERYTHING[2], EVERYTHING[3], EVERYTHING[4]
    async with tal.up():
        async with see.up():
            ours = replicas(own, tal, see)
            await ours.keep(EVERYTHING)
            assert all(finding.is_good for finding in await ours.audit(EVERYTHING, 100))
            tal.store().delete(lost)
            path_of(tal, changed).write_bytes(path_of(tal, changed).read_bytes()[:-1] + b"!")
            own.delete(spoiled)
            at_home, at_tal, at_see = await ours.audit(EVERYTHING, 100)
            assert (at_home.missing, at_tal.missing, at_see.missing) == ((spoiled,), (lost, changed), ())
            assert (at_tal.asked, at_tal.held) == (21, 19)
        at_see = (await ours.audit(EVERYTHING, 5))[2]
        assert at_see.asked == 5 and "vault of See" in at_see.failure and not at_see.is_good


async def test_a_repair_mends_every_copy(own: DirectoryStore, tal: Holder, see: Holder) -> None:
    """F-09: what one lost another still has, our own store among them; a second repair finds nothing to do."""
    async with tal.up(), see.up():
        ours = replicas(own, tal, see)
        await ours.keep(EVERYTHING)
        for store, name in ((tal.store(), EVERYTHING[1]), (see.store(), EVERYTHING[2]), (own, EVERYTHING[3])):
            store.delete(name)
        path_of(see, EVERYTHING[5]).write_bytes(b"spoiled")
        mended = await ours.repair(EVERYTHING)
        assert (mended.restored, mended.sent, mended.lost) == (1, {"Tal": 1, "See": 2}, [])
        mended = await ours.repair(EVERYTHING)
        assert (mended.restored, mended.sent) == (0, {"Tal": 0, "See": 0})
        assert all(finding.is_good for finding in await ours.audit(EVERYTHING, 100))


async def test_what_is_deleted_is_deleted_everywhere_or_it_is_said_where_not(
    own: DirectoryStore, tal: Holder, see: Holder
) -> None:
    async with tal.up():
        async with see.up():
            ours = replicas(own, tal, see)
            await ours.keep(EVERYTHING)
            await ours.delete(EVERYTHING[:2])
            assert not any(store.has(name) for name in EVERYTHING[:2] for store in (own, tal.store(), see.store()))
        with pytest.raises(Unavailable, match="copies may still be there: the vault of See"):
            await ours.delete(EVERYTHING[2:3])
    assert not own.has(EVERYTHING[2]) and not tal.store().has(EVERYTHING[2]) and see.store().has(EVERYTHING[2])


async def test_a_replica_serves_copies_to_their_owner_alone(own: DirectoryStore, tal: Holder, see: Holder) -> None:
    """F-09: another custodian finds nothing under the same name, and can change nothing of the owner's."""
    async with tal.up(), see.up():
        await replicas(own, tal, see).keep(EVERYTHING)
        async with open_vault(tal.address, member("See").key, CHAIN) as connection:
            with pytest.raises(Rejected) as refused:
                await connection.ask(GetObject(EVERYTHING[0]), ObjectReply)
            assert refused.value.code == Code.E_NOT_FOUND
    assert list(tal.store(organisation("See")).names()) == []


async def test_a_replica_without_room_takes_no_copy(own: DirectoryStore, tal: Holder) -> None:
    tal.has_room = False
    async with tal.up():
        with pytest.raises(Unavailable, match="no room for another copy"):
            await replicas(own, tal).keep(EVERYTHING)
        assert (await replicas(own, tal, copies=1).keep(EVERYTHING)).copies == 1


def test_more_copies_than_stores_are_not_promised(own: DirectoryStore) -> None:
    with pytest.raises(InvalidInput, match="3 copies of a record with 0 replicas"):
        replicas(own, copies=3)


async def test_every_custodian_can_keep_for_every_other(own: DirectoryStore, tmp_path: Path) -> None:
    """Copies of three custodians at each other do not mix."""
    async with AsyncExitStack() as stack:
        holders = [Holder(name, tmp_path) for name in NAMES]
        for holder in holders:
            await stack.enter_async_context(holder.up())
        await replicas(own, *holders[1:]).keep(EVERYTHING)
        assert [list(holder.store(organisation("Tal")).names()) for holder in holders] == [[], [], []]


@pytest.mark.attack("T72")
async def test_a_copy_that_is_another(own: DirectoryStore, tal: Holder, without: Without) -> None:
    """F-09: whoever reads computes the hash that is the name; no replica is believed."""
    name = EVERYTHING[0]
    async with tal.up():
        ours = replicas(own, tal)
        await ours.keep(EVERYTHING)
        path_of(tal, name).write_bytes(b"something else")
        own.delete(name)
        with without(objects.checked, "raise Spoiled("):
            assert await ours.get(name) == b"something else"
        with pytest.raises(Unavailable, match="was changed"):
            await ours.get(name)
