"""Ed25519 keys: what signs manifests on a site, and receipts and entitlements at the vendor.

- A private key is its 32-byte seed (RFC 8032), kept in a secret file of its own.
- A public key travels as PEM (SubjectPublicKeyInfo, RFC 8410); its id is the SHA-256 of that
  structure's DER, as 64 hex digits, the `keyid` of every envelope.
"""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from appliance.security.errors import BadPublicKey
from appliance.security.secrets import SECRET_BYTES, read_secret, write_secret

PEM_BYTES_MAX: Final = 4_096

# The points of small order, and the two other ways to write some of them, without the sign bit. A
# signature for such a key holds for nearly every message, so its owner could deny what he signed.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class PublicKey:
    """A key that verifies. Equal when the key is the same."""

    __slots__ = ("_key", "key_id", "pem", "raw")

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.pem: str = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id: str = sha256(der).hexdigest()
        self.raw: bytes = key.public_bytes_raw()  # the 32 bytes of RFC 8032

    @classmethod
    def from_pem(cls, text: str | bytes) -> "PublicKey":
        """Raises BadPublicKey when the text is no PEM of an Ed25519 key."""
        raw = text.encode() if isinstance(text, str) else text
        try:
            key = load_pem_public_key(raw[:PEM_BYTES_MAX])
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadPublicKey(
                f"This is no public key: {error}.",
                next_step="Give the PEM file that `cic manifest public-key` printed.",
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise BadPublicKey("The public key is not an Ed25519 key.", next_step="Give another.")
        encoded = key.public_bytes_raw()
        if encoded[:-1] + bytes([encoded[-1] & 0x7F]) in _SMALL_ORDER:
            raise BadPublicKey(
                "With this public key anybody can make signatures: it is no real one.",
                next_step="Make a new key.",
            )
        return cls(key)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this key signed exactly these bytes."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.key_id == self.key_id

    def __hash__(self) -> int:
        return hash(self.key_id)


class SigningKey:
    """A key that signs. `repr` shows its id alone."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 secret random bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key())

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message gives the same signature."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


def ensure_signing_key(path: Path, entropy: Callable[[int], bytes] = os.urandom) -> SigningKey:
    """The key at `path`, made first when there is none. Raises SecurityError."""
    if not path.exists():
        write_secret(path, entropy(SECRET_BYTES))
    return load_signing_key(path)


def load_signing_key(path: Path) -> SigningKey:
    """Raises SecretMissing, SecretExposed or SecretDamaged, naming the file."""
    return SigningKey(read_secret(path))
