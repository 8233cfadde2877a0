"""The ceremony as people type it, each member in its own home."""

import json

import pytest

from p2pledger.cli.main import main
from p2pledger.node.home import Home, Layout


@pytest.fixture
def run(capsys):
    def run(*arguments, expect=0):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert ended.value.code == expect, err
        return out if expect == 0 else err

    return run


@pytest.fixture
def founded(run, tmp_path):
    """Four homes, their cards and the unsigned genesis."""
    names = ["alpha", "beta", "gamma", "delta"]
    cards = []
    for name in names:
        (tmp_path / f"{name}.card").write_text(
            run("member", "init", "--home", tmp_path / name, "--name", name, "--kind", "hospital")
        )
        cards.append(tmp_path / f"{name}.card")
    unsigned = tmp_path / "genesis.unsigned"
    run("genesis", "assemble", *cards, "--name", "Region", "--param", "heartbeat_ms=1000", "--to", unsigned)
    return names, unsigned


def sign(run, tmp_path, names, unsigned):
    files = []
    for name in names:
        file = tmp_path / f"{name}.sig"
        file.write_text(run("genesis", "sign", unsigned, "--home", tmp_path / name))
        files.append(file)
    return files


def test_from_init_to_a_home_that_starts(run, tmp_path, founded):
    """member init, assemble, sign, combine, install, keys check."""
    names, unsigned = founded
    signed = tmp_path / "genesis.signed"
    run("genesis", "combine", unsigned, *sign(run, tmp_path, names, unsigned), "--to", signed)
    for name in names:
        run("genesis", "install", signed, "--home", tmp_path / name)
        shown = json.loads(run("keys", "check", "--home", tmp_path / name, "--output", "json"))
        assert (shown["member"], shown["members"]) == (name, 4)
    assert Home.load(tmp_path / "alpha", {}).founding.parameters.heartbeat_ms == 1000


def test_an_organisation_may_keep_its_keys_apart(run, tmp_path):
    """F-10: made there, signed with from there; the home passes without them, and says what it misses."""
    office, home = tmp_path / "office", tmp_path / "alpha"
    with_keys = ("--organisation-keys", office, "--home", home)
    card, unsigned, signature, signed = (tmp_path / name for name in ("card", "unsigned", "signature", "signed"))
    card.write_text(run("member", "init", *with_keys, "--name", "alpha", "--kind", "hospital"))
    assert {path.name for path in office.iterdir()} == {"account.key", "box.key"}
    run("genesis", "assemble", card, "--name", "Region", "--to", unsigned)
    assert str(home) in run("genesis", "sign", unsigned, "--home", home, expect=78)
    signature.write_text(run("genesis", "sign", unsigned, *with_keys))
    run("genesis", "combine", unsigned, signature, "--to", signed)
    run("genesis", "install", signed, "--home", home)
    assert "does without" in run("keys", "check", "--home", home)
    assert str(office) in run("keys", "check", *with_keys)
    assert run("--organisation-keys", office, "keys", "show", "--home", home) == run("keys", "show", *with_keys)
    message = run("vault", "list", "--home", home, expect=78)
    assert "P2PLEDGER_ORGANISATION_KEYS" in message


def test_show_tells_what_one_signs(run, founded):
    """Members, parameters, chain, and that nobody has signed yet."""
    names, unsigned = founded
    shown = json.loads(run("genesis", "show", unsigned, "--output", "json"))
    assert shown["signed"] is False
    assert sorted(member["name"] for member in shown["member"]) == sorted(names)
    assert shown["parameters"]["heartbeat_ms"] == 1000
    assert shown["chain"] in run("genesis", "show", unsigned)


def test_an_unsigned_genesis_is_not_installed(run, tmp_path, founded):
    """Status 2, and the command that is missing."""
    assert "genesis combine" in run("genesis", "install", founded[1], "--home", tmp_path / "alpha", expect=2)


def test_one_signature_too_few_is_named(run, tmp_path, founded):
    """Status 2 and the member's name."""
    names, unsigned = founded
    files = sign(run, tmp_path, names[:3], unsigned)
    assert "delta" in run("genesis", "combine", unsigned, *files, "--to", tmp_path / "x", expect=2)
    assert not (tmp_path / "x").exists()


def test_a_stranger_cannot_sign(run, tmp_path, founded):
    """Its key is of no member."""
    run("member", "init", "--home", tmp_path / "mallory", "--name", "mallory", "--kind", "agency")
    assert "no member" in run("genesis", "sign", founded[1], "--home", tmp_path / "mallory", expect=2)


def test_the_card_can_be_printed_again(run, tmp_path, founded):
    """The same text as at init."""
    assert run("member", "card", "--home", tmp_path / "alpha") == (tmp_path / "alpha.card").read_text()


def test_keys_show_public_halves_only(run, tmp_path, founded):
    """No seed on stdout."""
    shown = run("keys", "show", "--home", tmp_path / "alpha")
    for key in Layout(tmp_path / "alpha").keys.iterdir():
        assert key.read_text().strip() not in shown
    assert shown.count("\n") == 5


@pytest.mark.parametrize(
    "break_it",
    [
        lambda layout: layout.key("node").unlink(),
        lambda layout: layout.key("node").chmod(0o644),
        lambda layout: layout.genesis.write_bytes(b"x"),
        lambda layout: layout.config.write_text("[p2p]\nlisen = 'a:1'"),
    ],
    ids=["missing key", "world-readable key", "broken genesis", "wrong setting"],
)
def test_a_broken_home_is_bad_configuration(run, tmp_path, break_it):
    """Status 78 with one line that says what."""
    run("consortium", "create", tmp_path / "net", "--members", "1", "--base-port", "0")
    home = tmp_path / "net" / "city-hospital"
    run("keys", "check", "--home", home)
    break_it(Layout(home))
    message = run("keys", "check", "--home", home, expect=78)
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_consortium_create_says_that_it_is_for_demonstrations(capsys, tmp_path):
    """One machine sees all keys."""
    with pytest.raises(SystemExit):
        main(["consortium", "create", str(tmp_path / "net"), "--base-port", "0"])
    assert "DEMO ONLY" in capsys.readouterr().err


def test_a_consortium_with_names_and_kinds(run, tmp_path):
    """NAME[:KIND], repeated."""
    folder = tmp_path / "net"
    shown = run(
        *("consortium", "create", folder, "--base-port", "0", "--output", "jsonl"),
        *("--member", "North Clinic", "--member", "Fund:insurer"),
    )
    assert [json.loads(line)["name"] for line in shown.splitlines()] == ["North Clinic", "Fund"]
    assert Home.load(folder / "fund", {}).card.kind == "insurer"
    run("consortium", "create", tmp_path / "other", "--member", "X:bank", expect=2)
    run("consortium", "create", tmp_path / "other", "--members", "51", expect=2)


def test_the_home_comes_from_the_environment(run, tmp_path, founded, monkeypatch):
    """--home > P2PLEDGER_HOME."""
    monkeypatch.setenv("P2PLEDGER_HOME", str(tmp_path / "beta"))
    assert run("member", "card") == (tmp_path / "beta.card").read_text()
    assert run("member", "card", "--home", tmp_path / "alpha") == (tmp_path / "alpha.card").read_text()
