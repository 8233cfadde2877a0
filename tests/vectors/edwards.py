"""Ed25519's group in Python integers: slow, plain, and sharing no code with what it checks (RFC 8032, section 5.1)."""

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Pair = tuple[int, int]
IDENTITY: Pair = (0, 1)


def decode(data: bytes) -> Pair:
    """The point with this encoding; asserts that it is on the curve and canonical."""
    number = int.from_bytes(data, "little")
    y, sign = number & (2**255 - 1), number >> 255
    assert y < P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (P - x if x & 1 != sign else x), y


def encode(point: Pair) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def add(a: Pair, b: Pair) -> Pair:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
    return x, y


def times(scalar: int, point: Pair) -> Pair:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def negative(point: Pair) -> Pair:
    return P - point[0], point[1]


BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
