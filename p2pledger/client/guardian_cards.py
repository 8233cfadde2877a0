"""Copies of guardians' cards that a custodian keeps for its patients, in its home: for who has lost every other one.

A card opens nothing of a record and names none. It has the patient's pids and, in a capsule, the secrets of old box
keys, so whoever erases a patient's records is told that one is here; it is deleted by hand, when nobody will recover.
"""

import os
from pathlib import Path

from p2pledger.client.guardians import GuardianCard
from p2pledger.primitives.errors import InvalidInput
from p2pledger.storage.files import create_private, make_private_folder, sync_folder


class GuardianCards:
    """The folder of one custodian."""

    def __init__(self, root: Path, organisation: bytes) -> None:
        self._root, self._organisation = root, organisation

    def keep(self, card: GuardianCard) -> list[Path]:
        """Keep the copy under each pid that the card has here, in the place of an older one; durable when it returns.

        Raises InvalidInput for a guardian's own card, and for one that is about no patient of this custodian.
        """
        if any(place.guardian is not None for place in card.places):
            raise InvalidInput("this card is a guardian's own; custodians keep copy.card, which is nobody's")
        own = [place.pid for place in card.places if place.organisation == self._organisation]
        if not own:
            raise InvalidInput("this card is about no patient of this custodian")
        make_private_folder(self._root)
        for pid in own:
            fresh = self._root / f"{pid.hex()}.new"
            fresh.unlink(missing_ok=True)
            create_private(fresh, card.dump().encode())
            os.replace(fresh, self._path(pid))
        sync_folder(self._root)
        return [self._path(pid) for pid in own]

    def of(self, pid: bytes) -> Path | None:
        """Where the copy about a patient lies."""
        path = self._path(pid)
        return path if path.is_file() else None

    def _path(self, pid: bytes) -> Path:
        return self._root / f"{pid.hex()}.card"
