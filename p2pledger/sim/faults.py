"""How unkind a world is, and chance that is drawn in separate streams: one more draw here moves none elsewhere."""

import hashlib
import random
from dataclasses import dataclass

AIMS = ["PrePrepare", "Prepare", "Commit", "ViewChange", "NewView", "ViewRecord", "LockRecord", "AppendBlock"]
"""Writes at which faults aim: the phases of the protocol. `LockRecord` is the moment a validator locks."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong until the world heals. Shares and chances are 0 to 1; times are milliseconds."""

    loss: float = 0.0
    """Share of messages lost."""
    duplicate: float = 0.0
    """Share of messages delivered twice, at different times."""
    delay_ms: tuple[int, int] = (1, 20)
    """Every message takes a time between these, each its own, so that messages overtake each other."""
    heavy_tail: float = 0.0
    """Share of messages whose delay is Pareto distributed (shape 1.1, cut off at 10 s)."""
    slow: float = 0.0
    """Share of messages delayed beyond the timeout."""
    partition: float = 0.0
    """Chance per 200 ms that the network splits; it joins again, or splits otherwise, 200 ms later."""
    one_way: float = 0.0
    """Chance that a split lets messages through in one direction."""
    isolate_at: str = ""
    """A kind of record (see AIMS): whoever writes one may be cut off right then."""
    isolate: float = 0.0
    isolate_ms: int = 1_000
    crash: float = 0.0
    """Chance of a crash at each boundary between two effects."""
    crash_at: str = ""
    """A kind of record: crashes aim at the boundaries of turns that write one."""
    crash_aimed: float = 0.0
    disk: float = 0.0
    """Chance that a write fails: the node must stop. Whether the failed transaction is on the disk is open."""
    disk_full: float = 0.0
    """Chance that a write finds the disk full; it stays full for some seconds."""
    stall: float = 0.0
    """Chance that a sync takes `stall_ms` at most instead of no time."""
    stall_ms: int = 2_000
    slow_nodes: int = 0
    """So many nodes need `busy_ms` for each event."""
    busy_ms: int = 5
    skew_ms: int = 0
    """Wall clocks differ by so much at most."""
    clock_jump: float = 0.0
    """Chance per 200 ms that one node's wall clock jumps by `jump_ms` at most, either way."""
    jump_ms: int = 20_000
    retries: float = 0.0
    """Share of transactions that a client hands to several nodes."""
    flood: float = 0.0
    """Chance per submission that fifty more come at once."""


class Chance:
    """Independent random streams of one seed, by name (design after FoundationDB's and TigerBeetle's simulators)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, random.Random] = {}

    def __getitem__(self, name: str) -> random.Random:
        """The stream of this name: the same numbers for the same seed and name, whatever other streams give."""
        stream = self._streams.get(name)
        if stream is None:
            digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=16).digest()
            stream = self._streams[name] = random.Random(int.from_bytes(digest, "big"))
        return stream
