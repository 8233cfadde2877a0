"""A chart with capsules at Berg, validators that hold the joint key, and a physician at Tal who wants to read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.health import decision_of
from p2pledger.client.ingest import Capsules, Origin, Prepared, prepare_bundle
from p2pledger.client.keyring import Persona
from p2pledger.client.ledger import LedgerClient, Patience, open_ledger
from p2pledger.client.links import Node
from p2pledger.client.reading import OwnVault, ask_for
from p2pledger.client.records import Custodian, Patient
from p2pledger.client.sealing import BoxKey
from p2pledger.client.tickets import Ticket
from p2pledger.client.vault import Vault
from p2pledger.health import access, key_duties, queries, release
from p2pledger.health.release import Moment
from p2pledger.network.api import GetShares, GetState, Reply, Request, SharesReply
from p2pledger.network.certificates import make_certificate
from p2pledger.network.clients import ClientServer, Session
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.participant import seeded
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import QUICK, HonestNode
from tests.unit.execution.ledger import id16, key
from tests.unit.fhir.samples import bundle
from tests.unit.health.ceremonies import Keeper, hold, keepers_of
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, PID

CUSTODIAN = Custodian.of_box_seed(id16("Berg"), sha256(b"custodian's box"))
PATIENT_BOX = BoxKey(sha256(b"patient's box"))
PHYSICIAN = Persona(id16("Tal"), id16("doctor"), DOCTOR, BoxKey(sha256(b"doctor's box")))
Twist = Callable[["Holder", SharesReply], Awaitable[SharesReply]]
"""What a validator makes of its honest answer."""


class Holder(HonestNode):
    """A node with its validator's share: releases what the rule allows on this chain, as `node/release.py` does."""

    def __init__(self, chain: Chain, keeper: Keeper, name: str, twist: Twist | None = None) -> None:
        super().__init__(chain)
        self.keeper, self.name, self.twist = keeper, name, twist
        self.asked = self.states = 0
        self._random = seeded(sha256(name.encode()))

    async def _answer(self, session: Session, request: Request) -> Reply:
        self.states += isinstance(request, GetState)
        if not isinstance(request, GetShares):
            return await super()._answer(session, request)
        self.asked += 1
        reply = self._shares(session, request)
        return reply if self.twist is None else await self.twist(self, reply)

    def _shares(self, session: Session, question: GetShares) -> SharesReply:
        chain, request = self.chain, question.request
        decided = access.access_of(request.access_id, chain.state)
        if decided is None or decided.author != session.account:
            raise Rejected(Code.E_ROLE, "not your access")
        parameters = chain.founding.parameters
        moment = Moment(chain.now_ms - 1_000, chain.now_ms - 1_000, parameters.drift_ms, parameters.heartbeat_ms)
        entries = release.may_release(chain.state, chain.chain, request, moment)
        if isinstance(entries, Code):
            raise Rejected(entries, "no share")
        holder = self.keeper.holder(request.openings[0].key_epoch)
        shares = tuple(
            release.share_of(entry, opening.capsule, holder, self._random)
            for entry, opening in zip(entries, request.openings, strict=True)
        )
        epochs = holder.key.key_epoch, holder.key.share_epoch
        return SharesReply(question.id, self.keeper.validator, holder.index, *epochs, shares)


@dataclass
class Ward:
    """Fidel's 182 records at Berg; `chart` is what a reader may know of them."""

    folder: Path
    chain: Chain = field(default_factory=Chain)

    def __post_init__(self) -> None:
        self.keepers = keepers_of(self.chain)
        ceremony = CeremonyId(1, 0, 0)
        active = hold(self.chain, ceremony, self.keepers)
        for keeper in self.keepers:
            if not keeper.shares:  # the others were enough to activate the key
                mine, state = keeper.participant(ceremony), self.chain.state
                late = key_duties.late_share(ceremony, mine, keeper.validator, state)
                assert late is not None
                keeper.shares[1, 0] = late
        origin = Origin(CUSTODIAN, capsules=Capsules.to_key(active.key, self.chain.chain))
        self.source = bundle("Fidel_Bins")
        self.prepared: Prepared = prepare_bundle(self.source, origin, Patient(PID, PATIENT_BOX.public))
        self.vault = Vault(self.folder / "vault", CUSTODIAN.box)
        self.vault.put_batch(self.prepared.operation.batch_id, self.prepared.sealed_manifest, self.prepared.objects)
        assert self.chain.submit(BERG, self.prepared.operation) == Code.OK
        self.chart = ChartIndex.of([self.prepared.manifest])
        self.chain.tick()

    @property
    def own(self) -> OwnVault:
        return OwnVault(self.vault)

    def consent(self, part: ChartIndex, **changes: Any) -> None:
        """The patient lets the physician treat by the compartments of these records."""
        handles = tuple(sorted({handle for entry in part.entries for handle in entry.compartments}))
        assert self.chain.grant(**{"compartments": handles, "actor_commits": (), **changes}) == Code.OK
        self.chain.tick()

    def holders(self, **twists: Twist) -> list[Holder]:
        """A node of each validator; some do what they are told."""
        by_validator = {card.validator: card.name for card in self.chain.founding.genesis.cards}
        names = [by_validator[keeper.validator] for keeper in self.keepers]
        return [Holder(self.chain, one, name, twists.get(name)) for one, name in zip(self.keepers, names, strict=True)]

    async def allowed(self, ledger: LedgerClient, part: ChartIndex, **changes: Any) -> Ticket:
        """The physician asks, and the chain says yes."""
        operation, ticket = ask_for(PHYSICIAN, self.chain.chain, part, "TREAT", self.chain.now_ms + DAY_MS, **changes)
        receipt = await ledger.submit(operation)
        assert decision_of(receipt.executed).is_allowed, Code(decision_of(receipt.executed).decision)
        return ticket

    @asynccontextmanager
    async def reader(
        self, holders: Sequence[Holder], patience: Patience = QUICK, account: SigningKey = DOCTOR
    ) -> AsyncIterator[LedgerClient]:
        """The physician, or somebody else, as a client of these nodes, each behind a port of its own."""
        chain = self.chain
        async with trio.open_nursery() as nursery:
            places = []
            for node in holders:
                own = key(f"node of {node.name}")
                server = ClientServer(
                    own,
                    make_certificate(own),
                    chain.chain,
                    node.answer,
                    lambda account: queries.role_of(account, chain.state),
                    feeder=node.next_page,
                )
                places.append(Node("127.0.0.1", await nursery.start(server.serve, "127.0.0.1", 0), server.node))
            async with open_ledger(chain.founding, places, account, patience, lambda: chain.now_ms / 1000) as client:
                yield client
            nursery.cancel_scope.cancel()
