"""Faults on a time line: what is done to which validator, when, and the note of it."""

import time
from collections.abc import Sequence

import trio

from bench.scenario import Fault
from bench.summary import FaultNote
from bench.validators import Validators
from p2pledger.primitives.errors import InvalidInput

_ENDINGS = ("restart", "resume", "heal")
"""What ends a fault, of all who are hurt unless a seat is named."""


class FaultLine:
    """Performs a point's faults; `notes` tells when they really happened."""

    def __init__(self, validators: Validators, faults: Sequence[Fault], window_start_s: float) -> None:
        self._validators = validators
        self._faults = sorted(faults, key=lambda fault: fault.at_s)
        self._window_start_s = window_start_s
        self._hurt: set[int] = set()
        self.notes: list[FaultNote] = []

    async def run(self, start: float) -> None:
        """`start`: of the load, on the machine's monotonic clock. Returns when all is done."""
        async with trio.open_nursery() as nursery:
            for fault in self._faults:
                await trio.sleep(max(0.0, start + self._window_start_s + fault.at_s - time.monotonic()))
                seats = await self._seats(fault)
                at_s = time.monotonic() - start - self._window_start_s
                await self._perform(fault, seats, nursery)
                names = ", ".join(f"validator {seat}" for seat in seats)
                what = fault.do if fault.do in _ENDINGS else f"{fault.do} {fault.who}"
                self.notes.append(FaultNote(round(at_s, 3), f"{what}: {names}"))

    async def _seats(self, fault: Fault) -> list[int]:
        validators = self._validators
        if fault.do in _ENDINGS and not fault.who.isdigit():
            return sorted(self._hurt)
        match fault.who:
            case "primary":
                return [await validators.primary()]
            case "all":
                return list(range(validators.n))
            case "backup" | "f":
                primary = await validators.primary()
                backups = [seat for seat in range(validators.n) if seat != primary and seat not in self._hurt]
                return backups[: 1 if fault.who == "backup" else validators.f]
            case seat:
                if int(seat) >= validators.n:
                    raise InvalidInput(f"fault of validator {seat}; there are {validators.n}, from 0")
                return [int(seat)]

    async def _perform(self, fault: Fault, seats: Sequence[int], nursery: trio.Nursery) -> None:
        validators = self._validators
        match fault.do:
            case "crash":
                validators.crash(seats)
            case "restart":
                nursery.start_soon(validators.start_some, list(seats))
            case "pause":
                for seat in seats:
                    validators.pause(seat)
            case "slow":
                for seat in seats:
                    nursery.start_soon(validators.slow, seat)
            case "resume":
                for seat in seats:
                    validators.resume(seat)
            case "cut":
                for seat in seats:
                    await validators.cut(seat)
            case "heal":
                await validators.heal()
        if fault.do in _ENDINGS:
            self._hurt -= set(seats)
        else:
            self._hurt |= set(seats)

    async def repair(self) -> None:
        """After the point: everybody runs again and all links stand, for the next one."""
        validators = self._validators
        for seat in range(validators.n):
            validators.resume(seat)
        if any(fault.do == "cut" for fault in self._faults):
            await validators.heal()
        gone = [seat for seat, name in enumerate(validators.names) if name not in validators.cluster.running]
        if gone:
            await validators.start_some(gone)
