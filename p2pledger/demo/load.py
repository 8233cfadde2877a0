"""Many transactions in flight at once, from several custodians, and what became of each."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2pledger.client.ledger import LedgerClient, Receipt
from p2pledger.health.operations import CompartmentCount, RecordBatch


def single_record_batch(pid: bytes, organisation: bytes) -> RecordBatch:
    """A commitment to one sealed record, as a laboratory would hand it in."""
    return RecordBatch(
        batch_id=secrets.token_bytes(16),
        pid=pid,
        custodian=organisation,
        author_org=organisation,
        n=1,
        root=secrets.token_bytes(32),
        compartments=(CompartmentCount(secrets.token_bytes(16), 1),),
        classes=(secrets.token_bytes(16),),
        labels=(),
        months=(202611, 202611),
        schema=1,
    )


@dataclass
class Load:
    """Record batches of several custodians, all handed in at once."""

    clients: Sequence[tuple[LedgerClient, bytes, bytes]]
    """(client of a custodian, a pid there, the organisation)."""
    each: int
    wanted: int = 500
    receipts: list[Receipt] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    in_flight: int = 0
    enough: trio.Event = field(default_factory=trio.Event)
    """Set when `wanted` transactions are on their way and undecided."""
    is_done: bool = False

    async def run(self) -> None:
        """Hand everything in; returns when every transaction has a proven receipt."""
        async with trio.open_nursery() as nursery:
            for client, pid, organisation in self.clients:
                for _ in range(self.each):
                    nursery.start_soon(self._one, client, pid, organisation)
        self.is_done = True

    async def _one(self, client: LedgerClient, pid: bytes, organisation: bytes) -> None:
        self.in_flight += 1
        if self.in_flight >= self.wanted:
            self.enough.set()
        started = time.perf_counter()
        receipt = await client.submit(single_record_batch(pid, organisation))
        self.in_flight -= 1
        self.latencies_s.append(time.perf_counter() - started)
        self.receipts.append(receipt)


def quantile_ms(latencies_s: Sequence[float], share: float) -> float:
    """A quantile in milliseconds; 0 of nothing."""
    ordered = sorted(latencies_s)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
