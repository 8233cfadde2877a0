"""What waits to be written to one stream: appended to without waiting, joined into one write."""

import math

import trio

from p2pledger.network.frame import PING


class Outbox:
    """The out-list of one stream. `push` never waits; `run` is the writer task."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        """Bytes waiting or being written."""
        self._frames: list[bytes] = []
        self._wake = trio.Event()
        self._is_closing = False
        self._written = trio.lowlevel.ParkingLot()

    def push(self, frame: bytes) -> bool:
        """Append a frame; False (and nothing appended) where it would not fit any more."""
        if self.size + len(frame) > self.bytes_max:
            return False
        self._frames.append(frame)
        self.size += len(frame)
        self._wake.set()
        return True

    async def room(self, bytes_max: int) -> None:
        """Return once at most so many bytes wait."""
        while self.size > bytes_max:
            await self._written.park()

    def finish(self) -> None:
        """Let `run` return once everything pushed so far is written."""
        self._is_closing = True
        self._wake.set()

    async def run(self, stream: trio.abc.SendStream, ping_s: float = math.inf) -> None:
        """Write until `finish`, a ping after `ping_s` without anything else. Raises what the stream raises."""
        while True:
            if not self._frames:
                if self._is_closing:
                    return
                self._wake = trio.Event()
                if ping_s == math.inf:  # a scope costs as much as a frame
                    await self._wake.wait()
                    continue
                with trio.move_on_after(ping_s) as quiet:
                    await self._wake.wait()
                if quiet.cancelled_caught and not self._frames:
                    self.push(PING)
                continue
            data = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
            self._frames.clear()
            await stream.send_all(data)
            self.size -= len(data)
            self._written.unpark_all()
