"""F-20: who a key is, as several nodes say; what a wallet and the chain know of each other."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from p2pledger.client.identities import known, recognised, rotate
from p2pledger.client.keyring import Wallet, create_wallet, open_wallet
from p2pledger.client.ledger import LedgerClient, Standing
from p2pledger.health.identity_operations import OrganisationSuspend
from p2pledger.network.api import AccountReply, GetAccount, Reply, Request
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Unavailable
from p2pledger.primitives.ids import Nonce
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode, client_of
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import BERG, PATIENT, PID, SEE, TAL

HOUSES = [id16("Berg"), id16("Tal")]


@pytest.fixture
def chain() -> Chain:
    made = Chain()
    made.tick()
    return made


def opener(chain: Chain) -> "Opener":
    return Opener(chain)


class Opener:
    """Opens a client in the name of any key."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def __call__(self, account: SigningKey) -> AbstractAsyncContextManager[LedgerClient]:
        return client_of(self.chain, [HonestNode(self.chain)], account)


def enrol(chain: Chain, wallet: Wallet, kind: str = "practitioner") -> None:
    for house, sponsor in zip(HOUSES, (BERG, TAL), strict=True):
        person = wallet.at(house)
        registration = person.registration(kind, hash32("proof"))  # type: ignore[arg-type]
        assert chain.submit(person.signing, registration, cosigners=[sponsor]) == Code.OK
    chain.tick()


async def liar(node: HonestNode, request: Request) -> Reply | None:
    """Says of everybody that it is another patient."""
    lie = AccountReply(request.id, "patient", Nonce(1), id16("somebody else"))
    return lie if isinstance(request, GetAccount) else None


async def test_one_liar_does_not_decide_who_somebody_is(chain: Chain) -> None:
    """f + 1 alike are believed, wherever the liar stands in the order."""
    nodes = [MisbehavingNode(chain, liar), HonestNode(chain), HonestNode(chain)]
    async with client_of(chain, nodes, PATIENT) as client:
        assert await client.standing() == Standing("patient", PID)
    async with client_of(chain, list(reversed(nodes)), BERG) as client:
        assert await client.standing() == Standing("organisation", id16("Berg"))


async def test_nodes_that_contradict_each_other_decide_nothing(chain: Chain) -> None:
    failure: Unavailable | None = None
    async with client_of(chain, [MisbehavingNode(chain, liar), HonestNode(chain)], PATIENT) as client:
        try:
            await client.standing()
        except Unavailable as error:
            failure = error
    assert "no 2 nodes say alike" in str(failure)


async def test_a_wallet_is_known_where_it_was_registered(chain: Chain) -> None:
    wallet = Wallet(hash32("wallet"))
    assert await known(opener(chain), wallet, HOUSES) == []
    enrol(chain, wallet)
    found = await known(opener(chain), wallet, [*HOUSES, id16("See")])
    assert [(one.persona.did, one.kind) for one in found] == [
        (wallet.at(house).did, "practitioner") for house in HOUSES
    ]


async def test_phrases_of_a_finished_rotation_restore_its_end(chain: Chain, tmp_path: Path) -> None:
    """New and former phrase together: the new secret is the secret, no rotation is under way."""
    path = tmp_path / "wallets" / "mine"
    wallet = Wallet(hash32("wallet"))
    enrol(chain, wallet)
    create_wallet(path, wallet.rotating(), None)
    steps = [step async for step in rotate(opener(chain), open_wallet(path), HOUSES)]
    assert [step.known.persona.did for step in steps] == [wallet.at(house).did for house in HOUSES]
    after = open_wallet(path).wallet
    again, found = await recognised(opener(chain), Wallet.of_phrases(after.phrase, wallet.phrase), HOUSES)
    assert len(found) == 2 and again.pending is None
    assert [again.at(house).account for house in HOUSES] == [after.at(house).account for house in HOUSES]
    assert [again.at(house).did for house in HOUSES] == [wallet.at(house).did for house in HOUSES]


async def test_a_refusal_in_the_middle_keeps_both_secrets(chain: Chain, tmp_path: Path) -> None:
    """The second employer is suspended: the first has the new key, the second the old one, and later it goes on."""
    path = tmp_path / "wallets" / "mine"
    wallet = Wallet(hash32("wallet"))
    enrol(chain, wallet)
    assert chain.submit(BERG, OrganisationSuspend(HOUSES[1]), cosigners=[SEE]) == Code.OK
    chain.tick()
    create_wallet(path, wallet.rotating(), None)
    refused: BaseException | None = None
    try:
        async for _ in rotate(opener(chain), open_wallet(path), HOUSES):
            pass
    except* Refused as group:
        refused = group
    halfway = open_wallet(path).wallet
    assert refused is not None and halfway.pending is not None and halfway.moved == {HOUSES[0]}
    assert halfway.at(HOUSES[1]).account == wallet.at(HOUSES[1]).account


async def test_there_is_nothing_to_rotate_for_a_stranger(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "wallets" / "mine"
    create_wallet(path, Wallet(hash32("stranger")).rotating(), None)
    with pytest.raises(InvalidInput, match="at no organisation"):
        async for _ in rotate(opener(chain), open_wallet(path), HOUSES):
            raise AssertionError("nothing was there")
    assert open_wallet(path).wallet.pending is not None
