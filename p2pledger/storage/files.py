"""Files that only their owner may read, written whole or not at all.

A link in place of a secret, another owner, or permissions for others are refused before a byte is read: the error
says which command repairs it.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from p2pledger.primitives.errors import ConfigError, InvalidInput, StoreError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in its place must not hang us


def make_private_folder(path: Path) -> None:
    """A folder of mode 0700 at `path`; raises ConfigError where there is another kind of thing, or others may enter."""
    with suppress(FileExistsError):
        path.mkdir(parents=True, mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} must be a folder, not a link or a file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"folder {path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}")
    if status.st_mode & 0o077:
        raise ConfigError(f"folder {path} has mode {stat.S_IMODE(status.st_mode):04o}; run: chmod 700 {path}")


def read_private(path: Path, bytes_max: int) -> bytes:
    """A file of mode 0600 that belongs to us; raises FileNotFoundError, ConfigError."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise ConfigError(f"{path} {reason}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(file.fileno()))
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ConfigError(f"{path} is longer than {bytes_max} bytes")
    return data


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a plain file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it; run: chmod 600 {path}"
        )


def create_private(path: Path, data: bytes) -> None:
    """A new file of mode 0600, whole and durable; raises InvalidInput where something already lies there."""
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path, follow_symlinks=False)  # unlike a rename it never replaces
    except FileExistsError as error:
        raise InvalidInput(f"{path} already exists and is not overwritten") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def put_private(path: Path, data: bytes) -> None:
    """The file of mode 0600 with this content, in place of one that may be there; `sync_folder` makes it durable."""
    temporary = _write_temporary(path, data)
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise StoreError(f"{path} cannot be made durable: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _write_temporary(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, _NEW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    return temporary


def erase_private(path: Path) -> None:
    """Overwrite a file with zeros, then remove it, durably; whether it was there makes no difference.

    What stood in it is beyond recovery only where the file system writes in place: copy-on-write file systems, journals
    of data, snapshots, flash memory that remaps and backups keep what they had.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be erased: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            os.fsync(file.fileno())
        path.unlink()
    except OSError as error:
        raise StoreError(f"{path} cannot be erased: {error.strerror}") from error
    sync_folder(path.parent)
