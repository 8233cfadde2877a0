"""Links with delay, or cut: a process between validators that passes bytes on later. `python -m bench.relay`.

Its first line of stdin is JSON: the links as [listen port, target port], one-way delay and jitter in milliseconds.
Later lines cut and heal links: {"cut": [0, 3]} drops their connections and takes no new ones, {"heal": true} ends that.
It is an emulation in user space: bytes stay in order, nothing is lost, and TCP's own control loops see loopback, so
slow start over a long way and retransmissions are not in it. It costs processor time of its own, which is reported.
It ends with its stdin.
"""

import json
import os
import random
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import trio

_CHUNK = 64 * 1024
_HELD_MAX = 64 * 1024 * 1024
"""Bytes on their way in one direction before no more are read: far above any bandwidth-delay product of a test."""
_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass
class Link:
    """One way in which a validator dials another."""

    listen: int
    target: int
    is_cut: bool = False
    scopes: set[trio.CancelScope] = field(default_factory=set)

    def cut(self) -> None:
        self.is_cut = True
        for scope in self.scopes:
            scope.cancel()


class Relay:
    """All links of a stage."""

    def __init__(self, links: list[Link], one_way_s: float, jitter_s: float, seed: int) -> None:
        self.links = links
        self._one_way_s = one_way_s
        self._jitter_s = jitter_s
        self._rng = random.Random(seed)

    async def run(self, orders: AsyncIterator[bytes]) -> None:
        """Relay until there are no more orders."""
        async with trio.open_nursery() as nursery:
            for link in self.links:
                await nursery.start(self._serve, link)
            print(json.dumps({"ready": True}), flush=True)
            async for line in orders:
                self._obey(json.loads(line))
            nursery.cancel_scope.cancel()

    def _obey(self, order: dict[str, object]) -> None:
        for index in order.get("cut", ()):  # type: ignore[attr-defined]
            self.links[index].cut()
        if order.get("heal"):
            for link in self.links:
                link.is_cut = False

    async def _serve(self, link: Link, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        async def accept(near: trio.SocketStream) -> None:
            with trio.CancelScope() as scope:
                link.scopes.add(scope)
                try:
                    if not link.is_cut:
                        await self._connect(near, link)
                finally:
                    link.scopes.discard(scope)
                    await trio.aclose_forcefully(near)

        await trio.serve_tcp(accept, link.listen, host="127.0.0.1", task_status=task_status)

    async def _connect(self, near: trio.SocketStream, link: Link) -> None:
        await trio.sleep(self._one_way_s)
        try:
            far = await trio.open_tcp_stream("127.0.0.1", link.target)
        except OSError:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, near, far, nursery.cancel_scope)
                nursery.start_soon(self._carry, far, near, nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(far)

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        """One direction: bytes leave `one_way_s` after they came, those before them first."""
        held: deque[tuple[float, bytes]] = deque()
        size, changed = 0, trio.Event()
        is_over = False

        async def deliver() -> None:
            nonlocal size, changed
            while held or not is_over:
                if not held:
                    changed = trio.Event()
                    await changed.wait()
                    continue
                due, data = held[0]
                await trio.sleep_until(due)
                with suppress(*_ENDS):
                    await sink.send_all(data)
                held.popleft()
                size -= len(data)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            last = 0.0
            with suppress(*_ENDS):
                while data := bytes(await source.receive_some(_CHUNK)):
                    last = max(last, trio.current_time() + self._one_way_s + self._rng.random() * self._jitter_s)
                    held.append((last, data))
                    size += len(data)
                    changed.set()
                    while size > _HELD_MAX:
                        await trio.sleep(0.01)
            is_over = True
            changed.set()


async def _lines() -> AsyncIterator[bytes]:
    stdin, rest = trio.lowlevel.FdStream(os.dup(0)), b""
    while data := await stdin.receive_some(4096):
        *lines, rest = (rest + bytes(data)).split(b"\n")
        for line in lines:
            yield line


async def _main() -> None:
    orders = _lines()
    plan = json.loads(await anext(orders))
    links = [Link(*pair) for pair in plan["links"]]
    await Relay(links, plan["one_way_ms"] / 1000, plan["jitter_ms"] / 1000, plan["seed"]).run(orders)


if __name__ == "__main__":
    trio.run(_main)
    sys.exit(0)
