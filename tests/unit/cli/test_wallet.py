"""wallet and identity: secrets stay in the file, registrations go round as drafts."""

import json
from typing import get_args

import pytest

from p2pledger.cli import identity
from p2pledger.client.keyring import Wallet
from p2pledger.health.vocabulary import IdentityKind, Role
from tests.unit.cli.town import NAMES, Town, run, said


def test_a_sealed_wallet_asks_for_its_passphrase(town: Town):
    """Twice when it is made, once when it is used; a wrong one is bad configuration."""
    file = town.file("sealed.wallet")
    run("wallet", "init", file, input="open sesame\nopen sesame\n")
    assert file.stat().st_mode & 0o777 == 0o600
    shown = run("wallet", "show", *town.as_person(file.name), input="open sesame\n")
    assert all(name in shown.stdout for name in NAMES)
    assert "wrong passphrase" in said(run("wallet", "show", *town.as_person(file.name), input="x\n", expect=78))


def test_a_wallet_is_never_overwritten(town):
    """Status 2."""
    run("wallet", "init", town.file("kept.wallet"), "--no-passphrase")
    assert "already exists" in said(run("wallet", "init", town.file("kept.wallet"), "--no-passphrase", expect=2))


def test_show_and_card_hold_public_parts_only(town):
    """Another person at every organisation, and no secret on stdout."""
    run("wallet", "init", town.file("shown.wallet"), "--no-passphrase")
    secret = town.file("shown.wallet").read_text().strip()
    rows = json.loads(run("wallet", "show", *town.as_person("shown.wallet"), "--output", "json").stdout)
    assert len({row["id"] for row in rows}) == len({row["account"] for row in rows}) == len(NAMES)
    card = run("wallet", "card", *town.as_person("shown.wallet", NAMES[1])).stdout
    assert json.loads(card)["pid"] == next(row["id"] for row in rows if row["organisation"] == NAMES[1])
    assert secret not in card + json.dumps(rows)


def test_a_wallet_needs_to_know_where(town):
    """--wallet without --at lists the organisations; an unknown one too."""
    network = [*town.network, "--genesis", town.genesis, "--wallet", town.file("shown.wallet")]
    assert NAMES[2] in said(run("wallet", "card", *network, expect=2))
    assert "'Nowhere'" in said(run("wallet", "card", *network, "--at", "Nowhere", expect=2))
    assert "--wallet" in said(run("wallet", "card", *network[:-2], "--at", NAMES[0], expect=2))


def test_the_words_offered_are_those_of_the_chain():
    """The command line lists them itself so that --help imports nothing."""
    assert get_args(IdentityKind) == identity.KINDS
    assert get_args(Role) == identity.ROLES


@pytest.fixture(scope="module")
def draft(town):
    """A registration that only the person has signed."""
    run("wallet", "init", town.file("new.wallet"), "--no-passphrase")
    made = run("identity", "register", *town.as_person("new.wallet"), "--kind", "practitioner")
    return town.file("new.draft", made.stdout)


def test_a_draft_is_read_before_it_is_signed(town, draft):
    """What it says, and whose signature is missing."""
    shown = json.loads(run("tx", "show", draft, *town.as_organisation(), "--output", "json").stdout)
    assert shown["operations"][0]["operation"] == "IdentityRegister"
    assert [signer["signed"] for signer in shown["signers"]] == [True, False]
    assert "IdentityRegister" in run("tx", "show", draft, *town.as_organisation()).stdout


def test_an_unfinished_draft_is_not_submitted(town, draft):
    """Status 4, naming the key that is missing."""
    assert town.homes[0].card.account.hex() in said(run("tx", "submit", draft, *town.as_organisation(), expect=4))


def test_who_has_no_part_in_a_draft_cannot_sign_it(town, draft):
    """Status 2."""
    assert "neither" in said(run("tx", "sign", draft, *town.as_organisation(NAMES[1]), expect=2))


def test_a_draft_of_another_chain_is_not_signed(town, draft):
    """The other chain is named."""
    parts = json.loads(draft.read_text())
    parts["body"] = parts["body"].replace(town.founding.chain.hex(), "ab" * 32)
    parts["signatures"] = {}
    other = town.file("other.draft", json.dumps(parts))
    assert "ab" * 32 in said(run("tx", "sign", other, *town.as_organisation(), expect=2))


def test_a_changed_draft_is_refused(town, draft):
    """The operations are not those that were signed."""
    parts = json.loads(draft.read_text())
    parts["operations"] = parts["operations"][:-2] + "00"
    changed = town.file("changed.draft", json.dumps(parts))
    run("tx", "sign", changed, *town.as_organisation(), expect=2)
    run("tx", "sign", town.file("junk.draft", b"\xff\xfe"), *town.as_organisation(), expect=2)
    run("tx", "sign", town.file("no.draft"), *town.as_organisation(), expect=2)


def test_from_draft_to_receipt(town, draft):
    """Cosigned, submitted, proven; then found again by account and nonce; twice is refused."""
    signed = run("tx", "sign", draft, *town.as_organisation())
    file = town.file("new.signed", signed.stdout)
    assert "2 of 2" in signed.stderr
    shown = json.loads(run("tx", "submit", file, *town.as_organisation(), "--output", "json").stdout)
    assert (shown["code"], shown["proven"], shown["events"][0]["event"]) == ("OK", True, "IdentityRegistered")
    account = Wallet.load(town.file("new.wallet")).at(town.homes[0].card.organisation).account.hex()
    for command in ("get", "wait"):
        again = json.loads(run("tx", command, account, 1, *town.as_organisation(), "--output", "json").stdout)
        assert again == shown
    assert "IdentityRegistered(did=" in run("tx", "get", account, 1, *town.as_organisation()).stdout


def test_a_receipt_that_is_not_there(town):
    """get: 6, not found; wait: 75, try later."""
    run("tx", "get", "00" * 32, 1, *town.as_organisation(), expect=6)
    run("tx", "wait", "00" * 32, 1, "--timeout", 1, *town.as_organisation(), expect=75)
    run("tx", "get", "00" * 31, 1, *town.as_organisation(), expect=2)


def test_an_organisation_says_what_its_people_may_do(town, doctor):
    """A second credential for the same role is a duplicate; withdrawn, it can be given again."""
    employer = town.as_organisation(NAMES[1])
    nurse = ["--subject", doctor, "--role", "nurse"]
    given = run("identity", "credential", *employer, *nurse, "--group", "aa" * 16, "--output", "json")
    assert json.loads(given.stdout)["events"][0]["role"] == "nurse"
    run("identity", "credential", *employer, *nurse, expect=4)
    run("identity", "withdraw", *employer, *nurse)
    run("identity", "credential", *employer, *nurse, "--for", "1d")
    run("identity", "suspend", *employer, "--subject", doctor)
    run("identity", "resume", *employer, "--subject", doctor)


def test_an_organisation_says_nothing_about_others_people(town, doctor):
    """E_ROLE, status 4."""
    other = town.as_organisation(NAMES[0])
    assert "E_ROLE" in said(run("identity", "suspend", *other, "--subject", doctor, expect=4))
