"""Who gets through a handshake between nodes: the member that was expected, nobody else (T36)."""

import ssl
from collections.abc import Callable

import pytest
import trio
from trio.testing import memory_stream_pair

from p2pledger.network.tls import (
    ALPN_CLIENT,
    ALPN_PEER,
    TlsStream,
    client_port_context,
    handshake,
    peer_contexts,
    pinning_client_context,
    tls_reason,
)
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, PeerFault
from p2pledger.primitives.ids import NodeId
from tests.attack import Without
from tests.network.forgery import mint, self_signed_ca
from tests.network.stage import Member, in_order, member

A, B, C = in_order("a", "b", "c")
OUTSIDER = member("outsider")
MEMBERS = [A, B, C]


def anybody(node: NodeId) -> bool:
    """The pin, switched off."""
    return True


def exactly(expected: Member) -> Callable[[NodeId], bool]:
    return lambda node: node == expected.node


async def meet(
    accepting: ssl.SSLContext,
    dialing: ssl.SSLContext,
    accepts: Callable[[NodeId], bool] = anybody,
    expects: Callable[[NodeId], bool] = anybody,
    alpn: str = ALPN_PEER,
) -> dict[str, NodeId | str]:
    """Whom either side has found at the other end, or why it would not."""
    near, far = memory_stream_pair()
    found: dict[str, NodeId | str] = {}

    async def side(name: str, stream: TlsStream, is_expected: Callable[[NodeId], bool]) -> None:
        try:
            node = await handshake(stream, is_expected, alpn)
            await stream.send_all(b"!")
            if not await stream.receive_some(1):
                found[name] = "closed"
            else:
                found[name] = node
        except PeerFault as fault:
            found[name] = fault.reason
        except InvalidInput as error:
            found[name] = str(error)
        except trio.BrokenResourceError as error:
            found[name] = tls_reason(error)
        finally:
            await trio.aclose_forcefully(stream)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            acceptor: TlsStream = trio.SSLStream(near, accepting, server_side=True, https_compatible=True)
            nursery.start_soon(side, "acceptor", acceptor, accepts)
            dialer: TlsStream = trio.SSLStream(far, dialing, https_compatible=True)
            nursery.start_soon(side, "dialer", dialer, expects)
    return found


async def test_members_find_each_other() -> None:
    """Either side learns the other one's raw key."""
    found = await meet(A.accepting_context(MEMBERS), B.dialing_context(MEMBERS), exactly(B), exactly(A))
    assert found == {"acceptor": B.node, "dialer": A.node}


@pytest.mark.attack("T36")
async def test_an_outsider_is_refused_by_the_trust_store(without: Without) -> None:
    """With its certificate in the store an outsider gets in; without, the reason is the library's."""
    knows_outsider = A.accepting_context([*MEMBERS, OUTSIDER])
    with without.setup("a trust store of members only"):
        assert (await meet(knows_outsider, OUTSIDER.dialing_context(MEMBERS)))["acceptor"] == OUTSIDER.node

    found = await meet(A.accepting_context(MEMBERS), OUTSIDER.dialing_context(MEMBERS))
    assert str(found["acceptor"]).startswith("certificate refused: self-signed certificate")


async def lenient_handshake(accepting: ssl.SSLContext, dialing: ssl.SSLContext) -> None:
    """A handshake of which the acceptor does not know whom it was with."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.SSLStream(near, accepting, server_side=True).do_handshake)
        nursery.start_soon(trio.SSLStream(far, dialing).do_handshake)


async def test_an_outsider_does_not_pass_for_a_server() -> None:
    found = await meet(OUTSIDER.accepting_context([A]), A.dialing_context(MEMBERS), anybody, exactly(B))
    assert str(found["dialer"]).startswith("certificate refused: self-signed certificate")


@pytest.mark.attack("T36")
async def test_who_shows_no_certificate_is_refused(without: Without) -> None:
    context = pinning_client_context()
    context.set_alpn_protocols([ALPN_PEER])
    lenient = A.accepting_context(MEMBERS)
    lenient.verify_mode = ssl.CERT_NONE
    with without.setup("a certificate demanded from both sides"):
        await lenient_handshake(lenient, context)
    found = await meet(A.accepting_context(MEMBERS), context)
    assert found["acceptor"] == "TLS: peer did not return a certificate"


@pytest.mark.attack("T36")
async def test_one_member_does_not_pass_for_another(without: Without) -> None:
    """Without the pin a dialer would take B for A; with it, the answer names the key that answered."""
    contexts = B.accepting_context(MEMBERS), C.dialing_context(MEMBERS)
    with without(handshake, "raise PeerFault(node, f'is not who was expected"):
        assert (await meet(*contexts, expects=exactly(A)))["dialer"] == B.node

    found = await meet(*contexts, expects=exactly(A))
    assert found["dialer"] == f"is not who was expected: its key is {B.node.hex()}"


@pytest.mark.attack("T36")
async def test_a_minted_certificate_is_refused(without: Without) -> None:
    """A member uses its key as a CA: it works only on victims that let CAs in and do not look at the key."""
    attacker = SigningKey(b"\7" * 32)
    minted = mint(C.key, attacker, name=A.node.hex())  # C vouches: this is A
    dialing = peer_contexts(attacker, minted, [B.certificate])[1]

    careless = peer_contexts(B.key, B.certificate, [A.certificate, self_signed_ca(C.key)])[0]
    with without.setup("certificates that are no CAs, and the pin"):
        assert (await meet(careless, dialing))["acceptor"] == attacker.public

    pinned = await meet(careless, dialing, accepts=lambda node: node in {A.node, C.node})
    assert str(pinned["acceptor"]).startswith("is not who was expected")
    strict = await meet(B.accepting_context(MEMBERS), dialing)
    assert str(strict["acceptor"]).startswith("certificate refused: ")


@pytest.mark.attack("T36")
async def test_an_older_tls_is_not_spoken(without: Without) -> None:
    """No fallback: a dialer that offers only TLS 1.2 is turned away."""
    old = B.dialing_context(MEMBERS)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    lenient = A.accepting_context(MEMBERS)
    lenient.minimum_version = ssl.TLSVersion.TLSv1_2
    with without.setup("TLS 1.3 as the least"):
        assert (await meet(lenient, old))["acceptor"] == B.node
    found = await meet(A.accepting_context(MEMBERS), old)
    assert found["acceptor"] == "TLS: unsupported protocol"


@pytest.mark.attack("T36")
async def test_a_handshake_for_the_other_port_is_refused(without: Without) -> None:
    """Client and peer ports name different protocols, so one's handshake is no good at the other."""
    contexts = client_port_context(A.key, A.certificate), B.dialing_context(MEMBERS)
    with without(handshake, "raise PeerFault(node, f'speaks"):
        found = await meet(*contexts, expects=exactly(A), alpn=ALPN_CLIENT)
        assert "speaks" not in str(found["dialer"])  # taken for a client port; what ended it was the other side
    found = await meet(*contexts, expects=exactly(A), alpn=ALPN_CLIENT)
    assert found["dialer"] == "speaks None, not 'p2pledger-client/1'"


async def test_a_pin_needs_no_chain_and_is_not_fooled_by_a_name() -> None:
    """A client takes its node's key under any certificate, and no other key under its node's name."""
    impostor = SigningKey(b"\7" * 32)

    async def client_meets(key: SigningKey, certificate: bytes) -> NodeId:
        near, far = memory_stream_pair()
        server = trio.SSLStream(near, client_port_context(key, certificate), server_side=True, https_compatible=True)
        client: TlsStream = trio.SSLStream(far, pinning_client_context(), https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            node = await handshake(client, anybody, ALPN_CLIENT)
        if not exactly(A)(node):
            await handshake(client, exactly(A), ALPN_CLIENT)
        return node

    assert await client_meets(A.key, A.certificate) == A.node
    assert await client_meets(A.key, mint(impostor, A.key)) == A.node
    with pytest.raises(PeerFault, match=f"is not who was expected: its key is {impostor.public.hex()}"):
        await client_meets(impostor, mint(impostor, impostor, name=A.node.hex()))


async def test_a_certificate_without_its_key_cannot_be_shown() -> None:
    """A node with the certificate of one key and the secret of another does not start."""
    with pytest.raises(InvalidInput, match=f"certificate of {A.node.hex()} cannot be shown with key {C.node.hex()}"):
        peer_contexts(C.key, A.certificate, [B.certificate])
