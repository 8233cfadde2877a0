"""`p2pledger start` that kills itself, as a power cut would, at a named point of a ceremony or of a release.

python -m tests.node.dying 'after LtsDeal' --home DIR
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2pledger.cli.main import main
from p2pledger.demo.cluster import Cluster
from p2pledger.engine.duties import Duties
from p2pledger.node.release import Releasing
from p2pledger.storage.release_entries import ReleaseEntries
from p2pledger.storage.share_files import ShareFiles

CEREMONY = (
    "before seed",
    "after seed",
    "after LtsInit",
    "after LtsDeal",
    "after LtsComplaint",
    "before share",
    "after share",
    "after LtsActivate",
)
RELEASE = ("before entry", "after entry", "before reply")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _around(owner: type, method: str, what: Callable[..., str], point: str) -> None:
    inner = getattr(owner, method)

    def dying(self: Any, *arguments: Any) -> Any:
        name = what(*arguments)
        if point == f"before {name}":
            _die()
        result = inner(self, *arguments)
        if point == f"after {name}":
            _die()
        return result

    setattr(owner, method, dying)


def arm(point: str) -> None:
    """From here on this process dies when it comes to the point."""
    _around(ShareFiles, "write", lambda name, secret: name.kind, point)
    _around(Duties, "offer", lambda operations: type(operations[0]).__name__, point)
    _around(ReleaseEntries, "add", lambda entries: "entry", point)
    if point == "before reply":
        shares = Releasing.shares

        async def dying(self: Releasing, *arguments: Any) -> Any:
            await shares(self, *arguments)
            _die()

        Releasing.shares = dying  # type: ignore[method-assign]


def start_dying(cluster: Cluster, name: str, point: str) -> None:
    """Start a member's node so that it will die at the point."""
    member = cluster.member(name)
    assert not member.is_running
    member.layout.ports.unlink(missing_ok=True)
    root = Path(__file__).parents[2]
    with member.log.open("ab") as log:
        member.process = subprocess.Popen(
            [sys.executable, "-m", "tests.node.dying", point, "--home", str(member.home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(root)},
            start_new_session=True,
        )


if __name__ == "__main__":
    arm(sys.argv[1])
    main(["start", *sys.argv[2:]])
