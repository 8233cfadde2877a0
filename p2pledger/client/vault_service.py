"""Handing out sealed records of an access, and asking for them: both ends of `FetchRecords`.

The custodian believes nobody: it makes the reader's question for shares out of its own manifests and has its own node
say what a validator would. So nothing leaves before the access is final there, after it has ended, outside its scope,
or to anybody but its reader; and what leaves is sealed and of no use without the shares.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from p2pledger.client.openings import opening_of, portions
from p2pledger.client.records import Manifest, SealedRecord
from p2pledger.client.vault import Vault, names_of
from p2pledger.health.commitments import RecordRef
from p2pledger.health.release import ReleaseRequest
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, Rejected, StoreError
from p2pledger.primitives.ids import AccountKey, ChainId
from p2pledger.vault.connection import VaultAddress, open_vault
from p2pledger.vault.objects import MemoryStore, Spoiled
from p2pledger.vault.replicas import Replicas
from p2pledger.vault.wire import MEMBER_FRAME_BYTES_MAX, FetchRecords, RecordsReply

Judge = Callable[[ReleaseRequest, AccountKey], Awaitable[Code]]
"""What the custodian's own node says of a request by this reader, on its final state now."""
Alarm = Callable[[RecordRef, Spoiled], None]
"""Told once for each question that meets a changed byte in our own store; from another thread."""

REPLY_BYTES_MAX = MEMBER_FRAME_BYTES_MAX - 4096
"""Records in one reply; the largest one fits."""
_FINAL_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Between questions to a custodian whose node has not seen the access yet."""


class RecordService:
    """One custodian's records, for the readers that the chain allows."""

    def __init__(self, vault: Vault, replicas: Replicas, judge: Judge, alarm: Alarm) -> None:
        self._alarm = alarm
        self._vault = vault
        self._replicas = replicas
        self._judge = judge

    async def fetch(self, reader: AccountKey, question: FetchRecords) -> RecordsReply:
        """The first wanted records that fit into a reply.

        Raises Rejected with the code of the judgement: E_NOT_FOUND, E_ROLE, E_SCOPE, E_EXPIRED, E_REVOKED and what
        else `may_release` says; and Unavailable where no copy of a record is left.
        """
        if not set(question.wanted) <= set(question.scope) or len(set(question.wanted)) < len(question.wanted):
            raise Rejected(Code.E_SCOPE, f"{len(question.wanted)} records that are not each once in the scope")
        records = await self._sealed(question.wanted)
        openings = [opening_of(record) for record in records]
        for portion in portions(openings):
            asked = tuple(openings[place] for place in portion)
            code = await self._judge(ReleaseRequest(question.access_id, question.salt, question.scope, asked), reader)
            if code != Code.OK:
                raise Rejected(code, f"access {question.access_id.hex()} gives its reader no record now")
        return RecordsReply(_fitting(records))

    async def _sealed(self, refs: Sequence[RecordRef]) -> tuple[SealedRecord, ...]:
        try:
            return await trio.to_thread.run_sync(self._vault.sealed_records, refs)
        except (Rejected, StoreError) as error:
            if isinstance(error, Spoiled):
                await trio.to_thread.run_sync(self._tell, refs, error)
            if isinstance(error, Rejected) and error.code not in (Code.E_NOT_FOUND, Code.E_COMMIT_MISMATCH):
                raise
            if not self._replicas.holders:
                raise
            return await self._from_copies(refs)

    def _tell(self, refs: Sequence[RecordRef], spoiled: Spoiled) -> None:
        self._alarm(self._vault.ref_of(spoiled.name, refs), spoiled)

    async def _from_copies(self, refs: Sequence[RecordRef]) -> tuple[SealedRecord, ...]:
        """As `_sealed`, each object from wherever it still is (F-09). Raises Rejected, Unavailable."""
        gathered = MemoryStore()
        vault = self._vault.over(gathered)
        manifests: dict[bytes, Manifest] = {}
        for ref in refs:
            if ref.batch_id not in manifests:
                gathered.put(ref.batch_id, await self._replicas.get(ref.batch_id))
                manifests[ref.batch_id] = vault.manifest(ref.batch_id)
            for name in names_of(manifests[ref.batch_id].entry(ref.index)):
                gathered.put(name, await self._replicas.get(name))
        return vault.sealed_records(refs)


def _fitting(records: Sequence[SealedRecord]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    room = REPLY_BYTES_MAX
    for record in records:
        data = encode(record)
        room -= len(data)
        if found and room < 0:
            break
        found.append(data)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class VaultSource:
    """A custodian's vault service, as its readers see it."""

    address: VaultAddress
    reader: SigningKey
    chain: ChainId

    async def fetch(
        self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
    ) -> tuple[SealedRecord, ...]:
        """The wanted records of a final access's scope, in their order; nothing of them is proven yet.

        Raises Rejected with the custodian's reason, Unavailable, PeerFault where something else came than was asked.
        """
        found: list[SealedRecord] = []
        async with open_vault(self.address, self.reader, self.chain) as connection:
            while len(found) < len(wanted):
                rest = tuple(wanted[len(found) :])
                question = FetchRecords(access_id, salt, tuple(scope), rest)
                records = await _once_final(partial(connection.ask, question, RecordsReply))
                parsed = [_parsed(data, self.address) for data in records.records]
                if tuple(record.ref for record in parsed) != rest[: len(parsed)]:
                    raise PeerFault(self.address.node, "gave other records than were asked for")
                found += parsed
        return tuple(found)


async def _once_final(ask: Callable[[], Awaitable[RecordsReply]]) -> RecordsReply:
    """The custodian's node may be a block behind the one that proved the access to us."""
    for pause_s in _FINAL_PAUSES_S:
        try:
            return await ask()
        except Rejected as error:
            if error.code is not Code.E_NOT_FOUND:
                raise
        await trio.sleep(pause_s)
    return await ask()


def _parsed(data: bytes, address: VaultAddress) -> SealedRecord:
    try:
        return decode(SealedRecord, data, MEMBER_FRAME_BYTES_MAX)
    except InvalidInput as error:
        raise PeerFault(address.node, str(error)) from error
