"""A ledger as its clients see it: several nodes, of which some may be silent, slow or lying.

Nothing is believed that a quorum has not signed: receipts, logs and state values come with proofs that lead back to
the genesis. A node that stays silent, breaks off or shows a wrong proof is passed over, and the identical bytes go
through f + 1 others, at least one of them honest; the nonce makes sure that they execute once.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import time

import trio
from msgspec.structs import replace

from p2pledger.chain.genesis import Founding
from p2pledger.client.asking import FAULTS
from p2pledger.client.bulk import Told
from p2pledger.client.export import of_reply, write_export
from p2pledger.client.guarding import Guarding, read_guarding
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.client.shares import Heard, ask_all
from p2pledger.client.submitting import Outcome, Receipt, Submitter
from p2pledger.client.verify import VerifiedLog, check_log_reply, checked_state, proven_line, proven_page, proven_state
from p2pledger.execution.evidence import Caught, decode_caught
from p2pledger.execution.keys import caught
from p2pledger.health.break_glass import BrokenGlass, decode_broken_glass
from p2pledger.health.consent import Consent, decode_consent
from p2pledger.health.erasure import Erasure, decode_erasure
from p2pledger.health.log import EMPTY
from p2pledger.health.recovery_release import ShareRequest
from p2pledger.health.release import ReleaseRequest
from p2pledger.network.api import (
    AccountReply,
    BlockReply,
    ConsentsReply,
    ErasuresReply,
    GetAccount,
    GetBlock,
    GetConsents,
    GetErasures,
    GetGuardians,
    GetLine,
    GetLog,
    GetOrganisations,
    GetReviews,
    GetShares,
    GetState,
    GetStatus,
    GuardiansReply,
    Judge,
    JudgeReply,
    LineReply,
    LogReply,
    OrganisationsReply,
    ReviewsReply,
    SharesReply,
    StateReply,
    StatusReply,
)
from p2pledger.network.transport import TLS_OVER_TCP, Transport
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Unavailable
from p2pledger.primitives.ids import Height, ValidatorId

__all__ = ["LedgerClient", "Outcome", "Receipt", "Standing", "Told", "open_ledger"]

_ID = 0
"""Of a request, until the connection sets it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a key is on the chain now."""

    role: str
    """`organisation`, the kind of the identity, or `stranger`."""
    identity: bytes | None
    """The organisation's id or the identity's did; None for a stranger."""


@asynccontextmanager
async def open_ledger(
    founding: Founding,
    nodes: Sequence[Node],
    account: SigningKey,
    patience: Patience | None = None,
    now_s: Callable[[], float] = time,
    transport: Transport = TLS_OVER_TCP,
) -> "AsyncIterator[LedgerClient]":
    """A client of these nodes in the name of `account`. Connections are made when they are needed.

    What the body raises comes out as it is.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        links = Links(nursery, founding.chain, nodes, account, transport)
        try:
            yield LedgerClient(founding, links, account, patience or Patience(), now_s)
        except Exception as error:  # a nursery would wrap it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class LedgerClient(Submitter):
    """Submits and asks. Made by `open_ledger`; any number of its calls may run at the same time."""

    def __init__(
        self, founding: Founding, links: Links, account: SigningKey, patience: Patience, now_s: Callable[[], float]
    ) -> None:
        super().__init__(founding, links, account, patience, now_s)
        self._once: dict[bytes, tuple[Height, bytes | None]] = {}

    # Asking

    async def standing(self) -> Standing:
        """Who this account is, as f + 1 nodes say alike, of which one is honest; all of them where fewer are named.

        What a proof says is as old as the last checkpoint; this is of now. Raises Unavailable where they do not agree.
        """
        return await self.alike(GetAccount(_ID), AccountReply, lambda reply: Standing(reply.role, reply.identity))

    async def guarding(self, pid: bytes, salt: bytes | None = None, recovery: bytes | None = None) -> Guarding:
        """Who guards a patient, as f + 1 nodes say; `salt`: of a guardian who asks. Raises Rejected, Unavailable."""
        return await self.alike(GetGuardians(_ID, pid, salt, recovery), GuardiansReply, read_guarding)

    async def status(self, node: Node | None = None) -> StatusReply:
        """How a node sees itself and the others; not proven."""
        if node is not None:
            return await self.ask_one(node, GetStatus(_ID), StatusReply)
        return await self.told(GetStatus(_ID), StatusReply)

    async def block(self, height: int = 0) -> BlockReply:
        """A committed block, 0 for the newest; as the node says."""
        return await self.told(GetBlock(_ID, Height(height)), BlockReply)

    async def consents(self, pid: bytes) -> list[Consent]:
        """A patient's consents, ended ones too; as the node says."""
        reply = await self.told(GetConsents(_ID, pid), ConsentsReply)
        return [decode_consent(data) for data in reply.consents]

    async def organisations(self) -> dict[bytes, tuple[str, str]]:
        """(public name, kind) of every organisation: the founders' from the genesis, others as f + 1 nodes say.

        With fewer nodes to ask, as all of them say. Raises what went wrong at the last node, where none answers.
        """
        answers: list[set[tuple[bytes, str, str]]] = []
        failure: Exception = Unavailable("no node to ask")
        for node in self._links.in_order():
            try:
                reply = await self.ask_one(node, GetOrganisations(_ID), OrganisationsReply)
                answers.append(set(reply.organisations))
            except FAULTS as error:
                failure = error
            if len(answers) > self.founding.validators.f:
                break
        if not answers:
            raise failure
        named = {identifier: (name, kind) for identifier, name, kind in set.intersection(*answers)}
        return {**named, **{card.organisation: (card.name, card.kind) for card in self.founding.genesis.cards}}

    async def reviews(self) -> list[BrokenGlass]:
        """Emergency accesses without a review, the first due first; as the node says, members only."""
        reply = await self.told(GetReviews(_ID), ReviewsReply)
        return [decode_broken_glass(data) for data in reply.uses]

    async def shares(self, request: ShareRequest, enough: int | None = None) -> Heard:
        """What all nodes say to a reader of an allowed access, at most until `enough` have sent shares."""
        question = GetShares(_ID, request)
        return await ask_all(
            list(self.nodes), lambda node: self.ask_one(node, question, SharesReply), self.founding, request, enough
        )

    async def judge(self, request: ReleaseRequest, node: Node | None = None) -> Code:
        """What a node would say to `shares` now: of a member organisation to its own node. E_INTERNAL: none we know."""
        question = Judge(_ID, request)
        asked = self.told(question, JudgeReply) if node is None else self.ask_one(node, question, JudgeReply)
        reply = await asked
        return Code(reply.code) if reply.code in Code.__members__.values() else Code.E_INTERNAL

    async def erasures(self, pid: bytes | None = None) -> list[Erasure]:
        """Requests for erasure about a patient, or for members all that are not finished; as the node says."""
        reply = await self.told(GetErasures(_ID, pid), ErasuresReply)
        return [decode_erasure(data) for data in reply.erasures]

    async def log(self, pid: bytes) -> VerifiedLog:
        """A patient's access log, verified to be complete up to a checkpoint."""
        return check_log_reply(await self._whole_log(pid), self.founding, pid)

    async def export_log(self, pid: bytes) -> bytes:
        """The access log as a file that verifies without us."""
        return write_export(of_reply(await self._whole_log(pid), self.founding), self.founding.chain)

    async def line(self, pid: bytes, sequence: int) -> LineReply:
        """One line of a log with the proof of its receipt, verified. Raises Rejected(E_NOT_FOUND), Unavailable."""
        return await self.ask(
            GetLine(_ID, pid, sequence), LineReply, partial(proven_line, self.founding, pid, sequence)
        )

    async def _whole_log(self, pid: bytes) -> LogReply:
        """All pages as one reply, with the proof of the last one; each from the first node whose page verifies."""
        lines: list[bytes] = []
        releases: list[bytes] = []
        reached = EMPTY
        while True:
            check = partial(proven_page, self.founding, pid, reached)
            question = GetLog(_ID, pid, reached.count + 1, reached.releases + 1)
            reply, page = await self.ask(question, LogReply, check)
            lines += reply.lines
            releases += reply.releases
            if page.is_last:
                return replace(reply, lines=tuple(lines), releases=tuple(releases))
            reached = page.reached

    async def state(self, key: bytes) -> tuple[Height, bytes | None]:
        """(checkpoint, value) of a state key with its proof verified; members only."""
        found = await self.ask(GetState(_ID, key), StateReply, partial(proven_state, self.founding, key))
        if key in self._once:
            self._once[key] = found
        return found

    async def once_proven(self, key: bytes) -> tuple[Height, bytes | None]:
        """As `state`; what it found is remembered until somebody asks `state` again.

        For values that seldom change, where a change shows by itself.
        """
        known = self._once.get(key)
        if known is None:
            known = await self.state(key)
            if known[1] is not None:
                self._once[key] = known
        return known

    async def proven(self, key: bytes) -> StateReply:
        """As `state`, with the proof, verified: for whoever hands it on."""
        return await self.ask(GetState(_ID, key), StateReply, partial(checked_state, self.founding, key))

    async def evidence(self, validator: ValidatorId) -> tuple[Height, Caught | None]:
        """(checkpoint, what the chain held against a validator there), proven either way; members only."""
        height, value = await self.state(caught(validator))
        return height, None if value is None else decode_caught(value)
