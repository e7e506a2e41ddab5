"""Looks at the site every few seconds: alerts, events and history are made of what it sees.

What it knows outlives a restart: `alerts.json`, the last events and the history lie in a folder of
the home. They are for people; where a file is damaged it is told in the log and begun anew.
"""

import asyncio
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from appliance.admin.alert_rules import findings
from appliance.admin.alerts import SETTLE_S, Alerts, Turned
from appliance.admin.calls import Call, NoQuery, Services
from appliance.admin.certificates import list_certificates
from appliance.admin.happenings import Happening, happenings
from appliance.admin.history import History, Name, SavedRing, Span
from appliance.admin.observed import Disk, HostNow, Observed
from appliance.admin.reservations import Ended, list_capacity, list_reservations
from appliance.domain.clock import Clock, iso
from appliance.domain.errors import CrossLogicError
from appliance.wire.stream import Alert, Event, Topic

_LOOK_S: Final = 3.0
_SLOW_S: Final = 60.0  # what changes slowly: certificates, disks, backups
_NOTE_S: Final = 60.0  # alerts and events are written down so often
_SAVE_S: Final = 300.0  # the history, which is large, so often
_EVENTS_MAX: Final = 2_000
_TENANTS_MAX: Final = 200  # of the busiest, in the history
_TOPICS: Final[tuple[Topic, ...]] = (
    *("site", "nodes", "gpus", "deployments", "replicas", "tenants", "limits", "sync"),
)

_IN_FORCE: Final = Call("", "", Ended(), None)
_NOTHING_ASKED: Final = Call("", "", NoQuery(), None)

log = logging.getLogger(__name__)


class Observer:
    """One of an appliance. `folder` is its own; None: nothing is kept.

    `host` tells of the machine beneath; it is called in a thread.
    """

    def __init__(
        self,
        clock: Clock,
        folder: Path | None,
        disks: Iterable[Path] = (),
        host: Callable[[], HostNow] = HostNow,
    ) -> None:
        self._clock = clock
        self._folder = folder
        self._disks = tuple(disks)
        self._host = host
        self._first_ns: int | None = None  # of the audit: as old is the site
        self._alerts = Alerts()
        self._events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self._seq = 0
        self._history = History()
        self._before: Observed | None = None
        self._slow: dict[str, Any] = {}
        self._slow_s: float | None = None
        self._noted_s = self._saved_s = 0.0
        self._audit_seq = 0
        self._wall_s: tuple[float, float] | None = None  # wall and monotonic at the last look
        self._moved = asyncio.Event()
        self._over = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, services: Services) -> None:
        await asyncio.to_thread(self._load)
        self._noted_s = self._saved_s = self._clock.monotonic_s()
        # What is changed from here on is told, also before the first look.
        self._audit_seq = await services.registry.audit.newest()
        self._tell([Happening("info", "site.started", "site", "site", "The appliance started.")])
        self._task = asyncio.get_running_loop().create_task(self._run(services))

    async def stop(self) -> None:
        self._over = True
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._tell([Happening("info", "site.stopped", "site", "site", "The appliance stopped.")])
        await asyncio.to_thread(self._save)

    # What is known.

    def alerts(self) -> Mapping[str, Alert]:
        return self._alerts.all()

    def acknowledge(self, alert_id: str, actor: str) -> Alert | None:
        """None: there is no such alert."""
        return self._alerts.acknowledge(alert_id, actor, iso(self._clock.wall_ns()))

    def events(self, since: int = 0) -> list[Event]:
        """Those with a higher number, oldest first."""
        return [event for event in self._events if event.seq > since]

    async def more(self, since: int) -> bool:
        """Returns when there are events with a higher number; False when there will be none."""
        while self._seq <= since and not self._over:
            await self._moved.wait()
        return not self._over

    @property
    def history(self) -> History:
        return self._history

    # Looking.

    async def _run(self, services: Services) -> None:
        while True:
            try:
                await self.look(services)
            except CrossLogicError as error:
                log.warning("site not observed", extra={"code": error.code})
            # The boundary of one look: a defect in it must not end alerts for good.
            except Exception:
                log.exception("site not observed")
            await asyncio.sleep(_LOOK_S)

    async def look(self, services: Services) -> None:
        """One look, at this moment."""
        now_s = self._clock.monotonic_s()
        seen = await self._observe(services, now_s)
        at = iso(self._clock.wall_ns())
        turned = self._alerts.look(findings(seen), now_s, at)
        if turned.begun or turned.ended:
            # Before anybody is told: a restart has to know what was said.
            await asyncio.to_thread(self._save, history=False)
        self._tell(happenings(self._before, seen, turned))
        self._tell(await self._audited(services))
        self._before = seen
        self._log(turned)
        # At each look: a point of 10 s is the mean of what was seen in it, and none is left out.
        self._history.take(self._clock.wall_ns() // 10**9, _samples(services, seen))
        if now_s - self._saved_s >= _SAVE_S:
            self._noted_s = self._saved_s = now_s
            await asyncio.to_thread(self._save)
        elif now_s - self._noted_s >= _NOTE_S:
            self._noted_s = now_s
            await asyncio.to_thread(self._save, history=False)

    async def _observe(self, services: Services, now_s: float) -> Observed:
        if self._slow_s is None or now_s - self._slow_s >= _SLOW_S:
            self._slow_s = now_s
            self._slow = await self._look_slowly(services)
        rows = await services.stream.rows(services, _TOPICS)
        sealing = await services.manifests.status()
        reservations = tuple(await list_reservations(services, _IN_FORCE))
        sync = rows["sync"].get("sync")
        return Observed(
            now=datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC),
            site=cast("Any", rows["site"]["site"]),
            nodes=cast("Any", rows["nodes"]),
            gpus=cast("Any", rows["gpus"]),
            deployments=cast("Any", rows["deployments"]),
            replicas=cast("Any", rows["replicas"]),
            limits=cast("Any", rows["limits"]),
            sync=cast("Any", sync),
            ledger_healthy=services.live.ledger_healthy(),
            seal_error=sealing.last_error,
            reservations=reservations,
            capacity=tuple(await list_capacity(services, _NOTHING_ASKED)) if reservations else (),
            clock_jump_s=self._jump_s(now_s),
            thresholds=services.upkeep.settings.running.alerts,
            **self._slow,
        )

    async def _look_slowly(self, services: Services) -> dict[str, Any]:
        nothing = Call("", "", NoQuery(), None)
        return {
            "certificates": tuple(await list_certificates(services, nothing)),
            "disks": await asyncio.to_thread(_disks, self._disks),
            "entitlement": await services.sync.entitlement(),
            "backups": await services.backups.all(),
            "backup_every_s": services.upkeep.settings.running.backups.every_s,
            "site_age_s": await self._age_s(services),
            "host": await asyncio.to_thread(self._host),
        }

    async def _age_s(self, services: Services) -> float | None:
        """Since the first entry of the audit, which `cic init` made."""
        if self._first_ns is None:
            first = await services.registry.audit.list(since=0, count_max=1)
            self._first_ns = first[0].at_ns if first else None
        return None if self._first_ns is None else (self._clock.wall_ns() - self._first_ns) / 1e9

    def _jump_s(self, now_s: float) -> float:
        """How much more the wall clock went than time did, since the last look."""
        wall_s = self._clock.wall_ns() / 1e9
        before, self._wall_s = self._wall_s, (wall_s, now_s)
        return 0.0 if before is None else (wall_s - before[0]) - (now_s - before[1])

    async def _audited(self, services: Services) -> list[Happening]:
        """What was entered into the audit since the last look."""
        audit = services.registry.audit
        entries = await audit.list(since=self._audit_seq, count_max=100)
        if entries:
            self._audit_seq = entries[-1].seq
        return [
            Happening(
                "info",
                f"audit.{entry.action}",
                entry.object_kind,
                entry.object_id,
                f"{entry.actor}: {entry.action} {entry.object_kind} {entry.object_name}",
            )
            for entry in entries
        ]

    def _tell(self, found: Iterable[Happening]) -> None:
        at = iso(self._clock.wall_ns())
        told = False
        for each in found:
            self._seq += 1
            event = Event(
                seq=self._seq,
                at=at,
                severity=each.severity,
                kind=each.kind,
                subject=each.subject,
                ref=each.ref,
                text=each.text,
            )
            self._events.append(event)
            told = True
        if told:
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    @staticmethod
    def _log(turned: Turned) -> None:
        for alert in turned.begun:
            level = logging.INFO if alert.severity == "info" else logging.WARNING
            log.log(level, "alert begun", extra={"alert": alert.id, "text": alert.text})
        for alert in turned.ended:
            log.info("alert ended", extra={"alert": alert.id})

    # What outlives a restart.

    def _load(self) -> None:
        alerts = self._read("alerts.json", list[Alert], msgspec.json.decode)
        self._alerts = Alerts(alerts or (), seen_s=self._clock.monotonic_s() + SETTLE_S)
        events = self._read("events.json", list[Event], msgspec.json.decode) or []
        self._events.extend(events)
        self._seq = max((event.seq for event in events), default=0)
        kept = self._read("history.mp", dict[str, dict[Span, SavedRing]], msgspec.msgpack.decode)
        self._history.restore(kept or {})

    def _read(self, name: str, kind: Any, decode: Any) -> Any:
        if self._folder is None:
            return None
        try:
            return decode((self._folder / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("what was observed is lost", extra={"file": name, "reason": str(error)})
            return None

    def _save(self, *, history: bool = True) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write("alerts.json", msgspec.json.encode(list(self._alerts.all().values())))
            self._write("events.json", msgspec.json.encode(list(self._events)))
            if history:
                self._write("history.mp", msgspec.msgpack.encode(self._history.saved()))
        except OSError as error:
            log.warning("what was observed is not kept", extra={"reason": str(error)})

    def _write(self, name: str, content: bytes) -> None:
        assert self._folder is not None  # asked before
        fresh = self._folder / f".{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.rename(self._folder / name)


def _disks(paths: Iterable[Path]) -> tuple[Disk, ...]:
    found: dict[int, Disk] = {}
    for path in paths:
        try:
            usage, device = shutil.disk_usage(path), path.stat().st_dev
        except OSError:
            continue
        found.setdefault(device, Disk(str(path), usage.free, usage.total))
    return tuple(found.values())


def _samples(services: Services, seen: Observed) -> dict[Name, float | None]:
    """What is kept of this moment: the site, its deployments, its busiest tenants, its nodes."""
    site = seen.site
    values: dict[Name, float | None] = {
        ("output_tokens_per_s", "site", ""): site.output_tokens_per_s,
        ("input_tokens_per_s", "site", ""): site.input_tokens_per_s,
        ("requests_per_s", "site", ""): site.requests_per_s,
        ("running", "site", ""): float(site.requests_running),
        ("queued", "site", ""): float(site.requests_queued),
        ("first_token_p95_ms", "site", ""): site.first_token_p95_ms,
        ("failures_per_min", "site", ""): site.failures_per_min,
        ("utilisation", "site", ""): _mean_use(seen),
    }
    for row in seen.deployments.values():
        values["output_tokens_per_s", "deployment", row.name] = row.output_tokens_per_s
        values["running", "deployment", row.name] = float(row.requests_running)
        values["queued", "deployment", row.name] = float(row.requests_queued)
        values["first_token_p95_ms", "deployment", row.name] = row.first_token_p95_ms
    rates = [
        (services.watch.tenant(tenant_id).output_tokens_per_s or 0.0, tenant_id)
        for tenant_id in services.watch.tenants()
    ]
    for rate, tenant_id in sorted(rates, reverse=True)[:_TENANTS_MAX]:
        values["output_tokens_per_s", "tenant", tenant_id] = rate
    for name, figures in _hottest(seen).items():
        values["utilisation", "node", name] = figures[0]
        values["temperature", "node", name] = figures[1]
    return values


def _mean_use(seen: Observed) -> float | None:
    """Of all GPUs that are heard."""
    used = [
        gpu.utilisation
        for gpu in seen.gpus.values()
        if not gpu.stale and gpu.utilisation is not None
    ]
    return sum(used) / len(used) if used else None


def _hottest(seen: Observed) -> dict[str, tuple[float | None, float | None]]:
    """Node -> the largest utilisation and temperature of its GPUs; silent ones are left out."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for gpu in seen.gpus.values():
        if gpu.stale:
            continue
        used, heat = found.get(gpu.node, (None, None))
        found[gpu.node] = (_most(used, gpu.utilisation), _most(heat, gpu.temperature))
    return found


def _most(old: float | None, new: int | None) -> float | None:
    if new is None:
        return old
    return float(new) if old is None else max(old, float(new))
