"""Many transactions in flight at once, from several custodians, and what became of each."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2pledger.client.ledger import LedgerClient, Outcome, Receipt
from p2pledger.health.operations import CompartmentCount, RecordBatch
from p2pledger.primitives.errors import Code, Refused, Rejected, Unavailable


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
                nursery.start_soon(self._all_of, client, pid, organisation)
        self.is_done = True

    async def _all_of(self, client: LedgerClient, pid: bytes, organisation: bytes) -> None:
        """In bulk. Raises as `LedgerClient.submit` does for the first that has no proven receipt of success."""
        self.in_flight += self.each
        if self.in_flight >= self.wanted:
            self.enough.set()
        started = time.perf_counter()

        def settled(_: int, outcome: Outcome) -> None:
            self.in_flight -= 1
            self.latencies_s.append(time.perf_counter() - started)
            if isinstance(outcome, Receipt) and outcome.code == Code.OK:
                self.receipts.append(outcome)

        operations = [[single_record_batch(pid, organisation)] for _ in range(self.each)]
        for outcome in await client.submit_all(operations, prove=True, told=settled):
            if isinstance(outcome, Rejected | Unavailable):
                raise outcome
            if outcome.code != Code.OK:
                raise Refused(Code(outcome.code))


def quantile_ms(latencies_s: Sequence[float], share: float) -> float:
    """A quantile in milliseconds; 0 of nothing."""
    ordered = sorted(latencies_s)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
