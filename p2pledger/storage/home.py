"""One daemon per home: two processes with one key and one journal would sign against each other (T32)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pledger.primitives.errors import ConfigError


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the kernel lets go of it when the process dies, however it dies.

    Raises ConfigError, naming the process that runs, when another one holds it. The file stays: removing it would
    let two processes lock two files of one name.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"lock file {path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"{path} is held by process {holder}: a second daemon on one home would sign against the first"
            ) from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be locked: {error.strerror}; a home needs a local file system") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
