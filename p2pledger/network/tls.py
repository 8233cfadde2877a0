"""TLS 1.3 between nodes and for clients: who is at the other end, and nothing older, weaker or resumed.

Between nodes both sides must show a certificate, and the trust store is exactly the members' certificates. That alone
is not identity: the raw key of the peer must also be the one expected. With either check gone the other one still
keeps outsiders out; with both in place a member can pass for nobody but itself (T36).

A client knows only the key of its node. It skips the chain check and compares the key that the server has proven
instead: in TLS 1.3 the server signs the handshake with the key of the certificate it shows (CertificateVerify), and
that signature is checked whatever the verify mode; so a handshake that ended with the pinned key ended with its owner.
Nothing is sent before the comparison, and names and dates in the certificate mean nothing.
"""

import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import trio

from p2pledger.network.certificates import certificate_pem, key_pem, node_id_of
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, PeerFault
from p2pledger.primitives.ids import NodeId

ALPN_PEER = "p2pledger/1"
ALPN_CLIENT = "p2pledger-client/1"
ALPN_VAULT = "p2pledger-vault/1"
"""Other names, so that a handshake for one port is never good for another."""

TlsStream = trio.SSLStream[trio.abc.Stream]


def peer_contexts(
    key: SigningKey, certificate: bytes, members: Iterable[bytes]
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(for accepting, for dialing) between nodes: both sides show a certificate out of `members` (DER)."""
    trusted = b"".join(members)
    contexts = _context(ssl.PROTOCOL_TLS_SERVER, ALPN_PEER), _context(ssl.PROTOCOL_TLS_CLIENT, ALPN_PEER)
    for context in contexts:
        _present(context, key, certificate)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if trusted:  # a consortium of one trusts nobody
            context.load_verify_locations(cadata=trusted)
    return contexts


def client_port_context(key: SigningKey, certificate: bytes, alpn: str = ALPN_CLIENT) -> ssl.SSLContext:
    """For the client port of a node or a vault: clients say who they are inside, not with a certificate."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, alpn)
    _present(context, key, certificate)
    context.verify_mode = ssl.CERT_NONE
    return context


def pinning_client_context(alpn: str = ALPN_CLIENT) -> ssl.SSLContext:
    """For a client; use it only with `handshake(stream, {pinned key}.__contains__)`, which is its check."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, alpn)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def handshake(stream: TlsStream, is_expected: Callable[[NodeId], bool], alpn: str) -> NodeId:
    """The key that the other side has proven to hold; raises PeerFault, InvalidInput
    or trio.BrokenResourceError.

    The caller sets the deadline. A dialer's handshake succeeds before the acceptor has judged it: believe in the link
    when the first frame has arrived.
    """
    await stream.do_handshake()
    node = proven_key(stream)
    if not is_expected(node):
        raise PeerFault(node, f"is not who was expected: its key is {node.hex()}")
    if stream.selected_alpn_protocol() != alpn:
        raise PeerFault(node, f"speaks {stream.selected_alpn_protocol()!r}, not {alpn!r}")
    return node


def proven_key(stream: TlsStream) -> NodeId:
    """The key that signed the other side of a finished handshake; raises InvalidInput for other kinds of keys."""
    der = stream.getpeercert(binary_form=True)
    if der is None:
        raise InvalidInput("the other side showed no certificate")
    return node_id_of(der)


def tls_reason(error: BaseException) -> str:
    """Why a stream broke: trio says only that it did and keeps the TLS library's reason in the cause."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # one for each address that a name has
        cause = cause.exceptions[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {(cause.reason or str(cause)).lower().replace('_', ' ')}"
    if isinstance(cause, OSError):
        return os.strerror(cause.errno) if cause.errno else str(cause)
    return str(error) or type(error).__name__


def _context(protocol: int, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # a resumed session would not show a certificate again
    context.set_alpn_protocols([alpn])
    return context


def _present(context: ssl.SSLContext, key: SigningKey, certificate: bytes) -> None:
    if node_id_of(certificate) != key.public:
        raise InvalidInput(
            f"certificate of {node_id_of(certificate).hex()} cannot be shown with key {key.public.hex()}"
        )
    with _as_path(certificate_pem(certificate)) as certificate_path, _as_path(key_pem(key)) as key_path:
        context.load_cert_chain(certificate_path, key_path)


@contextmanager
def _as_path(text: str) -> Iterator[str]:
    """A path that reads as `text` once: the TLS library takes only paths, and a key has no business on a disk."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "w") as pipe:
            pipe.write(text)  # far below what a pipe holds
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
