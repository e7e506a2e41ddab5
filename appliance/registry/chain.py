"""The hash chain of the audit: pure functions over bytes.

The hash of an entry is SHA-256 over the 32 bytes of the hash before it and the entry's canonical
bytes: a JSON array of its fields, ASCII only, no spaces. The first entry follows GENESIS.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

GENESIS: Final = hashlib.sha256(b"crosslogic registry audit 1").digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, as it is hashed."""

    seq: int  # 1, 2, 3 … without a gap
    at_ns: int
    actor: str
    action: str  # "create", "update", "suspend", "resume", "delete", "rotate", "set", "place"
    object_kind: str  # "tenant", "environment", "key", …
    object_id: str
    object_name: str
    before: str | None  # the object as JSON; None: it was not there
    after: str | None  # None: it is no more

    def canonical(self) -> bytes:
        fields = [
            self.seq,
            self.at_ns,
            self.actor,
            self.action,
            self.object_kind,
            self.object_id,
            self.object_name,
            self.before,
            self.after,
        ]
        return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def link(previous: bytes, entry: Entry) -> bytes:
    """The hash of `entry` when it follows `previous`."""
    return hashlib.sha256(previous + entry.canonical()).digest()
