"""The chain and what each honest node holds of it: one block a height, hash-linked, proven, never shrinking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from p2pledger.sim.observer.blocks import Founding, Header, read_header
from p2pledger.sim.observer.judgement import InvariantBroken
from p2pledger.sim.observer.reader import COMMIT, VIEW_CHANGE, Certificate
from p2pledger.sim.observer.speech import Speech

_Place = tuple[int, int, int, int]


@dataclass(slots=True)
class Life:
    """What is known of one honest node, over all its incarnations."""

    index: int
    key: bytes
    """Of its validator."""
    node: bytes
    tip: int = 0
    tip_hash: bytes = b""
    time_ms: int = 0
    view: tuple[int, int] = (0, 0)
    """(epoch, view) of its newest ViewRecord."""
    entered_by: bytes = b""
    """The signature of the NEW-VIEW in that record: it may be said again, also by its author."""
    told: tuple[int, int, int] = (0, 0, 0)
    """(epoch, view, committed height) of its last Status."""
    executed: int = 0
    evidence: set[bytes] = field(default_factory=set)
    """Those against whom it holds two statements."""
    state: dict[bytes, bytes] = field(default_factory=dict)
    """Its state store, rebuilt from what was flushed."""

    # Of this incarnation
    is_up: bool = False
    is_waiting: bool = False
    """P20: it has not heard from q - 1 others yet and may sign nothing."""
    serial: int | None = None
    """Of its Inquiry."""
    answered: set[bytes] = field(default_factory=set)
    shown: dict[tuple[bytes, _Place], bytes] = field(default_factory=dict)
    """Signed bytes that liars have shown it, by author and place."""
    owes_evidence: dict[bytes, int] = field(default_factory=dict)
    """By author: until when it must have journalled what it was shown."""


class Chain:
    """The blocks that honest nodes committed, by height."""

    def __init__(self, founding: Founding, speech: Speech) -> None:
        self._founding = founding
        self._speech = speech
        self.headers: list[Header | None] = [None]
        """Nobody executes block 0."""
        self.hashes = [founding.block]
        self._read: dict[bytes, Header] = {}

    def read(self, data: bytes) -> Header:
        """A header; the same bytes come from every node."""
        header = self._read.get(data)
        if header is None:
            if len(self._read) > 1_000:
                self._read.clear()
            header = self._read[data] = read_header(data)
        return header

    def header(self, height: int) -> Header:
        """The committed header at a height above 0."""
        header = self.headers[height]
        assert header is not None
        return header

    def append(self, life: Life, header: Header) -> bool:
        """A node appended a block; whether it is the first to do so. Raises InvariantBroken (1, 2, I6)."""
        if header.height != life.tip + 1:
            raise InvariantBroken(f"2, I6: node {life.index} appends block {header.height} to block {life.tip}")
        parent = life.tip_hash or self._founding.block
        if header.parent != parent:
            raise InvariantBroken(f"2: block {header.height} of node {life.index} does not hang on the one before")
        if header.time_ms <= max(life.time_ms, self._founding.time_ms if life.tip == 0 else 0):
            raise InvariantBroken(f"I6: the time of block {header.height} of node {life.index} does not grow")
        is_first = header.height == len(self.hashes)
        if is_first:
            self._check_header(header)
            self.hashes.append(header.hash)
            self.headers.append(header)
        elif self.hashes[header.height] != header.hash:
            raise InvariantBroken(
                f"1, I1: two blocks at height {header.height}: {self.hashes[header.height].hex()[:8]} and, at node "
                f"{life.index}, {header.hash.hex()[:8]}; {self._blame()}"
            )
        life.tip, life.tip_hash, life.time_ms = header.height, header.hash, header.time_ms
        return is_first

    def _blame(self) -> str:
        culprits = self._speech.culprits()
        return f"{len(culprits)} convicted by their signatures: " + "; ".join(sorted(culprits.values()))

    def _check_header(self, header: Header) -> None:
        founding = self._founding
        if (header.chain, header.epoch) != (founding.chain, 0):
            raise InvariantBroken(f"2: block {header.height} is of another chain or epoch")
        if (header.validators_hash, header.parameters_hash) != (founding.validators_hash, founding.parameters_hash):
            raise InvariantBroken(f"2: block {header.height} names other validators or parameters")
        before = self.headers[-1]
        executed = 0 if before is None else before.executed_height
        if not executed <= header.executed_height < header.height:
            raise InvariantBroken(f"I6: block {header.height} goes from executed height {executed} to another")
        if len(header.effects_roots) != header.executed_height - executed:
            raise InvariantBroken(f"6, I8: block {header.height} does not list one effects root for each height")

    def check_certificate(self, certificate: Certificate, header: Header) -> None:
        """The certificate that was stored with a block proves it. Raises InvariantBroken (I3)."""
        seats = certificate.seats
        if (certificate.kind, certificate.height, certificate.block) != (COMMIT, header.height, header.hash):
            raise InvariantBroken(f"I3: the certificate of block {header.height} is for something else")
        if len(seats) != self._founding.q or any(a >= b for a, b in pairwise(seats)):
            raise InvariantBroken(f"I3: the certificate of block {header.height} is of seats {seats}")
        if not all(self._speech.is_signed(vote) for vote in certificate.votes):
            raise InvariantBroken(f"I3: a signature in the certificate of block {header.height} does not hold")

    def check_proven(self, life: Life) -> None:
        """What was appended last was committed by q seats that were heard. Raises InvariantBroken (I3)."""
        if not self._speech.is_proven(life.tip_hash, life.key):
            raise InvariantBroken(f"I3: node {life.index} committed block {life.tip} without a quorum on the wire")

    def check_kept(self, life: Life, held: Sequence[bytes]) -> list[Header]:
        """What a restarted node's ledger holds beyond what it held; all that it held must be there (9, I5)."""
        if len(held) < life.tip:
            raise InvariantBroken(
                f"9, I5: the ledger of node {life.index} ends at block {len(held)} and had block {life.tip}"
            )
        headers = [self.read(each) for each in held]
        for height, header in enumerate(headers[: life.tip], 1):
            if header.hash != self.hashes[height]:
                raise InvariantBroken(f"9: the ledger of restarted node {life.index} has another block {height}")
        return headers[life.tip :]


def lost_votes(life: Life, before: Mapping[_Place, bytes], now: Mapping[_Place, bytes]) -> list[_Place]:
    """Which places of a journal are gone that neither the tip nor a later view has settled (P19)."""
    return [
        place
        for place in before
        if place not in now and (place[2] >= life.view[1] if place[0] >= VIEW_CHANGE else place[3] > life.tip)
    ]
