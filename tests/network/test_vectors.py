"""The bytes on the wire, written down: whoever changes them sees it here and raises WIRE_VERSION.

To write the file anew after a change that is meant: `python -m tests.network.test_vectors`.
"""

import json
from pathlib import Path

from p2pledger.messages import BatchRequest, Links, PeerMessage, Status, parse_message
from p2pledger.network.api import Accepted, Challenge, Failure, GetAccount, Reply, Request, Submit, Welcome
from p2pledger.network.authentication import check_hello, hello_statement, make_hello
from p2pledger.network.certificates import make_certificate
from p2pledger.network.frame import PING, FrameDecoder, Tag, encode_frame
from p2pledger.network.link import WIRE_VERSION, PeerHello, encode_hello
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import BatchId, ChainId, Epoch, Height, NodeId, TransactionId, View

PATH = Path(__file__).parent.parent / "vectors" / "network.json"

CHAIN = ChainId(b"\xcc" * 32)
NODE = SigningKey(bytes(range(32)))
ACCOUNT = SigningKey(bytes(range(32, 64)))
CHALLENGE = Challenge(CHAIN, b"\xaa" * 32)
CLIENT_NONCE = b"\xbb" * 32

PEER_MESSAGES: dict[str, PeerMessage] = {
    "status": Status(Epoch(0), View(3), True, Height(1000)),
    "batch_request": BatchRequest((BatchId(b"\x11" * 32),)),
    "links": Links((NodeId(NODE.public),)),
}
REQUESTS: dict[str, Request] = {"submit": Submit(1, b"transaction"), "get_account": GetAccount(2)}
REPLIES: dict[str, Reply] = {
    "accepted": Accepted(1, TransactionId(b"\x22" * 32)),
    "failure": Failure(2, Code.E_ROLE, "not a member"),
}


def current() -> dict[str, object]:
    """What this code puts on the wire today."""
    return {
        "wire_version": WIRE_VERSION,
        "node_seed": NODE.seed.hex(),
        "node_key": NODE.public.hex(),
        "certificate": make_certificate(NODE).hex(),
        "frame": encode_frame(b"body").hex(),
        "ping": PING.hex(),
        "peer_hello": encode_hello(PeerHello(WIRE_VERSION, CHAIN, NodeId(NODE.public))).hex(),
        "peer_messages": {name: encode_frame(encode(message)).hex() for name, message in PEER_MESSAGES.items()},
        "client_hello": {
            "account_seed": ACCOUNT.seed.hex(),
            "challenge": encode_frame(encode(CHALLENGE), Tag.HELLO).hex(),
            "statement": hello_statement(CHAIN, NodeId(NODE.public), CHALLENGE.nonce, CLIENT_NONCE).hex(),
            "hello": encode_frame(_hello(), Tag.HELLO).hex(),
            "welcome": encode_frame(encode(Welcome("patient")), Tag.HELLO).hex(),
        },
        "requests": {name: encode_frame(encode(request)).hex() for name, request in REQUESTS.items()},
        "replies": {name: encode_frame(encode(reply)).hex() for name, reply in REPLIES.items()},
    }


def _hello() -> bytes:
    return encode(make_hello(CHALLENGE, NodeId(NODE.public), ACCOUNT, CLIENT_NONCE))


def test_the_wire_is_as_written_down() -> None:
    """Every byte of frames, hellos, certificates and one message of each shape."""
    assert current() == json.loads(PATH.read_text())


def test_what_is_written_down_can_be_read() -> None:
    """Each vector parses to the value that it shows."""
    vectors = json.loads(PATH.read_text())

    def body(frame: str) -> bytes:
        [only] = FrameDecoder(limits.FRAME_BYTES_MAX).feed(bytes.fromhex(frame))
        return only

    assert {name: parse_message(body(frame)) for name, frame in vectors["peer_messages"].items()} == PEER_MESSAGES
    for known, kind, part in ((REQUESTS, Request, "requests"), (REPLIES, Reply, "replies")):
        read = {name: decode(kind, body(frame), limits.CLIENT_FRAME_BYTES_MAX) for name, frame in vectors[part].items()}
        assert read == known
    hello = bytes.fromhex(vectors["client_hello"]["hello"])[5:]
    assert check_hello(hello, CHALLENGE, NodeId(NODE.public)) == ACCOUNT.public


def test_the_document_shows_these_bytes() -> None:
    """docs/wire.md quotes the short vectors as they are."""
    document = (PATH.parent.parent.parent / "docs" / "wire.md").read_text()
    vectors = current()
    assert isinstance(vectors["requests"], dict)
    assert isinstance(vectors["peer_messages"], dict)
    quoted = [vectors["frame"], vectors["ping"], vectors["requests"]["submit"], vectors["peer_messages"]["status"]]
    quoted.append(vectors["peer_hello"])
    assert [each for each in quoted if str(each) not in document] == []


if __name__ == "__main__":
    PATH.write_text(json.dumps(current(), indent=2) + "\n")
