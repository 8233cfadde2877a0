"""F-17: a house's shelf of emergency capsules: an entry is durable before anything is shown, and is anchored."""

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pledger.client.emergency import EmergencyShelf, read_capsule, seal_summary
from p2pledger.client.keyring import Persona
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.sealing import BoxKey
from p2pledger.health.emergency import ANCHOR_WITHIN_MS
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import InvalidInput, ProofError, Rejected
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, client_of
from tests.unit.execution.ledger import id16, key
from tests.unit.health.world import DOCTOR, PATIENT, PID, TAL

SUMMARY = b'{"resourceType":"AllergyIntolerance","code":"penicillin"}'
HOUSE = BoxKey(sha256(b"Tal's box"))
READER = Persona(id16("Tal"), id16("doctor"), DOCTOR, BoxKey(sha256(b"doctor's box")))
OWNER = Persona(id16("Berg"), PID, PATIENT, BoxKey(sha256(b"patient's box")))


@pytest.fixture
def chain() -> Chain:
    made = Chain()
    made.tick()
    return made


@pytest.fixture
def shelf(chain: Chain, tmp_path: Path) -> EmergencyShelf:
    tmp_path.chmod(0o700)
    return shelf_in(chain, tmp_path)


def shelf_in(chain: Chain, folder: Path) -> EmergencyShelf:
    return EmergencyShelf(folder / "emergency", chain.chain, id16("Tal"), HOUSE)


def capsule(chain: Chain, made_ms: int = 1, content: bytes = SUMMARY, owner: Persona = OWNER) -> bytes:
    return seal_summary(owner, id16("Tal"), chain.chain, HOUSE.public, content, made_ms)


@asynccontextmanager
async def house(chain: Chain) -> AsyncIterator[LedgerClient]:
    async with client_of(chain, [HonestNode(chain)], TAL) as ledger:
        yield ledger


async def kept(chain: Chain, shelf: EmergencyShelf) -> None:
    async with house(chain) as ledger:
        await shelf.keep(ledger, capsule(chain))


async def test_a_summary_opens_without_any_node_and_is_anchored_later(chain: Chain, shelf: EmergencyShelf) -> None:
    await kept(chain, shelf)
    shown = shelf.open(PID, READER, "unconscious, no quorum", chain.now_ms)
    assert shown.content == SUMMARY
    assert shelf.openings() == shelf.unanchored() == [shown.entry]
    again = shelf.open(PID, READER, "still no quorum", chain.now_ms)
    assert (again.entry.number, again.entry.previous) == (2, shown.entry.hash)
    async with house(chain) as ledger:
        assert await shelf.anchor(ledger) == 2
        assert await shelf.anchor(ledger) == 0
    assert shelf.unanchored() == []
    assert [line.access_id for line in chain.log()] == [shown.entry.access_id, again.entry.access_id]
    assert {line.purpose for line in chain.log()} == {"BTG"}


async def test_the_entry_is_there_before_anything_is_shown(chain: Chain, shelf: EmergencyShelf, tmp_path: Path) -> None:
    """A capsule that does not open at the last step has been written down all the same; without the entry, nothing."""
    await kept(chain, shelf)
    path = tmp_path / "emergency" / "capsules" / PID.hex()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidInput):
        shelf.open(PID, READER, "reason", chain.now_ms)
    assert len(shelf.openings()) == 1
    path.write_bytes(data)
    (entry,) = (tmp_path / "emergency" / "openings").iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    (tmp_path / "emergency" / "openings" / "00000002").mkdir()  # what comes next cannot be written
    with pytest.raises((InvalidInput, OSError)) as refused:
        shelf.open(PID, READER, "reason", chain.now_ms)
    assert SUMMARY not in str(refused.value).encode()


async def test_nothing_further_opens_while_an_old_opening_is_not_anchored(chain: Chain, shelf: EmergencyShelf) -> None:
    await kept(chain, shelf)
    shelf.open(PID, READER, "no quorum", chain.now_ms)
    shelf.open(PID, READER, "no quorum", chain.now_ms + ANCHOR_WITHIN_MS)
    with pytest.raises(Rejected, match=r"E_OFFLINE_UNANCHORED: 1 .* the first is number 1"):
        shelf.open(PID, READER, "no quorum", chain.now_ms + ANCHOR_WITHIN_MS + 1)
    assert len(shelf.openings()) == 2, "what is refused is no opening"


async def test_a_crash_between_chain_and_note_anchors_nothing_twice(
    chain: Chain, shelf: EmergencyShelf, tmp_path: Path
) -> None:
    await kept(chain, shelf)
    shelf.open(PID, READER, "no quorum", chain.now_ms)
    async with house(chain) as ledger:
        await shelf.anchor(ledger)
        (tmp_path / "emergency" / "anchored").unlink()
        assert await shelf_in(chain, tmp_path).anchor(ledger) == 1
    assert len(chain.log()) == 1
    assert shelf.unanchored() == []


async def test_a_removed_or_changed_entry_shows(chain: Chain, shelf: EmergencyShelf, tmp_path: Path) -> None:
    await kept(chain, shelf)
    for _ in range(3):
        shelf.open(PID, READER, "no quorum", chain.now_ms)
    folder = tmp_path / "emergency" / "openings"
    second = (folder / "00000002").read_bytes()
    (folder / "00000002").unlink()
    with pytest.raises(InvalidInput, match="breaks off at number 2"):
        shelf.openings()
    (folder / "00000002").write_bytes(second)
    (folder / "00000002").chmod(0o600)
    assert len(shelf.openings()) == 3


async def test_a_capsule_is_kept_only_if_the_chain_knows_its_patient(chain: Chain, shelf: EmergencyShelf) -> None:
    """A false summary could hide an allergy: its signature is checked when it comes, when there is a chain to ask."""
    thief = Persona(id16("Berg"), PID, key("thief"), OWNER.box)
    async with house(chain) as ledger:
        with pytest.raises(ProofError, match="is not the key of patient"):
            await shelf.keep(ledger, capsule(chain, owner=thief))
        newer = capsule(chain, made_ms=5, content=b"newer")
        await shelf.keep(ledger, newer)
        with pytest.raises(InvalidInput, match="newer capsule"):
            await shelf.keep(ledger, capsule(chain, made_ms=4))
        await shelf.keep(ledger, newer)
        other = seal_summary(OWNER, id16("Berg"), chain.chain, HOUSE.public, SUMMARY, 1)
        with pytest.raises(InvalidInput, match="for house"):
            await shelf.keep(ledger, other)
    assert shelf.open(PID, READER, "reason", chain.now_ms).content == b"newer"
    assert [one.made_ms for one in shelf.kept()] == [5]


async def test_what_is_needed_for_an_opening(chain: Chain, shelf: EmergencyShelf) -> None:
    with pytest.raises(Rejected, match="E_NOT_FOUND"):
        shelf.open(PID, READER, "reason", chain.now_ms)
    await kept(chain, shelf)
    with pytest.raises(InvalidInput, match="written reason"):
        shelf.open(PID, READER, "  ", chain.now_ms)
    stranger = Persona(id16("Berg"), id16("nurse"), DOCTOR, OWNER.box)
    with pytest.raises(InvalidInput, match="not of house"):
        shelf.open(PID, stranger, "reason", chain.now_ms)
    assert shelf.openings() == []


def test_only_the_house_reads_a_capsule(chain: Chain) -> None:
    data = capsule(chain)
    assert SUMMARY not in data and read_capsule(data).pid == PID
    with pytest.raises(InvalidInput, match="1 to"):
        capsule(chain, content=b"")
    with pytest.raises(InvalidInput, match="1 to"):
        capsule(chain, content=b"x" * (256 * 1024 + 1))
