"""One exchange with the control plane: what it has for us is pulled, what it lacks is sent.

Where the site stands is in ledger.db alone: a manifest is to be sent until a receipt covers it. So
a crash at any point repeats at most a bundle, which the control plane knows, and loses nothing.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from appliance.domain.clock import Clock
from appliance.manifests import archive
from appliance.manifests.bundle import (
    WIRE_BYTES_MAX,
    CarriedManifest,
    read_receipts,
    write_usage,
)
from appliance.security.signing import SigningKey
from appliance.settings import Sync as SyncSettings
from appliance.sync.addresses import parse
from appliance.sync.arrivals import take_in
from appliance.sync.checkpoints import site_checkpoint
from appliance.sync.client import ControlPlane, connected
from appliance.sync.errors import DocumentRefused, NotEnrolled, SyncOffline
from appliance.sync.signatures import authorization
from appliance.sync.site_keys import key_chain
from appliance.sync.store import SyncStore
from appliance.wire.sync import DocumentOutcome

_PAGE_MANIFESTS: Final = 32  # read at a time, until a bundle is full
_WENT_BACK_MAX: Final = 3  # in one exchange; a control plane that wavers is asked again later

NOT_ENROLLED: Final = NotEnrolled(
    "This site is not enrolled with a control plane.",
    next_step="Get a code from the vendor and run `cic sync enrol URL CODE`; without a wire,"
    " `cic sync request --out FILE`.",
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one exchange did."""

    sent: int
    outcomes: list[DocumentOutcome]


@dataclass(frozen=True, slots=True)
class _Batch:
    bundle: bytes
    manifests: int


class Shipper:
    """Ships for one site; one exchange at a time."""

    def __init__(
        self,
        *,
        site: str,
        settings: SyncSettings,
        store: SyncStore,
        clock: Clock,
        key: Callable[[], SigningKey],
        held_key_ids: Callable[[], Sequence[str]],
        entropy: Callable[[int], bytes],
        batch_bytes_max: int = WIRE_BYTES_MAX,
    ) -> None:
        """`site` is its name, for people. `key` is the one that signs manifests now;
        `held_key_ids` also tells of one that waits for its grant.
        """
        self._site = site
        self._settings = settings
        self._store = store
        self._clock = clock
        self._key = key
        self._held_key_ids = held_key_ids
        self._entropy = entropy
        self._batch_bytes_max = batch_bytes_max

    async def exchange(self) -> Exchange:
        """Pull, then send until nothing is left. Raises SyncError, ManifestError, StorageError.

        What was done before a failure stands.
        """
        if self._settings.mode == "offline":
            raise SyncOffline(
                "Nothing leaves this site by the wire: sync.mode is offline.",
                next_step="Carry a bundle: `cic bundle export --to DIR`.",
            )
        state = await self._store.read(archive.sync_state)
        url = self._settings.control_plane_url or state.control_plane_url
        if not url or not state.control_plane_key_pem:
            raise NOT_ENROLLED
        sent = 0
        async with connected(parse(url), self._settings) as control_plane:
            outcomes = await self._pull(control_plane, state)
            went_back = 0
            while went_back < _WENT_BACK_MAX:
                before = _standing(await self._store.read(archive.sync_state))
                batch = await self._store.read(self._batch)
                if batch is None:
                    break
                outcomes += await self._apply(await control_plane.send(batch.bundle))
                sent += batch.manifests
                after = _standing(await self._store.read(archive.sync_state))
                if after == before:
                    break  # refused, or frozen: the outcomes say why
                went_back += after < before
        return Exchange(sent, outcomes)

    async def _pull(
        self, control_plane: ControlPlane, state: archive.SyncState
    ) -> list[DocumentOutcome]:
        query = urlencode(
            {
                "appliance": state.appliance_id,
                "epoch": state.epoch or 1,
                "head": state.accepted_sha256,
            }
        )
        signed = authorization(
            method="GET",
            target=f"/v1/receipts?{query}",
            appliance_id=state.appliance_id,
            wall_ns=self._clock.wall_ns(),
            key=self._key(),
            entropy=self._entropy,
        )
        return await self._apply(await control_plane.pull(query, signed))

    async def _apply(self, bundle: bytes) -> list[DocumentOutcome]:
        receipts = read_receipts(bundle)
        return await take_in(
            self._store,
            [document.envelope for document in receipts.documents],
            self._clock.wall_ns(),
            self._held_key_ids(),
        )

    def _batch(self, connection: sqlite3.Connection) -> _Batch | None:
        """The oldest manifests that no receipt covers, as many as one bundle holds."""
        state = archive.sync_state(connection)
        where, size_bytes = (state.epoch, state.accepted_through), 0
        found: list[CarriedManifest] = []
        while size_bytes <= self._batch_bytes_max:
            page = archive.manifests_after(connection, *where, _PAGE_MANIFESTS)
            for each in page:
                found.append(CarriedManifest(each.epoch, each.seq, each.envelope, each.lines))
                size_bytes += len(each.envelope) + len(each.lines)
            if len(page) < _PAGE_MANIFESTS:
                break
            where = (page[-1].epoch, page[-1].seq)
        if not found:
            return None
        bundle, manifests = write_usage(
            state.appliance_id,
            self._site,
            key_chain(connection),
            site_checkpoint(connection, state.appliance_id, self._key()),
            found,
            bytes_max=self._batch_bytes_max,
        )
        if len(bundle) > WIRE_BYTES_MAX:
            raise DocumentRefused(
                f"Manifest {found[0].epoch}-{found[0].seq} is too large to go by wire.",
                next_step="Carry it by hand: `cic bundle export --to DIR`.",
            )
        return _Batch(bundle, manifests)


def _standing(state: archive.SyncState) -> tuple[int, int]:
    return state.epoch, state.accepted_through
