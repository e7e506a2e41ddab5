"""A real admin server over a real registry, with doubles where the rest of the appliance would be.

The server runs on an event loop of its own thread, so that commands, which block, can be run
against it from a test.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import uvloop

from appliance.admin.calls import Services, Site
from appliance.admin.log_ring import LogRing
from appliance.admin.observer import Observer
from appliance.admin.ports import DeploymentLive, Figures, NodeLive
from appliance.admin.replays import Replays
from appliance.admin.roles import GroupsOf, Roles, audited_refusals
from appliance.admin.server import AdminServer
from appliance.admin.settings_desk import SettingsDesk
from appliance.admin.stream import LiveStream
from appliance.admin.upkeep import Upkeep
from appliance.admin.watch import Watch
from appliance.checking.runner import Checks
from appliance.checking.site import stopped_checks
from appliance.domain.clock import Clock, SystemClock
from appliance.domain.ids import DeploymentId, NodeId
from appliance.domain.limits import UNLIMITED, Layer, Limits
from appliance.modelpacks.store import PackDesk
from appliance.registry.registry import Registry, initialise, open_database
from appliance.security.seal import Seal
from appliance.security.site_ca import ensure_authority
from appliance.security.site_tls import ApplianceTls
from appliance.settings import Access, load
from appliance.wire.admin import LedgerRow, LedgerVerification, UsageColumn, UsageRow
from appliance.wire.home import Home, find_home
from appliance.wire.placement import Explanation
from appliance.wire.unix import socket_address
from tests.fakes.backups import FixedBackups
from tests.fakes.bursts import FixedBursts
from tests.fakes.joining import FixedJoining
from tests.fakes.manifest_port import SealedPort
from tests.fakes.reserving import FixedReserving
from tests.fakes.sealed_site import site_in
from tests.fakes.sync_port import FixedSync
from tests.fakes.traffic import FixedTraffic

T = TypeVar("T")
WAIT_S = 20.0
EVERYBODY = Access()  # who may open the socket is an admin


@dataclass
class Live:
    """A fleet that is as the test says."""

    deployments: dict[DeploymentId, DeploymentLive] = field(default_factory=dict)
    every_deployment: DeploymentLive | None = None
    nodes: dict[NodeId, NodeLive] = field(default_factory=dict)
    explanations: dict[DeploymentId, Explanation] = field(default_factory=dict)
    is_ready: bool = True
    answer: bytes = b"null"  # of every node, to every question
    caught_up_after: int = 0  # changes
    questions: list[tuple[NodeId, str, str]] = field(default_factory=list)
    healthy: bool = True

    def ledger_healthy(self) -> bool:
        return self.healthy

    def deployment(self, deployment_id: DeploymentId) -> DeploymentLive | None:
        return self.deployments.get(deployment_id, self.every_deployment)

    def node(self, node_id: NodeId) -> NodeLive | None:
        return self.nodes.get(node_id)

    def explain(self, deployment_id: DeploymentId) -> Explanation | None:
        return self.explanations.get(deployment_id)

    async def caught_up(self) -> None:
        self.caught_up_after += 1

    async def ask_node(self, node_id: NodeId, kind: str, subject: str) -> bytes:
        self.questions.append((node_id, kind, subject))
        return self.answer

    def ready(self) -> bool:
        return self.is_ready

    def endpoint(self) -> str:
        return "http://127.0.0.1:8080/v1"

    def requests_running(self) -> int:
        return 3

    def requests_queued(self) -> int:
        return 2


@dataclass
class Records:
    """A ledger that holds these rows. `asked` is what usage was last asked for."""

    held: list[LedgerRow] = field(default_factory=list)
    asked: tuple[int | None, int | None, tuple[UsageColumn, ...]] | None = None
    sound: bool = True

    def usage(
        self, since_ns: int | None, until_ns: int | None, by: Sequence[UsageColumn]
    ) -> Sequence[UsageRow]:
        self.asked = (since_ns, until_ns, tuple(by))
        columns = {name: getattr(self.held[0], name, "2026-11-22T19:00Z") for name in by}
        return [
            UsageRow(
                requests=len(self.held),
                input_tokens=sum(row.input_tokens for row in self.held),
                output_tokens=sum(row.output_tokens for row in self.held),
                cached_tokens=sum(row.cached_tokens for row in self.held),
                **columns,
            )
        ]

    def rows(self, since_seq: int, count_max: int) -> Sequence[LedgerRow]:
        return [row for row in self.held if row.seq > since_seq][:count_max]

    def verify(self) -> LedgerVerification:
        problems = [] if self.sound else ["record 1: its hash does not follow from the one before"]
        return LedgerVerification(
            ok=self.sound,
            records=len(self.held),
            open=0,
            head_sha256="00" * 32,
            problems=problems,
        )

    def records(self) -> int:
        return len(self.held)


class Used:
    """Five of everything is used of every limit."""

    def used(self, layer: Layer, scope_id: str) -> Limits:
        assert (layer is Layer.GLOBAL) == (scope_id == "global")
        return Limits(requests_per_min=5, tokens_per_min=5, tokens_per_day=5, concurrency=5)


@dataclass
class FixedFigures:
    now: Figures = field(default_factory=lambda: Figures(ready=True))

    def figures(self) -> Figures:
        return self.now


@dataclass
class AdminSite:
    """A served home. `client` speaks plain HTTP to its socket."""

    home: Home
    services: Services
    live: Live
    records: Records
    metrics: FixedFigures
    sync: FixedSync
    manifests: SealedPort
    server: AdminServer
    loop: asyncio.AbstractEventLoop
    client: httpx.Client
    traffic: FixedTraffic

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)


def ledger_row(seq: int, **changes: Any) -> LedgerRow:
    row = LedgerRow(
        seq=seq,
        record_id=f"rec_{seq:024x}",
        request_id=f"req_{seq:024x}",
        status="ok",
        tenant="acme",
        environment="prod",
        key="web",
        model="smollm2",
        region="local",
        operation="chat",
        input_tokens=10,
        output_tokens=7,
        cached_tokens=2,
        measured="engine",
        http_status=200,
        error_code="",
        opened_at="2026-11-22T19:22:03.250Z",
        settled_at="2026-11-22T19:22:04.000Z",
        latency_ms=750,
        first_token_ms=120,
    )
    return msgspec.structs.replace(row, **changes)


def make_home(folder: Path) -> Home:
    """What `cic init` makes, as far as commands that only speak to the server care."""
    home = find_home(str(folder), {})
    for each in (home.config, home.run):
        each.mkdir(parents=True, exist_ok=True)
    home.config_file.write_text('[site]\nname = "test"\n')
    return home


@contextmanager
def served(
    folder: Path,
    *,
    global_limits: Limits = UNLIMITED,
    metrics_listen: str | None = None,
    access: Access = EVERYBODY,
    own_uid: int | None = None,
    groups_of: GroupsOf | None = None,
) -> Iterator[AdminSite]:
    """Serve a fresh registry in `folder` until the block ends.

    `own_uid` is who counts as the account that serves; `groups_of` says who is in which groups.
    """
    home = make_home(folder)
    initialise(home.registry_file, actor="0:test", region="local", clock=SystemClock())
    started: list[AdminSite] = []
    begun = threading.Event()
    failures: list[BaseException] = []
    thread = threading.Thread(
        target=_serve,
        args=(
            *(home, global_limits, metrics_listen, started, begun, failures),
            lambda registry, clock: Roles(
                *(access, clock, audited_refusals(registry)), own_uid=own_uid, groups_of=groups_of
            ),
        ),
    )
    thread.start()
    assert begun.wait(WAIT_S)
    if failures:
        thread.join(WAIT_S)
        raise failures[0]
    site = started[0]
    try:
        yield site
    finally:
        site.client.close()
        site.loop.call_soon_threadsafe(site.loop.stop)
        thread.join(WAIT_S)
        assert not thread.is_alive()


def _serve(
    home: Home,
    global_limits: Limits,
    metrics_listen: str | None,
    started: list[AdminSite],
    begun: threading.Event,
    failures: list[BaseException],
    roles: Callable[[Registry, Clock], Roles],
) -> None:
    loop = uvloop.new_event_loop()
    database = open_database(home.registry_file)
    clock = SystemClock()
    registry = Registry(
        database,
        pepper=b"p" * 32,
        seal=Seal(b"s" * 32),
        clock=clock,
        global_limits=global_limits,
    )
    live, records, metrics, sync = Live(), Records(), FixedFigures(), FixedSync()
    manifests = SealedPort(site_in(home))
    authority = ensure_authority(home.secrets, clock.wall_ns())
    upkeep = Upkeep(
        SettingsDesk(home.config_file, {}, load(home.config_file, {})),
        LogRing(),
        authority,
        ApplianceTls(authority, clock),
        Checks(stopped_checks(home, {}), clock),
    )
    traffic = FixedTraffic()
    services = Services(
        site=Site("test", "local", "0.1.0", clock.wall_ns()),
        registry=registry,
        live=live,
        usage=records,
        limit_usage=Used(),
        clock=clock,
        sync=sync,
        manifests=manifests,
        packs=PackDesk(registry, home.models, home.pack_key_file),
        bursts=FixedBursts(),
        reserving=FixedReserving(),
        joining=FixedJoining(registry),
        backups=FixedBackups(),
        roles=roles(registry, clock),
        replays=Replays(clock, os.urandom),
        upkeep=upkeep,
        watch=Watch(traffic, clock),
        stream=LiveStream(os.urandom),
        observer=Observer(clock, None),
    )
    server = AdminServer(home.admin_socket, services, metrics, metrics_listen=metrics_listen)
    try:
        loop.run_until_complete(server.start())
        loop.run_until_complete(services.watch.start())
        transport = httpx.HTTPTransport(uds=socket_address(home.admin_socket))
        client = httpx.Client(transport=transport, base_url="http://appliance", timeout=WAIT_S)
        started.append(
            AdminSite(
                home,
                services,
                live,
                records,
                metrics,
                sync,
                manifests,
                server,
                loop,
                client,
                traffic,
            )
        )
        begun.set()
        loop.run_forever()
        loop.run_until_complete(services.watch.stop())
        loop.run_until_complete(server.stop())
    # Handed to the test that waits for the server.
    except BaseException as error:  # noqa: BLE001
        failures.append(error)
    finally:
        begun.set()
        loop.run_until_complete(registry.close())
        database.close()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
