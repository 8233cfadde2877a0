"""Step 10: the primary is killed with hundreds of transactions in flight."""

from contextlib import AsyncExitStack

import trio

from p2pledger.client.ledger import Receipt, open_ledger
from p2pledger.demo.autopsy import remains_of, watching
from p2pledger.demo.load import Load, quantile_ms
from p2pledger.demo.narrator import DemoFailed
from p2pledger.demo.stage import AGENCY, A, B, Stage

IN_FLIGHT = 500
EACH = 1_000
KILLS_MAX = 10


async def kill_the_primary(stage: Stage) -> int:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(10, "The primary dies under load")
    acknowledged: list[Receipt] = []
    for _ in range(KILLS_MAX):
        load = _load(stage)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await load.enough.wait()
            status = await stage.clients[AGENCY].status()
            survivor = next(name for name in cluster.names if name != status.primary)
            while await _pending(stage, survivor) < IN_FLIGHT and not load.is_done:
                await trio.sleep(0.005)
            with watching(cluster.homes[status.primary]) as is_prepared:
                while not (is_prepared() or load.is_done):
                    await trio.sleep(0)
                cluster.kill(status.primary)
            in_flight = await _pending(stage, survivor)
            with remains_of(cluster.homes[status.primary]) as remains:
                prepared, tip = remains.prepared(), remains.tip
            if in_flight >= IN_FLIGHT and prepared:
                break
            await cluster.start(status.primary)
            await cluster.wait_ready(status.primary)
        acknowledged += load.receipts
        stage.transactions += len(load.receipts)
    else:
        raise DemoFailed(f"no kill out of {KILLS_MAX} hit {IN_FLIGHT} in flight and a prepared height")
    acknowledged += load.receipts
    stage.transactions += len(load.receipts)
    stage.load_latencies_s += load.latencies_s
    narrator.check(
        f"{status.primary}, primary of view {status.view}, was killed with SIGKILL",
        in_flight >= IN_FLIGHT,
        f"{in_flight} undecided transactions at {survivor} right after",
    )
    narrator.check(
        "its journal shows a height prepared but not committed", bool(prepared), f"{prepared} above tip {tip}"
    )
    after = await stage.clients[AGENCY].status()
    narrator.check("the other three changed view and went on", after.view > status.view, f"view {after.view}")
    narrator.check(
        "every transaction has a proven receipt; nothing acknowledged is lost",
        len(load.receipts) == EACH * len(load.clients),
        f"{len(load.receipts)} transactions, p50 {quantile_ms(load.latencies_s, 0.5):.0f} ms, "
        f"p99 {quantile_ms(load.latencies_s, 0.99):.0f} ms through the failure",
    )
    await cluster.start(status.primary)
    await cluster.wait_ready(status.primary)
    height = (await stage.clients[AGENCY].status()).height
    async with AsyncExitStack() as stack:
        address = [cluster.address(status.primary)]
        own = await stack.enter_async_context(
            open_ledger(cluster.founding, address, stage.organisations[status.primary].account)
        )
        with trio.fail_after(60):
            while (await own.status()).height < height:
                await trio.sleep(0.05)
    narrator.check(f"{status.primary} replayed its journal and caught up", True, f"height {height}")
    stage.receipts = acknowledged
    return int(after.view_changes)


async def _pending(stage: Stage, name: str) -> int:
    """How many transactions a node itself holds that are not decided yet; what only we hold does not count."""
    return int((await stage.clients[name].status(stage.cluster.address(name))).pending_transactions)


def _load(stage: Stage) -> Load:
    custodians = [
        (stage.clients[name], stage.patient[name].did, stage.organisations[name].organisation) for name in (A, B)
    ]
    return Load(custodians, EACH, IN_FLIGHT)
