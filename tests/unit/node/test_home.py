"""What a node must not start with, and how it says so (T31-T33)."""

import os
import re
import shutil

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.node.ceremony import create_consortium, default_members, init_member
from p2pledger.node.home import KEY_NAMES, Home, Layout, home_path, load_seed
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.storage.home import exclusive_lock


def consortium(folder, n=4):
    return [
        member.home
        for member in create_consortium(folder, default_members(n), name="Test", created_ms=1_000, base_port=0)
    ]


@pytest.fixture
def homes(tmp_path):
    return consortium(tmp_path / "net")


def refusal(home):
    with pytest.raises(ConfigError) as caught:
        Home.load(home, {})
    return str(caught.value)


def test_every_created_home_loads_and_knows_the_others(homes):
    """The demo ceremony makes homes that pass every check of a start."""
    loaded = [Home.load(home, {}) for home in homes]
    assert len({home.founding.chain for home in loaded}) == 1
    assert loaded[0].founding.parameters == Parameters()
    for home in loaded:
        assert set(home.peers()) == {other.node for other in loaded} - {home.node}


def test_secrets_are_for_their_owner_only(homes):
    """Folder 0700, files 0600, hexadecimal."""
    layout = Layout(homes[0])
    assert layout.keys.stat().st_mode & 0o777 == 0o700
    assert {layout.key(name).stat().st_mode & 0o777 for name in KEY_NAMES} == {0o600}


def test_keys_never_show_their_secret(homes):
    """repr of a home holds no seed (T33)."""
    home = Home.load(homes[0], {})
    keys = (home.keys.consensus, home.keys.node, home.office().account, home.office().box)
    assert all(key.seed.hex() not in repr(home) for key in keys)


@pytest.fixture
def apart(tmp_path):
    """Homes without their organisations' keys."""
    founding = {"name": "Test", "created_ms": 1_000, "base_port": 0}
    return create_consortium(tmp_path / "apart", default_members(4), **founding, keys_apart=True)


def test_a_node_starts_without_its_organisations_keys(apart):
    """F-10: nothing in such a home acts as the organisation or opens what it keeps; whoever has the keys says where."""
    for member in apart:
        assert {path.name for path in (member.home / "keys").iterdir()} == {"consensus.key", "node.key"}
        home = Home.load(member.home, {})
        assert home.organisation_keys is None
        with pytest.raises(ConfigError, match="--organisation-keys"):
            home.office()
        whole = Home.load(member.home, {}, organisation_keys=member.organisation_keys)
        assert (whole.office().account.public, whole.office().box.public) == (home.card.account, home.card.box)
    with pytest.raises(ConfigError, match=re.escape(str(apart[1].organisation_keys / "account.key"))):
        Home.load(apart[0].home, {}, organisation_keys=apart[1].organisation_keys)


def test_one_of_an_organisations_keys_alone_is_a_home_that_has_lost_the_other(homes):
    path = Layout(homes[0]).key("box")
    path.unlink()
    assert str(path) in refusal(homes[0])


def test_a_folder_with_an_organisations_keys_is_no_place_for_another(apart, tmp_path):
    with pytest.raises(InvalidInput, match="already holds"):
        init_member(tmp_path / "another", "Another", "hospital", organisation_keys=apart[0].organisation_keys)
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_missing_key_is_named(homes, name):
    """The path of the key, and where to get it back."""
    path = Layout(homes[0]).key(name)
    path.unlink()
    assert str(path) in refusal(homes[0])
    assert "missing" in refusal(homes[0])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o601])
def test_a_key_that_others_can_touch_is_refused_with_the_command_that_mends_it(homes, mode):
    """T33: first it loads as 0600, then it does not, and the advice works."""
    path = Layout(homes[0]).key("consensus")
    assert len(load_seed(path)) == 32
    path.chmod(mode)
    message = refusal(homes[0])
    assert f"mode {mode:04o}" in message
    command, bits, target = message.rpartition("run: ")[2].split(" ", 2)
    assert (command, target) == ("chmod", str(path))
    path.chmod(int(bits, 8))
    Home.load(homes[0], {})


def test_a_key_folder_that_others_can_look_into_is_refused(homes):
    """T33."""
    keys = Layout(homes[0]).keys
    keys.chmod(0o755)
    assert f"chmod 700 {keys}" in refusal(homes[0])


@pytest.mark.parametrize("what", ["key", "keys", "genesis", "certificate", "config"])
def test_symbolic_links_are_refused(homes, tmp_path, what):
    """T33: what is trusted lies in the home itself, even if the link leads to the very same bytes."""
    layout = Layout(homes[0])
    path = layout.key("node") if what == "key" else getattr(layout, what)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    assert "link" in refusal(homes[0])


@pytest.mark.parametrize("content", ["", "zz" * 32, "ab" * 31, "ab" * 33, "ab" * 200])
def test_a_key_file_with_something_else_is_refused(homes, content):
    """32 bytes in hexadecimal, nothing else; and the content is not repeated in the message."""
    path = Layout(homes[0]).key("account")
    path.write_text(content)
    message = refusal(homes[0])
    assert str(path) in message
    assert not content or content not in message


def test_a_key_that_is_no_file_is_refused_without_waiting(homes):
    """A pipe in place of a key does not hang the start."""
    path = Layout(homes[0]).key("account")
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "not a plain file" in refusal(homes[0])


def test_a_foreign_genesis_is_refused(homes, tmp_path):
    """The signed genesis of other people is perfectly valid, only not ours."""
    other = consortium(tmp_path / "other")
    Home.load(other[0], {})
    shutil.copy(Layout(other[0]).genesis, Layout(homes[0]).genesis)
    message = refusal(homes[0])
    assert "foreign" in message
    assert "City Hospital" in message


def test_an_unsigned_genesis_is_refused(homes):
    """The same genesis without its signatures."""
    genesis = Home.load(homes[0], {}).founding.genesis
    Layout(homes[0]).genesis.write_bytes(encode(genesis))
    assert "not signed" in refusal(homes[0])


def test_a_genesis_with_one_flipped_bit_is_refused(homes):
    """Anywhere in the file."""
    path = Layout(homes[0]).genesis
    data = path.read_bytes()
    for position in range(0, len(data), 97):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert str(path) in refusal(homes[0])


def test_a_missing_genesis_is_named(homes):
    """With the command that installs one."""
    Layout(homes[0]).genesis.unlink()
    assert "genesis install" in refusal(homes[0])


def test_another_members_key_is_refused(homes):
    """A key of the right form that the genesis does not give to this member."""
    shutil.copy(Layout(homes[1]).key("consensus"), Layout(homes[0]).key("consensus"))
    assert "consensus.key" in refusal(homes[0])


def test_another_members_certificate_is_refused(homes):
    """T36: the certificate must carry this node's key."""
    shutil.copy(Layout(homes[1]).certificate, Layout(homes[0]).certificate)
    assert "node.crt.der" in refusal(homes[0])


def test_a_peer_that_the_genesis_does_not_know_is_refused(homes):
    """At the start, not at the first dial; by name, organisation or node."""
    home = Home.load(homes[0], {})
    other = home.founding.genesis.cards[0 if home.founding.genesis.cards[0].node != home.node else 1]
    for name in (other.name, other.organisation.hex(), other.node.hex().upper()):
        again = Home.load(homes[0], {"P2PLEDGER_P2P__PEERS": f"{name}=a:1"})
        assert list(again.peers()) == [other.node]
    for name, words in ((home.card.name, "itself"), ("Nobody", "Nobody")):
        with pytest.raises(ConfigError, match=words):
            Home.load(homes[0], {"P2PLEDGER_P2P__PEERS": f"{name}=a:1"})
    with pytest.raises(ConfigError, match="second address"):
        Home.load(homes[0], {"P2PLEDGER_P2P__PEERS": f"{other.name}=a:1,{other.node.hex()}=a:2"})


def test_no_home_is_said_plainly(tmp_path):
    """With the command that makes one."""
    assert "member init" in refusal(tmp_path / "nothing")


def test_a_second_daemon_on_one_home_is_refused(homes):
    """T32: the lock lies in the home; it is free again after the first has gone."""
    lock = Layout(homes[0]).lock
    with exclusive_lock(lock), pytest.raises(ConfigError, match=str(os.getpid())), exclusive_lock(lock):
        pass
    with exclusive_lock(lock):
        pass


def test_a_home_is_not_made_over_another(homes):
    """Keys are never overwritten."""
    before = Layout(homes[0]).key("account").read_bytes()
    with pytest.raises(InvalidInput, match="already holds keys"):
        init_member(homes[0], "Again", "hospital")
    assert Layout(homes[0]).key("account").read_bytes() == before


def test_where_a_home_is_looked_for(tmp_path):
    """--home > P2PLEDGER_HOME > XDG_DATA_HOME > ~/.local/share."""
    environ = {"HOME": "/h", "XDG_DATA_HOME": "/x", "P2PLEDGER_HOME": "/p"}
    assert str(home_path("/f", environ)) == "/f"
    assert str(home_path(None, environ)) == "/p"
    del environ["P2PLEDGER_HOME"]
    assert str(home_path(None, environ)) == "/x/p2pledger"
    environ["XDG_DATA_HOME"] = "relative"
    assert str(home_path(None, environ)) == "/h/.local/share/p2pledger"
