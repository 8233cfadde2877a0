"""What a reader keeps of an access between asking and reading: the ephemeral key, and what opens the scope.

A ticket opens, with the shares of t validators, whatever was released to its key. It lies in a file of its own of mode
0600 from before the request is sent (an access that is on the log and that nobody can use would be worse) until the
records have been read. Deleting unlinks the file; what the disk keeps of freed blocks is beyond us.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from p2pledger.health.commitments import RecordRef
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import Bytes16, Bytes32, ChainId, Millis
from p2pledger.storage.files import create_private, make_private_folder, read_private, sync_folder
from p2pledger.threshold import key_release
from p2pledger.threshold.sealing import BoxSecret

_BYTES_MAX = 64 * limits.FHIR_ENTRIES_MAX


class Ticket(Record, frozen=True):
    """One access, as its reader needs it to read."""

    chain: ChainId
    access_id: Bytes16
    pid: Bytes16
    custodian: Bytes16
    salt: Bytes32
    """Opens the scope."""
    secret: Bytes32
    """Of the ephemeral X25519 key."""
    scope: Annotated[tuple[RecordRef, ...], Meta(min_length=1, max_length=limits.FHIR_ENTRIES_MAX)]
    not_after_ms: Millis

    def __repr__(self) -> str:
        return f"Ticket({self.access_id.hex()}, {len(self.scope)} records)"

    __str__ = __repr__

    @property
    def key(self) -> BoxSecret:
        return BoxSecret(self.secret)

    @property
    def access(self) -> key_release.Access:
        return key_release.Access(self.access_id, self.key.public)


class Tickets:
    """The tickets of one reader, in a folder nobody else may enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Tickets({self._folder})"

    def keep(self, ticket: Ticket) -> None:
        """Durable when this returns. Raises ConfigError where the folder is not ours alone, StoreError."""
        make_private_folder(self._folder)
        create_private(self._path(ticket.access_id), encode(ticket))

    def load(self, access_id: bytes) -> Ticket:
        """Raises Rejected(E_NOT_FOUND), InvalidInput for a file that is no ticket, ConfigError."""
        try:
            data = read_private(self._path(access_id), _BYTES_MAX)
        except FileNotFoundError as error:
            raise Rejected(
                Code.E_NOT_FOUND, f"{self._folder} has no ticket of access {access_id.hex()}: ask for access anew"
            ) from error
        return decode(Ticket, data, _BYTES_MAX)

    def all(self) -> list[Ticket]:
        """Those that are there, by access."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.name for path in self._folder.iterdir() if len(path.name) == 32)
        return [self.load(bytes.fromhex(name)) for name in names]

    def forget(self, access_id: bytes) -> None:
        """Nothing of what was released to this access can be opened any more. No error where it is not there."""
        try:
            self._path(access_id).unlink(missing_ok=True)
        except OSError as error:
            raise InvalidInput(f"{self._path(access_id)} cannot be deleted: {error.strerror}") from error
        if self._folder.is_dir():
            sync_folder(self._folder)

    def _path(self, access_id: bytes) -> Path:
        return self._folder / access_id.hex()
