"""Identifiers. A NewType each, so that a tenant's id is never passed where a key's is meant."""

import os
from collections.abc import Callable
from typing import Final, NewType

TenantId = NewType("TenantId", str)
EnvironmentId = NewType("EnvironmentId", str)
KeyId = NewType("KeyId", str)
ModelId = NewType("ModelId", str)
DeploymentId = NewType("DeploymentId", str)
ReplicaId = NewType("ReplicaId", str)
NodeId = NewType("NodeId", str)
RegionName = NewType("RegionName", str)
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
    "reservation": "rsv",
    "record": "rec",
    "request": "req",
}


def new_id(noun: str, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh identifier, `<prefix>_<24 hex digits>`: 96 random bits.

    `noun` is a key of PREFIXES; any other raises KeyError.
    """
    return f"{PREFIXES[noun]}_{entropy(12).hex()}"
