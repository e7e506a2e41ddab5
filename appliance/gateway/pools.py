"""The connections kept open to each engine, between requests."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.domain.clock import Clock
from appliance.gateway.upstream import Connection
from appliance.registry.urls import never_an_engine
from appliance.scheduler.replicas import ReplicaTarget

# uvicorn and cpp-httplib close what was idle for 5 s; nothing of ours may be on its way then.
_IDLE_S: Final = 4.0
_LINGER_S: Final = 1.0

# Called with a connection, or with None and why there is none.
Connected = Callable[[Connection | None, str], None]
Address = tuple[str, int, bool]


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

    def __init__(self, clock: Clock, *, connect_s: float, idle_max: int) -> None:
        self._clock = clock
        self._connect_s = connect_s
        self._idle_max = idle_max
        self._pools: dict[Address, Pool] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def of(self, target: ReplicaTarget) -> Pool:
        address = (target.host, target.port, target.tls)
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
                    ssl=self._context() if target.tls else None,
                )
        except TimeoutError:
            connected(None, "the connection could not be made in time")
        except OSError as error:  # ssl.SSLError is one
            connected(None, f"the connection could not be made: {error.strerror or error}")
        else:
            if never_an_engine(connection.peer_host):
                # A name of the registry's can come to mean another address at any time.
                connection.abort()
                connected(None, "the name leads to an address that holds no engine")
                return
            pool.all.add(connection)
            connected(connection, "")
        finally:
            pool.connecting -= 1

    def _context(self) -> ssl.SSLContext:
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
