"""Synchronisation as the running appliance has it: the exchange in the background, what a person
asks for, and the lease that is watched.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.manifests import archive
from appliance.manifests.documents import ENTITLEMENT_TYPE
from appliance.manifests.envelope import parse as parse_envelope
from appliance.security.signing import PublicKey, SigningKey, load_signing_key
from appliance.settings import Sync as SyncSettings
from appliance.sync.addresses import parse
from appliance.sync.arrivals import take_in
from appliance.sync.backoff import interval_ms, wait_ms
from appliance.sync.books import read_books
from appliance.sync.client import connected
from appliance.sync.enrolment import check_pin, introduction, parse_code
from appliance.sync.errors import DocumentRefused, EntitlementRefused, SyncOffline
from appliance.sync.identity import NEXT_KEY_FILE, prepare_key
from appliance.sync.inbox import is_pinned
from appliance.sync.licence import Licence
from appliance.sync.plans import PlanPort, apply_due
from appliance.sync.shipper import Exchange, Shipper
from appliance.sync.states import report
from appliance.sync.states import status as status_of
from appliance.sync.store import SyncStore
from appliance.wire.sync import (
    DocumentOutcome,
    EntitlementStatus,
    SignedRequest,
    SyncReport,
    SyncStatus,
)

log = logging.getLogger(__name__)

WATCH_S: Final = 30.0  # between two looks at the lease


class Synchronisation:
    """Everything between this site and its control plane. Used on the event loop."""

    def __init__(
        self,
        *,
        site: str,
        settings: SyncSettings,
        secrets: Path,
        store: SyncStore,
        shipper: Shipper,
        licence: Licence,
        plans: PlanPort,
        key: Callable[[], SigningKey],
        held_key_ids: Callable[[], Sequence[str]],
        key_changed: Callable[[], Awaitable[None]],
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        """`key` is the one that signs now; `key_changed` is called when a grant was taken.

        `licence` is told of every document that was taken, and asked each time a change is made.
        """
        self._site = site
        self._settings = settings
        self._secrets = secrets
        self._store = store
        self._shipper = shipper
        self._licence = licence
        self._plans = plans
        self._key = key
        self._held_key_ids = held_key_ids
        self._key_changed = key_changed
        self._clock = clock
        self._entropy = entropy
        self._one_exchange = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._last: SyncStatus | None = None

    # -- In the background

    async def run(self) -> None:
        """Exchange at the set interval, sooner when something was sealed or asked for.

        Returns at once where the settings say offline: then nothing is ever looked up or opened.
        """
        if self._settings.mode == "offline":
            return
        failures = 0
        while True:
            self._wanted.clear()  # before the books are read: what is sealed meanwhile wakes again
            try:
                await self._exchange()
                # A frozen site asks less often: only a person's decision changes anything.
                failures = failures + 1 if (await self.status()).state == "frozen" else 0
            except CrossLogicError as error:
                enrolled = error.code != "not_enrolled"
                failures = failures + 1 if enrolled else 0
                if enrolled:
                    log.warning("exchange failed", extra={"code": error.code, "failures": failures})
            wait_s = self._wait_ms(failures) / 1_000
            self._wanted.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def begin(self) -> None:
        """Look once: before the first request is served, and then with every `watch`."""
        await self._licence.look()
        await self._plans_due()
        await self.status()

    async def watch(self) -> None:
        """Look at the lease now and then: its countdown, the throttle, plans that become due."""
        while True:
            await asyncio.sleep(WATCH_S)
            await self.begin()

    def wake(self) -> None:
        """Something was sealed, or a site was enrolled: exchange soon."""
        self._wanted.set()

    # -- What a person asks for

    async def status(self) -> SyncStatus:
        books = await self._store.read(read_books)
        self._last = status_of(
            books,
            mode=self._settings.mode,
            interval_s=self._settings.interval_s,
            url=self._settings.control_plane_url or books.state.control_plane_url,
            now_ns=self._clock.wall_ns(),
        )
        return self._last

    def check_changes(self) -> None:
        """Raises ManagementFrozen when nothing new may be made on this site."""
        self._licence.check_changes()

    @property
    def last_entitlement(self) -> EntitlementStatus:
        """By the clock of now; what it says of the site's size is of the last look."""
        return self._licence.status()

    @property
    def last_status(self) -> SyncStatus | None:
        """As it was last read, for the metrics; None: not yet."""
        return self._last

    async def exchange(self) -> SyncReport:
        """One exchange, now. Raises what kept it from being finished."""
        done = await self._exchange()
        return await self._report(done.sent, done.outcomes)

    async def enrol(self, url: str, code: str) -> SyncStatus:
        """Make the control plane and this site known to each other.

        The secret of the code leaves only after the control plane showed the key that it names.
        """
        self._refuse_offline()
        address, parsed = parse(url), parse_code(code)
        state = await self._store.read(archive.sync_state)
        epoch = (await self._store.read(archive.chain_state)).epoch
        async with connected(address, self._settings) as control_plane:
            key = await control_plane.key()
            check_pin(parsed, key)
            is_pinned(state, key)
            envelope = introduction(
                appliance_id=state.appliance_id,
                name=self._site,
                epoch=epoch,
                wall_ns=self._clock.wall_ns(),
                key=self._key(),
                code_id=parsed.code_id,
            )
            answer = await control_plane.enrol(parsed.told, envelope)
        if answer.appliance_id != state.appliance_id:
            raise DocumentRefused(
                f"The control plane enrolled {answer.appliance_id}, this is {state.appliance_id}.",
                next_step="Ask the vendor; nothing was stored here.",
            )
        if PublicKey.from_pem(answer.key_pem) != key:
            raise DocumentRefused(
                "The control plane answered the enrolment with another key than it showed before.",
                next_step="Do not use it; tell the vendor. Nothing was stored here.",
            )
        now_ns = self._clock.wall_ns()
        await self._change(
            control_plane_url=address.url,
            control_plane_key_pem=key.pem,
            last_contact_ns=now_ns,
            last_error="",
        )
        log.info("enrolled", extra={"control_plane_key_id": key.key_id})
        self.wake()
        return await self.status()

    async def request(self, *, new_key: bool) -> SignedRequest:
        """The signed introduction, to be carried by hand; with a new key for a new epoch."""
        state = await self._store.read(archive.sync_state)
        chain = await self._store.read(archive.chain_state)
        key = await asyncio.to_thread(self._next_key) if new_key else self._key()
        epoch = chain.epoch + 1 if new_key else chain.epoch
        envelope = introduction(
            appliance_id=state.appliance_id,
            name=self._site,
            epoch=epoch,
            wall_ns=self._clock.wall_ns(),
            key=key,
        )
        return SignedRequest(
            appliance_id=state.appliance_id,
            epoch=epoch,
            key_id=key.key_id,
            envelope=envelope.decode(),
        )

    async def bring(
        self, envelopes: Sequence[bytes], control_plane_key: str | None = None
    ) -> SyncReport:
        """Take documents that were carried by hand. Refusals are in the report.

        `control_plane_key` (PEM) pins the control plane's key the first time; another one than
        the pinned is refused.
        """
        return await self._report(0, await self._bring(envelopes, control_plane_key))

    async def install(
        self, envelope: bytes, control_plane_key: str | None = None
    ) -> EntitlementStatus:
        """Raises EntitlementRefused when it is not taken; what was installed stays in force."""
        if parse_envelope(envelope).payload_type != ENTITLEMENT_TYPE:
            raise DocumentRefused(
                "This is no entitlement.",
                next_step="Other documents are taken with `cic bundle import FILE`.",
            )
        (outcome,) = await self._bring([envelope], control_plane_key)
        if outcome.outcome not in {"applied", "unchanged"}:
            raise EntitlementRefused(outcome.message, next_step=outcome.next_step)
        return await self.entitlement()

    async def entitlement(self) -> EntitlementStatus:
        await self._licence.look()
        return self._licence.status()

    # -- Inside

    async def _exchange(self) -> Exchange:
        async with self._one_exchange:
            try:
                done = await self._shipper.exchange()
            except CrossLogicError as error:
                if error.code not in {"not_enrolled", "sync_offline"}:
                    await self._change(last_error=error.message)
                raise
            refused = next((o for o in done.outcomes if o.outcome == "refused"), None)
            await self._change(
                last_contact_ns=self._clock.wall_ns(),
                last_error="" if refused is None else refused.message,
            )
            await self._took(done.outcomes)
            if done.sent:
                log.info("manifests sent", extra={"manifests": done.sent})
            return done

    async def _bring(
        self, envelopes: Sequence[bytes], control_plane_key: str | None
    ) -> list[DocumentOutcome]:
        key = None if control_plane_key is None else PublicKey.from_pem(control_plane_key)
        outcomes = await take_in(
            *(self._store, envelopes, self._clock.wall_ns(), self._held_key_ids()), given=key
        )
        await self._took(outcomes)
        return outcomes

    async def _took(self, outcomes: Sequence[DocumentOutcome]) -> None:
        """What follows from documents that were taken, beside what is in the books."""
        applied = {each.kind for each in outcomes if each.outcome == "applied"}
        for each in outcomes:
            if each.outcome != "unchanged":
                log.info(
                    "document",
                    extra={"kind": each.kind, "id": each.document_id, "outcome": each.outcome},
                )
        if applied & {"epoch-grant"}:
            await self._key_changed()
        if applied:
            await self._licence.look()
            await self._plans_due()

    async def _plans_due(self) -> None:
        await apply_due(self._store, self._plans, self._clock.wall_ns())

    async def _report(self, sent: int, outcomes: list[DocumentOutcome]) -> SyncReport:
        return report(sent, outcomes, await self.status())

    async def _change(self, **changes: Any) -> None:
        def run(connection: sqlite3.Connection) -> None:
            held = archive.sync_state(connection)
            archive.set_sync_state(connection, msgspec.structs.replace(held, **changes))

        await self._store.write(run)

    def _next_key(self) -> SigningKey:
        """The key that waits for its grant: the same one however often a request is made."""
        waiting = self._secrets / NEXT_KEY_FILE
        if waiting.exists():
            from_file = load_signing_key(waiting)
            if from_file.key_id != self._key().key_id:
                return from_file
        return prepare_key(self._secrets, self._entropy)

    def _refuse_offline(self) -> None:
        if self._settings.mode == "offline":
            raise SyncOffline(
                "Nothing leaves this site by the wire: sync.mode is offline.",
                next_step="Enrol by hand: `cic sync request --out FILE`.",
            )

    def _wait_ms(self, failures: int) -> int:
        if failures == 0:
            return interval_ms(round(self._settings.interval_s * 1_000), self._entropy)
        return wait_ms(
            failures,
            round(self._settings.backoff_s * 1_000),
            round(self._settings.backoff_s_max * 1_000),
            self._entropy,
        )
