"""Seeds and shares on disk: whole or not at all, for their owner's eyes only, and gone when they are erased."""

from pathlib import Path

import pytest

from p2pledger.health.key_keeper import SecretName, Wish
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import ChainId, NodeId
from p2pledger.storage import files
from p2pledger.storage.share_files import ShareFiles
from p2pledger.threshold.dkg import CeremonyId

CHAIN, NODE = ChainId(b"c" * 32), NodeId(b"n" * 32)
SEED = SecretName("seed", CeremonyId(1, 0, 2))
SHARE = SecretName("share", CeremonyId(1, 3, 0))


@pytest.fixture
def shares(tmp_path: Path) -> ShareFiles:
    return ShareFiles(tmp_path / "shares", CHAIN, NODE)


def test_what_was_written_is_there_after_a_start(shares: ShareFiles) -> None:
    shares.write(SEED, b"s" * 32)
    shares.write(SHARE, b"x" * 32)
    assert ShareFiles(shares.folder, CHAIN, NODE).load() == {SEED: b"s" * 32, SHARE: b"x" * 32}
    assert {path.name: path.stat().st_mode & 0o777 for path in shares.folder.iterdir()} == {
        "seed-1-0-2": 0o600,
        "share-1-3-0": 0o600,
    }
    assert set(shares.names()) == {SEED, SHARE}


def test_an_erased_secret_is_overwritten_before_its_name_goes(
    shares: ShareFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another name of the same bytes shows what is left of them."""
    shares.write(SHARE, b"x" * 32)
    path, witness = shares.folder / "share-1-3-0", shares.folder.parent / "witness"
    witness.hardlink_to(path)
    size = path.stat().st_size
    synced: list[bool] = []
    monkeypatch.setattr(files, "sync_folder", lambda folder: synced.append(not path.exists()))
    shares.erase(SHARE)
    assert witness.read_bytes() == bytes(size)
    assert synced == [True]
    shares.erase(SHARE)
    assert shares.load() == {}


def test_a_secret_written_again_leaves_nothing_of_the_first(shares: ShareFiles) -> None:
    shares.write(SHARE, b"x" * 32)
    witness = shares.folder.parent / "witness"
    witness.hardlink_to(shares.folder / "share-1-3-0")
    shares.write(SHARE, b"y" * 32)
    assert set(witness.read_bytes()) == {0}
    assert shares.load() == {SHARE: b"y" * 32}


def test_what_a_crash_left_half_written_is_erased_at_the_start(shares: ShareFiles) -> None:
    half = shares.folder / ".share-1-3-0.0011223344556677"
    half.write_bytes(b"half a secret")
    witness = shares.folder.parent / "witness"
    witness.hardlink_to(half)
    assert shares.load() == {}
    assert not half.exists()
    assert witness.read_bytes() == bytes(13)


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_secret_is_noticed(shares: ShareFiles, at: int) -> None:
    shares.write(SHARE, b"x" * 32)
    path = shares.folder / "share-1-3-0"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="share-1-3-0 is damaged"):
        shares.load()


def test_a_secret_of_another_ceremony_chain_or_node_is_refused(shares: ShareFiles) -> None:
    shares.write(SHARE, b"x" * 32)
    path = shares.folder / "share-1-3-0"
    for other in (
        ShareFiles(shares.folder, ChainId(b"d" * 32), NODE),
        ShareFiles(shares.folder, CHAIN, NodeId(b"m" * 32)),
    ):
        with pytest.raises(StoreError, match="is the secret"):
            other.load()
    path.rename(shares.folder / "share-1-4-0")
    with pytest.raises(StoreError, match="is the secret share-1-3-0"):
        shares.load()


def test_a_folder_that_others_can_look_into_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shares"
    folder.mkdir(mode=0o750)
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 700"):
        ShareFiles(folder, CHAIN, NODE)


def test_a_wish_stands_until_it_is_dropped(shares: ShareFiles) -> None:
    shares.wish(Wish(1, 1))
    shares.wish(Wish(1, 1))
    assert ShareFiles(shares.folder, CHAIN, NODE).wishes() == {Wish(1, 1)}
    assert shares.load() == {}
    shares.drop(Wish(1, 1))
    shares.drop(Wish(1, 1))
    assert shares.wishes() == set()
