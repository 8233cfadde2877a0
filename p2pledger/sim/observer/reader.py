"""The observer's own reader of messages, statements and journal records, from raw bytes.

Written from docs/wire.md, docs/protocol.md and docs/state.md, not from the node's code, and importing none of it: where
the two disagree about a byte, one of them or the documents are wrong. Raises Unreadable for everything else.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from p2pledger.sim.observer.blocks import Founding, Header, header_of
from p2pledger.sim.observer.encoding import Unreadable, array, listed, number, pack, sized, unpack

PRE_PREPARE, PREPARE, COMMIT, VIEW_CHANGE, NEW_VIEW = 1, 2, 3, 4, 5
"""Kinds of statements: their numbers on the wire."""
AGREEMENT, CERTIFIED, STATUS, INQUIRY, INQUIRY_ANSWER, HEADER_REPLY, RANGE_REPLY, RELAY = 1, 2, 3, 4, 5, 10, 12, 14
"""Kinds of messages that say something about statements, blocks or where somebody stands."""
EVIDENCE_OPERATION = 100
"""The number of the operation by which a validator's node shows a contradiction (P14)."""
APPLICATION_DUTIES = range(40, 48)
"""The numbers of what else such nodes send of their own accord: key ceremonies, and reports of released shares."""
VIEW_RECORD, VOTE_RECORD, LOCK_RECORD, BLOCK_RECORD, HALT_RECORD, EVIDENCE_RECORD = 1, 2, 3, 4, 5, 6
"""Kinds of journal records."""

_PURPOSE = {
    PRE_PREPARE: b"p2pl/pre-prepare/1",
    PREPARE: b"p2pl/prepare/1",
    COMMIT: b"p2pl/commit/1",
    VIEW_CHANGE: b"p2pl/view-change/1",
    NEW_VIEW: b"p2pl/new-view/1",
}
_CERTIFICATE_KINDS = {"prepare": PREPARE, "commit": COMMIT}
_BLOCK_KINDS = {"pre-prepare": PRE_PREPARE, **_CERTIFICATE_KINDS}


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that a validator signed, or is said to have signed."""

    kind: int
    epoch: int
    view: int
    height: int
    """0 for a VIEW-CHANGE or NEW-VIEW: there is one for each view."""
    author: bytes
    signed: bytes
    """The bytes under the signature."""
    signature: bytes
    block: tuple[int, int, bytes] | None
    """(view, height, hash) of the block it is about: its own for a proposal or vote, the claim of a VIEW-CHANGE, the
    highest claim of a NEW-VIEW."""

    @property
    def place(self) -> tuple[int, int, int, int]:
        """An honest author signs at most one statement for each."""
        return (self.kind, self.epoch, self.view, self.height)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Signatures of several seats under one statement."""

    kind: int
    view: int
    height: int
    block: bytes
    seats: tuple[int, ...]
    votes: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one message says that matters to the observer."""

    kind: int
    statements: tuple[Statement, ...] = ()
    """All signatures in it, certificates and quoted claims included."""
    own: Statement | None = None
    """The statement of an Agreement: what its sender says, or repeats."""
    headers: tuple[Header, ...] = ()
    standing: tuple[int, int, int] | None = None
    """(epoch, view, committed height) of a Status."""
    serial: int | None = None
    """Of an Inquiry or its answer."""
    origin: bytes | None = None
    """The node that a relayed message comes from."""
    is_readable: bool = True
    """False: what an honest node would not have written."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one journal record says."""

    kind: int
    statements: tuple[Statement, ...] = ()
    """The NEW-VIEW of a ViewRecord, the vote of a VoteRecord (not signed yet), the two sides of an EvidenceRecord."""
    view: tuple[int, int] | None = None
    """(epoch, view) of a ViewRecord."""


def _kind(value: Any) -> int:
    """The number that stands first where several kinds of records may stand."""
    kind = listed(value)[0] if value else None
    if type(kind) is not int:
        raise Unreadable(f"no record with a kind: {value!r:.80}")
    return kind


class Reader:
    """Reads messages and journal records of one chain."""

    def __init__(self, founding: Founding) -> None:
        self._keys = [seat.key for seat in founding.seats]
        self._prefix = {kind: bytes([len(purpose)]) + purpose + founding.chain for kind, purpose in _PURPOSE.items()}
        self._certificates: dict[Any, Certificate] = {}

    def _statement(
        self, place: tuple[int, int, int, int], content: Any, author: bytes, signature: bytes, block: Any
    ) -> Statement:
        kind, epoch, view, height = place
        signed = self._prefix[kind] + epoch.to_bytes(8, "big") + pack(content)
        return Statement(kind, epoch, view, height, author, signed, signature, block)

    def _said(self, value: Any, signature: bytes, seen: list[Statement], headers: list[Header]) -> Statement:
        """A statement; what travels beside it is added to `seen` and `headers`."""
        kind = _kind(value)
        match kind:
            case 1:
                _, epoch, view, header, author = array(value, 5)
                block = header_of(header)
                headers.append(block)
                return self._vote(PRE_PREPARE, epoch, view, block.height, block.hash, author, signature)
            case 2 | 3:
                _, epoch, view, height, block_hash, author = array(value, 6)
                return self._vote(kind, epoch, view, height, block_hash, author, signature)
            case 4:
                _, epoch, view, claim, author, lock, committed = array(value, 7)
                for certificate in (lock, committed):
                    if certificate is not None:
                        seen += self._certificate(certificate).votes
                return self._view_change(epoch, view, claim, author, signature)
            case 5:
                return self._new_view(value, signature, seen, headers)
            case _:
                raise Unreadable(f"no statement of kind {kind}")

    def _vote(
        self, kind: int, epoch: Any, view: Any, height: Any, block: Any, author: Any, signature: bytes
    ) -> Statement:
        place = (kind, number(epoch), number(view), number(height))
        about = (view, height, sized(block))
        return self._statement(place, (view, height, block, author), sized(author), signature, about)

    def _view_change(self, epoch: Any, view: Any, claim: Any, author: Any, signature: bytes) -> Statement:
        if claim is not None:
            at, height, block = array(claim, 3)
            claim = (number(at), number(height), sized(block))
        place = (VIEW_CHANGE, number(epoch), number(view), 0)
        return self._statement(place, (view, claim, author), sized(author), signature, claim)

    def _new_view(self, value: Any, signature: bytes, seen: list[Statement], headers: list[Header]) -> Statement:
        _, epoch, view, claims, certificate, beside, author = array(value, 7)
        quoted = [
            self._view_change(epoch, view, claim, claimant, sized(signed, 64))
            for claimant, claim, signed in (array(each, 3) for each in listed(claims))
        ]
        seen += quoted
        if certificate is not None:
            seen += self._certificate(certificate).votes
        headers += [header_of(header) for header in listed(beside)]
        tip = max((each.block for each in quoted if each.block is not None), default=None)
        place = (NEW_VIEW, number(epoch), number(view), 0)
        content = (view, sha256(pack(claims)).digest(), author)
        return self._statement(place, content, sized(author), signature, tip)

    def _certificate(self, value: Any) -> Certificate:
        known = self._certificates.get(value)
        if known is not None:
            return known
        named, epoch, view, height, block, votes = array(value, 6)
        kind = _CERTIFICATE_KINDS.get(named)
        if kind is None:
            raise Unreadable(f"certificate of kind {named!r:.20}")
        seats = tuple(number(array(vote, 2)[0]) for vote in listed(votes))
        if any(seat >= len(self._keys) for seat in seats):
            raise Unreadable(f"certificate with seats {seats}")
        read = tuple(
            self._vote(kind, epoch, view, height, block, self._keys[seat], sized(vote[1], 64))
            for seat, vote in zip(seats, votes, strict=True)
        )
        certificate = Certificate(kind, view, height, block, seats, read)
        if len(self._certificates) > 1_000:
            self._certificates.clear()
        self._certificates[value] = certificate
        return certificate

    def read_certificate(self, data: bytes) -> Certificate:
        """A certificate from its canonical bytes; whether its signatures hold is another question."""
        return self._certificate(unpack(data))

    def _signed(self, value: Any, seen: list[Statement], headers: list[Header]) -> Statement:
        message, signature = array(value, 2)
        said = self._said(message, sized(signature, 64), seen, headers)
        seen.append(said)
        return said

    def read_message(self, body: bytes) -> Heard:
        """What a message says; one that cannot be read says nothing and is marked so."""
        try:
            return self._message(unpack(body))
        except Unreadable:
            return Heard(0, is_readable=False)

    def _message(self, value: Any) -> Heard:
        kind = _kind(value)
        seen: list[Statement] = []
        headers: list[Header] = []
        match kind:
            case 1:
                own = self._signed(array(value, 2)[1], seen, headers)
                return Heard(kind, tuple(seen), own, tuple(headers))
            case 2:
                return Heard(kind, self._certificate(array(value, 2)[1]).votes)
            case 3:
                _, epoch, view, _, committed = array(value, 5)
                return Heard(kind, standing=(number(epoch), number(view), number(committed)))
            case 4:
                return Heard(kind, serial=number(array(value, 2)[1]))
            case 5:
                _, serial, held = array(value, 3)
                for each in listed(held):
                    self._signed(each, seen, headers)
                return Heard(kind, tuple(seen), headers=tuple(headers), serial=number(serial))
            case 10:
                return Heard(kind, headers=(header_of(array(value, 2)[1]),))
            case 12:
                _, blocks, tail, certificate = array(value, 4)
                sent = [header_of(array(block, 2)[0]) for block in listed(blocks)]
                votes = self._certificate(certificate).votes
                return Heard(kind, votes, headers=(*sent, *(header_of(each) for each in listed(tail))))
            case 14:
                return self._relayed(array(value, 6))
            case _ if 1 <= kind <= 14:
                return Heard(kind)
            case _:
                raise Unreadable(f"no message of kind {kind}")

    def _relayed(self, value: tuple[Any, ...]) -> Heard:
        """Whoever carries a message on answers for the wrapping only."""
        _, origin, _, _, body, _ = value
        try:
            inner = self._message(unpack(body))
        except Unreadable:
            return Heard(RELAY, origin=sized(origin))
        return Heard(
            inner.kind,
            inner.statements,
            inner.own,
            inner.headers,
            inner.standing,
            inner.serial,
            sized(origin),
        )

    def read_evidence(self, operations: bytes) -> list[tuple[Statement, Statement]]:
        """The pairs of statements that the operations of a validator's node consist of (P14).

        Beside them there are the application's duties, which are none of the agreement's business.
        """
        pairs = []
        for operation in listed(unpack(operations)):
            if _kind(operation) in APPLICATION_DUTIES:
                continue
            tag, author, first, first_signature, second, second_signature = array(operation, 6)
            if tag != EVIDENCE_OPERATION:
                raise Unreadable(f"operation {tag!r:.20} of a validator's node")
            pairs.append((self._bare(first, author, first_signature), self._bare(second, author, second_signature)))
        return pairs

    def _bare(self, value: Any, author: Any, signature: Any) -> Statement:
        """A statement without what travelled beside it, as evidence on the chain holds it."""
        signature = sized(signature, 64)
        match _kind(value):
            case 1:
                _, named, epoch, view, height, block = array(value, 6)
                if named not in _BLOCK_KINDS:
                    raise Unreadable(f"statement of kind {named!r:.20}")
                return self._vote(_BLOCK_KINDS[named], epoch, view, height, block, author, signature)
            case 2:
                _, epoch, view, claim = array(value, 4)
                return self._view_change(epoch, view, claim, author, signature)
            case 3:
                _, epoch, view, claims_hash = array(value, 4)
                place = (NEW_VIEW, number(epoch), number(view), 0)
                return self._statement(place, (view, sized(claims_hash), author), sized(author), signature, None)
            case kind:
                raise Unreadable(f"no bare statement of kind {kind}")

    def read_record(self, data: bytes) -> Record:
        """What a journal record says; those about blocks, locks and halts are not judged, nor read."""
        if LOCK_RECORD <= data[1] <= HALT_RECORD:
            return Record(data[1])
        value = unpack(data)
        kind = _kind(value)
        seen: list[Statement] = []
        headers: list[Header] = []
        match kind:
            case 1:
                _, epoch, view, _, _, _, entry = array(value, 7)
                entered_by = () if entry is None else (self._signed(entry, seen, headers),)
                return Record(kind, entered_by, (number(epoch), number(view)))
            case 2:
                return Record(kind, (self._said(array(value, 2)[1], b"", seen, headers),))
            case 6:
                _, first, second = array(value, 3)
                return Record(kind, (self._signed(first, [], headers), self._signed(second, [], headers)))
            case _:
                raise Unreadable(f"no journal record of kind {kind}")
