"""Verifies Ed25519ph signatures (RFC 8032 5.1) over a SHA-512 digest, which no dependency can do.

Verification handles public values only, so nothing here needs constant time.
"""

from hashlib import sha512
from typing import Final

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1: Final = pow(2, (_P - 1) // 4, _P)
# RFC 8032 5.1: "dom2(x, y) … The octet string 'SigEd25519 no Ed25519 collisions' || octet(x) || octet(OLEN(y)) || y"
DOMAIN: Final = b"SigEd25519 no Ed25519 collisions\x01\x00"
_SIZE: Final = 32

_Point = tuple[int, int, int, int]  # extended homogeneous coordinates, RFC 8032 5.1.4


def verify_ed25519ph(key: bytes, signature: bytes, digest: bytes) -> bool:
    """True if the key (32 bytes, raw) made the signature (64 bytes) over a SHA-512 digest."""
    point = _decode(key)
    if point is None or len(signature) != 2 * _SIZE:
        return False
    scalar = int.from_bytes(signature[_SIZE:], "little")
    if scalar >= _ORDER:
        return False
    hashed = sha512(DOMAIN + signature[:_SIZE] + key + digest).digest()
    challenge = int.from_bytes(hashed, "little") % _ORDER
    x, y, z, t = point
    minus = (_P - x) % _P, y, z, (_P - t) % _P
    return _encode(_add(_times(scalar, _BASE), _times(challenge, minus))) == signature[:_SIZE]


def _add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c, d = 2 * one[3] * other[3] * _D % _P, 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    total: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _encode(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(_SIZE, "little")


def _decode(raw: bytes) -> _Point | None:
    if len(raw) != _SIZE:
        return None
    number = int.from_bytes(raw, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_1 % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


# RFC 8032 5.1: the coordinates of B
_BASE_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y: Final = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_BASE: Final = _BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P
