"""The chain over the records: what exactly is hashed, and how.

- The canonical bytes of a record are the JSON object of `Record` as msgspec writes it: every field,
  in the order of the class, no white space, UTF-8, numbers as integers, absent as null.
- The hash of a record is SHA-256(hash of the record before || canonical bytes), 32 bytes. Before
  the first record stand 32 zero bytes.

So one changed byte, one record taken out, put in or moved changes every hash after it.
"""

from hashlib import sha256
from typing import Final

import msgspec

from appliance.metering.records import Record

GENESIS: Final = bytes(32)
VERSION: Final = 1

_encoder = msgspec.json.Encoder()


def canonical(record: Record) -> bytes:
    """The bytes of a record that are hashed, proven and, later, signed."""
    return _encoder.encode(record)


def link(before: bytes, content: bytes) -> bytes:
    """The hash of a record, given the hash of the one before and its canonical bytes."""
    return sha256(before + content).digest()
