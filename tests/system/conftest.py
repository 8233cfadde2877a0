"""Small disks and separate networks, made with the kernel's own means. Needs root; fails, never skips, without it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.consortium import Consortium


def sh(*command: str) -> str:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _is_root() -> None:
    assert os.geteuid() == 0, "tests/system needs root: mounts and network namespaces"


@pytest.fixture(params=["ext4", "tmpfs"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 8 MiB: a real one on a loop device, and one in memory."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if request.param == "ext4":
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(8 * 1024 * 1024)
        sh("mkfs.ext4", "-q", str(image))
        sh("mount", "-o", "loop", str(image), str(mount))
    else:
        sh("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(mount))
    yield mount
    sh("umount", str(mount))


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    """Four homes, each with a network namespace of its own, all on one bridge; nothing runs yet."""
    with Consortium(tmp_path / "net") as made:
        yield made
