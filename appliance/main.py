"""The composition root: makes every part of a running appliance and knows all of them.

The parts are made from the bottom up: registry, ledger, limits and scheduler, gateway, fleet, admin
API, the agent of this host. They are stopped in the reverse order, so that every request in flight
still finds what it needs.
"""

import asyncio
import logging
import os
import signal
import socket
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Final

import uvloop

from appliance import lock, memory, process
from appliance.admin.calls import Services, Site
from appliance.admin.ledger_usage import LedgerUsage
from appliance.admin.observer import Observer
from appliance.admin.replays import Replays
from appliance.admin.roles import Roles, audited_refusals
from appliance.admin.server import AdminServer
from appliance.admin.stream import LiveStream
from appliance.admin.watch import Watch
from appliance.background import kept
from appliance.backup.desk import BackupDesk
from appliance.branding import brand_of, with_brand
from appliance.bursting import BurstNodes, Bursts, burst_desk
from appliance.checking.host import host_now
from appliance.checking.site import Parts
from appliance.checking.upkeep import keep_log, make_upkeep
from appliance.domain.clock import Clock, SystemClock
from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import EntropyPool
from appliance.domain.limits import Limits
from appliance.fleet.joining import JoinDesk
from appliance.fleet.local_agent import LocalAgent
from appliance.fleet.model_files import ModelFiles, Pace
from appliance.fleet.node_api import NodeApi
from appliance.fleet.service import Fleet
from appliance.gateway.app import Gateway
from appliance.limits.estimate import PromptEstimator
from appliance.limits.memory import MemoryLimitStore
from appliance.live import Live
from appliance.manifests.engine_counts import EngineTally
from appliance.manifests.lines import Salts
from appliance.metering.ledger import Ledger
from appliance.metering.reader import LedgerReader
from appliance.modelpacks.store import PackDesk
from appliance.own_books import OwnBooks
from appliance.registry.registry import Registry, open_database
from appliance.registry.snapshot import Snapshot
from appliance.reserving import Reserving
from appliance.scheduler.scheduler import Scheduler
from appliance.sealing import make_sealer, manifest_service
from appliance.security.api_keys import digester
from appliance.security.seal import Seal
from appliance.security.secrets import SiteSecrets, load_all
from appliance.security.site_ca import SiteAuthority, ensure_authority
from appliance.security.site_tls import ApplianceTls
from appliance.seeding import seed_limits
from appliance.settings import Settings
from appliance.sync.identity import Identity, establish
from appliance.sync.proofs import Proofs
from appliance.sync.sealer import Sealer
from appliance.sync.service import Synchronisation
from appliance.synchronising import synchronisation
from appliance.watching import Watching
from appliance.wire import logs
from appliance.wire.home import Home
from appliance.wire.systemd import Notifier, take_sockets

log = logging.getLogger(__name__)

DISTRIBUTION: Final = "crosslogic-appliance"
ACTOR: Final = "appliance"  # in the audit, where no person acts
AGENT_STOP_S: Final = 40.0
AFTER_DRAIN_S: Final = 60.0  # for the agent, the last records and the last manifest
ENDPOINT_SOCKET: Final = "endpoint"  # FileDescriptorName in crosslogic-gateway.socket


class AddressUnusable(CrossLogicError):
    code = "address_unusable"


def run(home: Home, settings: Settings, *, with_agent: bool) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises CrossLogicError when it cannot start."""
    logs.configure(settings.log.level)
    process.prepare()
    notifier = Notifier.taken(os.environ, os.getpid())
    inherited = take_sockets(os.environ, os.getpid()).get(ENDPOINT_SOCKET)
    with lock.held(home.lock_file):
        uvloop.run(_serve(home, settings, notifier, inherited, with_agent=with_agent))


async def _serve(
    home: Home,
    settings: Settings,
    notifier: Notifier,
    inherited: socket.socket | None,
    *,
    with_agent: bool,
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        appliance = await start(stack, home, with_brand(settings), SystemClock(), inherited)
        async with asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(kept("fleet", appliance.fleet.run)),
                background.create_task(kept("memory", memory.give_back)),
                background.create_task(kept("loop delay", appliance.delay.run)),
                background.create_task(kept("sealer", appliance.sealer.run)),
                background.create_task(kept("lease", appliance.sync.watch)),
                background.create_task(kept("sync", appliance.sync.run)),
                background.create_task(kept("bursts", appliance.bursts.run)),
                background.create_task(kept("reservations", appliance.reserving.run)),
                background.create_task(kept("watchdog", notifier.watched)),
            ]
            if with_agent:
                agent = LocalAgent(home, stop_s=AGENT_STOP_S)
                tasks.append(background.create_task(kept("agent", agent.run)))
            with process.announced(home, appliance.endpoint()):
                notifier.ready(f"serving {appliance.endpoint()}")
                await stopped.wait()
                log.info("stopping", extra={"drain_s": settings.timeouts.drain_s})
                within_s = settings.timeouts.drain_s + AFTER_DRAIN_S
                notifier.stopping("finishing what is in flight", within_s)
                await appliance.gateway.drain(settings.timeouts.drain_s)
            for task in tasks:
                task.cancel()
    log.info("stopped")


async def start(
    stack: AsyncExitStack,
    home: Home,
    settings: Settings,
    clock: Clock,
    inherited: socket.socket | None = None,
) -> Live:
    """Make and start every part; `stack` stops them. The endpoint answers when this returns.

    `inherited`: a socket that listens already, in place of the settings' address.

    Raises CrossLogicError: a secret, a database or an address that cannot be used.
    """
    ring = keep_log(stack)
    secrets = load_all(home.secrets)
    registry = await _registry(stack, home, settings, clock, secrets)
    identity = await asyncio.to_thread(establish, home.secrets, home.ledger_file)
    ledger = _ledger(stack, home, clock)
    engines = EngineTally()
    sealer = await make_sealer(home, settings, registry, ledger, identity, clock, engines=engines)
    reader = LedgerReader(home.ledger_file)
    limits = _limits(reader, clock)
    scheduler = Scheduler(settings.scheduler)
    authority = await asyncio.to_thread(ensure_authority, home.secrets, clock.wall_ns())
    tls = ApplianceTls(authority, clock)
    gateway = _gateway(
        *(settings, await registry.snapshot(), limits, scheduler, ledger, clock),
        *(secrets.pepper, tls, _own_books(home, settings, reader, identity)),
    )
    registry.on_change(gateway.swap)
    stack.push_async_callback(gateway.close)
    fleet = await _fleet(stack, registry, scheduler, gateway, settings, clock, home, engines)
    joining = await _joining(stack, registry, fleet, authority, tls, settings, clock)
    sync = await _sync(home, settings, registry, ledger, fleet, clock, sealer)
    address = await _listen(gateway, settings.gateway.listen, inherited)
    nodes = BurstNodes(registry, fleet, scheduler, clock, joining.token, clock.monotonic_s())
    bursts = burst_desk(registry, nodes, settings.burst, clock)
    reserving = Reserving(registry, scheduler, gateway, settings.scheduler, clock)
    live = Live(
        *(fleet, gateway, scheduler, limits, ledger, clock, address, sync, sealer, bursts),
        reserving,
    )
    roles = Roles(settings.access, clock, audited_refusals(registry))
    watching = Watching(gateway, scheduler, ledger, clock)
    watch = await stack.enter_async_context(Watch(watching, clock))
    backups = await _backups(stack, home, settings, clock)
    parts = Parts(home, clock, registry, ledger, fleet, scheduler, sync, authority, tls, backups)
    services = Services(
        site=_site(settings, clock),
        registry=registry,
        live=live,
        usage=LedgerUsage(reader),
        limit_usage=live,
        clock=clock,
        sync=sync,
        manifests=manifest_service(home, sealer, clock),
        packs=PackDesk(registry, home.models, home.pack_key_file),
        joining=joining,
        backups=backups,
        bursts=Bursts(bursts),
        reserving=reserving,
        roles=roles,
        replays=Replays(clock, os.urandom),
        upkeep=make_upkeep(parts, settings, roles, ring),
        watch=watch,
        stream=LiveStream(os.urandom),
        observer=Observer(clock, home.observed, (home.state, home.models), host_now),
    )
    await _answer(stack, home, settings, services, live)
    return live


async def _sync(
    home: Home,
    settings: Settings,
    registry: Registry,
    ledger: Ledger,
    fleet: Fleet,
    clock: Clock,
    sealer: Sealer,
) -> Synchronisation:
    sync = synchronisation(
        *(home, settings, registry, ledger, fleet, clock),
        key=lambda: sealer.identity.key,
        key_changed=sealer.adopt,
    )
    sealer.on_sealed(sync.wake)
    # Before the first request: a throttle that is in force was in force before the stop, too.
    await sync.begin()
    return sync


def _gateway(
    settings: Settings,
    snapshot: Snapshot,
    limits: MemoryLimitStore,
    scheduler: Scheduler,
    ledger: Ledger,
    clock: Clock,
    pepper: bytes,
    tls: ApplianceTls,
    books: OwnBooks,
) -> Gateway:
    return Gateway(
        *(settings, snapshot, limits, PromptEstimator(), scheduler, ledger, clock),
        digester(pepper),
        entropy=EntropyPool().take,
        site_tls=tls.towards_nodes,
        ready=lambda: ledger.healthy,
        books=books,
    )


async def _backups(
    stack: AsyncExitStack, home: Home, settings: Settings, clock: Clock
) -> BackupDesk:
    desk = BackupDesk(
        *(home, settings.backups, clock), site=settings.site.name, product=version(DISTRIBUTION)
    )
    stack.push_async_callback(desk.stop)
    await desk.start()
    return desk


async def _answer(
    stack: AsyncExitStack, home: Home, settings: Settings, services: Services, live: Live
) -> None:
    """The admin API, and the observer of the site that is behind parts of it."""
    admin = AdminServer(home.admin_socket, services, live, metrics_listen=settings.metrics.listen)
    stack.push_async_callback(admin.stop)
    await admin.start()
    stack.push_async_callback(services.observer.stop)
    await services.observer.start(services)


def _own_books(
    home: Home, settings: Settings, reader: LedgerReader, identity: Identity
) -> OwnBooks:
    proofs = Proofs(home.ledger_file, Salts(identity.salts))
    return OwnBooks(reader, proofs, window_s=settings.manifests.window_s)


async def _fleet(
    stack: AsyncExitStack,
    registry: Registry,
    scheduler: Scheduler,
    gateway: Gateway,
    settings: Settings,
    clock: Clock,
    home: Home,
    engines: EngineTally,
) -> Fleet:
    fleet = Fleet(
        registry=registry,
        scheduler=scheduler,
        apply=gateway.apply,
        settings=settings.fleet,
        clock=clock,
        socket=home.agent_socket,
        counted=engines.observe,
    )
    stack.push_async_callback(fleet.stop)
    await fleet.start()
    return fleet


async def _joining(
    stack: AsyncExitStack,
    registry: Registry,
    fleet: Fleet,
    authority: SiteAuthority,
    tls: ApplianceTls,
    settings: Settings,
    clock: Clock,
) -> JoinDesk:
    """The way in for nodes of other hosts: certificates, what they say, the models they copy."""
    models = ModelFiles(registry.models.known, Pace(settings.nodes.copy_bytes_per_s, clock))
    joining = JoinDesk(
        registry=registry,
        authority=authority,
        api=lambda desk: NodeApi(
            desk=fleet,
            joining=desk,
            check=registry.node_certificates.check,
            context=tls.for_nodes,
            clock=clock,
            others=models.routes(),
        ),
        settings=settings.nodes,
        site=settings.site.name,
        clock=clock,
    )
    stack.push_async_callback(joining.stop)
    await joining.start()
    return joining


def _limits(reader: LedgerReader, clock: Clock) -> MemoryLimitStore:
    limits = MemoryLimitStore()
    seed_limits(limits, reader, clock)
    return limits


def _site(settings: Settings, clock: Clock) -> Site:
    return Site(
        name=settings.site.name,
        region=settings.site.region,
        version=version(DISTRIBUTION),
        started_at_ns=clock.wall_ns(),
        brand=brand_of(settings),
    )


def _ledger(stack: AsyncExitStack, home: Home, clock: Clock) -> Ledger:
    ledger = Ledger.open(home.ledger_file, clock, asyncio.get_running_loop())
    stack.callback(ledger.close)
    if ledger.recovered:
        log.warning("requests were cut off by the last stop", extra={"records": ledger.recovered})
    return ledger


async def _registry(
    stack: AsyncExitStack, home: Home, settings: Settings, clock: Clock, secrets: SiteSecrets
) -> Registry:
    database = open_database(home.registry_file)
    stack.callback(database.close)
    registry = Registry(
        database,
        pepper=secrets.pepper,
        seal=Seal(secrets.seal_key),
        clock=clock,
        site_region=settings.site.region,
        global_limits=Limits(
            settings.limits.requests_per_min,
            settings.limits.tokens_per_min,
            settings.limits.tokens_per_day,
            settings.limits.concurrency,
        ),
    )
    stack.push_async_callback(registry.close)
    await registry.check_pepper(ACTOR)
    return registry


async def _listen(
    gateway: Gateway, listen: str, inherited: socket.socket | None
) -> tuple[str, int]:
    try:
        return await gateway.start(listen, sock=inherited)
    except (OSError, ValueError, OverflowError) as error:
        raise AddressUnusable(
            f"Cannot listen on {listen}: {error}.",
            next_step="Name another address with --listen HOST:PORT or gateway.listen, or stop the"
            " program that has it.",
        ) from error
