"""The adapter's side of a CommandLane for asyncio libraries: lines of JSON in, lines of JSON out."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator


def say(value: dict[str, object]) -> None:
    """One line to the load process."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def answer(number: int, ok: bool) -> None:
    """That a transaction is durable, or was refused."""
    say({"id": number, "ok": ok})


async def transactions() -> AsyncIterator[tuple[int, bytes]]:
    """(id, payload) of all that come; says first that it is ready."""
    reader = asyncio.StreamReader(limit=1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"ready": True})
    while line := await reader.readline():
        value = json.loads(line)
        yield int(value["id"]), base64.b64decode(value["payload"])
