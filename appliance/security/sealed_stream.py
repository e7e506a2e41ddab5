"""A stream of bytes, encrypted in pieces, of which none can be changed, moved, cut or left out.

Each piece is AES-256-GCM under a key of this stream alone. Its nonce is a random prefix, its number
and whether it is the last (the construction "STREAM" of Hoang, Reyhanitabar, Rogaway and Vizár,
2015); the stream's head is authenticated with every piece.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from appliance.security.errors import SealBroken

PIECE_BYTES: Final = 1024 * 1024
PREFIX_BYTES: Final = 7
SALT_BYTES: Final = 32
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
# RFC 7914's parameters at 128 MiB: a fraction of a second here, and dear to guess with.
SCRYPT_N: Final = 2**17
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1


def key_of_passphrase(passphrase: str, salt: bytes, n: int = SCRYPT_N) -> bytes:
    """The stream's key of what a person remembers. Takes about 0.4 s by intention."""
    kdf = Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=_SCRYPT_R, p=_SCRYPT_P)
    return kdf.derive(passphrase.encode())


def key_of_secret(secret: bytes, salt: bytes) -> bytes:
    """The stream's key of a site's secret of 32 bytes."""
    return HKDF(SHA256(), _KEY_BYTES, salt, b"crosslogic backup 1").derive(secret)


def encrypt(key: bytes, head: bytes, prefix: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """`pieces` of any size become pieces of the stream. Not more than 2**32 of them."""
    cipher, bound = AESGCM(key), hashlib.sha256(head).digest()
    waiting = bytearray()
    number = 0
    for piece in pieces:
        waiting += piece
        while len(waiting) > PIECE_BYTES:
            yield cipher.encrypt(_nonce(prefix, number, 0), bytes(waiting[:PIECE_BYTES]), bound)
            del waiting[:PIECE_BYTES]
            number += 1
    yield cipher.encrypt(_nonce(prefix, number, 1), bytes(waiting), bound)


def decrypt(key: bytes, head: bytes, prefix: bytes, source: BinaryIO) -> Iterator[bytes]:
    """What was encrypted, to its end. Raises SealBroken at the first piece that is not right.

    A wrong key, a changed byte, a cut and something appended all look alike: nobody can tell.
    """
    cipher, bound = AESGCM(key), hashlib.sha256(head).digest()
    whole = PIECE_BYTES + _TAG_BYTES
    number = 0
    piece = source.read(whole)
    while True:
        following = source.read(whole) if len(piece) == whole else b""
        last = not following
        try:
            yield cipher.decrypt(_nonce(prefix, number, int(last)), piece, bound)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                "It cannot be decrypted: another key or passphrase made it, or it is damaged.",
                next_step="Try the key or passphrase it was made with; else take another copy.",
            ) from error
        if last:
            return
        piece = following
        number += 1


def _nonce(prefix: bytes, number: int, last: int) -> bytes:
    return prefix + struct.pack(">IB", number, last)
