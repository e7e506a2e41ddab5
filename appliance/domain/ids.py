"""Identifiers. A NewType each, so that a tenant's id is never passed where a key's is meant."""

import os
import time
from collections.abc import Callable
from typing import Final, NewType

TenantId = NewType("TenantId", str)
EnvironmentId = NewType("EnvironmentId", str)
KeyId = NewType("KeyId", str)
ModelId = NewType("ModelId", str)
DeploymentId = NewType("DeploymentId", str)
ReplicaId = NewType("ReplicaId", str)
NodeId = NewType("NodeId", str)
RecordId = NewType("RecordId", str)
RequestId = NewType("RequestId", str)

PREFIXES: Final = {
    "tenant": "ten",
    "environment": "env",
    "key": "key",
    "model": "mod",
    "deployment": "dep",
    "replica": "rep",
    "node": "nod",
    "burst": "bur",
    "reservation": "rsv",  # of capacity
    "member": "mem",  # a machine of a burst
    "record": "rec",
    "request": "req",
}


_POOL_BYTES: Final = 4_096

# Made for every request and indexed in the ledger, so they begin with the time: neighbours in time
# are neighbours in the index, and a commit touches a few pages and not two for each record.
_ORDERED: Final = frozenset({"record", "request"})


def new_id(
    noun: str,
    entropy: Callable[[int], bytes] = os.urandom,
    wall_ns: Callable[[], int] = time.time_ns,
) -> str:
    """A fresh identifier, `<prefix>_<24 hex digits>`: 96 random bits.

    Records and requests get `<prefix>_<28 hex digits>`: 48 bits of milliseconds since 1970 and 64
    random bits. `noun` is a key of PREFIXES; any other raises KeyError.
    """
    if noun in _ORDERED:
        return f"{PREFIXES[noun]}_{wall_ns() // 1_000_000:012x}{entropy(8).hex()}"
    return f"{PREFIXES[noun]}_{entropy(12).hex()}"


class EntropyPool:
    """Random bytes, read from the kernel by the page and handed out in pieces.

    One system call serves hundreds of identifiers; each call would also give the interpreter's
    lock away. For one thread, in a process that does not fork. Not for secrets.
    """

    __slots__ = ("_bytes", "_next", "_source")

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._bytes = b""
        self._next = 0

    def take(self, size: int) -> bytes:
        """`size` bytes that nobody was given before."""
        end = self._next + size
        if end > len(self._bytes):
            self._bytes = self._source(max(size, _POOL_BYTES))
            end = size
        piece = self._bytes[end - size : end]
        self._next = end
        return piece
