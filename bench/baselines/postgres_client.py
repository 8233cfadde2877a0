"""Inserts each transaction and commits it by itself: `python -m bench.baselines.postgres_client DSN`.

Several connections, so that the server can group commits into one sync, as it does for real applications.
"""

import asyncio
import os
import sys

import asyncpg

from bench.baselines.pipe import answer, transactions

CONNECTIONS = 24


async def main(dsn: str) -> None:
    """Serve until stdin ends."""
    queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
    prefix = os.urandom(8)
    first = await asyncpg.connect(dsn)
    await first.execute("select pg_advisory_lock(7)")  # two clients may come at the same time
    await first.execute("create table if not exists ledger (id bytea primary key, payload bytea not null)")
    await first.execute("select pg_advisory_unlock(7)")

    async def work(connection: asyncpg.Connection) -> None:
        insert = await connection.prepare("insert into ledger values ($1, $2)")
        while True:
            number, payload = await queue.get()
            try:
                await insert.fetch(prefix + number.to_bytes(8, "big"), payload)
                answer(number, True)
            except asyncpg.PostgresError:
                answer(number, False)

    connections = [first, *[await asyncpg.connect(dsn) for _ in range(CONNECTIONS - 1)]]
    workers = [asyncio.create_task(work(connection)) for connection in connections]
    async for transaction in transactions():
        queue.put_nowait(transaction)
    for worker in workers:
        worker.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
