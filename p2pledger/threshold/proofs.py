"""Equal logarithms, proved without showing them (Chaum and Pedersen 1992, non-interactive by Fiat and Shamir 1986).

That log_B(X) = log_U(D) = x, in a context:

1. w = a secret nonce; e = H(context, X, U, D, w·B, w·U); z = w + e·x. The proof is (e, z).
2. It holds if e = H(context, X, U, D, z·B − e·X, z·U − e·D).

The context stands in the hash: a proof that was made for one access says nothing in another.
"""

from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import Bytes32
from p2pledger.threshold.group import (
    Point,
    Random,
    Scalar,
    add,
    as_scalar,
    base_times,
    challenge,
    minus,
    multiply,
    secret_nonce,
    times,
)


class EqualLogs(Record, frozen=True):
    """The proof: challenge and answer."""

    e: Bytes32
    z: Bytes32


def prove_equal_logs(
    secret: Scalar, public: Point, base: Point, image: Point, context: bytes, random: Random
) -> EqualLogs:
    """That `public` = secret·B and `image` = secret·base."""
    w = secret_nonce(secret, encode((context, public, base, image)), random)
    e = _challenge(context, public, base, image, base_times(w), times(w, base))
    return EqualLogs(e, add(w, multiply(e, secret)))


def check_equal_logs(proof: EqualLogs, public: Point, base: Point, image: Point, context: bytes) -> None:
    """Raises ProofError, or InvalidInput for numbers that are no scalars, unless the proof holds."""
    e, z = as_scalar(proof.e), as_scalar(proof.z)
    first = minus(base_times(z), times(e, public))
    second = minus(times(z, base), times(e, image))
    if _challenge(context, public, base, image, first, second) != e:
        raise ProofError(f"{image.hex()} is not proved to be of key {public.hex()}")


def _challenge(context: bytes, public: Point, base: Point, image: Point, first: Point, second: Point) -> Scalar:
    return challenge(Domain.DLEQ, encode((context, public, base, image, first, second)))
