"""Sealing: values that must be kept and read again, but never lie on disk in plain text."""

import hmac
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.security.errors import SealBroken

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


class Seal:
    """AES-256-GCM under the site's seal key.

    A sealed value is bound to its context (the id of the row that holds it), so that a value
    copied to another row does not open. Layout: one byte of version, 12 of nonce, ciphertext, tag.
    """

    __slots__ = ("_cipher", "_entropy")

    def __init__(self, key: bytes, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(key)
        self._entropy = entropy

    def seal(self, text: str, context: str) -> bytes:
        nonce = self._entropy(_NONCE_BYTES)
        return (
            _VERSION
            + nonce
            + self._cipher.encrypt(nonce, text.encode(), _VERSION + context.encode())
        )

    def open(self, sealed: bytes, context: str) -> str:
        """The text that was sealed. Raises SealBroken when it is not what was sealed here."""
        start = len(_VERSION) + _NONCE_BYTES
        nonce, rest = sealed[len(_VERSION) : start], sealed[start:]
        try:
            # A wrong version byte is authenticated by nothing, so the context carries it.
            return self._cipher.decrypt(nonce, rest, sealed[:1] + context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                f"The sealed value of {context} cannot be opened.",
                next_step="Was the seal key replaced? Restore it, or set the value again.",
            ) from error


def derive(secret: bytes, purpose: str, text: str) -> str:
    """32 hex digits that follow from all three and tell nothing of `secret`."""
    return hmac.digest(secret, f"{purpose}\0{text}".encode(), "sha256")[:16].hex()
