"""status and block, and how a command finds its ledger."""

import json
import socket

import pytest
from msgspec.structs import replace

from p2pledger.cli import block
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import Prepare, Signed, statement
from p2pledger.engine.evidence import evidence_of
from p2pledger.network.api import Equivocation
from p2pledger.primitives.ids import BlockHash, Epoch, Height, View
from tests.unit.cli import town as stage
from tests.unit.cli.town import NAMES, Town, run, said
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, client_of
from tests.unit.execution.ledger import key


def test_a_homes_own_node_is_found_by_its_ports(town: Town):
    """--home alone is enough: ports.json says where it listens."""
    shown = json.loads(run("status", "--home", town.home(), "--output", "json").stdout)
    assert (shown["n"], shown["f"], shown["q"], shown["primary"]) == (4, 1, 3, town.founding.genesis.cards[0].name)
    assert len(shown["peers"]) == 3
    table = run("status", "--home", town.home())
    assert NAMES[3] in table.stdout and "view" in table.stdout
    assert "fault" not in table.stderr


def test_below_four_members_status_says_that_no_fault_is_tolerated(town, monkeypatch):
    """A consortium of three stops with the first that stops."""
    real = stage.status_of
    monkeypatch.setattr(stage, "status_of", lambda *given: replace(real(*given), n=3, f=0, q=3))
    assert "no fault is tolerated" in run("status", "--home", town.home()).stderr


def test_who_contradicted_itself_is_named_with_the_place_and_where_the_proof_is(town, monkeypatch):
    """P14: on the chain, apart from what only this node knows."""
    real, cards = stage.status_of, town.founding.genesis.cards
    caught = (
        Equivocation(cards[1].name, cards[1].validator, "prepare", 0, 3, 7, Height(9)),
        Equivocation(cards[2].name, cards[2].validator, "view-change", 0, 4, 0, None),
    )
    monkeypatch.setattr(stage, "status_of", lambda *given: replace(real(*given), equivocations=caught))
    shown = json.loads(run("status", "--home", town.home(), "--output", "json").stdout)["equivocations"]
    assert [(one["organisation"], one["kind"], one["height"], one["recorded"]) for one in shown] == [
        (cards[1].name, "prepare", 7, 9),
        (cards[2].name, "view-change", 0, None),
    ]
    table = run("status", "--home", town.home()).stdout
    assert f"{cards[1].name} (prepare, view 3, height 7; on the chain since height 9)" in table
    assert f"{cards[2].name} (view-change, view 4; known to this node only)" in table


def test_what_the_chain_holds_against_validators_is_proven(town):
    """P14: presence and absence, each with a proof of the state; whoever is no member is refused."""
    rows = json.loads(run("audit", "validators", *town.as_organisation(), "--output", "json").stdout)
    assert [row["caught"] for row in rows] == [False] * 4
    liar, witness = town.homes[2], town.homes[0]
    said = [Prepare(Epoch(0), View(3), Height(7), BlockHash(bytes([i]) * 32), liar.validator) for i in range(2)]
    signed = [Signed(one, liar.keys.consensus.sign(statement(town.chain.chain, one))) for one in said]
    town.chain.run(town.chain.signed(witness.keys.node, evidence_of(EvidenceRecord(*signed))))
    town.chain.tick()
    rows = json.loads(run("audit", "validators", *town.as_organisation(), "--output", "json").stdout)
    (row,) = [row for row in rows if row["caught"]]
    recorded = town.chain.height - 1
    assert (row["organisation"], row["kind"], row["height"], row["recorded at"]) == (NAMES[2], "prepare", 7, recorded)
    assert NAMES[2] in run("audit", "validators", *town.as_organisation()).stdout
    event = json.loads(run("block", "get", recorded, "--home", town.home(), "--output", "json").stdout)["receipts"][0]
    assert event["events"][0]["event"] == "EquivocationRecorded"
    run("audit", "validators", *town.network, "--genesis", town.genesis, expect=78)


def test_a_stranger_may_look(town):
    """--genesis and --node, without a home and without a wallet; by name or by node id."""
    run("status", "--genesis", town.genesis, *town.network)
    by_id = f"127.0.0.1:{town.port}={town.homes[0].node.hex()}"
    run("status", "--genesis", town.genesis, "--node", by_id)


def test_the_environment_says_where(town, monkeypatch):
    """P2PLEDGER_GENESIS and P2PLEDGER_NODES."""
    monkeypatch.setenv("P2PLEDGER_GENESIS", str(town.genesis))
    monkeypatch.setenv("P2PLEDGER_NODES", f"127.0.0.1:{town.port}={town.homes[0].node.hex()}")
    run("status")


def test_a_node_that_does_not_answer_is_unreachable(town):
    """Status 3."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nowhere = f"127.0.0.1:{silent.getsockname()[1]}={NAMES[0]}"
        assert "no node answers" in said(run("status", "--genesis", town.genesis, "--node", nowhere, expect=3))


def test_a_node_with_another_key_is_not_believed(town):
    """It answers, but with the key of another member: the command fails with status 1."""
    run("status", "--genesis", town.genesis, "--node", f"127.0.0.1:{town.port}={NAMES[1]}", expect=1)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--node", "127.0.0.1:1"], 2),
        (["--node", "nonsense=City Hospital"], 2),
        (["--node", "127.0.0.1:1=Nowhere"], 2),
        (["--node", f"127.0.0.1:1={'00' * 32}"], 2),
        ([], 2),
    ],
)
def test_a_node_is_host_port_and_a_member(town, arguments, status):
    """Status 2 and the form that is expected."""
    run("status", "--genesis", town.genesis, *arguments, expect=status)


def test_without_home_and_options_the_command_says_what_is_missing(town):
    """Status 78."""
    assert "--genesis" in said(run("status", expect=78))
    run("status", "--genesis", town.file("none"), *town.network, expect=78)
    run("status", "--genesis", town.file("junk", b"x"), *town.network, expect=78)


def test_a_block_is_shown_with_what_proves_it(town):
    """By height, or the newest."""
    newest = json.loads(run("block", "get", 0, "--home", town.home(), "--output", "json").stdout)
    before = json.loads(run("block", "get", newest["height"] - 1, "--home", town.home(), "--output", "json").stdout)
    assert newest["parent"] == before["hash"]
    assert newest["signatures"] == 3
    assert newest["hash"] in run("block", "get", 0, "--home", town.home()).stdout


def test_the_newest_blocks_come_oldest_first(town, patient):
    """As many as asked for, and no more than there are."""
    rows = json.loads(run("block", "tail", "-n", 3, "--home", town.home(), "--output", "json").stdout)
    assert [row["height"] for row in rows] == list(range(town.chain.height - 2, town.chain.height + 1))
    lines = run("block", "tail", "-n", 1000, "--home", town.home(), "--output", "jsonl").stdout.splitlines()
    assert len(lines) == town.chain.height


def test_a_block_shows_the_receipts_of_its_transactions(town, patient):
    """Their codes and events."""
    height = max(one.receipt.height for one in town.chain.receipts.values())
    (shown,) = json.loads(run("block", "get", height, "--home", town.home(), "--output", "json").stdout)["receipts"]
    assert (shown["code"], shown["events"][0]["event"]) == ("OK", "IdentityRegistered")
    assert "IdentityRegistered" in run("block", "get", height, "--home", town.home()).stdout


async def test_following_yields_every_new_block_once(monkeypatch):
    """In order, also those that came between two looks."""
    monkeypatch.setattr(block, "_POLL_S", 0.001)
    chain = Chain()
    async with client_of(chain, [HonestNode(chain)], key("doctor")) as ledger:
        start = chain.height
        follower = block.blocks_after(ledger, start)
        for grown in (1, 3, 1):
            for _ in range(grown):
                chain.tick()
            for expected in range(chain.height - grown + 1, chain.height + 1):
                assert (await anext(follower)).header.height == expected
        await follower.aclose()
