"""guardian and recovery: what people type, what the commands say when something is wrong, and past two vetoes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.town import NAMES, Town, run, said
from tests.unit.health.world import DAY_MS

PEOPLE = ("aunt", "brother", "cousin")
pytestmark = pytest.mark.usefixtures("family")


@pytest.fixture(scope="module")
def family(town: Town) -> Town:
    """The patient of NAMES[0] with three guardians, of whom two are enough."""
    town.enrol("patient.wallet", "patient")
    for name in PEOPLE:
        run("wallet", "init", town.file(name), "--no-passphrase")
        run("guardian", "invite", *owner(town, "patient.wallet"), "--to", town.file(f"{name}.invitation"))
        accept = ["guardian", "accept", town.file(f"{name}.invitation"), "--to", town.file(f"{name}.acceptance")]
        run(*accept, *owner(town, name))
    names_guardians(town, "--cards", town.file("cards"))
    return town


def names_guardians(town: Town, *more: object, expect: int = 0) -> Any:
    accepted = [town.file(f"{name}.acceptance") for name in PEOPLE]
    return run(
        "guardian",
        "set",
        *accepted,
        *owner(town, "patient.wallet"),
        "--needed",
        2,
        *more,
        "--without-boxes",
        expect=expect,
    )


def owner(town: Town, wallet: str) -> list[object]:
    return [*town.network, "--genesis", town.genesis, "--wallet", town.file(wallet)]


def card(town: Town, name: str) -> Path:
    return town.file("cards") / f"{name}.card"


def status(town: Town, wallet: str = "patient.wallet") -> dict[str, Any]:
    (row,) = json.loads(run("guardian", "status", *owner(town, wallet), "--output", "json").stdout)
    return dict(row)


def passes(town: Town, milliseconds: int) -> None:
    """Block time, which is everybody's clock here."""
    town.chain.now_ms += milliseconds
    town.chain.tick()


def approved(town: Town, wallet: str, *names: str) -> list[Path]:
    """A new wallet's request, and what these guardians say to it; the request first."""
    run("wallet", "init", town.file(wallet), "--no-passphrase")
    request = town.file(f"{wallet}.request")
    run("recovery", "request", card(town, "copy"), *owner(town, wallet), "--to", request)
    files = [request]
    for name in names:
        files.append(town.file(f"{wallet}.{name}"))
        run("guardian", "approve", request, card(town, name), *owner(town, name), "--yes", "--to", files[-1])
    return files


def test_mistakes_are_named_with_what_to_do(family: Town) -> None:
    """A wrong file, a folder that is there, a wallet that nobody guards, and a guardian who has not spoken yet."""
    town = family
    assert "is there already" in said(names_guardians(town, "--cards", town.file("cards"), expect=2))
    wrong = run("guardian", "accept", card(town, "aunt"), *owner(town, "aunt"), "--to", town.file("x"), expect=2)
    assert "not a p2pledger/guardian-invitation/1" in said(wrong)
    run("wallet", "init", town.file("lonely"), "--no-passphrase")
    assert "guardian invite" in run("guardian", "status", *owner(town, "lonely")).stderr
    assert "is no patient" in said(run("guardian", "invite", *owner(town, "lonely"), "--to", town.file("y"), expect=6))
    (request,) = approved(town, "again")
    approve = ["guardian", "approve", request, card(town, "aunt"), *owner(town, "aunt"), "--to", town.file("z")]
    refused = run(*approve, input="n\n", expect=2)
    assert "call the person" in said(refused) and not town.file("z").exists()
    start = ["recovery", "start", request, town.file("z")]
    assert said(run(*start, *owner(town, "again"), expect=2)) == f"{town.file('z')} does not exist"


def test_a_wallet_is_lost_and_recovered_past_a_thief(family: Town) -> None:
    """F-23 to F-25: freeze, two vetoes by the thief, then three guardians and the custodian, whom no veto stops."""
    town = family
    shown = status(town)
    assert (shown["needed"], shown["delay"], shown["recovery"]) == ("2 of 3", "72 h", "none waits")
    until = datetime.fromtimestamp((town.chain.now_ms + 25 * DAY_MS) / 1000, UTC).isoformat()
    freeze = ["guardian", "freeze", card(town, "aunt"), "--until", until]
    assert "--to FILE" in said(run(*freeze, *owner(town, "aunt"), expect=2))
    run(*freeze, *owner(town, "aunt"), "--to", town.file("aunt.freeze"))
    other = ["guardian", "freeze", card(town, "brother"), "--with", town.file("aunt.freeze")]
    run(*other, *owner(town, "brother"))
    assert status(town)["frozen"].startswith("until")
    assert "FROZEN" in run("wallet", "log", *owner(town, "patient.wallet")).stderr

    for number in range(2):
        files = approved(town, f"new-{number}", "aunt", "brother")
        started = run("recovery", "start", *files, *owner(town, f"new-{number}"))
        assert "can veto until then" in started.stderr
        again = run("recovery", "start", *files, *owner(town, f"new-{number}"))
        assert again.stdout == started.stdout, "done again after an interruption it changes nothing"
        assert "A RECOVERY WAITS" in run("wallet", "log", *owner(town, "patient.wallet")).stderr
        early = run("recovery", "finalize", *owner(town, f"new-{number}"), expect=4)
        assert "the delay is not over" in said(early)
        run("recovery", "veto", *owner(town, "patient.wallet"), "--yes")
        assert "no recovery waits" in said(run("recovery", "finalize", *owner(town, f"new-{number}"), expect=2))
    assert status(town)["vetoes"] == 2

    files = approved(town, "newest", *PEOPLE)
    draft, signed = town.file("beyond.draft"), town.file("beyond.signed")
    run("recovery", "start", *files, *owner(town, "newest"), "--beyond-veto", "--to", draft)
    run("tx", "sign", draft, *town.as_organisation(), "--to", signed)
    run("tx", "submit", signed, *town.as_person("newest"))
    assert "no veto ends it" in status(town)["recovery"]
    assert said(run("recovery", "veto", *owner(town, "patient.wallet"), "--yes", expect=4)) == "E_VETO"
    passes(town, 14 * DAY_MS)
    run("recovery", "finalize", *owner(town, "newest"))
    assert status(town, "newest")["recovery"] == "final"
    run("wallet", "who", *owner(town, "patient.wallet"), expect=6)
    assert "kept" in said(run("recovery", "open", card(town, "copy"), *owner(town, "newest"), expect=4))


def test_guardians_look_with_their_own_card(family: Town) -> None:
    rows = json.loads(
        run("guardian", "status", card(family, "aunt"), *owner(family, "aunt"), "--output", "json").stdout
    )
    assert [row["needed"] for row in rows] == ["2 of 3"]
    assert "not the guardian" in said(
        run("guardian", "status", card(family, "aunt"), *owner(family, "brother"), expect=2)
    )


def test_a_custodian_keeps_the_copy_that_is_nobodys(town: Town) -> None:
    """F-23: for who has lost every other card; a guardian's own, or one about others' patients, is not taken."""
    kept = json.loads(run("guardian", "keep", card(town, "copy"), *town.as_organisation(), "--output", "json").stdout)
    (path,) = (town.home() / "guardian-cards").iterdir()
    assert kept == [{"card": str(path)}] and path.read_bytes() == card(town, "copy").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    run("guardian", "keep", card(town, "copy"), *town.as_organisation())  # a newer one takes its place
    own = run("guardian", "keep", card(town, "aunt"), *town.as_organisation(), expect=2)
    assert "is a guardian's own" in said(own)
    other = run("guardian", "keep", card(town, "copy"), *town.as_organisation(NAMES[1]), expect=2)
    assert "about no patient of this custodian" in said(other)
