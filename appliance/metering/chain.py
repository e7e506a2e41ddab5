"""The chain over the records: what exactly is hashed, and how.

- The canonical bytes of a record are those of `appliance.wire.records`.
- The hash of a record is SHA-256(hash of the record before || canonical bytes), 32 bytes. Before
  the first record stand 32 zero bytes.

So one changed byte, one record taken out, put in or moved changes every hash after it.
"""

from hashlib import sha256
from typing import Final

GENESIS: Final = bytes(32)


def link(before: bytes, content: bytes) -> bytes:
    """The hash of a record, given the hash of the one before and its canonical bytes."""
    return sha256(before + content).digest()
