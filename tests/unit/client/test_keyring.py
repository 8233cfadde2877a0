"""F-20: wallets and key files; secrets stay with their owner, and custodians cannot join what they know."""

import json
import os
import stat
from pathlib import Path

import pytest

from p2pledger.client.keyfiles import create_key, read_key
from p2pledger.client.keyring import OrganisationWallet, Wallet
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.storage.files import create_private
from tests.unit.execution.ledger import id16

SECRET = bytes(range(32))


def test_a_plain_key_is_one_line_that_only_its_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "account.key"
    create_key(path, SECRET, None)
    assert path.read_text() == SECRET.hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_key(path) == SECRET


def test_a_sealed_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "wallet.key"
    create_key(path, SECRET, "correct horse", "interactive")
    assert SECRET.hex() not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path, lambda _: "correct horse") == SECRET
    with pytest.raises(ConfigError, match="wrong passphrase"):
        read_key(path, lambda _: "battery staple")
    with pytest.raises(ConfigError, match="nobody can be asked"):
        read_key(path)
    with pytest.raises(InvalidInput, match="empty passphrase"):
        create_key(tmp_path / "keys" / "other.key", SECRET, "")


def test_a_changed_sealed_key_does_not_open(tmp_path: Path) -> None:
    """Not the box, not the salt, and no cheaper parameters in the header."""
    path = tmp_path / "keys" / "wallet.key"
    create_key(path, SECRET, "correct horse", "interactive")
    genuine = json.loads(path.read_text())
    flipped = f"{int(genuine['box'][:2], 16) ^ 1:02x}{genuine['box'][2:]}"
    for changes, words in (
        ({"box": flipped}, "the file was changed"),
        ({"salt": "00" * 16}, "the file was changed"),
        ({"operations": genuine["operations"] + 1}, "the file was changed"),
        ({"memory": 2**40}, "more than is ever used"),
        ({"format": "p2pledger/sealed-key/9"}, "this version reads"),
        ({"box": "zz"}, "is damaged"),
    ):
        path.write_text(json.dumps({**genuine, **changes}))
        with pytest.raises(ConfigError, match=words):
            read_key(path, lambda _: "correct horse")


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "account.key"
    create_key(path, SECRET, None)
    for mode in (0o640, 0o604, 0o620):
        os.chmod(path, mode)
        with pytest.raises(ConfigError, match=f"has mode 0{mode:o}.*run: chmod 600 {path}"):
            read_key(path)
    os.chmod(path, 0o600)
    assert read_key(path) == SECRET


def test_links_pipes_folders_and_strangers_files_are_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys" / "account.key"
    create_key(path, SECRET, None)
    link = path.with_name("link.key")
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="is a symbolic link"):
        read_key(link)
    pipe = path.with_name("pipe.key")
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ConfigError, match="not a plain file"):
        read_key(pipe)
    with pytest.raises(ConfigError, match="is missing"):
        read_key(path.with_name("none.key"))
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConfigError, match="this process runs as 54321"):
        read_key(path)


def test_malformed_key_files_are_refused(tmp_path: Path) -> None:
    for number, (text, words) in enumerate(
        ((b"zz", "hexadecimal"), (b"00" * 31, "holds 31 bytes"), (b"0" * 5000, "longer than"), (b"{", "damaged"))
    ):
        path = tmp_path / f"{number}.key"
        create_private(path, text)
        with pytest.raises(ConfigError, match=words):
            read_key(path, lambda _: "x")


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "account.key"
    create_key(path, SECRET, None)
    with pytest.raises(InvalidInput, match="already exists"):
        create_key(path, bytes(32), None)
    dangling = path.with_name("dangling.key")
    dangling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="already exists"):
        create_key(dangling, bytes(32), None)
    assert read_key(path) == SECRET
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(item.name for item in path.parent.iterdir()) == ["account.key", "dangling.key"]
    os.chmod(path.parent, 0o755)
    with pytest.raises(ConfigError, match="run: chmod 700"):
        create_key(path.with_name("new.key"), SECRET, None)


def test_a_wallet_is_the_same_person_every_time(tmp_path: Path) -> None:
    path = tmp_path / "wallet" / "wallet.key"
    made = Wallet.create(path, "passphrase", "interactive").at(id16("Berg"))
    loaded = Wallet.load(path, lambda _: "passphrase").at(id16("Berg"))
    assert (made.did, made.signing.public, made.box.public) == (loaded.did, loaded.signing.public, loaded.box.public)
    assert made.box.open(_sealed_to(made.box.public)) == b"hello"


def _sealed_to(public: bytes) -> bytes:
    from p2pledger.client.sealing import seal_to

    return seal_to(public, b"hello")


def test_two_custodians_share_nothing_about_a_patient() -> None:
    """Neither ids nor keys of one wallet at two custodians have a byte string in common; wallets differ too."""
    seen: set[bytes] = set()
    for wallet in (Wallet(SECRET), Wallet(bytes(32))):
        for organisation in (id16("Berg"), id16("Tal")):
            person = wallet.at(organisation)
            seen |= {person.did, person.signing.public, person.box.public, person.signing.seed}
    assert len(seen) == 16
    assert SECRET not in seen


def test_secrets_do_not_show_in_text() -> None:
    wallet = Wallet(SECRET)
    person = wallet.at(id16("Berg"))
    organisation = OrganisationWallet.of_seeds(id16("Berg"), SECRET, bytes(reversed(SECRET)))
    shown = f"{wallet!r} {person!r} {organisation!r} {person.patient!r}"
    for secret in (SECRET, bytes(reversed(SECRET)), person.signing.seed, organisation.custodian.handle_key):
        assert secret.hex() not in shown and repr(secret) not in shown


def test_a_member_s_key_folder_is_an_organisation_wallet(tmp_path: Path) -> None:
    create_key(tmp_path / "keys" / "account.key", SECRET, None)
    create_key(tmp_path / "keys" / "box.key", bytes(reversed(SECRET)), None)
    loaded = OrganisationWallet.load(id16("Berg"), tmp_path / "keys")
    expected = OrganisationWallet.of_seeds(id16("Berg"), SECRET, bytes(reversed(SECRET)))
    assert loaded.account.public == expected.account.public
    assert loaded.custodian.box.public == expected.custodian.box.public
