"""sharing and audit releases: what an operator reads and wishes, and what is told where a share left in silence."""

import json
from pathlib import Path

from p2pledger.health.key_keeper import SecretName
from p2pledger.health.release import ReleaseEntry
from p2pledger.node.home import Home
from p2pledger.primitives.ids import Bytes16, Bytes32
from p2pledger.storage.release_entries import ReleaseEntries
from p2pledger.storage.share_files import ShareFiles
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.key_release import Access
from tests.unit.cli.town import Town, run, said
from tests.unit.execution.ledger import hash32, id16


def home_of(town: Town) -> Home:
    return Home.load(Path(town.home()), {})


def files_of(town: Town) -> ShareFiles:
    home = home_of(town)
    return ShareFiles(home.layout.shares, home.founding.chain, home.node)


def test_status_without_a_key_says_that_nothing_can_be_sealed(town: Town) -> None:
    seed = SecretName("seed", CeremonyId(1, 0, 0))
    files_of(town).write(seed, bytes(32))
    done = run("sharing", "status", "--home", town.home(), "--output", "json")
    shown = json.loads(done.stdout)
    assert (shown["secrets_here"], shown["wished"], shown["validators"]) == (["seed-1-0-0"], [], [])
    assert "no joint key is active yet" in done.stderr
    assert files_of(town).load() == {seed: bytes(32)}, "looking changes nothing"
    assert "secrets here" in run("sharing", "status", "--home", town.home()).stdout


def test_a_wish_is_written_for_the_node_and_shown(town: Town) -> None:
    done = run("sharing", "begin", "--home", town.home())
    assert "sharing status" in done.stderr
    assert {str(wish) for wish in files_of(town).wishes()} == {"wish-1-0"}
    shown = json.loads(run("sharing", "status", "--home", town.home(), "--output", "json").stdout)
    assert shown["wished"] == ["wish-1-0"]


def test_new_shares_of_no_key_cannot_be_wished(town: Town) -> None:
    before = files_of(town).wishes()
    done = run("sharing", "refresh", "--home", town.home(), expect=2)
    assert "'p2pledger sharing begin'" in said(done)
    assert files_of(town).wishes() == before


def test_a_home_without_releases_has_nothing_to_hide(town: Town) -> None:
    done = run("audit", "releases", "--home", town.home())
    assert "all releases of 0 accesses stand on the chain" in done.stderr


def test_a_share_that_left_in_silence_is_named(town: Town) -> None:
    """I-1, I-9: status 5, as for a proof that does not hold."""
    home = home_of(town)
    home.data.mkdir(exist_ok=True)
    entries = ReleaseEntries(home.releases, home.founding.chain, home.node, 2**24)
    label = Label("record", home.founding.chain, id16("custodian"), id16("patient"), id16("batch"), 0, 1)
    entries.add([ReleaseEntry(Access(Bytes16(id16("nobody's")), Bytes32(hash32("reader"))), label, hash32("capsule"))])
    entries.close()
    done = run("audit", "releases", "--home", town.home(), "--output", "json", expect=5)
    (row,) = json.loads(done.stdout)
    assert (row["access"], row["entries"], row["verdict"]) == (id16("nobody's").hex(), 1, "never allowed")
    assert id16("nobody's").hex() in said(done)
