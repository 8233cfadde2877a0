"""The door of the group: what is let in, and what adversaries' arithmetic ends in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.threshold import group
from p2pledger.threshold.group import as_point, as_point_times, as_scalar, base_times, public_scalar, scalar_from

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]
NON_CANONICAL = [P.to_bytes(32, "little"), (P + 1).to_bytes(32, "little"), b"\xff" * 32]
scalars = st.binary(min_size=64, max_size=64).filter(any).map(scalar_from)


@pytest.mark.parametrize("data", [*SMALL_ORDER, *NON_CANONICAL, b"", bytes(31), b"\x02" * 32], ids=bytes.hex)
def test_only_canonical_points_of_the_group_enter(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="prime-order"):
        as_point(data)


@given(scalars)
def test_a_point_with_a_component_of_small_order_does_not_enter(scalar: group.Scalar) -> None:
    """Which the group order would not send to the identity: a holder's answer would show its share modulo 8."""
    from nacl.bindings import crypto_core_ed25519_add

    for torsion in SMALL_ORDER[2:]:
        with pytest.raises(InvalidInput):
            as_point(crypto_core_ed25519_add(base_times(scalar), torsion))


@given(scalars, scalars)
def test_what_is_multiplied_at_once_enters_by_the_same_rules(scalar: group.Scalar, factor: group.Scalar) -> None:
    """All eight points of small order, alone and added to a good one: the product refuses what the check does."""
    from nacl.bindings import crypto_core_ed25519_add

    good, torsion, seen = base_times(scalar), SMALL_ORDER[3], set()
    while torsion not in seen:
        seen.add(torsion)
        strange = [torsion, crypto_core_ed25519_add(good, torsion), *NON_CANONICAL, b"", bytes(31), good + b"\0"]
        for data in strange:
            if data != good:
                with pytest.raises(InvalidInput, match="prime-order"):
                    as_point_times(data, factor)
        torsion = crypto_core_ed25519_add(torsion, SMALL_ORDER[3])
    assert len(seen) == 8
    assert as_point_times(good, factor) == (good, group.times(factor, good))


@pytest.mark.parametrize("value", [0, ORDER, ORDER + 1, 2**256 - 1])
def test_only_canonical_scalars_other_than_zero_enter(value: int) -> None:
    with pytest.raises(InvalidInput, match="scalar"):
        as_scalar(value.to_bytes(32, "little"))


def test_scalars_of_other_lengths_do_not_enter() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(InvalidInput):
            as_scalar(b"\x01" * size)
    for size in (32, 63, 65):
        with pytest.raises(InvalidInput):
            scalar_from(b"\x01" * size)
    with pytest.raises(InvalidInput):
        scalar_from(bytes(64))


@given(scalars, scalars)
def test_arithmetic_is_that_of_integers_modulo_the_order(a: group.Scalar, b: group.Scalar) -> None:
    x, y = int.from_bytes(a, "little"), int.from_bytes(b, "little")
    assert int.from_bytes(group.multiply(a, b), "little") == x * y % ORDER
    assert int.from_bytes(group.divide(a, b), "little") == x * pow(y, -1, ORDER) % ORDER
    assert group.times(a, base_times(b)) == base_times(group.multiply(a, b))
    if x != y:
        assert int.from_bytes(group.subtract(a, b), "little") == (x - y) % ORDER
        assert group.minus(base_times(a), base_times(b)) == base_times(group.subtract(a, b))


def test_what_cancels_out_is_a_proof_error_and_never_the_librarys_own() -> None:
    one, two = public_scalar(1), public_scalar(2)
    point = base_times(two)
    minus_one = group.subtract(one, two)
    for attempt in (
        lambda: group.minus(point, point),
        lambda: group.plus(base_times(one), base_times(minus_one)),
        lambda: group.subtract(two, two),
        lambda: group.add(one, minus_one),
        lambda: group.times(one, group.Point(SMALL_ORDER[0])),
    ):
        with pytest.raises(ProofError):
            attempt()


def test_an_index_is_at_least_one() -> None:
    """Index 0 would be the secret itself."""
    for index in (0, -1, 2**32):
        with pytest.raises(InvalidInput):
            public_scalar(index)


def test_one_nonce_for_each_statement_even_if_randomness_repeats() -> None:
    def stuck(size: int) -> bytes:
        return bytes(size)

    secret = base_times(public_scalar(7))
    nonces = {group.secret_nonce(secret, statement, stuck) for statement in (b"a", b"b", b"c")}
    assert len(nonces) == 3
