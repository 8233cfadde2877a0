"""All validators are asked at once; what each said is kept apart, and no node speaks for another's validator."""

import pytest
import trio
import trio.testing

from p2pledger.client.links import Node
from p2pledger.client.shares import ask_all
from p2pledger.network.api import SharesReply
from p2pledger.primitives.errors import Code, PeerFault, Rejected, Unavailable
from tests.unit.health.charts import Chart

CHART = Chart()
FOUNDING = CHART.world.founding
REQUEST = CHART.request(0, 1)
CARDS = {card.node: card for card in FOUNDING.genesis.cards}
NODES = [Node("localhost", port, node) for port, node in enumerate(CARDS, start=1)]


def good(node: Node) -> SharesReply:
    return SharesReply(0, CARDS[node.key].validator, node.port, 1, 0, (b"one", b"two"))


async def honest(node: Node) -> SharesReply:
    await trio.lowlevel.checkpoint()
    return good(node)


async def test_everybody_is_heard() -> None:
    heard = await ask_all(NODES, honest, FOUNDING, REQUEST)
    assert sorted(reply.index for reply in heard.replies) == [1, 2, 3, 4]
    assert heard.failures == ()


async def test_a_refusal_and_a_silence_are_kept_with_their_node() -> None:
    refused, silent = NODES[0], NODES[1]

    async def ask(node: Node) -> SharesReply:
        if node is refused:
            raise Rejected(Code.E_REVOKED, "no")
        if node is silent:
            raise Unavailable("nobody there")
        return await honest(node)

    heard = await ask_all(NODES, ask, FOUNDING, REQUEST)
    assert {node.port: type(error) for node, error in heard.failures} == {1: Rejected, 2: Unavailable}
    assert len(heard.replies) == 2


async def test_no_later_answer_is_waited_for_once_there_are_enough(autojump_clock: trio.testing.MockClock) -> None:
    async def ask(node: Node) -> SharesReply:
        await trio.sleep(1 if node.port < 4 else 1_000)
        return good(node)

    heard = await ask_all(NODES, ask, FOUNDING, REQUEST, enough=3)
    assert len(heard.replies) == 3
    assert trio.current_time() == 1


@pytest.mark.parametrize(
    "lie",
    [
        {"validator": FOUNDING.genesis.cards[0].validator},
        {"validator": bytes(32)},
        {"shares": (b"one",)},
        {"shares": (b"one", b"two", b"three")},
    ],
)
async def test_a_node_that_speaks_for_another_or_leaves_something_out_is_blamed(lie: dict[str, object]) -> None:
    liar = next(node for node in NODES if node.key != FOUNDING.genesis.cards[0].node)

    async def ask(node: Node) -> SharesReply:
        reply = await honest(node)
        parts = {name: getattr(reply, name) for name in reply.__struct_fields__}
        return SharesReply(**(parts | lie)) if node is liar else reply

    heard = await ask_all(NODES, ask, FOUNDING, REQUEST)
    ((blamed, error),) = heard.failures
    assert (blamed, type(error)) == (liar, PeerFault)
    assert len(heard.replies) == 3
