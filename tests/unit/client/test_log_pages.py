"""F-08: a log that is longer than a reply comes in pages and is proven whole; one line is proven without the others."""

import pytest
from msgspec.structs import replace

from p2pledger.client.verify import check_line, check_log_page
from p2pledger.health.log import EMPTY, LogHead, decode_line, line_hash
from p2pledger.network.api import GetLine, GetLog, LineReply, Reply, Request
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, ProofError, Rejected
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import DOCTOR, PATIENT, PID

LINES = 7


@pytest.fixture(scope="module")
def chain() -> Chain:
    """Seven decisions about one patient."""
    chain = Chain()
    chain.grant()
    for number in range(LINES):
        chain.ask(f"access {number}", scope_commit=hash32(f"scope {number}"), reason_commit=hash32("reason"))
    chain.tick()
    return chain


def paged(chain: Chain, lines: int) -> HonestNode:
    """A node whose replies hold so many lines."""
    node = HonestNode(chain)
    node.page_bytes = sum(map(len, chain.log_reply(PID).lines[:lines]))
    return node


@pytest.mark.parametrize("lines", [1, 2, 3, 6, 7])
async def test_a_log_in_pages_is_the_whole_log(chain: Chain, lines: int) -> None:
    """However it is cut: every line once, in order, up to the proven head (F-08)."""
    async with client_of(chain, [paged(chain, lines)], PATIENT) as client:
        log = await client.log(PID)
    assert [line.sequence for line in log.lines] == list(range(1, LINES + 1))


async def test_a_line_names_what_opens_the_record_list_and_the_reason(chain: Chain) -> None:
    """F-08: the commitments of the request are in the log, so that nobody can later show another list or reason."""
    async with client_of(chain, [HonestNode(chain)], PATIENT) as client:
        log = await client.log(PID)
    assert log.lines[3].scope_commit == hash32("scope 3") and log.lines[3].reason_commit == hash32("reason")


async def test_pages_of_a_node_that_leaves_lines_out_are_asked_of_another(chain: Chain) -> None:
    """The second page lacks a line; the log comes whole from the next node, and not at all without one (F-08)."""

    async def leave_out(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, GetLog) and request.first > 1:
            genuine = chain.log_reply(PID, request.first)
            return replace(genuine, id=request.id, lines=genuine.lines[1:])
        return None

    liar = MisbehavingNode(chain, leave_out)
    liar.page_bytes = 1
    async with client_of(chain, [liar, paged(chain, 3)], PATIENT) as client:
        assert len((await client.log(PID)).lines) == LINES
    async with client_of(chain, [liar], PATIENT) as client:
        with pytest.raises(ProofError, match=r"^lines: "):
            await client.log(PID)


def test_a_page_without_lines_is_no_page(chain: Chain) -> None:
    """A node that has more lines and gives none would keep its client asking for ever."""
    empty = replace(chain.log_reply(PID), lines=())
    with pytest.raises(ProofError, match="end at line 0, the proven head at line 7"):
        check_log_page(empty, chain.founding, PID)


def test_pages_follow_each_other(chain: Chain) -> None:
    first = chain.log_reply(PID, 1, 1)
    page = check_log_page(first, chain.founding, PID)
    assert page.reached == LogHead(1, line_hash(decode_line(first.lines[0]))) and not page.is_last
    rest = chain.log_reply(PID, 2)
    assert check_log_page(rest, chain.founding, PID, page.reached).is_last
    with pytest.raises(ProofError, match="does not follow"):
        check_log_page(rest, chain.founding, PID, EMPTY)


async def test_one_line_is_proven_by_its_receipt_alone(chain: Chain) -> None:
    """F-08: line by line, without the other lines of the patient."""
    async with client_of(chain, [HonestNode(chain)], PATIENT) as client:
        reply = await client.line(PID, 4)
    line = check_line(chain.founding, PID, 4, reply.line, reply.evidence)
    assert (line.sequence, line.access_id) == (4, id16("access 3"))


def forged(chain: Chain) -> dict[str, tuple[LineReply, int, bytes]]:
    genuine = chain.line_reply(PID, 4)
    line = decode_line(genuine.line)
    events = replace(genuine.evidence.executed, events=())
    return {
        "another decision": (replace(genuine, line=encode(replace(line, decision=Code.E_SCOPE))), 4, PID),
        "another number": (genuine, 5, PID),
        "another patient": (genuine, 4, id16("somebody else")),
        "another line's receipt": (replace(genuine, evidence=chain.line_reply(PID, 5).evidence), 4, PID),
        "no events": (replace(genuine, evidence=replace(genuine.evidence, executed=events)), 4, PID),
        "no line": (replace(genuine, line=b"line"), 4, PID),
    }


@pytest.mark.parametrize(
    "forgery",
    ["another decision", "another number", "another patient", "another line's receipt", "no events", "no line"],
)
async def test_a_forged_line_is_not_believed(chain: Chain, forgery: str) -> None:
    reply, sequence, pid = forged(chain)[forgery]
    with pytest.raises(ProofError, match=rf"^line {sequence}"):
        check_line(chain.founding, pid, sequence, reply.line, reply.evidence)


async def test_a_node_with_forged_lines_is_passed_over(chain: Chain) -> None:
    async def forge(node: HonestNode, request: Request) -> Reply | None:
        if isinstance(request, GetLine):
            return replace(forged(chain)["another decision"][0], id=request.id)
        return None

    async with client_of(chain, [MisbehavingNode(chain, forge), HonestNode(chain)], DOCTOR) as client:
        assert (await client.line(PID, 4)).line == chain.line_reply(PID, 4).line


async def test_a_line_that_does_not_exist_is_not_found(chain: Chain) -> None:
    async def none(node: HonestNode, request: Request) -> Reply | None:
        raise Rejected(Code.E_NOT_FOUND, "no such line")

    async with client_of(chain, [MisbehavingNode(chain, none)], PATIENT) as client:
        with pytest.raises(Rejected, match="E_NOT_FOUND"):
            await client.line(PID, LINES + 1)
