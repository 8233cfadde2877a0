"""Distance for real packets: a process that holds those between validators back. `python -m bench.delay`.

The kernel hands packets to and from the validators' ports to a queue (NFQUEUE) and sends them when this process says
so. So TCP itself sees the distance: round trips in its handshakes, its windows and its slow start, which bench/relay.py
cannot show. It works inside a network namespace of the run's own (`python -m bench run --namespace`), where its rules
touch nobody else; it needs root and iptables.

Its one line of stdin is JSON: ports, one-way delay and jitter in milliseconds, seed. It ends with its stdin.
"""

import json
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_NETLINK_NETFILTER = 12
_QUEUE = 0
_PACKET, _CONFIG, _VERDICT_BATCH = 0x300, 0x302, 0x303
_REQUEST, _ACKNOWLEDGE = 1, 4
_ERROR = 2
_HEAD = struct.Struct("=IHHIIBB")
"""Length, type, flags, sequence, port id; then family and version of netfilter."""
_ACCEPT = 1
_HELD_MAX = 1 << 17
_GSO = 1 << 2
_RECEIVE_BYTES = 1 << 20


def message(kind: int, flags: int, *attributes: tuple[int, bytes]) -> bytes:
    """A netlink message to the queue."""
    body = b"".join(
        struct.pack("=HH", 4 + len(value), name) + value + bytes(-len(value) % 4) for name, value in attributes
    )
    return _HEAD.pack(_HEAD.size + 2 + len(body), kind, flags, 0, 0, 0, 0) + struct.pack(">H", _QUEUE) + body


def packet_ids(data: bytes) -> Iterator[int]:
    """The ids of the packets in what the kernel has said; raises OSError for what it refuses."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if kind == _ERROR:
            (error,) = struct.unpack_from("=i", data, at + 16)
            if error:
                raise OSError(-error, "the kernel refuses the packet queue")
        elif kind == _PACKET:
            (identity,) = struct.unpack_from(">I", data, at + 24)  # its first attribute is the packet's head
            yield identity
        at += max(16, length + -length % 4)


@dataclass
class Line:
    """Packets on their way: they leave in the order in which they came, none before its time."""

    one_way_s: float
    jitter_s: float
    rng: random.Random
    _held: deque[tuple[float, int]] = field(default_factory=deque)
    _last: float = 0.0

    def take(self, identity: int, now: float) -> None:
        """A packet has come."""
        self._last = max(self._last, now + self.one_way_s + self.rng.random() * self.jitter_s)
        self._held.append((self._last, identity))

    def due(self, now: float) -> int | None:
        """The last packet whose time has come; all before it go with it."""
        last = None
        while self._held and self._held[0][0] <= now:
            last = self._held.popleft()[1]
        return last

    def patience_s(self, now: float) -> float | None:
        """Until the next one is due; None while there is none."""
        return max(0.0, self._held[0][0] - now) if self._held else None


def open_queue() -> socket.socket:
    """The queue, of which this process is the only reader. Raises OSError."""
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    queue.bind((0, 0))
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    orders = (
        [(1, struct.pack(">BBH", 1, 0, socket.AF_INET))],  # bind
        [(2, struct.pack(">IB", 0, 1)), (3, struct.pack(">I", _HELD_MAX))],  # heads only, so many at once
        [(5, struct.pack(">I", _GSO)), (4, struct.pack(">I", _GSO))],  # packets stay as large as TCP makes them
    )
    for attributes in orders:
        queue.send(message(_CONFIG, _REQUEST | _ACKNOWLEDGE, *attributes))
        list(packet_ids(queue.recv(65_536)))
    return queue


def lead_into_queue(ports: Sequence[int]) -> None:
    """All packets to and from these ports, in this network namespace. Raises CalledProcessError, OSError."""
    for port in ports:
        for end in ("--dport", "--sport"):
            rule = ["OUTPUT", "-o", "lo", "-p", "tcp", end, str(port), "-j", "NFQUEUE", "--queue-num", str(_QUEUE)]
            subprocess.run(["iptables", "-w", "-A", *rule], check=True, capture_output=True)


def leave_queue() -> None:
    """Take all rules of this namespace away again."""
    subprocess.run(["iptables", "-w", "-F", "OUTPUT"], check=True, capture_output=True)


def serve(queue: socket.socket, line: Line) -> None:
    """Hold back and let go until stdin ends."""
    while True:
        ready, _, _ = select.select([queue, sys.stdin], [], [], line.patience_s(time.monotonic()))
        if sys.stdin in ready:
            return
        if queue in ready:
            data = queue.recv(_RECEIVE_BYTES)
            now = time.monotonic()
            for identity in packet_ids(data):
                line.take(identity, now)
        last = line.due(time.monotonic())
        if last is not None:
            queue.send(message(_VERDICT_BATCH, _REQUEST, (2, struct.pack(">II", _ACCEPT, last))))


def main() -> int:
    """Read the plan, lead the packets here, say so, serve."""
    plan = json.loads(sys.stdin.readline())
    line = Line(plan["one_way_ms"] / 1000, plan["jitter_ms"] / 1000, random.Random(plan["seed"]))
    try:
        queue = open_queue()
        lead_into_queue(plan["ports"])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"packets cannot be delayed here: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"ready": True}), flush=True)
    try:
        serve(queue, line)
    finally:
        leave_queue()
    return 0


if __name__ == "__main__":
    sys.exit(main())
