"""Receipts of others' transactions, from nodes of which some are of no use."""

from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace

from p2pledger.client import receipts
from p2pledger.client.links import Node
from p2pledger.client.receipts import proven_receipt
from p2pledger.health.operations import ConsentRevoke
from p2pledger.network.api import Accepted, AwaitReceipt, Failure, ReceiptReply
from p2pledger.network.certificates import make_certificate
from p2pledger.network.clients import ClientServer
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, PeerFault, ProofError, Rejected, Unavailable
from p2pledger.primitives.ids import NodeId
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode
from tests.unit.execution.ledger import id16, key
from tests.unit.health.world import PATIENT

STRANGER = key("stranger")


@pytest.fixture
def chain():
    made = Chain()
    made.submit(PATIENT, ConsentRevoke(id16("none"), "other"))  # refused, which is a receipt too
    made.tick()
    return made


@asynccontextmanager
async def ports(chain, *nodes):
    """Where these nodes answer."""
    async with trio.open_nursery() as nursery:
        found = []
        for number, node in enumerate(nodes):
            own: SigningKey = key(f"port {number}")
            server = ClientServer(own, make_certificate(own), chain.chain, node.answer, lambda _: "stranger")
            found.append(Node("127.0.0.1", await nursery.start(server.serve, "127.0.0.1", 0), NodeId(own.public)))
        yield found
        nursery.cancel_scope.cancel()


async def ask(chain, *nodes):
    async with ports(chain, *nodes) as places:
        return await proven_receipt(chain.founding, places, STRANGER, PATIENT.public, 2)


def saying(chain, reply):
    async def behaviour(node, request):
        return reply(request) if isinstance(request, AwaitReceipt) else None

    return MisbehavingNode(chain, behaviour)


def silent(chain):
    async def behaviour(node, request):
        await trio.sleep_forever()

    return MisbehavingNode(chain, behaviour)


def lying(chain):
    """Says that it went well."""

    def reply(request):
        executed = chain.receipts[PATIENT.public, 2]
        evidence = chain.evidence(executed)
        false = replace(executed, receipt=replace(executed.receipt, code=0))
        return ReceiptReply(request.id, false, replace(evidence, executed=false))

    return saying(chain, reply)


async def test_anybody_may_see_what_became_of_a_transaction(chain):
    """With its proof, whatever its code."""
    assert (await ask(chain, HonestNode(chain))).code == Code.E_NOT_FOUND


async def test_one_node_is_passed_over_for_the_next(chain, monkeypatch):
    """Silent, lying, without a proof, or answering something else."""
    monkeypatch.setattr(receipts, "_ANSWER_S_MAX", 0.5)
    unproven = saying(chain, lambda asked: ReceiptReply(asked.id, chain.receipts[PATIENT.public, 2], None))
    for node in (silent(chain), lying(chain), unproven):
        assert (await ask(chain, node, HonestNode(chain))).code == Code.E_NOT_FOUND


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (HonestNode, Unavailable),
        (lying, ProofError),
        (lambda chain: saying(chain, lambda asked: Failure(asked.id, Code.E_ROLE, "no")), Rejected),
        (lambda chain: saying(chain, lambda asked: Accepted(asked.id, bytes(32))), PeerFault),
        (lambda chain: saying(chain, lambda asked: Failure(asked.id, 9999, "no")), PeerFault),
    ],
)
async def test_without_a_proof_there_is_no_receipt(chain, node, error):
    """What went wrong at the last node."""
    nonce = 9 if node is HonestNode else 2
    async with ports(chain, node(chain)) as places:
        with pytest.raises(error):
            await proven_receipt(chain.founding, places, STRANGER, PATIENT.public, nonce)
