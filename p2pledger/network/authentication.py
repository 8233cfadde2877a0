"""How a client shows its node who it is, inside TLS with the node's pinned key.

The signature covers the node's key and a nonce of either side. So it is good for one connection to one node: replayed,
it meets another nonce; relayed by a dishonest node to another one, it names the wrong node.
"""

from p2pledger.network.api import Challenge, Hello
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, is_public_key, signed_bytes, verify
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, ChainId, NodeId


def hello_statement(chain: ChainId, server: NodeId, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """The bytes that a client signs."""
    return signed_bytes(Domain.CLIENT_HELLO, chain, encode((server, server_nonce, client_nonce)))


def make_hello(challenge: Challenge, server: NodeId, account: SigningKey, nonce: bytes) -> Hello:
    """The answer to a server's challenge, with a fresh nonce."""
    statement = hello_statement(challenge.chain, server, challenge.nonce, nonce)
    return Hello(AccountKey(account.public), nonce, account.sign(statement))


def check_hello(data: bytes, challenge: Challenge, server: NodeId) -> AccountKey:
    """The account that answered this challenge; raises Rejected(E_SIG), or InvalidInput for what is no hello."""
    hello = decode(Hello, data, limits.HANDSHAKE_BYTES_MAX)
    statement = hello_statement(challenge.chain, server, challenge.nonce, hello.nonce)
    if not is_public_key(hello.account) or not verify(hello.account, statement, hello.signature):
        raise Rejected(Code.E_SIG, f"hello of account {hello.account.hex()} is not signed for this connection")
    return hello.account
