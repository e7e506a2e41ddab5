"""Who this site is towards its control plane: its id, its signing key, the secret of its salts.

- `secrets/manifest-key` is the seed of the key that signs, `secrets/manifest-salts` derives salts.
  Both are made once, with the site, or with the first start of a site of before they existed.
- The id comes from the first key and stays. Which key signs today follows from the documents in
  ledger.db: the first key, rotations, grants. The file must hold exactly that key.
- A change of key is first prepared as `secrets/manifest-key-next`, then becomes true with its
  document's transaction, then takes the first file's place. A crash in between is completed here.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.manifests.archive import Kind, SyncState, documents, set_sync_state, sync_state
from appliance.manifests.canonical import decode
from appliance.manifests.documents import EpochGrant, KeyRotation
from appliance.manifests.envelope import parse
from appliance.manifests.keys import Place
from appliance.metering.errors import LedgerUnavailable
from appliance.metering.schema import MIGRATIONS
from appliance.security.secrets import SECRET_BYTES, read_secret, replace_secret, write_secret
from appliance.security.signing import (
    PublicKey,
    SigningKey,
    ensure_signing_key,
    load_signing_key,
)
from appliance.storage.database import connect, migrate
from appliance.sync.errors import OtherManifestKey

KEY_FILE: Final = "manifest-key"
NEXT_KEY_FILE: Final = "manifest-key-next"
SALTS_FILE: Final = "manifest-salts"

_ID_DIGITS: Final = 24


@dataclass(frozen=True, slots=True)
class Identity:
    """`repr` shows neither seed nor salts."""

    appliance_id: str
    key: SigningKey
    salts: bytes = field(repr=False)


def appliance_id_of(key_id: str) -> str:
    """The id of the site whose first key this is."""
    return f"apl_{key_id[:_ID_DIGITS]}"


def establish(
    secrets: Path, ledger_file: Path, entropy: Callable[[int], bytes] = os.urandom
) -> Identity:
    """The site's identity, made when it has none. Makes ledger.db where it is missing.

    Only for who holds the site: nobody else may write the ledger meanwhile. Raises SecurityError,
    StorageError, LedgerUnavailable or OtherManifestKey.
    """
    migrate(ledger_file, MIGRATIONS)
    with closing(connect(ledger_file)) as connection:
        if not sync_state(connection).appliance_id:
            key = ensure_signing_key(secrets / KEY_FILE, entropy)
            if not (secrets / SALTS_FILE).exists():
                write_secret(secrets / SALTS_FILE, entropy(SECRET_BYTES))
            with _writing(ledger_file, connection):
                set_sync_state(
                    connection,
                    SyncState(
                        appliance_id=appliance_id_of(key.key_id), first_key_pem=key.public.pem
                    ),
                )
        return current(secrets, connection)


def current(secrets: Path, connection: sqlite3.Connection) -> Identity:
    """The identity of a site that has one; completes a change of key that a crash cut off.

    Raises SecurityError, or OtherManifestKey when the file holds another key than the documents
    say.
    """
    state = sync_state(connection)
    expected, _ = signing_key_now(connection, state)
    key = load_signing_key(secrets / KEY_FILE)
    if key.key_id != expected.key_id:
        key = _promoted(secrets, expected)
    return Identity(state.appliance_id, key, read_secret(secrets / SALTS_FILE))


def signing_key_now(connection: sqlite3.Connection, state: SyncState) -> tuple[PublicKey, Place]:
    """The public key that signs the next manifest, and since which (epoch, seq)."""
    return signing_keys(connection, state)[-1]


def signing_keys(connection: sqlite3.Connection, state: SyncState) -> list[tuple[PublicKey, Place]]:
    """Every key that signed or signs, with the place of its first manifest, in that order.

    The documents were verified before they were stored.
    """
    keys: list[tuple[Place, str]] = [((1, 1), state.first_key_pem)]
    for stored in documents(connection, Kind.KEY_ROTATION):
        rotation = decode(parse(stored.envelope).payload, KeyRotation)
        keys.append(((rotation.epoch, rotation.seq), rotation.new_key_pem))
    for stored in documents(connection, Kind.EPOCH_GRANT):
        grant = decode(parse(stored.envelope).payload, EpochGrant)
        keys.append(((grant.epoch, 1), grant.key_pem))
    return [(PublicKey.from_pem(pem), place) for place, pem in sorted(keys)]


def read_salts(secrets: Path) -> bytes:
    """The secret of the salts. Raises SecurityError."""
    return read_secret(secrets / SALTS_FILE)


def prepare_key(secrets: Path, entropy: Callable[[int], bytes] = os.urandom) -> SigningKey:
    """A new key, on the disk and not in use yet."""
    write_secret(secrets / NEXT_KEY_FILE, entropy(SECRET_BYTES))
    return load_signing_key(secrets / NEXT_KEY_FILE)


def _promoted(secrets: Path, expected: PublicKey) -> SigningKey:
    waiting = secrets / NEXT_KEY_FILE
    key = load_signing_key(waiting) if waiting.exists() else None
    if key is None or key.key_id != expected.key_id:
        raise OtherManifestKey(
            f"{secrets / KEY_FILE} is not the key that signs this site's manifests"
            f" ({expected.key_id[:16]}…).",
            next_step="Restore the secrets and the ledger from the same backup.",
        )
    replace_secret(waiting, secrets / KEY_FILE)
    return key


@contextmanager
def _writing(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(
            f"The ledger {path} cannot be written: {error}.",
            next_step="Free space on the disk that holds ledger.db, or replace the disk.",
        ) from error
