"""Whether a state store still holds what the chain says: every value against the tree, and the tree against its root.

LMDB has no page checksums and state values carry no hash of their own (T31). A state flushed with its tree makes it
possible: each value's hash is a leaf, so a changed, lost or added row anywhere is found. It reads everything, some
ten seconds for a million keys, so it is for an operator's check and after a doubtful restart, not for every start.
"""

from p2pledger.engine.ports import StateSnapshot
from p2pledger.primitives.errors import StoreError
from p2pledger.state.tree import BUCKETS, bucket_of, bucket_pairs, key_hash, rebuilt_root, value_hash


def audit_state(snapshot: StateSnapshot, root: bytes) -> int:
    """The number of keys, all of which are under `root`; raises StoreError at the first that is not.

    `root` comes from the header that carries the state root of the snapshot's height, or from the stored tree.
    """
    found = rebuilt_root(snapshot.tree)
    if found != root:
        raise StoreError(f"the tree of height {snapshot.height} has root {found.hex()}, not {root.hex()}")
    keys = 0
    for key, value in snapshot.scan(b""):
        keys += 1
        hashed = key_hash(key)
        if bucket_pairs(snapshot.tree, bucket_of(hashed)).get(hashed) != value_hash(value):
            raise StoreError(f"the value at state key {key.hex()} is damaged: the tree has another hash for it")
    leaves = sum(len(bucket_pairs(snapshot.tree, bucket)) for bucket in range(BUCKETS))
    if leaves != keys:
        raise StoreError(f"the state of height {snapshot.height} has {keys} keys, but its tree has {leaves}")
    return keys
