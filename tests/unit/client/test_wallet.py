"""F-20: what a wallet's file keeps through restoring and rotating, and what a broken file says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from p2pledger.client.keyfiles import create_key
from p2pledger.client.keyring import FORMER_MAX, Wallet, WalletFile, create_wallet, open_wallet
from p2pledger.client.passphrase import seal, unseal
from p2pledger.client.sealing import seal_to
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.storage import files
from tests.unit.execution.ledger import hash32, id16

BERG, TAL = id16("Berg"), id16("Tal")
SECRET = hash32("a wallet")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wallets" / "mine"


def reopened(file: WalletFile) -> Wallet:
    return open_wallet(file.path, lambda _: "open sesame").wallet


@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_everything_in_a_wallet_comes_back_from_its_file(path: Path, passphrase: str | None) -> None:
    """Sealed and plain; nothing in the text of a sealed one is a secret."""
    wallet = Wallet(SECRET, (hash32("older"),), hash32("next"), frozenset({TAL}), {BERG: id16("me")})
    create_wallet(path, wallet, passphrase, "interactive")
    assert open_wallet(path, lambda _: "open sesame") == WalletFile(path, wallet, passphrase)
    assert (SECRET.hex() in path.read_text()) == (passphrase is None)
    assert repr(WalletFile(path, wallet, "open sesame")).count("…") == 1
    assert "sesame" not in repr(WalletFile(path, wallet, "open sesame"))


def test_words_on_paper_are_the_wallet() -> None:
    """The same persons everywhere; a phrase of fewer words is none of a wallet's."""
    wallet = Wallet(SECRET)
    restored = Wallet.of_phrases(wallet.phrase)
    for organisation in (BERG, TAL):
        assert (restored.at(organisation).did, restored.at(organisation).account) == (
            wallet.at(organisation).did,
            wallet.at(organisation).account,
        )
    with pytest.raises(InvalidInput, match="24 words"):
        Wallet.of_phrases("abandon " * 11 + "about")


def test_a_rotation_changes_keys_and_keeps_ids() -> None:
    """Step by step: each organisation has the old key until the chain has taken the new one there."""
    before = Wallet(SECRET).rotating()
    assert before.rotating() is before, "a rotation under way goes on with the same secret"
    old, new = before.at(BERG), before.next_at(BERG)
    assert (old.did, new.did) == (Wallet(SECRET).at(BERG).did,) * 2 and old.account != new.account
    halfway = before.moved_at(BERG)
    assert halfway.at(BERG).account == new.account
    assert halfway.at(TAL).account == Wallet(SECRET).at(TAL).account
    after = halfway.moved_at(TAL).rotated()
    assert (after.at(BERG).did, after.at(BERG).account) == (old.did, new.account)
    assert after.pending is None and after.former == (SECRET,)
    assert Wallet.of_phrases(after.phrase).at(BERG).account == new.account


def test_what_was_sealed_to_an_older_key_still_opens() -> None:
    """By the former box keys, during the rotation and after it."""
    sealed = seal_to(Wallet(SECRET).at(BERG).box.public, b"a key")
    halfway = Wallet(SECRET).rotating().moved_at(BERG)
    (box,) = halfway.former_boxes(BERG)
    assert box.open(sealed) == b"a key"
    assert halfway.former_boxes(TAL) == []
    (box,) = halfway.rotated().former_boxes(BERG)
    assert box.open(sealed) == b"a key"


def test_former_secrets_are_bounded() -> None:
    with pytest.raises(InvalidInput, match=f"{FORMER_MAX} former"):
        Wallet(SECRET, (SECRET,) * FORMER_MAX).rotating()


def test_a_crash_while_writing_leaves_the_old_file_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both secrets are in the file before the next one is used, and the file is replaced in one step."""
    create_wallet(path, Wallet(SECRET), "open sesame", "interactive")
    file = open_wallet(path, lambda _: "open sesame").keep(Wallet(SECRET).rotating(), "interactive")
    kept = reopened(file)
    assert kept.pending is not None and kept.secret == SECRET

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        file.keep(kept.moved_at(BERG), "interactive")
    monkeypatch.undo()
    assert reopened(file) == kept


def test_damage_and_a_wrong_passphrase_are_told_apart(path: Path) -> None:
    """By the checksum; a change on purpose, checksum and all, still does not open."""
    create_wallet(path, Wallet(SECRET), "open sesame", "interactive")
    genuine = path.read_text()
    with pytest.raises(ConfigError, match="whole and does not open: wrong passphrase"):
        open_wallet(path, lambda _: "x")
    place = genuine.index('"box"') + 12
    for damaged in (genuine[: len(genuine) // 2], genuine[:place] + "0f" + genuine[place + 2 :].replace("f", "e", 3)):
        path.write_text(damaged)
        with pytest.raises(ConfigError, match="is damaged"):
            open_wallet(path, lambda _: "open sesame")
    parts = json.loads(genuine)
    for lie in ({"memory": 2**40}, {"memory": 1}, {"operations": 0}, {"operations": 10**9}):
        path.write_text(json.dumps({**parts, **lie}))
        with pytest.raises(ConfigError, match="more than is ever used"):
            open_wallet(path, lambda _: "open sesame")


def test_a_forged_checksum_opens_nothing(path: Path) -> None:
    """Cheaper parameters of an attacker who knows the format: the seal covers them."""
    from p2pledger.client import passphrase

    form = "p2pledger/wallet/1"
    parts = json.loads(seal(b"payload", "open sesame", "interactive", form))
    cheaper = {**parts, "operations": 1, "memory": 8192}
    cheaper["checksum"] = passphrase._checksum(cheaper)
    with pytest.raises(ConfigError, match="does not open"):
        unseal(path, json.dumps(cheaper).encode(), "open sesame", form)


def test_other_files_are_no_wallets(path: Path, tmp_path: Path) -> None:
    """A member's key file is named as what it is used for."""
    create_key(tmp_path / "keys" / "account.key", SECRET, None)
    with pytest.raises(ConfigError, match="--home"):
        open_wallet(tmp_path / "keys" / "account.key")
    with pytest.raises(ConfigError, match="is missing"):
        open_wallet(path)
    create_wallet(path, Wallet(SECRET), None)
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match=f"run: chmod 600 {path}"):
        open_wallet(path)


def test_ids_are_remembered_where_the_secret_does_not_tell_them() -> None:
    wallet = Wallet(SECRET).known_as(BERG, id16("me"))
    assert wallet.at(BERG).did == id16("me")
    assert replace(wallet, ids={}).at(BERG).did == Wallet(SECRET).at(BERG).did
