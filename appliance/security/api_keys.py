"""API keys: `clsk_live_` or `clsk_test_`, 30 random base62 digits, 6 base62 digits of checksum.

- Digits: `0-9A-Za-z` in this order, worth 0 to 61. Thirty of them hold 178 random bits.
- Checksum: CRC-32 (the polynomial of zlib and PNG) over the ASCII bytes of everything before it,
  prefix included, as a number in base 62, most significant digit first, padded with `0` to six.
- CRC-32 finds every change of neighbouring characters up to four, so each single typing mistake
  and each swap of neighbours in the random part is refused before any lookup.

Keys are random, so a fast keyed hash keeps them: a stolen registry without the pepper yields
nothing to try guesses against.
"""

import hmac
import os
import re
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Final

LIVE_PREFIX: Final = "clsk_live_"
TEST_PREFIX: Final = "clsk_test_"
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_DIGITS: Final = 30
CHECKSUM_DIGITS: Final = 6
_FORM: Final = re.compile(r"clsk_(?:live|test)_[0-9A-Za-z]{36}")
_BLOCK_BYTES: Final = 64  # of SHA-256
_SHOWN_CHARS: Final = len(LIVE_PREFIX) + 4


def new_key(*, test: bool = False, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh key. `entropy(n)` gives n random bytes."""
    # 256 bits taken modulo 62^30 (178 bits) leave a bias below 2^-77.
    number = int.from_bytes(entropy(32), "big")
    body = (TEST_PREFIX if test else LIVE_PREFIX) + _base62(number, RANDOM_DIGITS)
    return body + checksum(body)


def checksum(body: str) -> str:
    """The six digits that follow `body` (prefix and random digits) in a key."""
    return _base62(zlib.crc32(body.encode("ascii")), CHECKSUM_DIGITS)


def well_formed(text: str) -> bool:
    """Whether `text` can be a key at all: form and checksum. Says nothing of who owns it."""
    return (
        _FORM.fullmatch(text) is not None
        and checksum(text[:-CHECKSUM_DIGITS]) == text[-CHECKSUM_DIGITS:]
    )


def digest(pepper: bytes, key: str) -> bytes:
    """What is stored and looked up in place of the key: HMAC-SHA256(pepper, key), 32 bytes."""
    return hmac.digest(pepper, key.encode("utf-8"), "sha256")


def digester(pepper: bytes) -> Callable[[str], bytes]:
    """`digest` for one pepper, three times as quick: made once, called for every request.

    The two halves of HMAC (RFC 2104) start from states that depend on the pepper alone. Short
    updates of hashlib also keep the interpreter's lock, which `hmac.digest` gives away.
    """
    block = (pepper if len(pepper) <= _BLOCK_BYTES else sha256(pepper).digest()).ljust(
        _BLOCK_BYTES, b"\0"
    )
    inner_start = sha256(bytes(byte ^ 0x36 for byte in block))
    outer_start = sha256(bytes(byte ^ 0x5C for byte in block))

    def digest_of(key: str) -> bytes:
        inner, outer = inner_start.copy(), outer_start.copy()
        inner.update(key.encode("utf-8"))
        outer.update(inner.digest())
        return outer.digest()

    return digest_of


def prefix_for_people(key: str) -> str:
    """Enough to tell a key from others in a list, too little to use: `clsk_live_Ab12…`."""
    return f"{key[:_SHOWN_CHARS]}…"


def _base62(number: int, digits: int) -> str:
    """The lowest `digits` digits of `number` in base 62."""
    text = []
    for _ in range(digits):
        number, rest = divmod(number, 62)
        text.append(DIGITS[rest])
    return "".join(reversed(text))
