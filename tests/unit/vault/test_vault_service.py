"""The port of a vault: who gets in, what a hostile or slow caller gets, and that others are served meanwhile."""

from pathlib import Path

import pytest
import trio

from p2pledger.network.frame import encode_frame
from p2pledger.network.tls import ALPN_CLIENT, pinning_client_context
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, PeerFault, Rejected, Unavailable
from p2pledger.primitives.ids import NodeId
from p2pledger.vault.connection import VaultAddress, VaultConnection, open_vault
from p2pledger.vault.service import ServiceSettings
from p2pledger.vault.wire import (
    MEMBER_FRAME_BYTES_MAX,
    READER_FRAME_BYTES_MAX,
    Done,
    GetObject,
    ListNames,
    NamesReply,
    ObjectReply,
    PutObject,
)
from tests.network.stage import CHAIN, HOST, OTHER_CHAIN, PATIENCE_S, is_closed, member, tls_to
from tests.unit.vault.stage import OWNER, Holder

DATA = b"sealed"
SMALL = ServiceSettings(sessions_max=4, readers_max=2, sessions_per_key_max=2)


@pytest.fixture
def tal(tmp_path: Path) -> Holder:
    return Holder("Tal", tmp_path, SMALL)


async def works(connection: VaultConnection) -> None:
    await connection.ask(PutObject(sha256(DATA), DATA), Done)
    assert (await connection.ask(GetObject(sha256(DATA)), ObjectReply)).data == DATA


async def test_only_the_pinned_key_is_talked_to(tal: Holder) -> None:
    async with tal.up() as address:
        false = VaultAddress("Tal", HOST, address.port, NodeId(member("See").key.public))
        with pytest.raises(PeerFault, match="is not who was expected"):
            async with open_vault(false, OWNER.key, CHAIN):
                pass
        with pytest.raises(PeerFault, match="is of chain"):
            async with open_vault(address, OWNER.key, OTHER_CHAIN):
                pass


async def test_the_port_is_no_client_port(tal: Holder) -> None:
    """Another protocol name: what was begun for one port is never good for the other."""
    async with tal.up() as address:
        async with tls_to(address.port, pinning_client_context(ALPN_CLIENT)) as stream:
            assert await is_closed(stream)
        assert "speaks None" in tal.service.refusals[-1][1]


async def test_a_question_that_is_too_long_ends_the_session(tal: Holder) -> None:
    """A length above the limit is refused before a byte of it is kept; readers have a smaller one than custodians."""
    async with tal.up() as address:
        for key, length in (
            (OWNER.key, MEMBER_FRAME_BYTES_MAX + 1),
            (SigningKey(bytes(32)), READER_FRAME_BYTES_MAX + 1),
        ):
            async with open_vault(address, key, CHAIN) as connection:
                await connection._stream.send_all(length.to_bytes(4, "big"))
                with pytest.raises(Rejected, match="longer than the limit") as refused, trio.fail_after(PATIENCE_S):
                    raise _refused(await connection._receive())
                assert refused.value.code == Code.E_FORMAT
                assert await is_closed(connection._stream)
        assert tal.service.counters.malformed == 2


def _refused(body: bytes) -> Rejected:
    from p2pledger.primitives.codec import decode
    from p2pledger.vault.wire import ANSWER, Failed

    failed = decode(ANSWER, body, 4096)
    assert isinstance(failed, Failed)
    return Rejected(Code(failed.code), failed.detail)


async def test_a_dripped_question_does_not_hold_a_seat(tmp_path: Path) -> None:
    tal = Holder("Tal", tmp_path, ServiceSettings(silence_s=0.2))
    async with tal.up() as address, open_vault(address, OWNER.key, CHAIN) as connection:
        frame = encode_frame(encode(GetObject(sha256(DATA))))
        await connection._stream.send_all(frame[:10])
        assert await is_closed(connection._stream)
        assert tal.service.counters.slow == 1


async def test_who_does_not_read_is_left(tmp_path: Path) -> None:
    """A big answer that is not taken ends the session, and holds nobody up."""
    tal = Holder("Tal", tmp_path, ServiceSettings(reply_s=0.2))
    data = bytes(8 * 1024 * 1024)
    async with tal.up() as address, open_vault(address, OWNER.key, CHAIN) as deaf:
        await deaf.ask(PutObject(sha256(data), data), Done)
        for _ in range(2):
            await deaf._stream.send_all(encode_frame(encode(GetObject(sha256(data)))))
        async with open_vault(address, OWNER.key, CHAIN) as other:
            await works(other)
        with trio.fail_after(PATIENCE_S):
            while not tal.service.counters.slow:
                await trio.sleep(0.01)
            while tal.service.callers:
                await trio.sleep(0.01)


async def test_seats_are_shared(tal: Holder) -> None:
    """Readers never take the custodians' seats, and no key more than its own."""
    async with tal.up() as address:
        readers = [SigningKey(sha256(b"reader %d" % number)) for number in range(3)]
        async with open_vault(address, readers[0], CHAIN), open_vault(address, readers[1], CHAIN):
            with pytest.raises(Unavailable, match="2 readers already"):
                async with open_vault(address, readers[2], CHAIN):
                    pass
            async with open_vault(address, OWNER.key, CHAIN) as first, open_vault(address, OWNER.key, CHAIN):
                with pytest.raises(Unavailable, match="already"):
                    async with open_vault(address, OWNER.key, CHAIN):
                        pass
                await works(first)


async def test_names_come_in_pages(tal: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pledger.vault import copies

    monkeypatch.setattr(copies, "NAMES_MAX", 3)
    async with tal.up() as address, open_vault(address, OWNER.key, CHAIN) as connection:
        contents = [b"%d" % number for number in range(7)]
        for data in contents:
            await connection.ask(PutObject(sha256(data), data), Done)
        await connection.ask(PutObject(b"m" * 16, b"manifest"), Done)
        found: list[bytes] = []
        while page := (await connection.ask(ListNames(found[-1] if found else b""), NamesReply)).names:
            assert len(page) <= 3
            found += page
        assert found == [*sorted(map(sha256, contents)), b"m" * 16]
