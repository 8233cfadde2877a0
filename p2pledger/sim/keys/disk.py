"""What a validator keeps beside its ledger: small files, each there after a crash if it was synced, else perhaps."""

from random import Random


class Disk:
    """Files by name. `put` and `delete` count only from `sync` on; a crash before it may keep either state."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._waiting: dict[str, bytes | None] = {}

    def get(self, name: str) -> bytes | None:
        """What a running node reads: its own writes, synced or not."""
        return self._waiting[name] if name in self._waiting else self._files.get(name)

    def names(self, prefix: str | tuple[str, ...]) -> list[str]:
        """Of the files that are there for a running node."""
        return sorted(name for name in {*self._files, *self._waiting} if name.startswith(prefix) and self.get(name))

    def put(self, name: str, data: bytes) -> None:
        self._waiting[name] = data

    def delete(self, name: str) -> None:
        self._waiting[name] = None

    def sync(self) -> dict[str, bytes | None]:
        """Make all of it durable; what was made so."""
        done, self._waiting = self._waiting, {}
        for name, data in done.items():
            if data is None:
                self._files.pop(name, None)
            else:
                self._files[name] = data
        return done

    def crash(self, chance: Random) -> dict[str, bytes | None]:
        """Each waiting write becomes durable or is lost, by chance; those that did."""
        self._waiting = {name: data for name, data in self._waiting.items() if chance.random() < 0.5}
        return self.sync()

    def copy(self) -> dict[str, bytes]:
        """A backup of the durable files."""
        return dict(self._files)

    def restore(self, backup: dict[str, bytes], prefixes: tuple[str, ...]) -> None:
        """Put the files with these prefixes back to what they were."""
        kept = {name: data for name, data in self._files.items() if not name.startswith(prefixes)}
        self._files = kept | {name: data for name, data in backup.items() if name.startswith(prefixes)}
        self._waiting.clear()
