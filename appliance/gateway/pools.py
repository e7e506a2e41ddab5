"""The connections kept open to each engine, between requests."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.gateway.upstream import Connection
from appliance.registry.urls import never_an_engine
from appliance.scheduler.replicas import ReplicaTarget

# uvicorn and cpp-httplib close what was idle for 5 s; nothing of ours may be on its way then.
_IDLE_S: Final = 4.0
_LINGER_S: Final = 1.0

# Called with a connection, or with None and why there is none.
Connected = Callable[[Connection | None, str], None]
# Host, port, whether over TLS, and the name to verify where it is not the host's.
Address = tuple[str, int, bool, str | None]
# The site's own: shows the appliance's certificate, trusts the site's CA alone. Asked for anew with
# each connection, because the appliance's certificate lives for a day.
SiteTls = Callable[[], ssl.SSLContext]

# A node that is cut off tells nobody. The kernel asks an idle connection from time to time, and
# gives up one whose bytes nobody acknowledges: what waits for its first byte goes elsewhere.
_KEEPALIVE_IDLE_S: Final = 3
_KEEPALIVE_EVERY_S: Final = 2
_UNACKNOWLEDGED_S: Final = 8


class NoSiteCertificate(CrossLogicError):
    code = "no_site_certificate"


class Pool:
    """Connections to one address."""

    __slots__ = ("_clock", "_idle", "_idle_max", "_lingering", "all", "connecting")

    def __init__(self, clock: Clock, idle_max: int) -> None:
        self._clock = clock
        self._idle_max = idle_max
        self._idle: deque[Connection] = deque()  # the last used is the next used
        self._lingering: set[Connection] = set()
        self.all: set[Connection] = set()
        self.connecting = 0

    def take(self) -> Connection | None:
        """A kept connection that is fit for use."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def put(self, connection: Connection) -> None:
        self._lingering.discard(connection)
        if connection.closed:
            return
        if len(self._idle) >= self._idle_max:
            connection.abort()
            return
        connection.since_s = self._clock.monotonic_s()
        self._idle.append(connection)

    def linger(self, connection: Connection) -> None:
        connection.since_s = self._clock.monotonic_s()
        self._lingering.add(connection)

    def forget(self, connection: Connection) -> None:
        self.all.discard(connection)
        self._lingering.discard(connection)

    def sweep(self, now_s: float) -> None:
        """Close what was idle too long and what never came to its end."""
        while self._idle and (self._idle[0].closed or now_s - self._idle[0].since_s > _IDLE_S):
            connection = self._idle.popleft()
            if not connection.closed:
                connection.abort()
        for connection in [c for c in self._lingering if now_s - c.since_s > _LINGER_S]:
            connection.abort()


class Pools:
    """All engines. Connecting happens in tasks owned here."""

    def __init__(
        self, clock: Clock, *, connect_s: float, idle_max: int, site_tls: SiteTls | None = None
    ) -> None:
        """Without `site_tls` no engine behind a node's door is reached."""
        self._clock = clock
        self._site_tls = site_tls
        self._connect_s = connect_s
        self._idle_max = idle_max
        self._pools: dict[Address, Pool] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def of(self, target: ReplicaTarget) -> Pool:
        address = (target.host, target.port, target.tls, target.server_name)
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(self._clock, self._idle_max)
        return pool

    def connect(self, target: ReplicaTarget, connected: Connected) -> None:
        """Open a new connection; `connected` is called once, from the event loop."""
        task = asyncio.get_running_loop().create_task(self._connect(target, connected))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, target: ReplicaTarget, connected: Connected) -> None:
        pool = self.of(target)
        loop = asyncio.get_running_loop()
        pool.connecting += 1
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(pool),
                    target.host,
                    target.port,
                    ssl=self._context(target),
                    server_hostname=target.server_name,
                )
        except TimeoutError:
            connected(None, "the connection could not be made in time")
        except OSError as error:  # ssl.SSLError is one
            connected(None, f"the connection could not be made: {error.strerror or error}")
        except CrossLogicError as error:  # the appliance's own certificate is not to be had
            connected(None, error.message)
        else:
            if never_an_engine(connection.peer_host):
                # A name of the registry's can come to mean another address at any time.
                connection.abort()
                connected(None, "the name leads to an address that holds no engine")
                return
            if target.server_name is not None:
                _watch_peer(connection)
            pool.all.add(connection)
            connected(connection, "")
        finally:
            pool.connecting -= 1

    def _context(self, target: ReplicaTarget) -> ssl.SSLContext | None:
        """Raises CrossLogicError: an engine of the site's own, without the site's certificate."""
        if not target.tls:
            return None
        if target.server_name is not None:
            if self._site_tls is None:
                raise NoSiteCertificate("this gateway has no certificate of the site")
            return self._site_tls()
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def sweep(self, now_s: float) -> None:
        for address, pool in list(self._pools.items()):
            pool.sweep(now_s)
            if not (pool.all or pool.connecting):
                del self._pools[address]

    async def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for pool in self._pools.values():
            for connection in list(pool.all):
                connection.abort()


def _watch_peer(connection: Connection) -> None:
    """Have the kernel end a connection whose other end has fallen silent."""
    wire = connection.socket
    if wire is None:
        return
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_S)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_S * 1_000)
