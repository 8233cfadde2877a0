"""Who waits for the receipt of its own without a task: answered in time, told when it took too long, or forgotten."""

from types import SimpleNamespace

from p2pledger.engine.events import Now
from p2pledger.network import api
from p2pledger.node.server import Server
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Nonce
from tests.unit.health.world import DOCTOR, PATIENT
from tests.unit.node.test_server_attacks import by, server

__all__ = ["server"]


def asks(nonce: int, account: AccountKey, proven: bool = False) -> api.AwaitReceipt:
    return api.AwaitReceipt(1, account, Nonce(nonce), proven, 5_000)


def at(server: Server, monotonic_ms: int) -> None:
    server.driver = SimpleNamespace(now=Now(monotonic_ms, 0))  # type: ignore[assignment]


def test_who_waits_is_answered_told_or_forgotten(server: Server) -> None:
    """A receipt that is there comes at once; a time that is over is said; a session that is gone leaves nothing."""
    at(server, 0)
    replies: list[api.Reply | Rejected] = []
    session, gone = by(PATIENT), by(PATIENT)
    own = AccountKey(PATIENT.public)
    assert server.take(session, asks(9, own), replies.append)
    assert server.take(gone, asks(9, own), replies.append)
    server.expire({session})
    assert not replies
    at(server, 5_000)
    server.expire({session})
    [told] = replies
    assert isinstance(told, api.Failure) and told.code == Code.E_BUSY
    assert not server._expected


def test_proofs_and_receipts_of_others_are_the_handlers_business(server: Server) -> None:
    """It knows who may see them."""
    at(server, 0)
    assert not server.take(by(DOCTOR), asks(7, AccountKey(PATIENT.public)), print)
    assert not server.take(by(PATIENT), asks(7, AccountKey(PATIENT.public), proven=True), print)
    assert not server.take(by(PATIENT), api.GetStatus(1), print)
