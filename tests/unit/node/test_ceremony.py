"""Cards, signatures and the genesis made of them."""

import json

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.node.ceremony import (
    assemble_genesis,
    card_from_json,
    card_to_json,
    combine_signatures,
    create_consortium,
    default_members,
    init_member,
    install_genesis,
    parse_parameters,
    sign_as_member,
    signature_from_json,
    signature_to_json,
)
from p2pledger.node.home import Home, Layout
from p2pledger.primitives.errors import ConfigError, InvalidInput


@pytest.fixture
def members(tmp_path):
    return [(tmp_path / f"m{i}", init_member(tmp_path / f"m{i}", f"Member {i}", "hospital")) for i in range(4)]


def genesis_of(members):
    return assemble_genesis("Test", 1_000, {}, [card for _, card in members])


def test_the_ceremony_by_hand_ends_in_homes_that_start(members):
    """Cards and signatures travel as text; every home then loads."""
    cards = [card_from_json(card_to_json(card), "card") for _, card in members]
    genesis = assemble_genesis("Test", 1_000, {"timeout_ms": "500"}, cards)
    signatures = [
        signature_from_json(signature_to_json(sign_as_member(home, genesis), "x"), "signature") for home, _ in members
    ]
    signed = combine_signatures(genesis, signatures)
    for home, _ in members:
        install_genesis(home, signed)
        assert Home.load(home, {}).founding.parameters.timeout_ms == 500


def test_the_order_of_cards_does_not_matter(members):
    """Everybody who assembles the same cards signs the same thing."""
    assert genesis_of(members) == genesis_of(members[::-1])


def test_no_file_that_travels_holds_a_secret(members):
    """Neither card nor signature contains any seed."""
    genesis = genesis_of(members)
    for home, card in members:
        travels = card_to_json(card) + signature_to_json(sign_as_member(home, genesis), card.card.name)
        for key in Layout(home).keys.iterdir():
            assert key.read_text().strip() not in travels


def test_a_missing_signature_is_named(members):
    """By the member's name."""
    genesis = genesis_of(members)
    some = [sign_as_member(home, genesis) for home, _ in members[1:]]
    with pytest.raises(InvalidInput, match="Member 0"):
        combine_signatures(genesis, some)


def test_a_signature_of_another_genesis_is_refused(members):
    """A member that signed other parameters did not agree to these."""
    ours = genesis_of(members)
    other = assemble_genesis("Test", 1_000, {"window": "2"}, [card for _, card in members])
    mixed = [sign_as_member(home, ours) for home, _ in members[1:]] + [sign_as_member(members[0][0], other)]
    with pytest.raises(InvalidInput, match="Member 0"):
        combine_signatures(ours, mixed)


def test_a_stranger_does_not_sign(members, tmp_path):
    """Nor is its signature taken."""
    init_member(tmp_path / "stranger", "Stranger", "agency")
    with pytest.raises(InvalidInput, match="no member"):
        sign_as_member(tmp_path / "stranger", genesis_of(members))


def test_a_stranger_does_not_install(members, tmp_path):
    """A genesis is installed only where its node lives."""
    init_member(tmp_path / "stranger", "Stranger", "agency")
    genesis = genesis_of(members)
    signed = combine_signatures(genesis, [sign_as_member(home, genesis) for home, _ in members])
    with pytest.raises(InvalidInput, match="foreign"):
        install_genesis(tmp_path / "stranger", signed)


def test_a_genesis_is_installed_once(members):
    """A second one would be another chain under the same keys."""
    genesis = genesis_of(members)
    signed = combine_signatures(genesis, [sign_as_member(home, genesis) for home, _ in members])
    install_genesis(members[0][0], signed)
    with pytest.raises(InvalidInput, match="already exists"):
        install_genesis(members[0][0], signed)


@pytest.mark.parametrize(
    "field", ["name", "kind", "organisation", "account", "box", "validator", "node", "certificate"]
)
def test_every_field_of_a_card_is_signed(members, field):
    """A card that somebody changed on its way is refused."""
    card_from_json(card_to_json(members[0][1]), "card")
    fields = json.loads(card_to_json(members[0][1]))
    other = json.loads(card_to_json(members[1][1]))
    fields[field] = "insurer" if field == "kind" else other[field]
    with pytest.raises(InvalidInput):
        card_from_json(json.dumps(fields), "card")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "p2pledger/card/2"}', '{"format": "p2pledger/card/1"}', "[" * 100_000],
)
def test_what_is_no_card_is_refused(text):
    """Any text gives InvalidInput, never another error."""
    with pytest.raises(InvalidInput, match="mail"):
        card_from_json(text, "mail")


@pytest.mark.parametrize(
    ("name", "kind", "organisation"),
    [
        ("", "hospital", None),
        ("x" * 81, "hospital", None),
        ("bad\x1b[2J", "hospital", None),
        (" spaced ", "hospital", None),
        ("Ok", "bank", None),
        ("Ok", "hospital", b"short"),
    ],
)
def test_a_member_that_breaks_a_rule_leaves_no_home(tmp_path, name, kind, organisation):
    """Checked before the first key is written."""
    with pytest.raises(InvalidInput):
        init_member(tmp_path / "home", name, kind, organisation)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("given", [{"timeout": "1"}, {"window": "9"}, {"window": "x"}, {"default_policy": "allow"}])
def test_a_wrong_parameter_is_named(given):
    """Key and value."""
    with pytest.raises(InvalidInput, match=next(iter(given))):
        parse_parameters(given)


def test_parameters_that_are_not_given_keep_their_default():
    """And given ones are typed."""
    assert parse_parameters({}) == Parameters()
    assert parse_parameters({"heartbeat_ms": "0", "default_policy": "basic-normal"}) == Parameters(
        heartbeat_ms=0, default_policy="basic-normal"
    )


@pytest.mark.parametrize("n", [1, 2, 4, 5, 7, 50])
def test_consortia_of_every_size_are_made(tmp_path, n):
    """One to fifty members; each home loads."""
    made = create_consortium(tmp_path / "net", default_members(n), name="Test", created_ms=1, base_port=7420)
    assert len({member.home for member in made}) == n
    home = Home.load(made[-1].home, {})
    assert home.founding.validators.n == n
    assert home.config.p2p_listen == made[-1].p2p


@pytest.mark.parametrize("n", [0, 51])
def test_other_sizes_are_refused(tmp_path, n):
    """With the bounds."""
    with pytest.raises(InvalidInput, match="1 to 50"):
        create_consortium(tmp_path / "net", default_members(n), name="Test", created_ms=1)


@pytest.mark.parametrize("base", [80, 65_530, -1])
def test_impossible_ports_are_refused_before_anything_is_made(tmp_path, base):
    """With the bounds."""
    with pytest.raises(InvalidInput, match="ports"):
        create_consortium(tmp_path / "net", default_members(4), name="Test", created_ms=1, base_port=base)
    assert not (tmp_path / "net").exists()


def test_an_occupied_folder_is_left_alone(tmp_path):
    """A consortium is made in a new folder only."""
    (tmp_path / "precious").touch()
    with pytest.raises(InvalidInput, match="not empty"):
        create_consortium(tmp_path, default_members(4), name="Test", created_ms=1)


def test_names_without_latin_letters_get_a_folder_too(tmp_path):
    """And names that fall together stay apart."""
    named = [("病院", "hospital"), ("A b", "hospital"), ("a-B", "insurer"), ("member-3", "agency")]
    made = create_consortium(tmp_path / "net", named, name="Test", created_ms=1, base_port=0)
    assert len({member.home for member in made}) == 4
    for member in made:
        assert Home.load(member.home, {}).card.name == member.name


def test_a_home_without_genesis_does_not_start(members):
    """member init alone is not enough."""
    with pytest.raises(ConfigError, match="genesis install"):
        Home.load(members[0][0], {})
