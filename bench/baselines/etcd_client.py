"""Puts each transaction into etcd under a key of its own: `python -m bench.baselines.etcd_client HOST:PORT...`.

A Put is answered after a majority has it on disk. The request is spelled here (two fields of bytes), so that no
generated code is needed.
"""

import asyncio
import itertools
import os
import sys

import grpc

from bench.baselines.pipe import answer, transactions


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest with key = 1 and value = 2."""
    return b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value


async def main(endpoints: list[str]) -> None:
    """Serve until stdin ends."""
    channels = [grpc.aio.insecure_channel(endpoint) for endpoint in endpoints]
    puts = itertools.cycle([channel.unary_unary("/etcdserverpb.KV/Put") for channel in channels])
    running: set[asyncio.Task[None]] = set()
    prefix = os.urandom(8)

    async def one(number: int, payload: bytes) -> None:
        try:
            await next(puts)(put_request(prefix + number.to_bytes(8, "big"), payload))
            answer(number, True)
        except grpc.RpcError:
            answer(number, False)

    async for number, payload in transactions():
        task = asyncio.create_task(one(number, payload))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
