"""A joint key whose shares one test holds all of: what readers and writers are tested with, without a ceremony."""

from p2pledger.primitives.crypto import sha256
from p2pledger.threshold.group import random_scalar
from p2pledger.threshold.long_term import JointKey, LongTerm, LongTermHolder
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sharing import Polynomial


def shared_key(n: int, key_epoch: int = 1) -> tuple[LongTerm, list[LongTermHolder]]:
    """The key and its n holders, of whom n - f open a capsule; the same ones each time."""
    random = seeded(sha256(b"joint key of %d, epoch %d" % (n, key_epoch)))
    polynomial = Polynomial.through(random_scalar(random), n - (n - 1) // 3, random)
    release = LongTerm(JointKey(key_epoch, 0, n, polynomial.commitments()))
    return release, [LongTermHolder(release, index, polynomial.at(index)) for index in release.holders]
