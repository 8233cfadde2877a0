"""What a node's client port answers about a patient's log, from a real engine on LMDB (F-08)."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.client.health import request_access
from p2pledger.client.keyring import Persona, Wallet
from p2pledger.client.signing import Draft
from p2pledger.client.verify import check_line, check_log_page
from p2pledger.consensus.anchor import ReceiptEvidence, check_receipt
from p2pledger.health import keys
from p2pledger.health.events import AccessDecided, decode_event
from p2pledger.health.log import EMPTY, LogHead, decode_line, line_hash
from p2pledger.health.pruning_operations import Prune
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.network.feed_api import Cursor, Subscribe
from p2pledger.node.home import Home
from p2pledger.node.metrics import make_metrics
from p2pledger.node.server import Server
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, ProofError, Rejected
from p2pledger.primitives.ids import AccountKey, Height, Millis, Nonce
from p2pledger.storage.state_store import STATE
from tests.unit.node.lone import Lone, home_of_one, lone_node
from tests.unit.node.pruned import approve

LINES = 5
Misdeed = Callable[[dict[bytes, bytes], bytes], None]
START = Cursor(Height(1), 0)
FILLERS = 60
"""Heights that are not the patient's: the horizon of a pruning stays 99 below the tip."""


def persona(home: Home, number: int) -> Persona:
    return Wallet(number.to_bytes(32, "big")).at(home.card.organisation)


def patient_of(home: Home) -> Persona:
    return persona(home, 2)


def registration(node: Lone) -> Transaction:
    patient, organisation = patient_of(node.home), node.home.office().account
    draft = Draft.new(
        node.home.founding.chain,
        patient.account,
        Nonce(1),
        Millis(node.now.wall_ms + 60_000),
        [patient.registration("patient", bytes(32))],
        [AccountKey(organisation.public)],
    )
    return draft.signed(patient.signing).signed(organisation).transaction()


def ask(node: Lone, nonce: int) -> Height:
    """A physician without a credential asks: a denial, and a line."""
    reader, chain = persona(node.home, 1), node.home.founding.chain
    request = request_access(
        reader,
        chain,
        pid=patient_of(node.home).did,
        compartments=[secrets.token_bytes(16)],
        purpose="TREAT",
        not_after_ms=2**50,
    )
    return node.submit(parse(sign(chain, reader.signing, Nonce(nonce), Millis(node.now.wall_ms + 60_000), [request])))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = home_of_one(tmp_path_factory.mktemp("server") / "consortium")
    with lone_node(home) as node:
        node.perform(node.engine.start())
        node.register(1)
        node.submit(registration(node))
        for nonce in range(LINES):
            ask(node, nonce + 2)
    return home


@pytest.fixture
def node(lived: Home, tmp_path: Path) -> Iterator[Lone]:
    """A copy of the home, started again: what happened before is read from its stores."""
    shutil.copytree(lived.layout.root, tmp_path / "home")
    with lone_node(Home.load(tmp_path / "home", {}), 10_000_000) as node:
        node.perform(node.engine.start())
        yield node


@pytest.fixture
def server(node: Lone) -> Server:
    made = Server(node.engine, node.ledger, node.state, make_metrics())
    made.feed.quiet_s = 0.01
    return made


def session(node: Lone) -> Session:
    return Session(patient_of(node.home).account, "patient", "127.0.0.1")


async def log_page(server: Server, node: Lone, first: int) -> api.LogReply:
    reply = await server.handle(session(node), api.GetLog(1, patient_of(node.home).did, first))
    assert isinstance(reply, api.LogReply)
    return reply


@pytest.mark.parametrize("size", [1, 1_000, 10**6])
async def test_a_log_comes_in_pages_that_verify_one_after_the_other(server: Server, node: Lone, size: int) -> None:
    """Of any size, a line at least; together all lines up to the proven head."""
    server.log_page_bytes = size
    founding, pid = node.home.founding, patient_of(node.home).did
    reached, lines, is_last = EMPTY, 0, False
    while not is_last:
        reply = await log_page(server, node, lines + 1)
        page = check_log_page(reply, founding, pid, reached)
        reached, is_last, lines = page.reached, page.is_last, lines + len(reply.lines)
        assert is_last or not reply.newer
    assert (lines, reached.count) == (LINES, LINES)


async def test_each_line_is_proven_by_its_receipt(server: Server, node: Lone) -> None:
    pid = patient_of(node.home).did
    for number in range(1, LINES + 1):
        reply = await server.handle(session(node), api.GetLine(1, pid, number))
        assert isinstance(reply, api.LineReply)
        line = check_line(node.home.founding, pid, number, reply.line, reply.evidence)
        assert line.decision == Code.E_CREDENTIAL
    with pytest.raises(Rejected, match="has no line 6"):
        await server.handle(session(node), api.GetLine(1, pid, LINES + 1))


async def told(server: Server, node: Lone, start: Cursor = START) -> tuple[list[int], Cursor]:
    """(the lines that the feed tells from a place to the tip, the place after them), every receipt proven."""
    founding, found = node.home.founding, list[int]()
    request = Subscribe(1, start, ("access",), None)
    while True:
        page = await server.next_page(session(node), request, start)
        for item in page.items:
            assert page.anchor is not None and item.is_whole
            evidence = ReceiptEvidence(item.executed, item.proof, page.anchor)
            events = map(decode_event, check_receipt(evidence, founding.chain, founding.validators).known)
            found += [event.sequence for event in events if isinstance(event, AccessDecided)]
        if not page.items:
            return found, page.next
        start = page.next


async def test_the_feed_of_a_restarted_node_tells_what_it_stored_and_what_comes(server: Server, node: Lone) -> None:
    """Nothing that the node remembers is needed: everything from the first block, and then from the place it ended."""
    found, place = await told(server, node)
    assert found == list(range(1, LINES + 1))
    assert place.height == node.ledger.tip() + 1
    for nonce in range(2):
        ask(node, LINES + 2 + nonce)
    assert (await told(server, node, place))[0] == [LINES + 1, LINES + 2]


async def test_what_was_pruned_is_neither_told_nor_proven(server: Server, node: Lone) -> None:
    """Not from memory either, though it was told before; the log itself keeps its lines."""
    assert (await told(server, node))[0] == list(range(1, LINES + 1))
    for person in range(10, 10 + FILLERS):
        node.register(person)
    assert approve(node, Prune(Height(node.engine.executor.executed - 99), (), None)) == Code.OK
    node.register(99)
    assert (await told(server, node))[0] == []
    pid = patient_of(node.home).did
    with pytest.raises(Rejected, match="were pruned"):
        await server.handle(session(node), api.GetLine(1, pid, 1))
    assert len((await log_page(server, node, 1)).lines) == LINES


def _delete(rows: dict[bytes, bytes], pid: bytes) -> None:
    del rows[keys.log_line(pid, 3)]


def _edit(rows: dict[bytes, bytes], pid: bytes) -> None:
    line = decode_line(rows[keys.log_line(pid, 3)])
    rows[keys.log_line(pid, 3)] = encode(replace(line, decision=int(Code.OK)))


def _shorten(rows: dict[bytes, bytes], pid: bytes) -> None:
    del rows[keys.log_line(pid, LINES)]
    before = decode_line(rows[keys.log_line(pid, LINES - 1)])
    rows[keys.log_head(pid)] = encode(LogHead(before.sequence, line_hash(before)))


def _rewrite(rows: dict[bytes, bytes], pid: bytes) -> None:
    """All later lines and the head made to fit."""
    line = replace(decode_line(rows[keys.log_line(pid, 3)]), decision=int(Code.OK))
    for sequence in range(3, LINES + 1):
        rows[keys.log_line(pid, sequence)] = encode(line)
        head = LogHead(sequence, line_hash(line))
        if sequence < LINES:
            line = replace(decode_line(rows[keys.log_line(pid, sequence + 1)]), previous=head.hash)
    rows[keys.log_head(pid)] = encode(head)


@pytest.mark.parametrize("misdeed", [_delete, _edit, _shorten, _rewrite])
async def test_an_entry_that_was_deleted_or_edited_on_a_node_s_disk_is_found_out(node: Lone, misdeed: Misdeed) -> None:
    """F-13, 164.312(b) and (c): whoever owns the disk changes the log as he likes; nobody believes what he serves."""
    pid = patient_of(node.home).did
    before = dict(node.engine.executor.state.scan(b""))
    rows = dict(before)
    misdeed(rows, pid)
    writes = {key: rows.get(key) for key in before | rows if rows.get(key) != before.get(key)}
    with node.state._environment.writing() as txn:  # past everything that guards the store
        for key, value in writes.items():
            if value is None:
                txn.delete(key, db=node.state._environment.tables[STATE])
            else:
                txn.put(key, value, db=node.state._environment.tables[STATE])
    server = Server(node.engine, node.ledger, node.state, make_metrics())
    reply = await log_page(server, node, 1)
    with pytest.raises(ProofError, match=r"^(lines|state proof): "):
        check_log_page(reply, node.home.founding, pid)
