"""Whole ceremonies without a chain: seats that speak in order, some of whom lie or fall silent."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

from msgspec.structs import replace as changed

from p2pledger.chain.validators import faults
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import ChainId, Millis
from p2pledger.threshold import dkg
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Deal, Phase
from p2pledger.threshold.group import Random
from p2pledger.threshold.key_release import Access, KeyRelease, ShareHolder
from p2pledger.threshold.long_term import JointKey, LongTerm, LongTermHolder
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from p2pledger.threshold.participant import Participant, seeded
from p2pledger.threshold.sealing import BoxSecret

CHAIN = ChainId(sha256(b"a chain"))
SIZES = (4, 5, 7)
CONTENT_KEY = sha256(b"a content key")
LABEL = Label("record", CHAIN, b"C" * 16, b"P" * 16, b"B" * 16, 3, 1)
READER = BoxSecret(sha256(b"the reader"))
ACCESS = Access(b"A" * 16, READER.public)


def random_of(name: str) -> Random:
    """A stream of its own for each name, the same in each run."""
    return seeded(sha256(name.encode()))


def seats(n: int, name: str = "seat") -> tuple[bytes, ...]:
    return tuple(sorted(sha256(f"{name} {number}".encode()) for number in range(n)))


Lie = Callable[[Deal], Deal]


@dataclass
class Table:
    """A ceremony around which its seats sit; whoever is `silent` says nothing."""

    ceremony: Ceremony
    participants: dict[bytes, Participant]
    silent: frozenset[bytes] = frozenset()
    lies: dict[bytes, Lie] = field(default_factory=dict)
    slander: dict[bytes, tuple[int, ...]] = field(default_factory=dict)
    """Who accuses whom without a reason."""
    stubborn: frozenset[bytes] = frozenset()
    """Who justifies nothing."""
    deals: dict[int, Deal] = field(default_factory=dict)
    shown: dict[tuple[int, int], bytes] = field(default_factory=dict)
    time_ms: int = 0

    def run(self) -> "Table":
        """Every phase until the key is active or the ceremony has failed."""
        for phase in (self.join, self.deal, self.report, self.justify, self.confirm):
            phase()
            if self.ceremony.phase == Phase.FAILED:
                break
        return self

    def speakers(self, among: tuple[bytes, ...]) -> list[bytes]:
        return [seat for seat in among if seat not in self.silent]

    def _set(self, ceremony: Ceremony) -> None:
        self.ceremony = ceremony.at(self.time_ms)

    def wait(self) -> None:
        """Until the phase is over; whoever is missing then stays missing."""
        self.time_ms = self.ceremony.since_ms + self.ceremony.phase_ms
        self._set(self.ceremony)

    def join(self) -> None:
        for seat in self.speakers(self.ceremony.receivers):
            self._set(dkg.join(self.ceremony, seat, self.participants[seat].box.public))
        self._wait_if(Phase.JOIN)

    def deal(self) -> None:
        for seat in self.speakers(self.ceremony.dealers):
            dealt = self.participants[seat].deal(self.ceremony, seat)
            dealt = self.lies.get(seat, lambda honest: honest)(dealt)
            self.deals[self.ceremony.dealer(seat)] = dealt
            self._set(dkg.deal(self.ceremony, seat, dealt))
        self._wait_if(Phase.DEAL)

    def report(self) -> None:
        for seat in self.speakers(self.ceremony.receivers):
            cheats = self.participants[seat].cheats(self.ceremony, seat, self.deals)
            self._set(dkg.report(self.ceremony, seat, self.slander.get(seat, cheats)))
        self._wait_if(Phase.REPORT)

    def justify(self) -> None:
        if self.ceremony.phase != Phase.JUSTIFY:
            return
        for dealer, receiver in self.ceremony.complaints:
            seat = self.ceremony.dealers[dealer - 1]
            if seat in self.stubborn | self.silent:
                continue
            share = self.participants[seat].justification(self.ceremony, receiver)
            self._set(dkg.justify(self.ceremony, seat, receiver, share, self.deals[dealer]))
            self.shown[dealer, receiver] = share
        self._wait_if(Phase.JUSTIFY)

    def confirm(self) -> None:
        if self.ceremony.phase != Phase.CONFIRM:
            return
        key = self.key
        for seat in self.speakers(self.ceremony.receivers):
            if self.ceremony.phase == Phase.CONFIRM:
                self.share(seat)
                self._set(dkg.confirm(self.ceremony, seat, key.digest, key))

    def _wait_if(self, phase: Phase) -> None:
        if self.ceremony.phase == phase:
            self.wait()

    @property
    def key(self) -> JointKey:
        return dkg.outcome(self.ceremony, self.deals)

    def share(self, seat: bytes) -> bytes:
        return self.participants[seat].holder(self.ceremony, seat, self.deals, self.shown)[1]

    def holders(self) -> list[LongTermHolder]:
        return [
            self.participants[seat].holder(self.ceremony, seat, self.deals, self.shown)[0]
            for seat in self.speakers(self.ceremony.receivers)
        ]


def table(n: int, **settings: object) -> Table:
    """n seats before a ceremony for a new key."""
    identifier = CeremonyId(1, 0, 0)
    ceremony = dkg.begin(CHAIN, identifier, seats(n), n - faults(n), Millis(0))
    participants = {seat: Participant(CHAIN, identifier, sha256(b"seed" + seat)) for seat in ceremony.receivers}
    return replace(Table(ceremony, participants), **settings)


def resharing(before: Table, receivers: tuple[bytes, ...] | None = None) -> Table:
    """The next sharing of what a finished ceremony has made, among its own seats or others."""
    source, old = before.key, before.ceremony
    identifier = CeremonyId(source.key_epoch, source.share_epoch + 1, 0)
    among = old.receivers if receivers is None else receivers
    n = len(among)
    ceremony = dkg.begin(CHAIN, identifier, among, n - faults(n), Millis(0), (source, old.receivers))
    participants = {}
    for seat in {*among, *old.receivers}:
        share = before.share(seat) if seat in old.receivers and seat not in before.silent else None
        participants[seat] = Participant(CHAIN, identifier, sha256(b"again" + seat), share)
    return Table(ceremony, participants)


@cache
def finished(n: int) -> Table:
    """A ceremony in which all were honest; nobody changes it any more."""
    return table(n).run()


@dataclass(frozen=True)
class Keepers:
    """One back-end with all its holders."""

    release: KeyRelease
    holders: tuple[ShareHolder, ...]

    def shares(self, capsule: bytes, label: Label = LABEL, access: Access = ACCESS) -> dict[int, bytes]:
        """What all holders release."""
        random = random_of("release")
        return {holder.index: holder.release(capsule, label, access, random) for holder in self.holders}


def long_term(n: int) -> Keepers:
    return Keepers(LongTerm(finished(n).key), tuple(finished(n).holders()))


def one_time(n: int) -> Keepers:
    boxes = [BoxSecret(sha256(b"box" + seat)) for seat in seats(n)]
    release = OneTime([box.public for box in boxes], n - faults(n))
    return Keepers(release, tuple(OneTimeHolder(release, box) for box in boxes))


BACK_ENDS = {"long-term": long_term, "one-time": one_time}


def spoiled_box(receiver: int) -> Lie:
    """A deal whose box for one receiver does not open."""

    def lie(honest: Deal) -> Deal:
        boxes = list(honest.boxes)
        box = boxes[receiver - 1]
        assert box is not None
        boxes[receiver - 1] = changed(box, body=box.body[:-1] + bytes([box.body[-1] ^ 1]))
        return changed(honest, boxes=tuple(boxes))

    return lie
