"""F-20: the DID document is chain state, proven: which key counted from which height to which."""

import base64
import json

import pytest
from msgspec.structs import replace

from p2pledger.client.did_documents import resolve
from p2pledger.health.did import Did
from p2pledger.health.directory import Organisation
from p2pledger.health.identity_operations import KeyRevoke
from p2pledger.health.operations import KeyRotate
from p2pledger.network.api import GetState, Reply, Request
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, Unavailable
from p2pledger.primitives.ids import ChainId
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, TAL, account


@pytest.fixture
def chain() -> Chain:
    made = Chain()
    made.tick()
    return made


async def test_a_document_tells_every_key_with_its_heights(chain: Chain) -> None:
    """The rotated key stays, with its end; only the current one authenticates and asserts."""
    did = Did(chain.chain, PID)
    chain.submit(PATIENT, KeyRotate(PID, account("patient 2"), hash32("box 2")), cosigners=[key("patient 2")])
    rotated = chain.height
    chain.tick()
    async with client_of(chain, [HonestNode(chain)], key("patient 2")) as client:
        found = await resolve(client, did)
    document = json.loads(json.dumps(found.document))
    first, second = document["verificationMethod"]
    assert document["id"] == document["controller"] == str(did)
    assert (first["id"], first["revokedAtHeight"]) == (f"{did}#key-1", rotated)
    assert (second["id"], second["validFromHeight"]) == (f"{did}#key-2", rotated)
    assert base64.urlsafe_b64decode(second["publicKeyJwk"]["x"] + "=") == key("patient 2").public
    assert document["authentication"] == document["assertionMethod"] == [f"{did}#key-2"]
    assert [box["publicKeyJwk"]["crv"] for box in document["keyAgreement"]] == ["X25519"]
    assert document["provenAtHeight"] == found.height and not found.is_deactivated


async def test_a_revoked_key_leaves_a_document_without_authentication(chain: Chain) -> None:
    chain.submit(TAL, KeyRevoke(id16("doctor"), account("doctor")))
    chain.tick()
    async with client_of(chain, [HonestNode(chain)], BERG) as client:
        found = await resolve(client, Did(chain.chain, id16("doctor")))
        house = await resolve(client, Did(chain.chain, id16("Tal")))
    assert found.is_deactivated and found.document["authentication"] == found.document["keyAgreement"] == []
    assert isinstance(house.subject, Organisation) and house.document["verificationMethod"][0]["validFromHeight"] == 0


async def test_dids_of_nobody_of_other_chains_and_of_others_patients(chain: Chain) -> None:
    """E_NOT_FOUND, InvalidInput, E_ROLE."""
    async with client_of(chain, [HonestNode(chain)], BERG) as client:
        with pytest.raises(Rejected, match="nobody is called") as refusal:
            await resolve(client, Did(chain.chain, id16("nobody")))
        assert refusal.value.code is Code.E_NOT_FOUND
        with pytest.raises(InvalidInput, match="of another chain"):
            await resolve(client, Did(ChainId(bytes(32)), PID))
    async with client_of(chain, [HonestNode(chain)], DOCTOR) as client:
        with pytest.raises(Rejected, match="E_ROLE"):
            await resolve(client, Did(chain.chain, PID))


async def test_a_document_is_of_one_checkpoint(chain: Chain) -> None:
    """A chain that moves on between two answers is asked again, and not for ever."""

    async def moving(node: HonestNode, request: Request) -> Reply | None:
        if not isinstance(request, GetState):
            return None
        chain.tick()
        return replace(chain.state_reply(request.key), id=request.id)

    async with client_of(chain, [MisbehavingNode(chain, moving)], PATIENT) as client:
        with pytest.raises(Unavailable, match="faster than the keys"):
            await resolve(client, Did(chain.chain, PID))
