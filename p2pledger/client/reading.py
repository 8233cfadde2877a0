"""Reading records of a chart: from an access that the chain has allowed to the very bytes that were committed to.

1. `ask_for` makes the request and the reader's ticket; the request is submitted, and its receipt awaited.
2. A source (a vault service, or one's own vault) gives the sealed records with their capsules and proofs.
3. All validators are asked at once; the first t good shares of each key open its capsule (health rule 3.5.5). Who is
   slow or gone is not waited for; who sent a wrong share is named.
4. Each record is decrypted and compared with its commitment. That this commitment is the chain's, the validators say:
   they are shown the same leaf, and of any t that answer at least f + 1 are honest and have found it under the root.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.health import EVERYTHING, ConsentCard, Scope, request_access
from p2pledger.client.integrity import alert
from p2pledger.client.keyring import Persona
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.openings import Holders, holders_of, newest_holders_of, opening_of, portions, secret_of
from p2pledger.client.records import SealedRecord, open_with_key
from p2pledger.client.sealing import BoxKey
from p2pledger.client.shares import Heard
from p2pledger.client.tickets import Ticket
from p2pledger.client.vault import Progress, Vault, silent
from p2pledger.health.commitments import SALT_BYTES, RecordRef, commit
from p2pledger.health.operations import AccessRequest, record_handle
from p2pledger.health.purposes import Purpose
from p2pledger.health.release import ReleaseRequest, label_of
from p2pledger.network.api import SharesReply
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import Bytes16, Bytes32, ChainId, Millis
from p2pledger.threshold.key_release import TooFewShares
from p2pledger.vault.objects import Spoiled

_NAMED_MAX = 64
"""Authors and encounters that a request can name."""
_NOT_A_RULE = frozenset({Code.E_STALE, Code.E_NO_SHARE, Code.E_BUSY, Code.E_INTERNAL})
"""Refusals that say something about the node, and nothing about the access."""


class Source(Protocol):
    """Who hands out sealed records: a custodian's vault service, or one's own vault."""

    async def fetch(
        self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
    ) -> tuple[SealedRecord, ...]:
        """The wanted records of an access's scope, in their order. Raises Rejected(code) and Unavailable."""


class OwnVault:
    """A source for those who have the vault at home; its own house needs nobody's leave for sealed bytes."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def fetch(
        self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
    ) -> tuple[SealedRecord, ...]:
        return await trio.to_thread.run_sync(self._sealed, wanted)

    def _sealed(self, wanted: Sequence[RecordRef]) -> tuple[SealedRecord, ...]:
        try:
            return self._vault.sealed_records(wanted)
        except Spoiled as error:
            ref = self._vault.ref_of(error.name, wanted)
            raise Changed(ref, error.name, error.found, "what the vault holds of it") from error


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """A record in the clear; its bytes are those of the commitment."""

    ref: RecordRef
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Blame:
    """A validator that did not help, by its organisation's name."""

    organisation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.organisation}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader got, and who sent something else than shares that open."""

    records: tuple[OpenedRecord, ...]
    blamed: tuple[Blame, ...]


class Changed(Rejected):
    """A record is not what was committed to (E_COMMIT_MISMATCH); its patient and its custodian should hear of it."""

    def __init__(self, ref: RecordRef, expected: bytes, found: bytes, what: str) -> None:
        super().__init__(
            Code.E_COMMIT_MISMATCH, f"record {ref}: {what} has hash {found.hex()}, committed was {expected.hex()}"
        )
        self.ref, self.expected, self.found = ref, expected, found


async def tell(ledger: LedgerClient, ticket: Ticket, changed: Changed) -> None:
    """Put an integrity alert about it onto the chain, as the access's reader (F-36). Raises what `submit` raises.

    One that we have sent before is enough.
    """
    try:
        await ledger.submit(alert(changed.ref, changed.expected, changed.found, ticket.access_id))
    except (Refused, Rejected) as error:
        if error.code is not Code.E_DUP:
            raise


# Asking


def ask_for(
    reader: Persona,
    chain: ChainId,
    index: ChartIndex,
    purpose: Purpose,
    not_after_ms: int,
    *,
    card: ConsentCard | None = None,
    reason: bytes | None = None,
    declared: bool = False,
    by_name: bool = False,
) -> tuple[AccessRequest, Ticket]:
    """The request for all records of an index, and the ticket to keep before it is sent.

    It declares compartments and sensitive labels; with `declared` also classes, months, authors and encounters, and
    with `by_name` each record, which consents that are limited to such need, and which everybody on the chain then sees
    as handles. Raises InvalidInput as `request_access` does, and where more is to be declared than fits.
    """
    salt, secret = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(32)
    entries = index.entries
    if not entries:
        raise InvalidInput("no record to ask for")
    months = [entry.month for entry in entries]
    operation = request_access(
        reader,
        chain,
        pid=index.pid,
        compartments=[handle for entry in entries for handle in entry.compartments],
        purpose=purpose,
        not_after_ms=not_after_ms,
        card=card,
        records=index.refs,
        scope_salt=salt,
        labels=[handle for entry in entries for handle in entry.labels],
        months=(min(months), max(months)) if declared else None,
        named=_declaration(index, declared=declared, by_name=by_name),
        ephemeral=BoxKey(secret),
        reason=reason,
    )
    ticket = Ticket(
        chain,
        operation.access_id,
        Bytes16(index.pid),
        Bytes16(index.custodian),
        Bytes32(salt),
        Bytes32(secret),
        index.refs,
        Millis(not_after_ms),
    )
    return operation, ticket


def _declaration(index: ChartIndex, *, declared: bool, by_name: bool) -> Scope:
    entries = index.entries
    handles = [record_handle(ref.batch_id, ref.index) for ref in index.refs] if by_name else []
    if not declared:
        return Scope(records=tuple(handles))
    authors = {author for entry in entries for author in entry.authors}
    encounters = {entry.encounter for entry in entries if entry.encounter is not None}
    if len(authors) > _NAMED_MAX or len(encounters) > _NAMED_MAX:
        raise InvalidInput(
            f"{len(authors)} authors and {len(encounters)} encounters to declare, the limit is {_NAMED_MAX} each: "
            "ask for fewer records at a time"
        )
    all_have_visits = all(entry.encounter is not None for entry in entries)
    return Scope(
        classes=tuple({entry.class_handle for entry in entries}),
        records=tuple(handles),
        authors=tuple(authors),
        encounters=tuple(encounters) if all_have_visits else EVERYTHING.encounters,
    )


# Reading


async def read_records(
    ledger: LedgerClient,
    source: Source,
    ticket: Ticket,
    wanted: Sequence[RecordRef] | None = None,
    progress: Progress = silent,
) -> Reading:
    """The wanted records of an allowed access, all of its scope where None, in the clear and as committed.

    Raises Changed for a byte that is another than was committed to, Rejected with the code in which more than f
    validators refuse, Unavailable naming who is missing and why where fewer than t help, and what the source raises.
    """
    refs = tuple(ticket.scope if wanted is None else wanted)
    opened: list[OpenedRecord] = []
    blamed: dict[Blame, None] = {}
    for start in range(0, len(refs), limits.RELEASE_RECORDS_MAX):
        part = refs[start : start + limits.RELEASE_RECORDS_MAX]
        sealed = await source.fetch(ticket.access_id, ticket.salt, ticket.scope, part)
        _check_answer(part, sealed)
        for places in portions([opening_of(one) for one in sealed]):
            portion = [sealed[place] for place in places]
            job = _Job(ticket, portion, partial(_told, progress, len(opened), len(refs)))
            content_keys, names = await _keys_of(ledger, job)
            blamed.update(dict.fromkeys(names))
            opened += await trio.to_thread.run_sync(_decrypted, job, content_keys)
    order = {(ref.batch_id, ref.index): place for place, ref in enumerate(refs)}
    opened.sort(key=lambda record: order[record.ref.batch_id, record.ref.index])
    return Reading(tuple(opened), tuple(blamed))


def _told(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _check_answer(wanted: Sequence[RecordRef], sealed: Sequence[SealedRecord]) -> None:
    """That the source gave what was asked for, each with the leaf that it belongs to; raises InvalidInput, Changed."""
    if [one.ref for one in sealed] != list(wanted):
        raise InvalidInput(f"asked for {len(wanted)} records, the vault answered with {len(sealed)} others")
    for one in sealed:
        leaf = one.proof.leaf
        if leaf.index != one.ref.index:
            raise InvalidInput(f"record {one.ref}: the vault answered with the leaf of record {leaf.index}")
        if sha256(one.object) != leaf.ciphertext:
            raise Changed(one.ref, leaf.ciphertext, sha256(one.object), "the sealed object")
        if sha256(one.capsule) != leaf.capsule:
            raise Changed(one.ref, leaf.capsule or bytes(32), sha256(one.capsule), "the capsule")


@dataclass(frozen=True, slots=True)
class _Job:
    """Records of one secret that are being opened."""

    ticket: Ticket
    sealed: Sequence[SealedRecord]
    done: Callable[[int], None]

    @property
    def request(self) -> ReleaseRequest:
        ticket = self.ticket
        openings = tuple(opening_of(one) for one in self.sealed)
        return ReleaseRequest(ticket.access_id, ticket.salt, ticket.scope, openings)


async def _keys_of(ledger: LedgerClient, job: _Job) -> tuple[list[bytes], list[Blame]]:
    """The content keys from the first t shares that serve; from all validators' where one of those lied."""
    secret = secret_of(opening_of(job.sealed[0]))
    holders = await holders_of(ledger, secret)
    heard = await ledger.shares(job.request, enough=holders.release.threshold)
    opening = _Opening(job, holders)
    await trio.to_thread.run_sync(opening.add, heard.replies)
    if opening.lacks_shares:
        if opening.was_shared_anew:
            opening = _Opening(job, await newest_holders_of(ledger, secret))
        heard = await ledger.shares(job.request)
        await trio.to_thread.run_sync(opening.add, heard.replies)
    blamed = list(opening.blamed(ledger.founding))
    if opening.lacks_shares:
        raise _too_few(heard, opening, blamed, ledger.founding)
    return opening.content_keys, blamed


class _Opening:
    """The capsules of a job, and the shares that have come for them."""

    def __init__(self, job: _Job, holders: Holders) -> None:
        self._job, self._holders = job, holders
        self._release = holders.release
        self._access, self._key = job.ticket.access, job.ticket.key
        self._shares: dict[int, SharesReply] = {}
        self._wrong: dict[int, str] = {}
        self._strange: dict[bytes, str] = {}
        self._sharing = holders.sharing
        self._strange_sharings: set[tuple[int, int]] = set()
        self.content_keys: list[bytes] = []

    @property
    def lacks_shares(self) -> bool:
        return len(self.content_keys) < len(self._job.sealed)

    @property
    def threshold(self) -> int:
        return self._release.threshold

    @property
    def was_shared_anew(self) -> bool:
        """Whether a validator has a newer sharing of the key than the last checkpoint that we know."""
        return any(sharing > self._sharing for sharing in self._strange_sharings)

    @property
    def good(self) -> int:
        """Holders whose shares have not been found wrong."""
        return len(self._shares)

    def add(self, replies: Sequence[SharesReply]) -> None:
        """Take shares in, and open as far as they go: a thread's work, 0.6 ms a record of four validators."""
        for reply in replies:
            self._take(reply)
        for place in range(len(self.content_keys), len(self._job.sealed)):
            key = self._opened(place)
            if key is None:
                return
            self.content_keys.append(key)
            self._job.done(len(self.content_keys))

    def _take(self, reply: SharesReply) -> None:
        sharing = (reply.key_epoch, reply.share_epoch)
        if sharing != self._sharing:
            self._strange_sharings.add(sharing)
            self._strange[reply.validator] = "sends shares of sharing {}.{}, proven is {}.{}".format(
                *sharing, *self._sharing
            )
        elif self._holders.index_of(reply.validator) != reply.index:
            self._strange[reply.validator] = f"says to hold share {reply.index}, which is not its own"
        elif reply.index not in self._wrong:
            self._shares[reply.index] = reply

    def _opened(self, place: int) -> bytes | None:
        """The content key; None where more shares are needed. Who lied once is not looked at again."""
        ticket, sealed = self._job.ticket, self._job.sealed[place]
        label = label_of(sealed.ref, ticket.pid, ticket.custodian, ticket.chain, sealed.key_epoch)
        shares = {index: reply.shares[place] for index, reply in self._shares.items()}
        try:
            opened = self._release.open(sealed.capsule, label, self._access, self._key, shares)
        except TooFewShares as error:
            self._distrust(error.wrong, sealed.ref)
            return None
        except (InvalidInput, ProofError) as error:
            raise Rejected(Code.E_CAPSULE, f"record {sealed.ref}: its capsule was made for something else") from error
        self._distrust(opened.wrong, sealed.ref)
        return opened.content_key

    def _distrust(self, wrong: Sequence[int], ref: RecordRef) -> None:
        for index in wrong:
            self._wrong.setdefault(index, f"sent a wrong share for record {ref}")
            self._shares.pop(index, None)

    def blamed(self, founding: Founding) -> Iterator[Blame]:
        """Who sent something that no honest validator sends, by name."""
        names: dict[bytes, str] = {card.validator: card.name for card in founding.genesis.cards}
        for index, reason in sorted(self._wrong.items()):
            validator = self._holders.validators[index - 1]
            yield Blame(names.get(validator, validator.hex()), reason)
        for validator, reason in sorted(self._strange.items()):
            yield Blame(names.get(validator, validator.hex()), reason)


def _too_few(heard: Heard, opening: _Opening, blamed: Sequence[Blame], founding: Founding) -> Exception:
    """Why it was not enough: a rule that more than f nodes name, else who is missing and why."""
    names = {card.node: card.name for card in founding.genesis.cards}
    missing = [Blame(names.get(node.key, str(node)), _reason(error)) for node, error in heard.failures]
    said = "; ".join(map(str, (*missing, *blamed)))
    refusals = Counter(error.code for _, error in heard.failures if isinstance(error, Rejected))
    for code, count in refusals.most_common():
        if count > founding.validators.f and code not in _NOT_A_RULE:
            return Rejected(code, f"{count} validators refuse; {said}")
    threshold = opening.threshold
    return Unavailable(f"E_UNAVAILABLE: {opening.good} validators sent good shares, {threshold} are needed; {said}")


def _reason(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    return f"refuses, {error}" if isinstance(error, Rejected) else f"no answer: {error}"


def _decrypted(job: _Job, content_keys: Sequence[bytes]) -> list[OpenedRecord]:
    ticket = job.ticket
    return [
        _as_committed(sealed, partial(open_with_key, sealed.object, sealed.ref, ticket.pid, ticket.custodian, key))
        for sealed, key in zip(job.sealed, content_keys, strict=True)
    ]


def _as_committed(sealed: SealedRecord, decrypt: Callable[[], bytes]) -> OpenedRecord:
    """The record's bytes; raises Changed unless they are those of its commitment."""
    expected = sealed.proof.leaf.commitment
    try:
        data = decrypt()
        found = commit(sealed.salt, sealed.media_type, data)
    except InvalidInput as error:
        raise Changed(sealed.ref, expected, bytes(32), "what its content key opens to (nothing)") from error
    if found != expected:
        raise Changed(sealed.ref, expected, found, "its content")
    return OpenedRecord(sealed.ref, sealed.media_type, data)
