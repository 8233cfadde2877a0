"""The same secret in new shares: for a new set of holders, or for the same set at regular times (proactive refresh).

1. Old holder i deals a polynomial f_i with f_i(0) = x_i; everybody checks C_i0 = X_i, so nobody deals another secret.
2. S is a set of exactly t qualified old holders, the same for all: those with the lowest indices.
3. The new share of j is x'_j = Σ_{i∈S} λ_i·f_i(j), and the new joint commitments are A_k = Σ_{i∈S} λ_i·C_ik.

So A_0 = Σ λ_i·X_i = X: capsules stay good. x'_j lies on another polynomial, so old and new shares do not combine, and
who collects t − 1 shares before a refresh and t − 1 after it knows nothing (Herzberg et al. 1995; Desmedt and Jajodia
1997). That holds only if old shares are deleted, which no protocol can prove.
"""

from collections.abc import Collection, Mapping, Sequence

from p2pledger.primitives.errors import ProofError
from p2pledger.threshold.group import Point, Scalar, add, multiply, plus, times
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.sharing import lagrange


def check_origin(source: LongTerm, dealer: int, commitments: Sequence[Point]) -> None:
    """Raises ProofError unless what is dealt is the dealer's own share of the source."""
    if commitments[0] != source.public_share(dealer):
        raise ProofError(f"dealer {dealer} deals another secret than its share of key epoch {source.key.key_epoch}")


def selected(qualified: Collection[int], threshold: int) -> tuple[int, ...]:
    """S: as many as are needed, those with the lowest indices."""
    return tuple(sorted(qualified)[:threshold])


def new_commitments(dealt: Mapping[int, Sequence[Point]]) -> tuple[Point, ...]:
    """A_k from the commitments of S; raises ProofError where one is the identity."""
    coefficients = lagrange(tuple(dealt))
    parts = [[times(coefficients[dealer], point) for point in points] for dealer, points in dealt.items()]
    return added(parts)


def new_share(dealt: Mapping[int, Scalar]) -> Scalar:
    """x'_j from the sub-shares of S for j."""
    coefficients = lagrange(tuple(dealt))
    return added_scalars([multiply(coefficients[dealer], share) for dealer, share in dealt.items()])


def added(vectors: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """The sum of vectors of points, place by place; raises ProofError where one is the identity."""
    first, *rest = vectors
    sums = list(first)
    for vector in rest:
        sums = [plus(a, b) for a, b in zip(sums, vector, strict=True)]
    return tuple(sums)


def added_scalars(scalars: Sequence[Scalar]) -> Scalar:
    """Their sum."""
    value, *rest = scalars
    for scalar in rest:
        value = add(value, scalar)
    return value
