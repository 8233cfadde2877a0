"""A validator's deposit keys, each in a small file of its own: `deposit-1`, 0600 in a 0700 folder.

Unlike shares they are never replaced and never erased: what was sealed to a key waits for it for ever. So they belong
into the backup of a member's keys.
"""

import re
from pathlib import Path

from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import InvalidInput, StoreError
from p2pledger.primitives.ids import U64, Bytes32, ChainId, NodeId
from p2pledger.storage.environment import seal, unseal
from p2pledger.storage.files import create_private, erase_private, make_private_folder, read_private

_FILE_BYTES_MAX = 512
_NAME = re.compile(r"deposit-([0-9]{1,9})")


class _Kept(Record, frozen=True):
    chain: ChainId
    node: NodeId
    number: U64
    secret: Bytes32


class DepositFiles:
    """The folder of one node of one chain."""

    def __init__(self, folder: Path, chain: ChainId, node: NodeId) -> None:
        """Make the folder if there is none; raises ConfigError where others can look into it."""
        make_private_folder(folder)
        self.folder = folder
        self._chain = chain
        self._node = node

    def load(self) -> dict[int, bytes]:
        """All keys by number. What a crash left half written is erased.

        Raises StoreError for a damaged or foreign one, ConfigError for one that others can read.
        """
        found = {}
        for path in sorted(self.folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if path.name.startswith("."):
                erase_private(path)
            elif match is not None:
                found[int(match[1])] = self._read(path, int(match[1]))
        return found

    def write(self, number: int, secret: bytes) -> None:
        """Durable when this returns; raises StoreError, InvalidInput where there is one of this number."""
        kept = _Kept(self._chain, self._node, number, Bytes32(secret))
        create_private(self.folder / f"deposit-{number}", seal(encode(kept)))

    def _read(self, path: Path, number: int) -> bytes:
        try:
            kept = decode(_Kept, unseal(read_private(path, _FILE_BYTES_MAX), str(path)), _FILE_BYTES_MAX)
        except InvalidInput as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if (kept.chain, kept.node, kept.number) != (self._chain, self._node, number):
            raise StoreError(f"{path} is deposit key {kept.number} of node {kept.node.hex()}, chain {kept.chain.hex()}")
        return kept.secret
