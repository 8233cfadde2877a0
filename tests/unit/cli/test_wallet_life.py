"""F-20, F-75: a wallet through its life: backed up, lost, restored, rotated, and read in plain words."""

import json
from typing import Any

import pytest

from p2pledger.cli import wallet as cli_wallet
from p2pledger.client import identities, keyring
from p2pledger.client.keyring import Wallet, open_wallet
from p2pledger.primitives.errors import Unavailable
from tests.unit.cli.town import NAMES, Town, run, said


def as_owner(town: Town, wallet: str) -> list[str]:
    return town.as_person(wallet)[:-2]


def rows(*arguments: object, **options: Any) -> list[dict[str, Any]]:
    return json.loads(run(*arguments, "--output", "json", **options).stdout)


def words_of(town: Town, wallet: str) -> str:
    return str(json.loads(run("wallet", "phrase", town.file(wallet), "--output", "json").stdout)["phrase"])


@pytest.fixture(scope="module")
def two_places(town: Town) -> dict[str, str]:
    """A patient of two hospitals with one wallet: organisation -> pid."""
    run("wallet", "init", town.file("ada"), "--no-passphrase")
    found = {}
    for name in NAMES[:2]:
        draft, signed = town.file(f"ada {name}.draft"), town.file(f"ada {name}.signed")
        run("identity", "register", *town.as_person("ada", name), "--to", draft)
        run("tx", "sign", draft, *town.as_organisation(name), "--to", signed)
        (event,) = json.loads(run("tx", "submit", signed, *town.as_person("ada", name), "--output", "json").stdout)[
            "events"
        ]
        found[name] = event["did"]
    return found


def test_a_lost_wallet_comes_back_from_its_words(town: Town, two_places: dict[str, str]) -> None:
    """On an empty machine: the same keys, and every identity that the chain has for them."""
    words = words_of(town, "ada")
    found = rows(
        "wallet", "restore", town.file("ada again"), *as_owner(town, "nowhere"), "--no-passphrase", input=f"{words}\n"
    )
    assert {row["organisation"]: row["id"] for row in found} == two_places
    organisation = town.homes[0].card.organisation
    again, lost = Wallet.load(town.file("ada again")), Wallet.load(town.file("ada"))
    assert again.at(organisation).account == lost.at(organisation).account


def test_wrong_words_restore_nothing(town: Town) -> None:
    """The place of the mistake is named, the word is not; no file is written."""
    words = ("zoo " * 23 + "zzz").strip()
    failed = run("wallet", "restore", town.file("none"), "--no-passphrase", "--offline", input=f"{words}\n", expect=2)
    assert "word 24" in said(failed) and "zzz" not in said(failed)
    assert not town.file("none").exists()
    stranger = Wallet(bytes(32)).phrase
    shown = run("wallet", "restore", town.file("stranger"), *as_owner(town, "x"), "--no-passphrase", input=stranger)
    assert "knows these keys nowhere" in shown.stderr


def test_rotating_goes_on_after_a_crash(
    town: Town, two_places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two organisations, between the chain and the file, before the end: nothing is lost, ids stay."""
    real = identities.KeyRotate
    asked: list[object] = []

    def second_fails(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 2:
            raise Unavailable("the machine loses its power")
        return real(*arguments)

    monkeypatch.setattr(identities, "KeyRotate", second_fails)
    run("wallet", "rotate", *as_owner(town, "ada"), "--yes", expect=75)
    monkeypatch.undo()
    halfway = Wallet.load(town.file("ada"))
    assert halfway.pending is not None and len(halfway.moved) == 1
    assert {row["id"] for row in rows("wallet", "who", *as_owner(town, "ada"))} == set(two_places.values())

    forgetful = halfway.__class__(halfway.secret, halfway.former, halfway.pending, frozenset(), halfway.ids)
    open_wallet(town.file("ada")).keep(forgetful)  # the crash came before the first step was kept
    done = rows("wallet", "rotate", *as_owner(town, "ada"), "--yes")
    assert {row["organisation"]: row["id"] for row in done} == two_places
    assert sorted(row["height"] is None for row in done) == [False, True], "one was rotated before the crash"
    after = Wallet.load(town.file("ada"))
    assert after.pending is None and after.secret == halfway.pending and after.former == (halfway.secret,)
    assert {row["id"] for row in rows("wallet", "who", *as_owner(town, "ada"))} == set(two_places.values())


def test_a_rotated_wallet_comes_back_from_its_new_words(town: Town, two_places: dict[str, str]) -> None:
    """With its ids, which the new secret does not tell; the old words alone restore nobody."""
    after = Wallet.load(town.file("ada"))
    network = as_owner(town, "x")
    found = rows("wallet", "restore", town.file("new"), *network, "--no-passphrase", input=f"{after.phrase}\n")
    assert {row["organisation"]: row["id"] for row in found} == two_places
    organisation = town.homes[1].card.organisation
    assert Wallet.load(town.file("new")).at(organisation).did.hex() == two_places[NAMES[1]]
    old = Wallet(after.former[0]).phrase
    shown = run("wallet", "restore", town.file("old"), *network, "--no-passphrase", input=f"{old}\n")
    assert "newer phrase has replaced them" in shown.stderr


def test_both_phrases_of_an_unfinished_rotation_restore_its_middle(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is lost between two organisations: new words and old words together go on from there."""
    run("wallet", "init", town.file("eve"), "--no-passphrase")
    for name in NAMES[:2]:
        draft, signed = town.file(f"eve {name}.draft"), town.file(f"eve {name}.signed")
        run("identity", "register", *town.as_person("eve", name), "--to", draft)
        run("tx", "sign", draft, *town.as_organisation(name), "--to", signed)
        run("tx", "submit", signed, *town.as_person("eve", name))
    real, asked = identities.KeyRotate, []

    def second_fails(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 2:
            raise Unavailable("the machine is stolen")
        return real(*arguments)

    monkeypatch.setattr(identities, "KeyRotate", second_fails)
    run("wallet", "rotate", *as_owner(town, "eve"), "--yes", expect=75)
    monkeypatch.undo()
    lost = Wallet.load(town.file("eve"))
    assert lost.pending is not None
    both = f"{keyring.phrase_of(lost.pending)}\n{lost.phrase}\n"
    network = as_owner(town, "x")
    shown = run("wallet", "restore", town.file("eve 2"), *network, "--former", 1, "--no-passphrase", input=both)
    assert "rotation was not finished" in shown.stderr
    again = Wallet.load(town.file("eve 2"))
    assert (again.secret, again.pending, again.moved) == (lost.secret, lost.pending, lost.moved)
    assert again.ids.items() >= lost.ids.items()
    done = rows("wallet", "rotate", *as_owner(town, "eve 2"), "--yes")
    assert sorted(row["height"] is None for row in done) == [False, True]
    assert Wallet.load(town.file("eve 2")).pending is None


def test_nothing_is_rotated_before_the_words_are_on_paper(town: Town, two_places: dict[str, str]) -> None:
    """Asked, and answered with no: the keys stay, and the next time the same words come."""
    before = Wallet.load(town.file("ada")).at(town.homes[0].card.organisation).account
    shown = run("wallet", "rotate", *as_owner(town, "ada"), input="n\n", expect=2)
    assert "nothing was rotated" in said(shown)
    assert Wallet.load(town.file("ada")).at(town.homes[0].card.organisation).account == before
    run("wallet", "init", town.file("nobody"), "--no-passphrase")
    assert "at no organisation" in said(run("wallet", "rotate", *as_owner(town, "nobody"), "--yes", expect=2))


def test_who_may_see_what_until_when_and_one_step_back(town: Town, two_places: dict[str, str], doctor: str) -> None:
    """F-75: one list over both hospitals, oldest first; taken back by its number, and only once."""
    for name, purpose in ((NAMES[0], "TREAT"), (NAMES[1], "HPAYMT")):
        options = ["--actor", f"person:{doctor}", "--everything", "--for", "24h", "--purpose", purpose]
        run("consent", "grant", *town.as_person("ada", name), *options, "--to", town.file(f"{purpose}.card"))
    owner = as_owner(town, "ada")
    shown = rows("wallet", "consents", *owner, town.file("TREAT.card"))
    assert [(row["number"], row["at"]) for row in shown] == [(1, NAMES[0]), (2, NAMES[1])]
    assert shown[0]["who"] == f"person {doctor}" and shown[0]["why"] == "treatment (TREAT)"
    assert shown[1]["who"] == "1 readers named on the consent card" and shown[1]["now"] == "holds"
    assert "UTC" in shown[0]["until"]

    assert "nothing was taken back" in said(run("wallet", "revoke", 1, *owner, input="n\n", expect=2))
    run("wallet", "revoke", 1, *owner, input="y\n")
    after = rows("wallet", "consents", *owner)
    assert after[0]["now"].startswith("taken back at height") and after[1]["now"] == "holds"
    assert "nothing to take back" in said(run("wallet", "revoke", 1, *owner, "--yes", expect=2))
    assert "none has the number 3" in said(run("wallet", "revoke", 3, *owner, "--yes", expect=2))


def test_who_looked_when_why_and_on_which_basis(town: Town, two_places: dict[str, str], doctor: str) -> None:
    """F-75: denied and allowed, over all custodians, in the order of time."""
    asked = ["--pid", two_places[NAMES[0]], "--purpose", "TREAT", "--compartment", "aa" * 16]
    run("access", "request", *town.as_person("doctor.wallet", NAMES[1]), *asked, expect=4)
    asked = ["--card", town.file("HPAYMT.card"), "--purpose", "HPAYMT", "--compartment", "aa" * 16]
    run("access", "request", *town.as_person("doctor.wallet", NAMES[1]), *asked)
    town.chain.tick()
    shown = rows("wallet", "log", *as_owner(town, "ada"))
    assert [(row["at"], row["answer"].split("(")[0]) for row in shown] == [(NAMES[0], "DENIED"), (NAMES[1], "ALLOWED")]
    assert shown[1]["why"] == "payment (HPAYMT)" and shown[1]["because"].startswith("consent ")
    assert shown[1]["who"] == f"person {doctor} of {NAMES[1]}"


def test_practitioners_and_auditors_see_who_they_are(town: Town, doctor: str) -> None:
    """Roles with their ends, and since when the key counts; a patient's views are for patients."""
    town.enrol("audit.wallet", "auditor", NAMES[3])
    town.chain.tick()
    (row,) = rows("wallet", "who", *as_owner(town, "doctor.wallet"))
    assert (row["as"], row["id"]) == ("practitioner", doctor) and row["may act as"][0].startswith("physician until 20")
    (row,) = rows("wallet", "who", *as_owner(town, "audit.wallet"))
    assert (row["as"], row["organisation"], row["may act as"]) == ("auditor", NAMES[3], ["itself"])
    assert "no patient" in said(run("wallet", "consents", *as_owner(town, "doctor.wallet"), expect=6))


def test_the_views_are_commands_of_the_wallet() -> None:
    assert {"who", "consents", "log", "revoke"} <= set(cli_wallet.wallet.commands)


def test_a_stolen_key_is_revoked_and_replaced(town: Town) -> None:
    """F-22: the employer ends it; the person comes back under the same id with a new wallet that both sign for."""
    did = town.enrol("nurse.wallet", "practitioner", NAMES[1])
    employer, subject = town.as_organisation(NAMES[1]), ["--subject", did]
    town.chain.tick()
    document = json.loads(run("identity", "show", *town.as_person("nurse.wallet", NAMES[1])).stdout)
    (method,) = document["verificationMethod"]
    assert document["authentication"] == [method["id"]] and "revokedAtHeight" not in method
    stolen = Wallet.load(town.file("nurse.wallet")).at(town.homes[1].card.organisation).account.hex()
    run("identity", "revoke-key", *employer, *subject, "--key", "00" * 32, expect=4)
    run("identity", "revoke-key", *employer, *subject, "--key", stolen)
    run("wallet", "who", *as_owner(town, "nurse.wallet"), expect=6)

    run("wallet", "init", town.file("nurse 2"), "--no-passphrase")
    draft, signed = town.file("nurse 2.draft"), town.file("nurse 2.signed")
    run("identity", "rekey", *town.as_person("nurse 2", NAMES[1]), *subject, "--witness", NAMES[0], "--to", draft)
    run("tx", "sign", draft, *employer, "--to", signed)
    run("tx", "sign", signed, *town.as_organisation(), "--to", town.file("nurse 2.witnessed"))
    run("tx", "submit", town.file("nurse 2.witnessed"), *employer)
    town.chain.tick()
    (row,) = rows("wallet", "who", *as_owner(town, "nurse 2"))
    assert row["id"] == did
    document = json.loads(run("identity", "show", *town.as_person("nurse 2", NAMES[1])).stdout)
    assert ["revokedAtHeight" in method for method in document["verificationMethod"]] == [True, False]


def test_a_credential_is_issued_presented_and_verified(town: Town) -> None:
    """F-21: from the employer's home to another hospital's desk; withdrawn, it is refused there."""
    did = town.enrol("pharmacist.wallet", "practitioner", NAMES[1])
    employer, token = town.as_organisation(NAMES[1]), town.file("pharmacist.jwt")
    town.chain.tick()
    entry = ["--subject", did, "--role", "pharmacist", "--licence-number", "PH 77", "--for", "30d"]
    run("identity", "credential", *employer, *entry, expect=2)
    run("identity", "credential", *employer, *entry, "--token", token)
    assert token.stat().st_mode & 0o777 == 0o600
    town.chain.tick()
    shown = ["--audience", NAMES[0], "--nonce", "n-1"]
    made = run("identity", "present", token, *town.as_person("pharmacist.wallet", NAMES[1]), *shown)
    presentation = town.file("pharmacist.vp", made.stdout)
    desk = town.as_organisation(NAMES[0])
    said_there = json.loads(run("identity", "verify", presentation, *desk, *shown, "--output", "json").stdout)
    assert (said_there["licence"], said_there["issuer"], said_there["role"]) == ("PH 77", NAMES[1], "pharmacist")
    assert "PH 77" in run("identity", "verify", token, *desk).stdout
    assert "E_POP" in said(run("identity", "verify", presentation, *desk, *shown[:3], "n-2", expect=4))
    second = town.file("second.jwt")
    run("identity", "credential", *employer, *entry, "--token", second, expect=4)
    assert not second.exists(), "a token that the chain refused is not left behind"
    run("identity", "withdraw", *employer, "--subject", did, "--role", "pharmacist")
    town.chain.tick()
    assert "E_REVOKED" in said(run("identity", "verify", token, *desk, expect=4))


def test_the_others_suspend_and_resume_a_member(town: Town) -> None:
    """F-22: a draft that goes round; one member alone is refused by the chain."""
    others = ["--with", NAMES[2]]
    for command in ("suspend", "resume"):
        draft, signed = town.file(f"{command}.draft"), town.file(f"{command}.signed")
        run("member", command, NAMES[3], *town.as_organisation(), *others, "--to", draft)
        run("tx", "submit", draft, *town.as_organisation(), expect=4)
        run("tx", "sign", draft, *town.as_organisation(NAMES[2]), "--to", signed)
        shown = json.loads(run("tx", "submit", signed, *town.as_organisation(), "--output", "json").stdout)
        assert shown["events"][0]["organisation"] == town.homes[3].card.organisation.hex()


@pytest.mark.parametrize("name", ["account", "box"])
def test_an_organisations_key_comes_back_from_its_words(town: Town, name: str) -> None:
    """F-20: into the home whose card has it, and no other key into its place."""
    home = ["--home", town.home(NAMES[2])]
    layout = town.homes[2].layout
    words = json.loads(run("keys", "phrase", name, *home, "--output", "json").stdout)["phrase"]
    assert "already exists" in said(run("keys", "restore", name, *home, input=f"{words}\n", expect=2))
    before = layout.key(name).read_bytes()
    layout.key(name).unlink()
    run("keys", "check", *home, expect=78)
    other = json.loads(run("keys", "phrase", "node", *home, "--output", "json").stdout)["phrase"]
    assert "the card's" in said(run("keys", "restore", name, *home, input=f"{other}\n", expect=2))
    run("keys", "restore", name, *home, input=f"{words}\n")
    assert layout.key(name).read_bytes() == before
    run("keys", "check", *home)


def test_an_organisation_rotates_its_account(town: Town) -> None:
    """F-22: on the chain and in the home; what it signs from then on counts, and its nodes start as before."""
    home = town.as_organisation(NAMES[2])
    place = ["--home", town.home(NAMES[2])]
    assert "keys next" in said(run("keys", "rotate", *home, expect=2))
    made = json.loads(run("keys", "next", *place, "--output", "json").stdout)
    assert json.loads(run("keys", "next", *place, "--output", "json").stdout) == made, "asked twice, made once"
    done = json.loads(run("keys", "rotate", *home, "--output", "json").stdout)
    assert done["account"] == made["account"] and done["height"] is not None
    run("keys", "check", *place)
    town.chain.tick()
    draft, signed = town.file("by the new key.draft"), town.file("by the new key.signed")
    run("member", "suspend", NAMES[3], *town.as_organisation(), "--with", NAMES[2], "--to", draft)
    run("tx", "sign", draft, *home, "--to", signed)
    run("tx", "submit", signed, *home)

    run("wallet", "init", town.file("late"), "--no-passphrase")
    person = town.as_person("late", NAMES[2])
    draft, signed = town.file("late.draft"), town.file("late.signed")
    run("identity", "register", *person, "--sponsor-key", made["account"], "--to", draft)
    run("tx", "sign", draft, *home, "--to", signed)
    run("tx", "submit", signed, *person)


def test_a_member_whose_key_was_stolen_comes_back(town: Town) -> None:
    """F-22: suspended above, it makes its next key; the others and it sign; it adopts the key and is resumed."""
    victim = town.as_organisation(NAMES[3])
    town.chain.tick()
    made = json.loads(run("keys", "next", "--home", town.home(NAMES[3]), "--output", "json").stdout)
    given = ["--account", made["account"], "--box", made["box"], "--with", NAMES[2]]
    for command, more in (("rekey", given), ("resume", ["--with", NAMES[2]])):
        draft, second, third = (town.file(f"back {command} {step}") for step in range(3))
        run("member", command, NAMES[3], *town.as_organisation(), *more, "--to", draft)
        run("tx", "sign", draft, *town.as_organisation(NAMES[2]), "--to", second)
        if command == "rekey":
            run("tx", "sign", second, *victim, "--to", third)
            run("tx", "submit", third, *town.as_organisation())
            adopted = json.loads(run("keys", "rotate", *victim, "--output", "json").stdout)
            assert (adopted["account"], adopted["height"]) == (made["account"], None), "the chain had it already"
        else:
            run("tx", "submit", second, *town.as_organisation())
        town.chain.tick()
    town_document = json.loads(run("identity", "show", *victim).stdout)
    assert ["revokedAtHeight" in method for method in town_document["verificationMethod"]] == [True, False]
