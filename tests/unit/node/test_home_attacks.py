"""Homes, keys and foundings that a node must not start from: each is taken without the one rule it breaks."""

import json
import os
import shutil

import pytest
from msgspec.structs import replace

from p2pledger.chain import genesis as founding
from p2pledger.chain.genesis import sign_card
from p2pledger.client.keyfiles import create_key, read_key
from p2pledger.node import home
from p2pledger.node.ceremony import (
    MemberSignature,
    assemble_genesis,
    card_from_json,
    card_to_json,
    combine_signatures,
    init_member,
    install_genesis,
    sign_as_member,
)
from p2pledger.node.home import Home, Layout, load_node_keys, load_organisation_keys, load_seed
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.storage import files
from p2pledger.storage.home import exclusive_lock
from tests.unit.node.test_ceremony import genesis_of
from tests.unit.node.test_home import consortium


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return consortium(tmp_path_factory.mktemp("net") / "net")


@pytest.fixture
def homes(made, tmp_path):
    return [shutil.copytree(root, tmp_path / root.name, copy_function=shutil.copy2) for root in made]


@pytest.fixture
def members(tmp_path):
    return [(tmp_path / f"m{i}", init_member(tmp_path / f"m{i}", f"Member {i}", "hospital")) for i in range(4)]


def is_refused(act):
    try:
        act()
    except (ConfigError, InvalidInput):
        return True
    return False


# Keys


@pytest.mark.attack("T33")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o601])
def test_a_key_that_others_can_touch_is_refused(homes, without, mode):
    path = Layout(homes[0]).key("consensus")
    path.chmod(mode)
    with without(home._check_secret, "if status.st_mode & 63"):
        assert len(load_seed(path)) == 32
    assert is_refused(lambda: load_seed(path))


@pytest.mark.attack("T33")
def test_a_key_of_another_user_is_refused(homes, without, monkeypatch):
    path = Layout(homes[0]).key("consensus")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with without(home._check_secret, "if status.st_uid != os.geteuid()"):
        assert len(load_seed(path)) == 32
    assert is_refused(lambda: load_seed(path))


@pytest.mark.attack("T33")
def test_a_key_folder_that_others_can_look_into_is_refused(homes, without):
    layout = Layout(homes[0])
    layout.keys.chmod(0o755)
    with without(home._check_secret_folder, "if status.st_mode & 63"):
        load_node_keys(layout)
    assert is_refused(lambda: load_node_keys(layout))


@pytest.mark.attack("T33")
def test_a_linked_key_folder_is_refused(homes, tmp_path, without):
    """Who can change where the link leads chooses the keys."""
    layout = Layout(homes[0])
    shutil.move(layout.keys, tmp_path / "elsewhere")
    layout.keys.symlink_to(tmp_path / "elsewhere")
    with (
        without(home._check_secret_folder, "if not stat.S_ISDIR(status.st_mode)"),
        without(home._check_secret_folder, "if status.st_mode & 63"),  # a link lets everybody in, by its mode
    ):
        load_node_keys(layout)
    assert is_refused(lambda: load_node_keys(layout))
    layout.keys.unlink()
    shutil.move(tmp_path / "elsewhere", layout.keys)
    layout.keys.chmod(0o755)
    assert is_refused(lambda: load_node_keys(layout))


@pytest.mark.attack("T33")
@pytest.mark.parametrize("what", ["genesis", "config"])
def test_what_a_node_trusts_is_no_link(homes, tmp_path, without, what):
    path = getattr(Layout(homes[0]), what)
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with without(home._plain, "if path.is_symlink()"):
        Home.load(homes[0], {})
    assert is_refused(lambda: Home.load(homes[0], {}))


@pytest.mark.attack("T33")
def test_a_linked_key_is_not_followed(homes, tmp_path, without, monkeypatch):
    path = Layout(homes[0]).key("node")
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with without.setup("O_NOFOLLOW"), monkeypatch.context() as careless:
        careless.setattr(os, "O_NOFOLLOW", 0)
        assert len(load_seed(path)) == 32
    assert is_refused(lambda: load_seed(path))


@pytest.mark.attack("T33")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_wallet_that_others_can_touch_is_refused(tmp_path, without, mode):
    path = tmp_path / "keys" / "wallet.key"
    create_key(path, bytes(range(32)), None)
    path.chmod(mode)
    with without(files._check, "if status.st_mode & 63"):
        assert read_key(path) == bytes(range(32))
    assert is_refused(lambda: read_key(path))


# What the keys are for


@pytest.mark.attack("T44", "T32")
def test_another_members_key_is_refused(homes, without):
    """Two homes that sign with one consensus key equivocate sooner or later."""
    shutil.copy(Layout(homes[1]).key("consensus"), Layout(homes[0]).key("consensus"))
    with without(home._own_card, "if wanted != public"):
        Home.load(homes[0], {})
    assert is_refused(lambda: Home.load(homes[0], {}))


@pytest.mark.attack("T44", "T36")
def test_another_certificate_than_the_registered_one_is_refused(homes, without):
    """The peers' trust stores know the registered one only: the node would be alone."""
    layout = Layout(homes[0])
    layout.certificate.write_bytes(Layout(homes[1]).certificate.read_bytes())
    with without(home._own_card, "check_certificate("), without(home._own_card, "if certificate != card.certificate"):
        Home.load(homes[0], {})
    assert is_refused(lambda: Home.load(homes[0], {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "check_certificate", lambda *_: None)
        assert is_refused(lambda: Home.load(homes[0], {}))


@pytest.mark.attack("T44")
def test_a_genesis_that_not_everybody_signed_is_refused(homes, without):
    """One member's signature stands for another's."""
    path = Layout(homes[0]).genesis
    signed = Home.load(homes[0], {}).founding.signed
    path.write_bytes(encode(replace(signed, signatures=(signed.signatures[1], *signed.signatures[1:]))))
    with without(founding.check_genesis, "if not verify("):
        Home.load(homes[0], {})
    assert is_refused(lambda: Home.load(homes[0], {}))


@pytest.mark.attack("T44")
def test_a_foreign_genesis_is_not_installed(members, tmp_path, without):
    """Signed by all its members, of whom this home is none."""
    init_member(tmp_path / "stranger", "Stranger", "agency")
    genesis = genesis_of(members)
    signed = combine_signatures(genesis, [sign_as_member(root, genesis) for root, _ in members])
    with without(install_genesis, "if all((card.node != keys.node.public"):
        install_genesis(tmp_path / "stranger", signed)
    Layout(tmp_path / "stranger").genesis.unlink()
    assert is_refused(lambda: install_genesis(tmp_path / "stranger", signed))


@pytest.mark.attack("T44")
def test_nobody_signs_a_genesis_that_gives_him_other_keys(members, without):
    """Whoever assembles it puts a key of his own on another member's seat."""
    genesis = genesis_of(members)
    victim = next(card for card in genesis.cards if card.name == "Member 0")
    robbed = replace(victim, validator=bytes(range(32)))
    forged = replace(genesis, cards=tuple(robbed if card is victim else card for card in genesis.cards))
    with without(sign_as_member, "if (card.validator, card.node, card.box) != own"):
        assert sign_as_member(members[0][0], forged).chain == forged.chain
    assert is_refused(lambda: sign_as_member(members[0][0], forged))


@pytest.mark.attack("T44")
@pytest.mark.parametrize("field", ["name", "account"])
def test_a_card_that_was_changed_on_its_way_is_refused(members, without, field):
    fields = json.loads(card_to_json(members[0][1]))
    fields[field] = json.loads(card_to_json(members[1][1]))[field]
    with without(card_from_json, "check_card("):
        card_from_json(json.dumps(fields), "mail")
    assert is_refused(lambda: card_from_json(json.dumps(fields), "mail"))


@pytest.mark.attack("T44", "T36")
def test_a_card_with_anothers_certificate_is_refused(members, without):
    """Signed by the member itself: in the trust stores its seat would stand for somebody else's node."""
    card = replace(members[0][1].card, certificate=members[1][1].card.certificate)
    text = card_to_json(sign_card(card, load_organisation_keys(Layout(members[0][0])).account))
    with without(card_from_json, "check_certificate("):
        card_from_json(text, "mail")
    assert is_refused(lambda: card_from_json(text, "mail"))


@pytest.mark.attack("T44")
def test_keys_are_never_overwritten(members, without):
    """A home made over another would leave a seat of the consortium without its keys."""
    root = members[0][0]
    before = Layout(root).key("account").read_bytes()
    with without(init_member, "if layout.keys.exists() or"), pytest.raises(FileExistsError):
        init_member(root, "Again", "hospital")
    with pytest.raises(InvalidInput, match="already holds keys"):
        init_member(root, "Again", "hospital")
    assert Layout(root).key("account").read_bytes() == before


@pytest.mark.attack("T44")
def test_parameters_are_signed_by_all(members, without):
    """Who signed other parameters did not agree to these."""
    ours = genesis_of(members)
    other = assemble_genesis("Test", 1_000, {"window": "2"}, [card for _, card in members])
    mixed = [sign_as_member(root, ours) for root, _ in members[1:]] + [sign_as_member(members[0][0], other)]
    with (
        without(combine_signatures, "if signature.chain != genesis.chain"),
        without(founding.check_genesis, "if not verify("),
    ):
        combine_signatures(ours, mixed)
    assert is_refused(lambda: combine_signatures(ours, mixed))
    relabelled = [MemberSignature(signature.account, ours.chain, signature.signature) for signature in mixed]
    assert is_refused(lambda: combine_signatures(ours, relabelled))


# A second daemon


@pytest.mark.attack("T32")
def test_a_second_daemon_on_one_home_is_refused(homes, without):
    """Two processes with one journal sign against each other."""
    path = Layout(homes[0]).lock
    with exclusive_lock(path):
        with without(exclusive_lock, "fcntl.flock("), exclusive_lock(path):
            pass
        with pytest.raises(ConfigError, match="second daemon"), exclusive_lock(path):
            pass
