"""The sign floor: a second memory, beside the key, of the journal this key signs with and how far that came (P19).

A key with an emptied, foreign or restored journal would vote again for what it has voted on. The floor notices, and
the node refuses to sign until the operator accepts that risk in so many words. A journal newer than its floor is
the usual case: the floor is raised after commits, now and then, and only ever grows.
"""

import os
from contextlib import suppress
from pathlib import Path

from p2pledger.consensus.journal import ViewRecord
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import ConfigError, InvalidInput, StoreError
from p2pledger.primitives.ids import Bytes16, Epoch, Height, View
from p2pledger.storage.environment import seal, unseal

FLOOR_BYTES_MAX = 256
_ADVICE = (
    "Restore the newest journal of this node. If it is lost, wait until the other validators have gone on without "
    "it, then start once with --accept-resign-risk: the node then stays silent until it holds a commit certificate "
    "above everything that it may have signed, and counts among the faulty ones if that was more than its peers know"
)


class Mark(Record, frozen=True):
    """The highest committed height, and the highest (epoch, view)."""

    height: Height
    epoch: Epoch
    view: View

    def raised(self, other: "Mark") -> "Mark":
        """The higher one of each."""
        epoch, view = max((self.epoch, self.view), (other.epoch, other.view))
        return Mark(max(self.height, other.height), epoch, view)


class _Floor(Record, frozen=True):
    identity: Bytes16
    """Of the journal that the key signs with."""
    journal: Mark
    """What that journal had reached."""
    ever: Mark
    """What this key had reached with any journal."""


class SignFloor:
    """The file, read once and rewritten when the floor rises. Its owner holds the home's exclusive lock."""

    def __init__(self, path: Path) -> None:
        """Read it, if there is one; raises ConfigError when it cannot be read or is damaged."""
        self.path = path
        self._floor = self._read()

    @property
    def exists(self) -> bool:
        """Whether this key has ever signed with a journal here."""
        return self._floor is not None

    @property
    def ever(self) -> Mark | None:
        """Everything that this key may have signed lies at or below this (P20)."""
        return None if self._floor is None else self._floor.ever

    @property
    def lost(self) -> Mark | None:
        """What the key had reached with an earlier journal and this one has not: below it the key must stay silent."""
        floor = self._floor
        return None if floor is None or floor.journal == floor.ever else floor.ever

    def check(self, identity: bytes, tip: Height, standing: ViewRecord | None = None) -> None:
        """Whether the key may sign with this journal; raises ConfigError telling the operator what to do.

        `identity` and `tip` are the ledger store's, `standing` is its ViewRecord if it has one.
        """
        floor = self._floor
        if floor is None:
            if tip > 0:
                raise ConfigError(
                    f"sign floor {self.path} is missing, but the journal stands at height {tip}. {_ADVICE}"
                )
            return
        if identity != floor.identity:
            raise ConfigError(
                f"the journal {identity.hex()} is not the one that this key signs with, {floor.identity.hex()}: it was "
                f"emptied, replaced, or belongs to another home. {_ADVICE}"
            )
        if tip < floor.journal.height:
            raise ConfigError(
                f"the journal stands at height {tip}, but had reached {floor.journal.height}: an old copy. {_ADVICE}"
            )
        reached, now = (floor.journal.epoch, floor.journal.view), _rank(standing)
        if now is not None and now < reached:
            raise ConfigError(
                f"the journal stands in epoch {now[0]} view {now[1]}, but had reached epoch {reached[0]} view "
                f"{reached[1]}: an old copy. {_ADVICE}"
            )

    def adopt(self, identity: bytes, tip: Height, standing: ViewRecord | None = None) -> None:
        """Take this journal as the one to sign with: at the first start, or when the operator accepted the risk.

        What the key had reached before is not forgotten: `ever` stays.
        """
        epoch, view = _rank(standing) or (Epoch(0), View(0))
        mark = Mark(tip, epoch, view)
        ever = mark if self._floor is None else self._floor.ever.raised(mark)
        self._write(_Floor(identity, mark, ever))

    def raise_to(self, height: Height, view: View, epoch: Epoch = Epoch(0)) -> None:  # noqa: B008 - a NewType of int
        """Note what is durable in the journal; never goes down. Returns after the file and its folder are synced."""
        assert self._floor is not None, "adopt a journal before raising its floor"
        mark = Mark(height, epoch, view)
        raised = _Floor(self._floor.identity, self._floor.journal.raised(mark), self._floor.ever.raised(mark))
        if raised != self._floor:
            self._write(raised)

    def _read(self) -> _Floor | None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"sign floor {self.path} cannot be read: {error.strerror}. {_ADVICE}") from error
        try:
            return decode(_Floor, unseal(data, "sign floor"), FLOOR_BYTES_MAX)
        except (InvalidInput, StoreError) as error:
            raise ConfigError(f"sign floor {self.path} is damaged: {error}. {_ADVICE}") from error

    def _write(self, floor: _Floor) -> None:
        try:
            _replace(self.path, seal(encode(floor)))
        except OSError as error:
            raise StoreError(f"sign floor {self.path} cannot be written: {error.strerror}") from error
        self._floor = floor


def _rank(standing: ViewRecord | None) -> tuple[Epoch, View] | None:
    return None if standing is None else (standing.epoch, standing.view)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that after a crash either the old or the new content is there, whole."""
    temporary = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
