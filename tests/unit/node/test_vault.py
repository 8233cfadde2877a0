"""Where the records of a home lie and who keeps copies, by its settings; mistakes are named."""

from pathlib import Path

import pytest
import trio

from p2pledger.client.links import Node as NodeAddress
from p2pledger.client.vault import Vault
from p2pledger.health.commitments import RecordRef
from p2pledger.node.home import Home
from p2pledger.node.vault import OwnNode, VaultProcess, copies_of, holders_of, own_store, replicas_of
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, ConfigError, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey
from p2pledger.vault.connection import VaultAddress, open_vault
from p2pledger.vault.objects import DirectoryStore
from p2pledger.vault.wire import Done, FetchRecords, GetObject, ListNames, NamesReply, ObjectReply, PutObject
from tests.s3 import BUCKET, serving
from tests.unit.client.test_ingest import CUSTODIAN
from tests.unit.execution.ledger import id16
from tests.unit.health.charts import Chart
from tests.unit.node.test_home import consortium

DATA = b"a sealed record"
REF = RecordRef(id16("batch"), 0)
ANY = {"P2PLEDGER_VAULT__LISTEN": "127.0.0.1:0", "P2PLEDGER_VAULT__OPS_LISTEN": "127.0.0.1:0"}


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    return consortium(tmp_path / "net")


def process_of(home: Home) -> VaultProcess:
    """Its node is not running: nobody listens where it is said to be."""
    node = OwnNode(home, lambda: NodeAddress("127.0.0.1", 1, home.node), home.office().account)
    return VaultProcess(home, Vault(own_store(home), CUSTODIAN.box), node)


def test_records_and_copies_lie_in_the_home_or_in_a_bucket(
    roots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-09: never among each other."""
    other = Home.load(roots[1], {}).card.organisation
    home = Home.load(roots[0], {})
    own_store(home).put(sha256(DATA), DATA)
    copies_of(home, other).put(sha256(DATA), DATA)
    assert DirectoryStore(roots[0] / "vault").get(sha256(DATA)) == DATA
    assert DirectoryStore(roots[0] / "vault-copies" / other.hex()).get(sha256(DATA)) == DATA
    with serving(tmp_path) as s3:
        for name, value in s3.credentials.items():
            monkeypatch.setenv(name, value)
        place = {"P2PLEDGER_VAULT__STORE": f"s3://{BUCKET}/berg", "P2PLEDGER_VAULT__S3_ENDPOINT": s3.endpoint}
        home = Home.load(roots[0], place)
        copies_of(home, other).put(sha256(DATA), DATA)
        assert list(own_store(home).names()) == []
        assert list(copies_of(home, other).names()) == [sha256(DATA)]


def test_replicas_are_members_by_name(roots: list[Path]) -> None:
    """F-09: two copies are promised as soon as somebody keeps one for us."""
    first, second = (Home.load(root, {}) for root in roots[:2])
    assert (first.config.vault_copies, holders_of(first)) == (1, [])
    environ = {"P2PLEDGER_VAULT__REPLICAS": f"{second.card.name}=10.0.0.2:7423"}
    first = Home.load(roots[0], environ)
    assert holders_of(first) == [VaultAddress(second.card.name, "10.0.0.2", 7423, second.node)]
    assert first.config.vault_copies == 2
    assert len(replicas_of(first, Vault(own_store(first), CUSTODIAN.box)).holders) == 1


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("REPLICAS", "Nobody=10.0.0.2:7423", "the genesis knows no member"),
        ("REPLICAS", "Nobody=10.0.0.2:0", "others cannot dial port 0"),
        ("COPIES", "2", "with 0 replicas there are at most 1"),
        ("OPS_LISTEN", "0.0.0.0:7424", "must be a loopback"),
        ("LISTEN", "somewhere", "is not host:port"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(roots: list[Path], setting: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Home.load(roots[0], {f"P2PLEDGER_VAULT__{setting}": value})


async def test_members_keep_copies_and_readers_only_fetch(roots: list[Path]) -> None:
    """F-09, F-36: by the key that a caller has proven; and nothing is given while the own node does not answer."""
    home, member = Home.load(roots[0], ANY), Home.load(roots[1], {})
    process = process_of(home)
    reader = SigningKey(sha256(b"reader"))
    async with trio.open_nursery() as nursery:
        ports = await nursery.start(process.run)
        address = VaultAddress("first", "127.0.0.1", ports["vault"], home.node)
        async with open_vault(address, member.keys.node, home.founding.chain) as connection:
            await connection.ask(PutObject(sha256(DATA), DATA), Done)
            assert (await connection.ask(ListNames(b""), NamesReply)).names == (sha256(DATA),)
            with pytest.raises(Rejected) as refused:
                await connection.ask(FetchRecords(id16("a"), bytes(32), (), (REF,)), Done)
            assert refused.value.code == Code.E_ROLE
        async with open_vault(address, reader, home.founding.chain) as connection:
            for question in (GetObject(sha256(DATA)), PutObject(sha256(DATA), DATA), ListNames(b"")):
                with pytest.raises(Rejected) as refused:
                    await connection.ask(question, ObjectReply)
                assert refused.value.code == Code.E_ROLE
        with pytest.raises(Unavailable):
            await process._node.judge(Chart().request(0), AccountKey(reader.public))
        nursery.cancel_scope.cancel()
    assert DirectoryStore(roots[0] / "vault-copies" / member.card.organisation.hex()).has(sha256(DATA))
    assert list(own_store(home).names()) == []
