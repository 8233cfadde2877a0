"""One node of a replicated dictionary: `python -m bench.baselines.pysyncobj_node ME FOLDER PORT...`.

It takes transactions from its own stdin, replicates each as one command, and answers when it is applied.
"""

import base64
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated


class Dictionary(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """The state: payloads by key."""

    def __init__(self, me: str, others: list[str], folder: Path) -> None:
        settings = SyncObjConf(
            journalFile=str(folder / "journal"),
            autoTickPeriod=0.005,
            commandsQueueSize=1_000_000,
            raftMinTimeout=2.0,  # its own 0.4 s calls elections on a machine whose processors are all in use
            raftMaxTimeout=3.0,
            appendEntriesPeriod=0.02,
            logCompactionMinEntries=10_000_000,  # a snapshot within so short a run would only slow it down
            logCompactionMinTime=100_000,
        )
        super().__init__(me, others, settings)
        self._items: dict[bytes, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: bytes, payload: bytes) -> int:
        """Keep a payload."""
        self._items[key] = payload
        return len(self._items)


def _answer(number: int, result: object, error: int) -> None:
    line = json.dumps({"id": number, "ok": error == FAIL_REASON.SUCCESS})
    os.write(1, line.encode() + b"\n")


def main(me: int, folder: Path, ports: list[str]) -> None:
    """Serve until stdin ends."""
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    node = Dictionary(addresses[me], [one for i, one in enumerate(addresses) if i != me], folder)
    while not node.isReady():
        time.sleep(0.02)
    os.write(1, b'{"ready": true}\n')
    for line in sys.stdin.buffer:
        value = json.loads(line)
        number = int(value["id"])
        key = f"{me}/{number}".encode()
        node.put(key, base64.b64decode(value["payload"]), callback=partial(_answer, number))
    node.destroy()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
