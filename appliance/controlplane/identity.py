"""Who the control plane is: its signing key, the operator's token, and the database they go with.

Sites pin the signing key when they enrol. So a database remembers the key it began with, and an
instance with another key is refused: several on one database share one key.
"""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Column, Connection, Integer, Table, Text, insert, select

from appliance.controlplane.errors import OtherSigningKey
from appliance.controlplane.schema import METADATA
from appliance.controlplane.settings import ControlHome
from appliance.security.secrets import SECRET_BYTES, read_secret, write_secret
from appliance.security.signing import SigningKey, ensure_signing_key, load_signing_key

OPERATOR_PREFIX: Final = "clxop_"
_FOLDER_MODE: Final = 0o700

SIGNER: Final = Table(
    "signer",
    METADATA,
    Column("row", Integer, primary_key=True, autoincrement=False),  # 1: there is one
    Column("key_id", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """`repr` does not show the token."""

    key: SigningKey
    operator_token: str = field(repr=False)


def create(home: ControlHome, entropy: Callable[[int], bytes] = os.urandom) -> Identity:
    """Make the secrets that are missing. Raises SecurityError, OSError."""
    home.secrets.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    home.secrets.chmod(_FOLDER_MODE)
    ensure_signing_key(home.signing_key, entropy)
    if not home.operator_token.exists():
        write_secret(home.operator_token, entropy(SECRET_BYTES))
    return load_identity(home)


def load_identity(home: ControlHome) -> Identity:
    """Raises ControlPlaneUnready, SecretMissing, SecretExposed or SecretDamaged."""
    home.require()
    token = base64.urlsafe_b64encode(read_secret(home.operator_token)).rstrip(b"=").decode()
    return Identity(load_signing_key(home.signing_key), OPERATOR_PREFIX + token)


def bind(connection: Connection, key_id: str) -> None:
    """Let this database be of this key from now on. Raises OtherSigningKey when it has another."""
    known = connection.execute(select(SIGNER.c.key_id)).scalar_one_or_none()
    if known is None:
        connection.execute(insert(SIGNER).values(row=1, key_id=key_id))
    elif known != key_id:
        raise OtherSigningKey(
            f"This database belongs to the signing key {known[:16]}…, the home holds"
            f" {key_id[:16]}….",
            next_step="Copy the secrets of the home that made the database into this one.",
        )
