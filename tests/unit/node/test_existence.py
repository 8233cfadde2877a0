"""I-16: what an asker may not see and what does not exist are refused in the same words, by the same class."""

import pytest

from p2pledger.health import keys
from p2pledger.network import api
from p2pledger.node.server import Server
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Bytes16, Nonce
from tests.unit.execution.ledger import id16, key
from tests.unit.health.world import PID
from tests.unit.node.test_server_attacks import OTHERS, by, server

__all__ = ["server"]

ABSENT = id16("nobody")
QUESTIONS = {
    "consents": lambda pid: api.GetConsents(1, pid),
    "alerts": lambda pid: api.GetAlerts(1, pid),
    "log": lambda pid: api.GetLog(1, pid),
    "line": lambda pid: api.GetLine(1, pid, 1),
    "late line": lambda pid: api.GetLine(1, pid, 2**40),
    "consents in the state": lambda pid: api.GetState(1, keys.consents(pid)),
    "a consent in the state": lambda pid: api.GetState(1, keys.consent(pid, id16("consent"))),
    "log head in the state": lambda pid: api.GetState(1, keys.log_head(pid)),
    "identity in the state": lambda pid: api.GetState(1, keys.identity(pid)),
}


async def said(server: Server, asker: SigningKey, question: api.Request, about: Bytes16) -> tuple[type, Code, str]:
    """Class, code and text of a refusal, the asker's own word for it taken out."""
    with pytest.raises(Rejected) as refused:
        await server.handle(by(asker), question)
    return type(refused.value), refused.value.code, str(refused.value).replace(about.hex(), "PID")


@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_refusal_does_not_tell_whether_there_is_anything(server: Server, asker: SigningKey, kind: str) -> None:
    """I-16: of a patient with consents, and of an id that nobody has, every asker hears the same."""
    there = await said(server, asker, QUESTIONS[kind](PID), PID)
    absent = await said(server, asker, QUESTIONS[kind](ABSENT), ABSENT)
    assert there == absent
    assert there[1] is Code.E_ROLE


@pytest.mark.parametrize("asker", OTHERS, ids=["doctor", "neighbour", "stranger"])
async def test_nor_whether_somebody_has_sent_anything(server: Server, asker: SigningKey) -> None:
    """I-16, for receipts: of a nonce that was used, of one that was not, and of a key that is none."""
    answers = set()
    for account, nonce in ((b"", 7), (b"", 8), (key("no account").public, 7)):
        about = AccountKey(account or key("patient").public)
        with pytest.raises(Rejected) as refused:
            await server.handle(by(asker), api.AwaitReceipt(1, about, Nonce(nonce), False, 1_000))
        answers.add((type(refused.value), refused.value.code, str(refused.value)))
    assert len(answers) == 1
