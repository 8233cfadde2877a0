"""A validator's seeds and shares, each in a small file of its own, and what its operator wishes to be begun.

    seed-1-0-0  share-1-0-0   kind, key epoch, share epoch, attempt; 0600 in a 0700 folder
    wish-1-1                  key epoch, share epoch; written by 'p2pledger sharing', removed by the node

Not in the state store and not in the ledger: a store keeps what was deleted in its freed pages and its copies, and an
old share must be gone once there are new ones (I-10). How far a file can be erased is said in `files.erase_private`.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from p2pledger.health.key_keeper import SecretName, Wish
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import InvalidInput, StoreError
from p2pledger.primitives.ids import Bytes32, ChainId, NodeId
from p2pledger.storage.environment import seal, unseal
from p2pledger.storage.files import erase_private, make_private_folder, put_private, read_private, sync_folder
from p2pledger.threshold.dkg import CeremonyId

_FILE_BYTES_MAX = 512
_SECRET = re.compile(r"(seed|share)-([0-9]{1,19})-([0-9]{1,19})-([0-9]{1,19})")
_WISH = re.compile(r"wish-([0-9]{1,19})-([0-9]{1,19})")


class _Kept(Record, frozen=True):
    chain: ChainId
    node: NodeId
    name: SecretName
    secret: Bytes32


class ShareFiles:
    """The folder of one node of one chain."""

    def __init__(self, folder: Path, chain: ChainId, node: NodeId) -> None:
        """Make the folder if there is none; raises ConfigError where others can look into it."""
        make_private_folder(folder)
        self.folder = folder
        self._chain = chain
        self._node = node

    def load(self) -> dict[SecretName, bytes]:
        """All secrets. What a crash left half written is erased.

        Raises StoreError for a damaged or foreign one, ConfigError for one that others can read.
        """
        found = {}
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith("."):
                erase_private(path)
            elif (name := _named(path.name)) is not None:
                found[name] = self._read(path, name)
        return found

    def write(self, name: SecretName, secret: bytes) -> None:
        """Durable when this returns; raises StoreError."""
        path = self.folder / str(name)
        erase_private(path)  # a rename would leave the old bytes on the medium
        put_private(path, seal(encode(_Kept(self._chain, self._node, name, Bytes32(secret)))))
        sync_folder(self.folder)

    def erase(self, name: SecretName) -> None:
        """Raises StoreError: a share that cannot be deleted is a reason to stop."""
        erase_private(self.folder / str(name))

    def names(self) -> list[SecretName]:
        """Of the secrets that lie here; nothing is read or changed, so a node may run meanwhile."""
        return [name for path in sorted(self.folder.iterdir()) if (name := _named(path.name)) is not None]

    def _read(self, path: Path, name: SecretName) -> bytes:
        try:
            kept = decode(_Kept, unseal(read_private(path, _FILE_BYTES_MAX), str(path)), _FILE_BYTES_MAX)
        except InvalidInput as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if (kept.chain, kept.node, kept.name) != (self._chain, self._node, name):
            raise StoreError(f"{path} is the secret {kept.name} of node {kept.node.hex()}, chain {kept.chain.hex()}")
        return kept.secret

    # Wishes

    def wishes(self) -> set[Wish]:
        """What the operator wants begun."""
        matches = (_WISH.fullmatch(name) for name in os.listdir(self.folder))
        return {Wish(int(match[1]), int(match[2])) for match in matches if match is not None}

    def wish(self, wish: Wish) -> None:
        """Durable when this returns; a node that runs or starts on this home takes it up. Raises StoreError."""
        put_private(self.folder / str(wish), b"")
        sync_folder(self.folder)

    def drop(self, wish: Wish) -> None:
        """It stands no longer."""
        with suppress(FileNotFoundError):
            (self.folder / str(wish)).unlink()


def _named(text: str) -> SecretName | None:
    match = _SECRET.fullmatch(text)
    if match is None:
        return None
    key_epoch, share_epoch, attempt = (int(number) for number in match.groups()[1:])
    return SecretName("seed" if match[1] == "seed" else "share", CeremonyId(key_epoch, share_epoch, attempt))
