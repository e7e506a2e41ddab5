"""All clients' connections: how many there may be, and the watch over their deadlines."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from appliance.domain.clock import Clock
from appliance.gateway.call import Call
from appliance.gateway.connection import ClientConnection
from appliance.gateway.errors import GatewayError
from appliance.gateway.head import Dater
from appliance.gateway.stats import Stats
from appliance.settings import Settings

_LINGERING_S: Final = 1.0  # how long a refused body is taken in, so that the answer is not lost
_UNREAD_BYTES_MORE: Final = 1024 * 1024
_READ_BYTES: Final = 32 * 1024  # of a body, before the client is made to wait
_REQUEST_LINE_BYTES_MAX: Final = 8 * 1024
_HEAD_LINES_MAX: Final = 100
_HEADS_BYTES_MAX: Final = 32 * 1024 * 1024  # of all heads that have begun and not ended

_log = logging.getLogger("appliance.gateway")


class Clients(web.Server):
    """aiohttp's low-level server with our connections and our requests."""

    def __init__(
        self,
        handler: Callable[[Any], Any],
        settings: Settings,
        clock: Clock,
        stats: Stats,
        dater: Dater,
        new_id: Callable[[str], str],
    ) -> None:
        super().__init__(handler, request_factory=self._call, handler_cancellation=True)
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._dater = dater
        self.new_id = new_id
        self._open: set[ClientConnection] = set()
        self._of_peer: Counter[str] = Counter()
        self._heads_bytes = 0
        self._draining = False

    def __call__(self) -> ClientConnection:
        return ClientConnection(
            self,
            self._loop,
            keepalive_timeout=self._settings.timeouts.keepalive_s,
            access_log=None,
            max_line_size=_REQUEST_LINE_BYTES_MAX,
            max_field_size=self._settings.gateway.header_bytes_max,
            max_headers=_HEAD_LINES_MAX,
            lingering_time=_LINGERING_S,
            read_bufsize=_READ_BYTES,
            auto_decompress=False,
        )

    def _call(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Any,
        _writer: object,
        task: "asyncio.Task[None]",
    ) -> Any:
        connection.request_begins()
        date = self._dater.line(self._clock.wall_ns())
        return Call(message, payload, connection, task, self.new_id, date)

    def now_s(self) -> float:
        return self._clock.monotonic_s()

    def admit(self, connection: ClientConnection) -> bool:
        """Whether one more connection may be open."""
        gateway = self._settings.gateway
        if (
            self._draining
            or len(self._open) >= gateway.connections_max
            or self._of_peer[connection.peer] >= gateway.connections_per_peer_max
        ):
            self._stats.connections_refused += 1
            return False
        self._open.add(connection)
        self._of_peer[connection.peer] += 1
        self._stats.connections_open = len(self._open)
        return True

    def remove(self, connection: ClientConnection) -> None:
        self._open.discard(connection)
        self._of_peer[connection.peer] -= 1
        if not self._of_peer[connection.peer]:
            del self._of_peer[connection.peer]
        self._stats.connections_open = len(self._open)

    def hold_head(self, head_bytes: int, more_bytes: int) -> bool:
        """Account for a head that has not ended; False when it, or all of them, are too large."""
        self._heads_bytes += more_bytes
        return (
            head_bytes <= self._settings.gateway.header_bytes_max
            and self._heads_bytes <= _HEADS_BYTES_MAX
        )

    def drop_head(self, head_bytes: int) -> None:
        self._heads_bytes -= head_bytes

    def refused(self, error: GatewayError, request_id: str) -> None:
        """Count and log a request that was turned away."""
        self._stats.refusals[error.code] += 1
        _log.info(
            "request_refused",
            extra={"request_id": request_id, "code": error.code, "status": error.status},
        )

    @property
    def unread_bytes_max(self) -> int:
        """Of a refused body, taken in so that its sender comes to read the answer."""
        return self._settings.gateway.body_bytes_max + _UNREAD_BYTES_MORE

    def sweep(self, now_s: float) -> None:
        timeouts = self._settings.timeouts
        for connection in list(self._open):
            connection.check(now_s, timeouts.head_s, timeouts.write_s)

    def drain(self) -> None:
        """Take no new connection, close the idle ones; the others close with their answer."""
        self._draining = True
        for connection in list(self._open):
            if connection.idle:
                connection.force_close()

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def open(self) -> int:
        return len(self._open)

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self._open):
            connection.abort()
