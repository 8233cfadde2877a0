"""Whether keys of patients were replaced and frozen as guardians may (F-23, F-24, F-25), judged from outside.

From blocks and receipts it keeps its own account of guardians, recoveries, vetoes and freezes, checks every approval
that counted, and says whose key counted at a height. It is asked about heights up to which it knows all blocks.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from p2pledger.sim.observer.blocks import Receipt, Transaction
from p2pledger.sim.observer.encoding import holds, pack, tagged_hash
from p2pledger.sim.observer.judgement import InvariantBroken

NAME, START, VETO, FINAL, FREEZE, THAW = range(50, 56)
"""Numbers of the operations that matter."""
REFUSALS = {START: "RecoveryStart", VETO: "RecoveryVeto", FINAL: "RecoveryFinalize", FREEZE: "Freeze"}
"""Of which refusals are counted, for campaigns."""
COMMIT = b"p2pl/guardian/1"
APPROVAL = b"\x18p2pl/guardian-approval/1"
"""What guardians' approvals begin with, its length first."""

Place = tuple[int, int]
"""(height, number in the block)."""


@dataclass(frozen=True, slots=True)
class _Guardians:
    place: Place
    threshold: int
    commits: tuple[bytes, ...]
    delay_ms: int
    capsule: bytes | None


@dataclass(frozen=True, slots=True)
class _Recovery:
    place: Place
    pid: bytes
    key: bytes
    box: bytes
    approvers: frozenset[bytes]
    """Commitments to those whose signatures hold."""
    is_beyond_veto: bool


@dataclass(slots=True)
class _Patient:
    named: list[_Guardians] = field(default_factory=list)
    keys: list[tuple[Place, bytes]] = field(default_factory=list)
    freezes: list[tuple[Place, int]] = field(default_factory=list)
    """(where, until); until 0: ended."""


class Recoveries:
    """The judge of all guardians of one run."""

    def __init__(self, chain: bytes, reached: Counter[str]) -> None:
        self._chain = chain
        self._reached = reached
        self._patients: dict[bytes, _Patient] = defaultdict(_Patient)
        self._recoveries: dict[bytes, _Recovery] = {}
        self._vetoes: dict[bytes, Place] = {}
        self._finals: dict[bytes, Place] = {}

    # From the chain

    def take(self, operation: tuple[Any, ...], transaction: Transaction, receipt: Receipt) -> None:
        """One operation and what it came to; heights may come out of order."""
        place = (receipt.height, receipt.index)
        if receipt.code:
            if operation[0] in REFUSALS:
                self._reached[f"{REFUSALS[operation[0]]} is refused: {receipt.code}"] += 1
            return
        match operation:
            case (tag, pid, threshold, commits, delay_ms, capsule, _) if tag == NAME:
                self._patients[pid].named.append(_Guardians(place, threshold, commits, delay_ms, capsule))
            case (tag, pid, recovery, key, box, until_ms, approvals, is_beyond) if tag == START:
                said = pack(("recover", pid, recovery, key, box, until_ms))
                self._recoveries[recovery] = _Recovery(
                    place, pid, key, box, self._approvers(pid, said, approvals), is_beyond
                )
            case (tag, _, recovery) if tag == VETO:
                self._vetoes[recovery] = place
            case (tag, _, recovery) if tag == FINAL:
                self._finals[recovery] = place
            case (tag, pid, until_ms, approvals) if tag == FREEZE:
                self._check_approved(pid, place, self._approvers(pid, pack(("freeze", pid, until_ms)), approvals))
                self._patients[pid].freezes.append((place, until_ms))
            case (tag, pid, _, _) if tag == THAW:
                self._patients[pid].freezes.append((place, 0))
            case _:
                pass

    def registered(self, did: bytes, key: bytes, receipt: Receipt) -> None:
        """Somebody was entered with this key."""
        self._patients[did].keys.append(((receipt.height, receipt.index), key))

    def _approvers(self, pid: bytes, said: bytes, approvals: tuple[Any, ...]) -> frozenset[bytes]:
        data = APPROVAL + self._chain + said
        return frozenset(
            tagged_hash(COMMIT, pack((pid, salt, guardian)))
            for salt, guardian, signature in approvals
            if holds(guardian, data, signature)
        )

    def _check_approved(self, pid: bytes, place: Place, approvers: frozenset[bytes]) -> None:
        for named in self._patients[pid].named:
            if named.place <= place and len(approvers & set(named.commits)) < named.threshold:
                raise InvariantBroken(f"F-25: {len(approvers)} guardians freeze a patient at {place}")

    # What holds at a height

    def began(self, recovery: bytes) -> int | None:
        """The height at which a recovery of this id was started."""
        found = self._recoveries.get(recovery)
        return None if found is None else found.place[0]

    def is_known(self, pid: bytes, key: bytes) -> bool:
        """Whether this is or was a patient's key."""
        return any(key == other for _, other in self._patients[pid].keys) or any(
            each.pid == pid and each.key == key for each in self._recoveries.values()
        )

    def key_at(self, pid: bytes, height: int) -> bytes | None:
        """Whose signature is the patient's."""
        keys = [*self._patients[pid].keys]
        for recovery, place in self._finals.items():
            started = self._recoveries[recovery]
            if started.pid == pid:
                keys.append((place, started.key))
        counted = [key for place, key in sorted(keys) if place[0] <= height]
        return counted[-1] if counted else None

    def is_frozen(self, pid: bytes, height: int, time_ms: int) -> bool:
        """Whether guardians have frozen the patient; a key that they replaced meanwhile is thawed."""
        thaws = [(place, 0) for recovery, place in self._finals.items() if self._recoveries[recovery].pid == pid]
        before = [until for place, until in sorted([*self._patients[pid].freezes, *thaws]) if place[0] <= height]
        return bool(before) and time_ms < before[-1]

    # Judging

    def judge_owner(self, who: str, pid: bytes, key: bytes, height: int, time_ms: int) -> None:
        """A share leaves for a patient that reads its own. Raises InvariantBroken (F-23, F-25)."""
        if self.key_at(pid, height) != key:
            raise InvariantBroken(f"F-23: {who} to a key that was replaced")
        if self.is_frozen(pid, height, time_ms):
            raise InvariantBroken(f"F-25: {who} to a frozen patient")

    def judge_recovered(self, who: str, recovery: bytes, height: int, times: Mapping[int, int]) -> tuple[bytes, bytes]:
        """(box key, hash of the capsule) of a recovery whose share leaves. Raises InvariantBroken (F-23 to F-25)."""
        found, final = self._recoveries[recovery], self._finals.get(recovery)
        if final is None or final[0] > height:
            raise InvariantBroken(f"F-24: {who} before the recovery is final")
        capsule = self._judge_final(recovery, times)
        self.judge_owner(who, found.pid, found.key, height, times[height])
        return found.box, capsule

    def _judge_final(self, recovery: bytes, times: Mapping[int, int]) -> bytes:
        """The new key came to be by enough guardians, after the delay, unvetoed and not replaced."""
        found, final = self._recoveries[recovery], self._finals[recovery]
        who = f"recovery {recovery.hex()[:8]} is final at {final[0]}"
        patient = self._patients[found.pid]
        named = min((each for each in patient.named), key=lambda each: each.place, default=None)
        if named is None or named.place > found.place:
            raise InvariantBroken(f"F-23: {who} of a patient without guardians")
        needed = min(named.threshold + found.is_beyond_veto, len(named.commits))
        if len(found.approvers & set(named.commits)) < needed:
            raise InvariantBroken(f"F-23: {who} by {len(found.approvers)} guardians of {needed}")
        if times[final[0]] < times[found.place[0]] + named.delay_ms:
            raise InvariantBroken(f"F-23: {who} after {times[final[0]] - times[found.place[0]]} ms")
        others = [each for each in self._recoveries.values() if each.pid == found.pid]
        if any(found.place < each.place < final for each in others):
            raise InvariantBroken(f"F-23: {who} though another one took its place")
        vetoed = self._vetoes.get(recovery)
        if vetoed is not None and vetoed < final:
            raise InvariantBroken(f"F-24: {who} though it was vetoed at {vetoed[0]}")
        if found.is_beyond_veto:
            mine = {each: place for each, place in self._vetoes.items() if self._recoveries[each].pid == found.pid}
            vetoes = sum(place < found.place for place in mine.values())
            if vetoes < 2:
                raise InvariantBroken(f"F-25: {who} beyond veto, after {vetoes} vetoes")
        return named.capsule or b""

    def concluded(self, times: Mapping[int, int]) -> None:
        """The run is over: every recovery that was finished was finished rightly."""
        for recovery, final in self._finals.items():
            if final[0] in times and self._recoveries[recovery].place[0] in times:
                self._judge_final(recovery, times)
                self._reached["recovery final"] += 1
                self._reached["recovery beyond veto is final"] += self._recoveries[recovery].is_beyond_veto
        self._reached["recovery vetoed"] += len(self._vetoes)
        self._reached["patient frozen"] += sum(
            until > 0 for patient in self._patients.values() for _, until in patient.freezes
        )
