"""The prime-order group of Ed25519, as libsodium computes in it: the only place that calls its point arithmetic.

Every value that enters is checked once, at `as_point`, `as_point_times` or `as_scalar`: canonical, in the prime-order
group, neither the identity nor zero. What goes wrong after that (a sum that cancels out, a product that is the
identity) is the doing of whoever chose the values, so it is a ProofError and never libsodium's own RuntimeError.
Secret scalars are bytes from beginning to end: Python's integers take a time that depends on their value. (Python
cannot wipe memory; who can read the memory of a process can read its secrets.) Only `_noclamp` multiplication is
used: clamping is no arithmetic.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import NewType, TypeAlias

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_from_uniform,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_invert,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_scalar_sub,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import RuntimeError as SodiumError

from p2pledger.primitives.crypto import Domain, tagged_hash, wide_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import Bytes32

Point = NewType("Point", Bytes32)
"""A checked element of the prime-order group other than the identity."""
Scalar = NewType("Scalar", Bytes32)
"""A canonical integer from 1 to the group order less one, little-endian."""
Random: TypeAlias = Callable[[int], bytes]
"""That many fresh random bytes. The edge passes the system's; a test passes a seeded one."""

_ZERO = bytes(32)
_ONE = b"\x01" + bytes(31)


def as_point(data: bytes) -> Point:
    """The point with this encoding; raises InvalidInput for anything but a canonical point of the group.

    The identity, points of small order, and sums of them with good points are refused.
    """
    if len(data) != 32 or not crypto_core_ed25519_is_valid_point(data):
        raise InvalidInput(f"{data.hex()} is not a point of the prime-order group")
    return Point(data)


def as_point_times(data: bytes, scalar: Scalar) -> tuple[Point, Point]:
    """The point with this encoding, and scalar times it; raises InvalidInput as `as_point` does.

    For what comes from outside and is multiplied at once: libsodium's `crypto_scalarmult_ed25519_noclamp` itself makes
    the four checks of `crypto_core_ed25519_is_valid_point` (canonical, on the curve, of no small order, in the
    prime-order group) before it multiplies, and making them twice costs as much as the product.
    """
    point = Point(data) if len(data) == 32 else as_point(data)
    try:
        return point, times(scalar, point)
    except ProofError:
        as_point(data)  # says what is wrong with it
        raise


def as_scalar(data: bytes) -> Scalar:
    """The scalar with this encoding; raises InvalidInput unless it is canonical and not zero."""
    if len(data) != 32 or data == _ZERO or crypto_core_ed25519_scalar_reduce(data + bytes(32)) != data:
        raise InvalidInput(f"{len(data)} bytes are not a scalar between 1 and the group order")
    return Scalar(data)


def scalar_from(uniform: bytes) -> Scalar:
    """The scalar of 64 uniform bytes; raises InvalidInput where they reduce to zero, which randomness never does."""
    if len(uniform) != 64:
        raise InvalidInput(f"{len(uniform)} bytes cannot be reduced to a uniform scalar; 64 can")
    reduced = crypto_core_ed25519_scalar_reduce(uniform)
    if reduced == _ZERO:
        raise InvalidInput("64 bytes that reduce to the scalar zero")
    return Scalar(reduced)


def random_scalar(random: Random) -> Scalar:
    """A secret scalar."""
    return scalar_from(random(64))


def public_scalar(index: int) -> Scalar:
    """A small public number, such as the index of a seat, as a scalar; raises InvalidInput unless 1 or more."""
    if not 0 < index < 2**32:
        raise InvalidInput(f"index {index} is not between 1 and 2**32 - 1")
    return Scalar(index.to_bytes(32, "little"))


def challenge(domain: Domain, data: bytes) -> Scalar:
    """The challenge of a proof: a scalar that nobody can choose."""
    return scalar_from(wide_hash(domain, data))


def secret_nonce(secret: bytes, statement: bytes, random: Random) -> Scalar:
    """The secret scalar of one proof, from secret, statement and fresh randomness together.

    Should the randomness ever repeat, two statements still get two nonces, and the secret stays one.
    """
    return scalar_from(wide_hash(Domain.SECRET_NONCE, random(32) + statement, key=secret))


def add(a: Scalar, b: Scalar) -> Scalar:
    """a + b; raises ProofError where it is zero."""
    return _not_zero(crypto_core_ed25519_scalar_add(a, b))


def subtract(a: Scalar, b: Scalar) -> Scalar:
    """a − b; raises ProofError where they are equal."""
    return _not_zero(crypto_core_ed25519_scalar_sub(a, b))


def multiply(a: Scalar, b: Scalar) -> Scalar:
    """a · b."""
    return _not_zero(crypto_core_ed25519_scalar_mul(a, b))


def divide(a: Scalar, b: Scalar) -> Scalar:
    """a / b."""
    return multiply(a, Scalar(crypto_core_ed25519_scalar_invert(b)))


def _not_zero(scalar: bytes) -> Scalar:
    if scalar == _ZERO:
        raise ProofError("scalars that cancel each other out")
    return Scalar(scalar)


def base_times(scalar: Scalar) -> Point:
    """scalar · B."""
    return Point(crypto_scalarmult_ed25519_base_noclamp(scalar))


def times(scalar: Scalar, point: Point) -> Point:
    """scalar · point; raises ProofError where libsodium refuses either."""
    try:
        return Point(crypto_scalarmult_ed25519_noclamp(scalar, point))
    except SodiumError as error:
        raise ProofError(f"a product with {point.hex()} that is not in the group") from error


def plus(a: Point, b: Point) -> Point:
    """a + b; raises ProofError where it is the identity."""
    return _not_identity(crypto_core_ed25519_add(a, b))


def minus(a: Point, b: Point) -> Point:
    """a − b; raises ProofError where they are equal."""
    return _not_identity(crypto_core_ed25519_sub(a, b))


def total(points: Iterable[Point]) -> Point:
    """The sum of points, at least one; raises ProofError where it is the identity on the way."""
    return reduce(plus, points)


def _not_identity(point: bytes) -> Point:
    if point == _ONE:  # as a point this encodes the identity
        raise ProofError("points that cancel each other out")
    return Point(point)


SECOND_GENERATOR = Point(crypto_core_ed25519_from_uniform(tagged_hash(Domain.GENERATOR, b"capsule")))
"""A point whose logarithm to the base B nobody knows: hashed to the curve, cofactor cleared."""
