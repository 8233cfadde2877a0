"""A patient whose records are sealed to the joint key, and a physician who asks the validators for shares."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import time

import trio

from p2pledger.client.joint_keys import standing
from p2pledger.client.keyring import OrganisationWallet, Persona
from p2pledger.client.ledger import open_ledger
from p2pledger.client.shares import Heard
from p2pledger.demo.cluster import Cluster
from p2pledger.health import keys, release
from p2pledger.health.commitments import RecordLeaf, RecordRef, prove_record, record_root, scope_commit
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.operations import (
    AccessRequest,
    ActorOpening,
    CompartmentCount,
    ConsentGrant,
    ConsentRevoke,
    CredentialIssue,
    RecordBatch,
    actor_commit,
    sign_pop,
)
from p2pledger.health.release import RecordOpening, ReleaseRequest
from p2pledger.network.api import SharesReply
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import Bytes16, Bytes32, Millis
from p2pledger.threshold.key_release import Access, Opened
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.sealing import BoxSecret
from tests.node.health import register, until

HOUR_MS = 3_600_000


async def gauge(cluster: Cluster, name: str, what: str) -> int:
    return int(await cluster.metric(name, f"p2pledger_{what}"))


async def sharing_comes(cluster: Cluster, names: Sequence[str], share_epoch: int = 0, key_epoch: int = 1) -> None:
    """Wait until these nodes hold their shares of the newest key, in this sharing."""
    for name in names:

        async def there(name: str = name) -> bool:
            return (
                await gauge(cluster, name, "sharing_key_epoch") == key_epoch
                and await gauge(cluster, name, "sharing_share_epoch") == share_epoch
                and await gauge(cluster, name, "sharing_holds_share") == 1
            )

        await until(there, f"a share of {key_epoch}.{share_epoch} at {name!r}")


async def active_key(cluster: Cluster, wallet: OrganisationWallet) -> ActiveKey:
    """As the chain proves it."""
    found: list[ActiveKey] = []
    async with open_ledger(cluster.founding, cluster.addresses(cluster.running), wallet.account) as ledger:

        async def there() -> bool:
            active = (await standing(ledger)).active
            if active is not None:
                found.append(active)
            return bool(found)

        await until(there, "a proven joint key")
    return found[0]


@dataclass
class Chart:
    """Records of a patient, their capsules, and one allowed access to all of them."""

    cluster: Cluster
    wallet: OrganisationWallet
    patient: Persona
    physician: Persona
    active: ActiveKey
    reader: BoxSecret = field(default_factory=lambda: BoxSecret(secrets.token_bytes(32)))
    salt: Bytes32 = field(default_factory=lambda: Bytes32(secrets.token_bytes(32)))
    batch_id: Bytes16 = field(default_factory=lambda: Bytes16(secrets.token_bytes(16)))
    consent_id: Bytes16 = field(default_factory=lambda: Bytes16(secrets.token_bytes(16)))
    access_id: Bytes16 = field(default_factory=lambda: Bytes16(secrets.token_bytes(16)))
    compartment: Bytes16 = field(default_factory=lambda: Bytes16(secrets.token_bytes(16)))
    content_keys: list[bytes] = field(default_factory=list)
    capsules: list[bytes] = field(default_factory=list)
    n: int = 7

    def __post_init__(self) -> None:
        key = LongTerm(self.active.key)
        self.content_keys = [secrets.token_bytes(32) for _ in range(self.n)]
        self.capsules = [
            key.wrap(content, self.label(index), secrets.token_bytes) for index, content in enumerate(self.content_keys)
        ]
        self.leaves = [
            RecordLeaf(
                index,
                Bytes32(secrets.token_bytes(32)),
                Bytes32(sha256(capsule)),
                Bytes32(secrets.token_bytes(32)),
                Bytes16(self.wallet.organisation),
                202501,
                (self.compartment,),
            )
            for index, capsule in enumerate(self.capsules)
        ]

    def label(self, index: int) -> release.Label:
        ref = RecordRef(self.batch_id, index)
        founding, epoch = self.cluster.founding, self.active.key.key_epoch
        return release.label_of(ref, self.patient.did, self.wallet.organisation, founding.chain, epoch)

    @property
    def scope(self) -> tuple[RecordRef, ...]:
        return tuple(RecordRef(self.batch_id, index) for index in range(self.n))

    def request(self, *indices: int) -> ReleaseRequest:
        openings = tuple(
            RecordOpening(
                self.batch_id, prove_record(self.leaves, index), self.active.key.key_epoch, self.capsules[index]
            )
            for index in indices or range(self.n)
        )
        return ReleaseRequest(self.access_id, self.salt, self.scope, openings)

    async def allow(self) -> None:
        """Batch, consent and access, all on the chain."""
        cluster, nodes = self.cluster, self.cluster.addresses(self.cluster.running)
        organisation = Bytes16(self.wallet.organisation)
        counted = (CompartmentCount(self.compartment, self.n),)
        now_ms = Millis(int(time() * 1000) - 60_000)
        root = record_root(self.leaves)
        pid = Bytes16(self.patient.did)
        async with open_ledger(cluster.founding, nodes, self.wallet.account) as ledger:
            await ledger.submit(
                RecordBatch(
                    self.batch_id, pid, organisation, organisation, self.n, root, counted, (), (), (202501, 202501), 1
                )
            )
            zero = Bytes32(bytes(32))
            await ledger.submit(
                CredentialIssue(Bytes16(self.physician.did), "physician", zero, Millis(0), Millis(2**50))
            )
        actor = ActorOpening(self.salt, "person", Bytes16(self.physician.did))
        grant = ConsentGrant(
            consent_id=self.consent_id,
            pid=pid,
            capacity="patient",
            base="permit",
            actor_commits=(actor_commit(actor),),
            purposes=("TREAT",),
            compartments=(self.compartment,),
            months=None,
            valid_from_ms=now_ms,
            valid_to_ms=Millis(now_ms + 24 * HOUR_MS),
            max_uses=0,
            exceptions=(),
            btg="policy",
            doc_commit=self.salt,
            evidence_commit=self.salt,
        )
        async with open_ledger(cluster.founding, nodes, self.patient.signing) as ledger:
            await ledger.submit(grant)
        await self.ask(actor)

    async def ask(self, actor: ActorOpening) -> None:
        commit = scope_commit(self.salt, self.scope)
        chain, box = self.cluster.founding.chain, Bytes32(self.reader.public)
        asked = AccessRequest(
            access_id=self.access_id,
            organisation=Bytes16(self.wallet.organisation),
            pid=Bytes16(self.patient.did),
            basis=self.consent_id,
            purpose="TREAT",
            actor_opening=actor,
            scope_commit=commit,
            n_records=self.n,
            compartments=(self.compartment,),
            labels=(),
            months=None,
            reader_eph_x25519=box,
            pop=sign_pop(self.physician.signing, chain, box, self.access_id, commit),
            not_after_ms=Millis(2**50),
        )
        nodes = self.cluster.addresses(self.cluster.running)
        async with open_ledger(self.cluster.founding, nodes, self.physician.signing) as ledger:
            await ledger.submit(asked)

    async def revoke(self) -> None:
        nodes = self.cluster.addresses(self.cluster.running)
        async with open_ledger(self.cluster.founding, nodes, self.patient.signing) as ledger:
            await ledger.submit(ConsentRevoke(self.consent_id, "withdrawn"))

    async def hear(self, names: Sequence[str] | None = None, *indices: int) -> Heard:
        """What these nodes say to the reader."""
        nodes = self.cluster.addresses(self.cluster.running if names is None else names)
        async with open_ledger(self.cluster.founding, nodes, self.physician.signing) as ledger:
            return await ledger.shares(self.request(*indices))

    def opened(self, replies: Sequence[SharesReply], index: int = 0, active: ActiveKey | None = None) -> Opened:
        """A content key by these shares; raises TooFewShares."""
        access = Access(self.access_id, Bytes32(self.reader.public))
        shares = {reply.index: reply.shares[index] for reply in replies}
        key = LongTerm((active or self.active).key)
        return key.open(self.capsules[index], self.label(index), access, self.reader, shares)


async def chart_of(cluster: Cluster, records: int = 7) -> Chart:
    """People, records and an allowed access, at a cluster that has a joint key."""
    wallet = cluster.wallet(cluster.names[0])
    active = await active_key(cluster, wallet)
    patient = await register(cluster, wallet, "patient", cluster.running)
    physician = await register(cluster, wallet, "practitioner", cluster.running)
    chart = Chart(cluster, wallet, patient, physician, active, n=records)
    await chart.allow()
    return chart


def secret_files(cluster: Cluster, name: str) -> list[str]:
    """What lies in a member's folder of shares."""
    return sorted(path.name for path in cluster.member(name).layout.shares.iterdir())


async def reported(chart: Chart, count: int) -> None:
    """Wait until so many validators have reported all records of the access."""
    cluster = chart.cluster
    async with open_ledger(cluster.founding, cluster.addresses(cluster.running), chart.wallet.account) as ledger:

        async def there() -> bool:
            said = 0
            for card in cluster.founding.genesis.cards:
                _, value = await ledger.state(keys.released(chart.access_id, card.validator))
                said += value is not None
            return said >= count

        with trio.fail_after(120):
            await until(there, f"{count} reports")
