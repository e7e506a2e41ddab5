"""Documents of the control plane on their way into the books of a running site.

They are opened in a thread, and taken a few at a time: requests wait for the same thread that
writes the ledger, and a bundle may bring the answers of a year.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from appliance.manifests import archive
from appliance.security.signing import PublicKey
from appliance.sync.inbox import Opened, key_to_open_with, open_all, take_opened
from appliance.sync.store import SyncStore
from appliance.wire.sync import DocumentOutcome

_PIECE: Final = 64  # documents in one transaction: a few milliseconds


async def take_in(
    store: SyncStore,
    envelopes: Iterable[bytes],
    wall_ns: int,
    held_key_ids: Sequence[str],
    given: PublicKey | None = None,
) -> list[DocumentOutcome]:
    """What became of each. `given` is pinned where no key of the control plane is known yet.

    Raises NotPinned, EntitlementRefused when another key is pinned, LedgerError or StorageError;
    what was taken before it stands.
    """
    key = key_to_open_with(await store.read(archive.sync_state), given)
    opened, outcomes = await asyncio.to_thread(open_all, envelopes, key)
    for begin in range(0, len(opened), _PIECE):
        piece = opened[begin : begin + _PIECE]
        outcomes += await store.write(partial(_take, piece, key, wall_ns, held_key_ids))
    return outcomes


def _take(
    opened: Sequence[Opened],
    key: PublicKey,
    wall_ns: int,
    held_key_ids: Sequence[str],
    connection: sqlite3.Connection,
) -> list[DocumentOutcome]:
    return take_opened(connection, opened, key, wall_ns, held_key_ids)
