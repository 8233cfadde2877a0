"""Proof that somebody holds an object: a hash of it under a nonce that nobody knew before (F-09).

The key also names the holder, so the answer of one holder is of no use to another. A holder can still fetch the
object from elsewhere when it is asked: what is proven is that it can have it now, which is what a copy is for.
"""

from hashlib import blake2b

from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import NodeId
from p2pledger.vault.objects import ObjectStore


def answer(nonce: bytes, holder: NodeId, name: bytes, data: bytes) -> bytes:
    """The keyed hash of the object that this holder must answer with."""
    key = blake2b(encode((nonce, holder, name)), digest_size=32, person=b"p2pl/possess/1").digest()
    return blake2b(data, key=key, digest_size=32, person=b"p2pl/possess/1").digest()


def answer_from(store: ObjectStore, nonce: bytes, holder: NodeId, name: bytes) -> bytes | None:
    """What a holder answers out of its store; None where it cannot."""
    try:
        return answer(nonce, holder, name, store.get(name))
    except Rejected:
        return None
