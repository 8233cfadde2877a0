"""What a node takes from its machine: time, threads and the network. The second seam, beside the stores.

The real ones are the default everywhere. The whole-node simulation brings a virtual clock, a disk that takes virtual
time and a memory network, and runs the very same tasks.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from p2pledger.engine.events import Now
from p2pledger.network.transport import TLS_OVER_TCP, Transport

DiskWork: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a durable write off the driver's task and returns once it is done; what it raises comes out."""


def machine_time() -> Now:
    """The moment, on both clocks of this machine."""
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


async def in_a_thread(write: Callable[[], None]) -> None:
    """In a worker thread. Not abandoned on cancellation: a commit under way is finished before the process ends."""
    await trio.to_thread.run_sync(write)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine around a node. Its monotonic clock must go as trio's own does."""

    now: Callable[[], Now] = machine_time
    disk: DiskWork = in_a_thread
    transport: Transport = TLS_OVER_TCP
