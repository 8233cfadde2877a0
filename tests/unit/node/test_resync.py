"""A node whose own execution differs from the chain halts, and runs again only when a fresh execution agrees (P22).

A real engine over real LMDB stores; the damage is one value of the state store, changed behind the node's back.
"""

import json
from pathlib import Path
from typing import Any

import lmdb
import pytest
from msgspec.structs import replace

from p2pledger.consensus.journal import CommittedRecord, HaltRecord, JournalRecord, VoteRecord
from p2pledger.consensus.messages import Message, slot
from p2pledger.engine.events import Submitted
from p2pledger.engine.executor import WrongRoot
from p2pledger.engine.ports import LiftHalt, PutJournal
from p2pledger.execution import keys
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health.application import HealthApplication
from p2pledger.node.home import Home
from p2pledger.node.node import opened
from p2pledger.node.resync import Rebuilt, halt_mark, stopped
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import Height
from p2pledger.state.view import StateView
from p2pledger.storage.environment import decoded, sealed_record, unseal
from p2pledger.storage.home import exclusive_lock
from tests.unit.cli.town import run
from tests.unit.node.lone import home_of_one, lone_node


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two people registered and flushed, two more that are in the ledger only, and one that is voted for: a crash."""
    home = home_of_one(tmp_path / "consortium")
    with lone_node(home) as node:
        node.perform(node.engine.start())
        node.register(1)
        node.register(2)
    with lone_node(home, 100_000, holds_flushes=True) as node:
        node.perform(node.engine.start())
        node.register(3)
        node.register(4)
        node.dies_before_commit = True
        node.perform(node.engine.handle(Submitted(1, (node.registration(7),)), node.now))
        assert 0 < node.state.height() < node.ledger.tip()
    return home


def damage(home: Home) -> None:
    """Another number for the next account than was stored; LMDB hands it out without a word."""
    with lmdb.open(str(home.state), max_dbs=8) as environment:
        table = environment.open_db(b"state", create=False)
        with environment.begin(write=True) as txn:
            assert txn.replace(keys.NEXT_ACCOUNT, encode(100), db=table) is not None


def halted(home: Home) -> HaltRecord:
    """Start the node: it diverges, and says nothing."""
    with lone_node(home, 200_000) as node:
        node.perform(node.engine.start())
        assert [stop.is_divergence for stop in node.stops] == [True]
        assert not node.signed
        mark = halt_mark(node.ledger)
    assert mark is not None
    return mark


def resynchronised(home: Home, application: HealthApplication | None = None) -> Rebuilt:
    with stopped(home, application or HealthApplication()) as node:
        return node.rebuild(lambda what, done, total: None)


def runs(home: Home, person: int) -> list[Message]:
    """It starts and takes part: it proposes, votes and executes."""
    with lone_node(home, 300_000 + person * 1_000) as node:
        node.perform(node.engine.start())
        node.register(person)
        assert not node.stops
        assert {type(one.message).__name__ for one in node.signed} >= {"PrePrepare", "Prepare", "Commit"}
        return [one.message for one in node.signed]


def votes(home: Home) -> list[Message]:
    """What the key has signed above the tip."""
    return [record.message for record in journal(home) if isinstance(record, VoteRecord)]


def journal(home: Home) -> list[JournalRecord]:
    """Everything but the halt."""
    with lone_node(home) as node:
        return [record for record in node.ledger.journal() if not isinstance(record, HaltRecord)]


def test_a_damaged_value_halts_the_node_and_the_mark_keeps_it_halted(home: Home) -> None:
    """P22: the header that disagrees is in the mark; `start` ends with 78 and names the command."""
    damage(home)
    mark = halted(home)
    assert mark.disputed is not None
    assert "our own is" in mark.reason
    expected = f"stays halted: header {mark.disputed.height} .*p2pledger resync --home"
    with pytest.raises(ConfigError, match=expected), opened(home):
        pass
    run("start", "--home", home.layout.root, expect=78)


def test_forgetting_the_mark_alone_only_halts_it_again(home: Home) -> None:
    """What an operator would get who could just delete the mark: the same divergence, from the same damaged state."""
    damage(home)
    first = halted(home)
    with lone_node(home) as node:
        node.ledger.apply([LiftHalt()])
        assert halt_mark(node.ledger) is None
    assert halted(home) == first


def test_resync_rebuilds_the_state_and_the_node_takes_part_again(home: Home) -> None:
    """P22: every block was under a certificate; the damage is gone; what the key has signed is not forgotten."""
    cast = votes(home)
    assert {type(vote).__name__ for vote in cast} == {"PrePrepare", "Prepare", "Commit"}
    damage(home)
    halted(home)
    before = journal(home)
    with stopped(home, HealthApplication()) as node:
        assert f"state key {keys.NEXT_ACCOUNT.hex()} is damaged" in str(node.damage())
        seen: list[tuple[str, int, int]] = []
        rebuilt = node.rebuild(lambda *step: seen.append(step))
        assert node.damage() is None
    assert rebuilt.height == rebuilt.proven == node.tip
    assert {(what, done) for what, done, _ in seen} == {
        (what, height) for what in ("checking certificates", "executing") for height in range(1, node.tip + 1)
    }
    assert journal(home) == before
    assert votes(home) == cast
    assert sorted(path.name for path in home.data.iterdir()) == ["ledger", "state"]
    places = {slot(vote): vote for vote in cast}
    again = [vote for vote in runs(home, 5) if slot(vote) in places]
    assert {slot(vote) for vote in again} == set(places)
    assert all(vote == places[slot(vote)] for vote in again)  # the same words, never others


def test_a_state_store_that_is_damaged_or_gone_is_rebuilt_without_a_halt(home: Home) -> None:
    """Nothing has to have gone wrong first."""
    damage(home)
    resynchronised(home)
    runs(home, 5)
    (home.state / "data.mdb").write_bytes(b"not a database at all" * 400)
    with stopped(home, HealthApplication()) as node:
        assert "cannot be opened" in str(node.damage())
    resynchronised(home)
    runs(home, 6)


class Wrong(HealthApplication):
    """A version that came to another result for some operation."""

    def execute(self, operation: Record, call: Call, state: StateView) -> Outcome:
        outcome = super().execute(operation, call, state)
        return Outcome({**outcome.writes, b"\x7fwrong": b"1"}, outcome.events)


def test_a_truly_divergent_node_stays_halted(home: Home) -> None:
    """The first height that differs and both roots are named; the old state stays; the mark now says it too."""
    damage(home)
    halted(home)
    old = (home.state / "data.mdb").read_bytes()
    with pytest.raises(WrongRoot, match="effects root") as caught:
        resynchronised(home, Wrong())
    error = caught.value
    assert (error.kind, error.height) == ("effects", 1)
    assert error.listed != error.own
    assert (home.state / "data.mdb").read_bytes() == old
    assert sorted(path.name for path in home.data.iterdir()) == ["ledger", "state"]
    with lone_node(home) as node:
        assert halt_mark(node.ledger) == HaltRecord(str(error), error.header)
    run("start", "--home", home.layout.root, expect=78)
    resynchronised(home)  # with the version that the quorum runs
    runs(home, 5)


def test_a_node_that_was_never_halted_is_halted_when_it_disagrees(home: Home) -> None:
    """P22: whoever resynchronises with a wrong version learns of it before the node speaks."""
    with pytest.raises(WrongRoot):
        resynchronised(home, Wrong())
    with lone_node(home) as node:
        assert halt_mark(node.ledger) is not None
    run("start", "--home", home.layout.root, expect=78)


def test_the_header_above_the_ledger_is_compared_too(home: Home) -> None:
    """P22: the disputed header was never appended; an execution that stops below it would agree with itself only."""
    with lone_node(home, 100_000) as node:
        node.perform(node.engine.start())
        tip = node.engine.executor.last
        below = tip.executed_height
        good, _ = node.engine.executor.roots_between(below, Height(below + 1))
        header = replace(
            tip, height=Height(tip.height + 1), parent=tip.hash, batches=(), effects_roots=good, state_roots=()
        )
        node.ledger.apply([PutJournal(HaltRecord("as it was", replace(header, effects_roots=(bytes(32),))))])
    with pytest.raises(WrongRoot, match=f"header {header.height} has effects root {bytes(32).hex()}"):
        resynchronised(home)
    with lone_node(home) as node:
        node.ledger.apply([PutJournal(HaltRecord("as it was", header))])
    resynchronised(home)
    runs(home, 5)


def test_a_halt_over_liars_is_not_lifted(home: Home) -> None:
    """P22: two committed blocks for one height are nothing that an execution can repair."""
    with lone_node(home) as node:
        node.ledger.apply([PutJournal(HaltRecord("two blocks were committed at height 3"))])
    with pytest.raises(StoreError, match="two blocks were committed"):
        resynchronised(home)
    run("start", "--home", home.layout.root, expect=78)


def test_a_ledger_that_no_quorum_decided_is_not_executed(home: Home) -> None:
    """P22: a block whose certificate does not verify: the ledger is at fault, and it is not called a divergence."""
    with lmdb.open(str(home.ledger), max_dbs=8) as environment:
        table = environment.open_db(b"blocks", create=False)
        with environment.begin(write=True) as txn:
            cursor = txn.cursor(db=table)
            assert cursor.last()
            record = decoded(CommittedRecord, unseal(cursor.value(), "block"), "block")
            assert record.certificate is not None
            votes = tuple(replace(vote, signature=bytes(64)) for vote in record.certificate.votes)
            forged = replace(record, certificate=replace(record.certificate, votes=votes))
            txn.put(cursor.key(), sealed_record(forged), db=table)
    with pytest.raises(StoreError, match=r"is not what a quorum decided: .*signature of seat 0 is wrong"):
        resynchronised(home)


def test_a_running_node_is_not_resynchronised(home: Home) -> None:
    """The home's lock says who runs."""
    with exclusive_lock(home.layout.lock), pytest.raises(ConfigError, match="is held by process"):
        resynchronised(home)


def test_a_home_that_never_ran_has_nothing_to_execute(tmp_path: Path) -> None:
    """There is no ledger yet."""
    with pytest.raises(ConfigError, match="nothing to execute"):
        resynchronised(home_of_one(tmp_path / "new"))


# The command


def typed(home: Home, *arguments: str, expect: int = 0) -> Any:
    return run("resync", "--home", home.layout.root, *arguments, expect=expect)


def test_the_command_explains_asks_and_shows_what_it_did(home: Home) -> None:
    """Nobody at the terminal and no --yes: nothing happens. Data on stdout, words on stderr."""
    damage(home)
    mark = halted(home)
    refused = typed(home, expect=2)
    assert mark.reason in refused.stderr
    done = typed(home, "--yes", "--output", "json")
    assert f"state key {keys.NEXT_ACCOUNT.hex()} is damaged" in done.stderr
    assert "votes and the sign floor are not touched" in done.stderr
    shown = json.loads(done.stdout)
    assert (shown["halt"], shown["height"]) == ("lifted", shown["proven"])
    runs(home, 5)
    assert json.loads(typed(home, "--yes", "--output", "json").stdout)["halt"] == "none"


def test_the_command_says_what_to_do_where_the_chain_disagrees(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1, the height, and both roots."""
    monkeypatch.setattr("p2pledger.health.application.HealthApplication", Wrong)
    done = typed(home, "--yes", expect=1)
    assert "disagrees with this program about height 1: the effects root in header" in done.stderr
    assert "stays halted" in done.stderr
