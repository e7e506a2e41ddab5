"""The endpoint on the LAN: sockets, routes, and the watch over everything that runs."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import DeploymentId, new_id
from appliance.gateway import access, catalog
from appliance.gateway.call import Call, Written
from appliance.gateway.clients import Clients
from appliance.gateway.errors import (
    GatewayError,
    MethodNotAllowed,
    RouteNotFound,
    ShuttingDown,
    VersionNotSupported,
)
from appliance.gateway.exchange import Exchange
from appliance.gateway.head import Dater
from appliance.gateway.own_usage import (
    USAGE_PATH,
    LayerGauges,
    OwnBooks,
    day_and_month_ns,
    proof_ref,
    report,
)
from appliance.gateway.pipeline import Pipeline
from appliance.gateway.pools import Pools, SiteTls
from appliance.gateway.routes import HEALTH_PATHS, MODELS_PATH, ROUTES
from appliance.gateway.stats import Stats
from appliance.gateway.traffic import InFlight, Traffic
from appliance.gateway.wiring import Estimator, Ledger, Running, Wiring
from appliance.limits.reservation import LimitStore
from appliance.registry.snapshot import Snapshot
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import Effects, Start
from appliance.settings import Settings

_BACKLOG: Final = 4_096
_SWEEP_S_MAX: Final = 0.5  # how late a deadline may be noticed
_SWEEP_S_MIN: Final = 0.02
_STOP_S: Final = 5.0  # for the records of what was cut off

_VERSIONS: Final = frozenset({HttpVersion10, HttpVersion11})

_log = logging.getLogger("appliance.gateway")


class Gateway:
    """Made by the composition root; everything it works with comes in here.

    `digest` turns a key into what the snapshot's table is keyed by; `site_tls` reaches engines on
    other hosts. `ready` is the rest of the
    appliance's part in `/readyz`. Without `books` there is nothing at `/v1/usage`.
    """

    def __init__(
        self,
        settings: Settings,
        snapshot: Snapshot,
        limits: LimitStore,
        estimator: Estimator,
        scheduler: Scheduler,
        ledger: Ledger,
        clock: Clock,
        digest: Callable[[str], bytes],
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        ready: Callable[[], bool] = lambda: True,
        books: OwnBooks | None = None,
        site_tls: SiteTls | None = None,
    ) -> None:
        self.stats = Stats()
        self.traffic = Traffic()
        self._settings = settings
        self._clock = clock
        self._scheduler = scheduler
        self._ready = ready
        self._books = books
        self._limits = limits
        self._entropy = entropy
        self._running: set[Running] = set()
        self._dater = Dater()
        self._pools = Pools(
            clock,
            connect_s=settings.timeouts.connect_s,
            idle_max=settings.gateway.upstream_connections_idle_max,
            site_tls=site_tls,
        )
        wiring = Wiring(
            settings=settings,
            limits=limits,
            estimator=estimator,
            scheduler=scheduler,
            ledger=ledger,
            clock=clock,
            pools=self._pools,
            stats=self.stats,
            traffic=self.traffic,
            dater=self._dater,
            running=self._running,
            apply=self.apply,
            new_id=self._new_id,
        )
        self._pipeline = Pipeline(wiring, snapshot, digest, entropy(32))
        self._clients: Clients | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    # For the composition root.

    def swap(self, snapshot: Snapshot) -> None:
        """Use new tables from the next request on."""
        self._pipeline.swap(snapshot)

    def apply(self, effects: Effects) -> None:
        """Carry out what the scheduler decided about tickets of this gateway."""
        for effect in effects:
            exchange = effect.ticket
            assert isinstance(exchange, Exchange)  # no one else arrives at this scheduler
            if isinstance(effect, Start):
                exchange.run_on(effect.target)
            else:
                exchange.shed(effect.reason, effect.retry_after_s)

    async def start(
        self, listen: str = "127.0.0.1:0", *, sock: socket.socket | None = None
    ) -> tuple[str, int]:
        """Listen on `HOST:PORT` or on a socket bound already. Returns host and port.

        Raises CrossLogicError without aiohttp's C parser: the one in Python is laxer and slower.
        """
        if HttpRequestParser is HttpRequestParserPy:
            raise CrossLogicError(
                "aiohttp runs without its C parser.",
                next_step="Install aiohttp from its wheel for this platform.",
            )
        loop = asyncio.get_running_loop()
        self._clients = Clients(
            self._handle, self._settings, self._clock, self.stats, self._dater, self._new_id
        )
        if sock is not None:
            self._server = await loop.create_server(self._clients, sock=sock, backlog=_BACKLOG)
        else:
            host, _, port = listen.rpartition(":")
            self._server = await loop.create_server(
                self._clients,
                host.strip("[]") or None,
                int(port),
                backlog=_BACKLOG,
                reuse_address=True,
            )
        self._sweeper = loop.create_task(self._sweep())
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def drain(self, deadline_s: float) -> None:
        """Stop accepting, let what runs finish, and end with a record what does not in time."""
        if self._server is None or self._clients is None:
            return
        self._server.close()
        self._clients.drain()
        await self._until(lambda: not self._running, deadline_s)
        for exchange in list(self._running):
            exchange.stop()
        await self._until(lambda: not self._running, _STOP_S)
        # Their last bytes are written; a moment for clients to take them.
        await self._until(lambda: self._clients is None or not self._clients.open, 1.0)

    async def close(self) -> None:
        """Stop at once; what still runs gets its record."""
        await self.drain(0.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._clients is not None:
            self._clients.abort()
            await self._clients.shutdown(1.0)
        await self._pools.close()
        if self._server is not None:
            await self._server.wait_closed()
        self._pipeline.close()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._clients is not None and not self._clients.draining

    def in_flight(self) -> list[InFlight]:
        """Every admitted request that has not ended."""
        return [exchange.seen() for exchange in self._running]

    def deployment_names(self) -> dict[DeploymentId, str]:
        """What clients call each deployment."""
        return {
            entry.deployment_id: name for name, entry in self._pipeline.snapshot.deployments.items()
        }

    @property
    def running(self) -> int:
        """Requests that were admitted and have no record yet."""
        return len(self._running)

    # Serving.

    async def _handle(self, call: Any) -> Any:
        """Every request comes through here; every refusal leaves through here."""
        try:
            await self._route(call)
        except GatewayError as error:
            assert self._clients is not None  # it made the call
            self._clients.refused(error, call.request_id)
            call.fail(error)
        await call.connection.drained()
        return self._finished(call)

    def _finished(self, call: Call) -> Written:
        if self._clients is not None and self._clients.draining:
            call.keep_alive = False
        return call.written

    async def _route(self, call: Call) -> None:
        if call.version not in _VERSIONS:
            raise VersionNotSupported("This server speaks HTTP/1.1 and HTTP/1.0.")
        path = call.path
        route = ROUTES.get(path)
        if self._clients is not None and self._clients.draining:
            call.keep_alive = False
            raise ShuttingDown("The appliance is stopping.", retry_after_s=5)
        if route is not None and call.method == "POST":
            await self._pipeline.run(call, route)
        elif route is not None:
            raise _other_method("POST")
        elif path in HEALTH_PATHS or path == MODELS_PATH or path.startswith(MODELS_PATH + "/"):
            if call.method in {"GET", "HEAD"}:
                self._look(call, path)
            else:
                raise _other_method("GET, HEAD")
        elif self._books is not None and (path == USAGE_PATH or proof_ref(path) is not None):
            if call.method not in {"GET", "HEAD"}:
                raise _other_method("GET, HEAD")
            await self._look_at_usage(call, path, self._books)
        else:
            raise RouteNotFound("There is nothing at this path.")

    def _look(self, call: Call, path: str) -> None:
        """What only reads: models and health."""
        if path in HEALTH_PATHS:
            good = path == "/healthz" or (self.ready and self._ready())
            state = b"ok" if good else b"not ready"
            call.answer(200 if good else 503, b'{"status":"%b"}' % state)
            return
        caller = self._pipeline.authenticate(call)
        entries = access.visible(caller, self._pipeline.snapshot)
        owned_by = self._settings.gateway.owned_by
        if path == MODELS_PATH:
            call.answer(200, catalog.listing(entries, owned_by))
        else:
            call.answer(200, catalog.single(entries, path, owned_by))

    async def _look_at_usage(self, call: Call, path: str, books: OwnBooks) -> None:
        """What a key sees of its own use. Any role may look; nothing of it is metered."""
        caller = self._pipeline.authenticate(call)
        ref = proof_ref(path)
        if ref is not None:
            call.answer(200, await books.proof(caller.tenant_id, ref))
            return
        now_ns = self._clock.wall_ns()
        usage = await books.usage(caller.key_id, *day_and_month_ns(now_ns))
        now_s = self._clock.monotonic_s()
        layers = [
            LayerGauges(layer.layer.value, self._limits.gauges(layer, now_s))
            for layer in caller.layers
        ]
        call.answer(200, report(caller, usage, layers, now_ns))

    # The watch.

    async def _sweep(self) -> None:
        """Look at every deadline a few times in the shortest of them."""
        timeouts = self._settings.timeouts
        shortest_s = min(
            timeouts.head_s,
            timeouts.write_s,
            timeouts.first_token_s,
            timeouts.token_gap_s,
            timeouts.total_s,
            self._settings.scheduler.queue_wait_s,
        )
        period_s = min(max(shortest_s / 5, _SWEEP_S_MIN), _SWEEP_S_MAX)
        while True:
            await asyncio.sleep(period_s)
            now_s = self._clock.monotonic_s()
            self._watch(self._tick, now_s)
            for exchange in list(self._running):
                self._watch(exchange.check, now_s)
            self._watch(self._pools.sweep, now_s)
            if self._clients is not None:
                self._watch(self._clients.sweep, now_s)

    def _tick(self, now_s: float) -> None:
        self.apply(self._scheduler.tick(now_s))

    def _watch(self, look: Callable[[float], None], now_s: float) -> None:
        """Take one look; a fault in it must not end the watch over all the others."""
        try:
            look(now_s)
        # The supervision of the sweep: what fails is told, and the next is looked at.
        except Exception:  # noqa: BLE001  # see above
            _log.exception("sweep_failed")

    async def _until(self, done: Callable[[], bool], deadline_s: float) -> None:
        """Wait until `done`, at most `deadline_s`."""
        until_s = self._clock.monotonic_s() + deadline_s
        while not done() and self._clock.monotonic_s() < until_s:  # noqa: ASYNC110  # at the end of a life, once
            await asyncio.sleep(_SWEEP_S_MIN)

    def _new_id(self, noun: str) -> str:
        return new_id(noun, self._entropy)


def _other_method(allowed: str) -> MethodNotAllowed:
    line = b"Allow: %b\r\n" % allowed.encode()
    return MethodNotAllowed(f"This path takes {allowed}.", headers=line)
