"""A custodian's own store and the copies at other organisations: keep, read, audit, mend (F-09).

A record counts as kept once so many copies of it are durable, our own included; who was down is mended later. Reading
goes from one copy to the next, and fails only when all have failed, naming each. A copy is checked by whoever reads
it: contents by their name, manifests by their seal.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import (
    Code,
    InvalidInput,
    PeerFault,
    Rejected,
    StoreError,
    Unavailable,
)
from p2pledger.primitives.ids import ChainId
from p2pledger.vault.connection import VaultAddress, VaultConnection, open_vault
from p2pledger.vault.objects import ObjectStore, checked, is_content
from p2pledger.vault.possession import answer
from p2pledger.vault.wire import (
    NAMES_MAX,
    DeleteObject,
    Done,
    GetObject,
    ListNames,
    NamesReply,
    ObjectReply,
    ProofsReply,
    Prove,
    PutObject,
)

_FAULTS = (Unavailable, PeerFault, Rejected, StoreError)
Check = Callable[[bytes, bytes], bool]
"""Whether these bytes can be those of this manifest: its owner can open the seal."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a `keep`."""

    copies: int
    """Durable ones of everything, our own included."""
    failures: tuple[str, ...]
    """Who has not all of it now, and why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit found at one holder."""

    holder: str
    asked: int
    held: int
    missing: tuple[bytes, ...] = ()
    """Not shown to be held: lost, withheld or changed."""
    failure: str = ""
    """Why nothing could be asked."""

    @property
    def is_good(self) -> bool:
        return not self.missing and not self.failure


@dataclass(slots=True)
class Mended:
    """What a `repair` has done."""

    restored: int = 0
    """Taken back into our own store."""
    sent: dict[str, int] = field(default_factory=dict)
    """Holder → copies that it lacked."""
    lost: list[bytes] = field(default_factory=list)
    """Wanted, and nowhere to be had."""
    failures: list[str] = field(default_factory=list)


class Replicas:
    """One custodian's store together with those who keep copies of it."""

    def __init__(
        self,
        own: ObjectStore,
        holders: Sequence[VaultAddress],
        key: SigningKey,
        chain: ChainId,
        copies: int,
        is_manifest: Check,
    ) -> None:
        """`key`: our node key. Raises InvalidInput where there are fewer holders than `copies` needs."""
        if not 1 <= copies <= 1 + len(holders):
            raise InvalidInput(f"{copies} copies of a record with {len(holders)} replicas beside our own store")
        self.own = own
        self.holders = tuple(holders)
        self._key, self._chain, self._copies, self._is_manifest = key, chain, copies, is_manifest

    async def keep(self, names: Sequence[bytes]) -> Kept:
        """Copies of what is in our own store, at all holders that answer.

        Raises Unavailable where fewer copies are durable than were promised, naming who failed.
        """
        failures: list[str] = []

        async def at(holder: VaultAddress) -> None:
            try:
                async with self._open(holder) as connection:
                    for name in names:
                        await self._send(connection, name)
            except _FAULTS as error:
                failures.append(_reason(holder, error))

        await self._at_all(at)
        copies = 1 + len(self.holders) - len(failures)
        if copies < self._copies:
            raise Unavailable(
                f"{copies} of {self._copies} copies are durable, 'p2pledger vault repair' completes them: "
                f"{'; '.join(sorted(failures))}"
            )
        return Kept(copies, tuple(sorted(failures)))

    async def get(self, name: bytes) -> bytes:
        """From our own store, or else from whoever has it. Raises Unavailable naming who failed, and how."""
        try:
            return await self._own_bytes(name)
        except (Rejected, StoreError) as error:
            failures = [f"our own store: {error}"]
        for holder in self.holders:
            try:
                async with self._open(holder) as connection:
                    return self._believed(name, (await connection.ask(GetObject(name), ObjectReply)).data)
            except _FAULTS as error:
                failures.append(_reason(holder, error))
        raise Unavailable(f"{Code.E_UNAVAILABLE.name}: {name.hex()} is to be had nowhere: {'; '.join(failures)}")

    async def restore(self, name: bytes) -> bytes:
        """As `get`, and our own store is mended where it lacked it."""
        data = await self.get(name)
        keep = self.own.put if is_content(name) else self.own.replace
        await trio.to_thread.run_sync(keep, name, data)
        return data

    async def delete(self, names: Sequence[bytes]) -> None:
        """Have copies of these nowhere any longer. Raises Unavailable naming who has not confirmed."""
        for name in names:
            await trio.to_thread.run_sync(self.own.delete, name)
        failures: list[str] = []

        async def at(holder: VaultAddress) -> None:
            try:
                async with self._open(holder) as connection:
                    for name in names:
                        await connection.ask(DeleteObject(name), Done)
            except _FAULTS as error:
                failures.append(_reason(holder, error))

        await self._at_all(at)
        if failures:
            raise Unavailable(f"copies may still be there: {'; '.join(sorted(failures))}")

    async def audit(self, names: Sequence[bytes], sample: int) -> list[Finding]:
        """Challenge every holder, our own store too, about `sample` of these at random: which of them does it hold?

        What a holder must answer is computed from our own bytes, or from any other copy where ours is lost.
        """
        chosen = sorted(secrets.SystemRandom().sample(list(names), min(sample, len(names), NAMES_MAX)))
        spoiled = []
        contents: dict[bytes, bytes | None] = {}
        for name in chosen:
            try:
                contents[name] = await self._own_bytes(name)
            except (Rejected, StoreError):
                spoiled.append(name)
                contents[name] = await self._from_others(name)
        findings = [Finding("our own store", len(chosen), len(chosen) - len(spoiled), tuple(spoiled))]
        findings += [await self._challenge(holder, contents) for holder in self.holders if chosen]
        return findings

    async def repair(self, wanted: Iterable[bytes]) -> Mended:
        """Have everything `wanted` in our own store again and at every holder that answers."""
        names, mended = list(dict.fromkeys(wanted)), Mended()
        there = []
        for name in names:
            try:
                await self._own_bytes(name)
            except (Rejected, StoreError):
                try:
                    await self.restore(name)
                    mended.restored += 1
                except Unavailable:
                    mended.lost.append(name)
                    continue
            there.append(name)
        for holder in self.holders:
            try:
                mended.sent[holder.name] = await self._complete(holder, there)
            except _FAULTS as error:
                mended.failures.append(_reason(holder, error))
        return mended

    async def known(self) -> list[bytes]:
        """Everything that anybody keeps for us; for who has lost its own store. Raises Unavailable where none answers.

        What was deleted while a holder was away is among it.
        """
        found: dict[bytes, None] = {}
        failures = []
        for holder in self.holders:
            try:
                async with self._open(holder) as connection:
                    found |= dict.fromkeys(await _all_names(connection))
            except _FAULTS as error:
                failures.append(_reason(holder, error))
        if self.holders and len(failures) == len(self.holders):
            raise Unavailable(f"no copies are to be had: {'; '.join(failures)}")
        return sorted(found, key=lambda name: (not is_content(name), name))

    # One holder

    async def _complete(self, holder: VaultAddress, names: Sequence[bytes]) -> int:
        """Send what it lacks or has spoiled; how much that was."""
        sent = 0
        async with self._open(holder) as connection:
            for start in range(0, len(names), NAMES_MAX):
                some = names[start : start + NAMES_MAX]
                nonce = secrets.token_bytes(32)
                proofs = (await connection.ask(Prove(nonce, tuple(some)), ProofsReply)).proofs
                _check_count(holder, proofs, some)
                for name, proof in zip(some, proofs, strict=True):
                    if proof != answer(nonce, holder.node, name, await self._own_bytes(name)):
                        await self._send(connection, name)
                        sent += 1
        return sent

    async def _challenge(self, holder: VaultAddress, contents: "dict[bytes, bytes | None]") -> Finding:
        nonce, names = secrets.token_bytes(32), tuple(contents)
        try:
            async with self._open(holder) as connection:
                proofs = (await connection.ask(Prove(nonce, names), ProofsReply)).proofs
            _check_count(holder, proofs, names)
        except _FAULTS as error:
            return Finding(holder.name, len(names), 0, failure=_reason(holder, error))
        missing = tuple(
            name
            for (name, data), proof in zip(contents.items(), proofs, strict=True)
            if data is None or proof != answer(nonce, holder.node, name, data)
        )
        return Finding(holder.name, len(names), len(names) - len(missing), missing)

    async def _send(self, connection: VaultConnection, name: bytes) -> None:
        await connection.ask(PutObject(name, await self._own_bytes(name)), Done)

    async def _own_bytes(self, name: bytes) -> bytes:
        return self._believed(name, await trio.to_thread.run_sync(self.own.get, name))

    async def _from_others(self, name: bytes) -> bytes | None:
        try:
            return await self.get(name)
        except Unavailable:
            return None

    def _believed(self, name: bytes, data: bytes) -> bytes:
        """Raises Rejected(E_COMMIT_MISMATCH) for what is not the content of this name."""
        if not is_content(name) and not self._is_manifest(name, data):
            raise Rejected(Code.E_COMMIT_MISMATCH, f"manifest of batch {name.hex()} was changed")
        return checked(name, data)

    def _open(self, holder: VaultAddress) -> AbstractAsyncContextManager[VaultConnection]:
        return open_vault(holder, self._key, self._chain)

    async def _at_all(self, work: Callable[[VaultAddress], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for holder in self.holders:
                nursery.start_soon(partial(work, holder))


async def _all_names(connection: VaultConnection) -> list[bytes]:
    found: list[bytes] = []
    while True:
        page = (await connection.ask(ListNames(found[-1] if found else b""), NamesReply)).names
        found += page
        if len(page) < NAMES_MAX:
            return found


def _check_count(holder: VaultAddress, proofs: Sequence[bytes | None], names: Sequence[bytes]) -> None:
    if len(proofs) != len(names):
        raise PeerFault(holder.node, f"gave {len(proofs)} proofs for {len(names)} names")


def _reason(holder: VaultAddress, error: Exception) -> str:
    return str(error) if str(holder) in str(error) else f"{holder}: {error}"
