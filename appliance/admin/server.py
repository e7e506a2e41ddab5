"""The listeners of the admin API: its unix socket, and TCP for the metrics where that is wanted."""

import asyncio
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Final

from aiohttp import web

from appliance.admin.app import admin_app, metrics_app
from appliance.admin.calls import Services
from appliance.admin.errors import ListenFailed, SocketInUse
from appliance.admin.metrics import Exposition
from appliance.admin.ports import MetricsSource
from appliance.wire.unix import socket_address

log = logging.getLogger(__name__)

SOCKET_MODE: Final = 0o660
RUN_FOLDER_MODE: Final = 0o750
_BACKLOG: Final = 64
_KEEPALIVE_S: Final = 30.0
_SHUTDOWN_S: Final = 2.0


class AdminServer:
    """Serves the admin API from `start` to `stop`.

    `metrics_listen` is "HOST:PORT" or None. A port of 0 takes a free one, told by `metrics_port`.
    """

    def __init__(
        self,
        path: Path,
        services: Services,
        metrics: MetricsSource,
        *,
        metrics_listen: str | None = None,
    ) -> None:
        exposition = Exposition(
            metrics, services.site.version, lambda: services.observer.alerts().values()
        )
        self._path = path
        self._stream = services.stream
        self._admin = _runner(admin_app(services, exposition))
        self._metrics = _runner(metrics_app(exposition))
        self._metrics_listen = metrics_listen
        self._inode: int | None = None
        self._server: asyncio.Server | None = None
        self.metrics_port: int | None = None

    async def start(self) -> None:
        """Listen. Raises SocketInUse or ListenFailed, and then listens nowhere."""
        try:
            listener = bind_socket(self._path)
            self._inode = self._path.stat().st_ino
            await self._admin.setup()
            protocol = self._admin.server
            assert protocol is not None  # setup made it
            self._server = await asyncio.get_running_loop().create_unix_server(
                protocol, sock=listener, backlog=_BACKLOG
            )
            if self._metrics_listen is not None:
                await self._listen_metrics(self._metrics_listen)
        except BaseException:
            await self.stop()
            raise
        log.info("admin API listens", extra={"socket": str(self._path)})

    async def stop(self) -> None:
        """End the listeners, then the connections. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._stream.stop()
        await self._admin.cleanup()
        await self._metrics.cleanup()
        if self._inode is not None:
            _unlink_own(self._path, self._inode)
            self._inode = None

    async def _listen_metrics(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ListenFailed(
                f"metrics.listen = {listen!r} is not HOST:PORT.",
                next_step="Write it as 127.0.0.1:9090.",
            )
        await self._metrics.setup()
        try:
            await web.TCPSite(self._metrics, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise ListenFailed(
                f"Cannot serve metrics on {listen}: {error}.",
                next_step="Choose another metrics.listen, or end the program that has this port.",
            ) from error
        self.metrics_port = self._metrics.addresses[0][1]


def bind_socket(path: Path) -> socket.socket:
    """A bound unix socket of mode 0660 at `path`. A stale one is replaced only if nobody answers.

    Raises SocketInUse when somebody does, ListenFailed when the place cannot be used.
    """
    try:
        path.parent.mkdir(mode=RUN_FOLDER_MODE, parents=True, exist_ok=True)
        address = socket_address(path)
        _remove_stale(path, address)
        return _bound(path, address)
    except OSError as error:
        raise ListenFailed(
            f"Cannot make the admin socket {path}: {error.strerror}.",
            next_step="Check that its folder exists and belongs to this account.",
        ) from error


def _bound(path: Path, address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # On Linux the mode of the socket's own inode is that of the file bind makes (unix(7)), so
        # that it is never wider than this, not even for a moment.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(address)
        path.chmod(SOCKET_MODE)  # what the umask took away
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path, address: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenFailed(
                f"{path} is in the way: it is no socket.", next_step="Move it elsewhere."
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a listener whose queue is full is still a listener
    raise SocketInUse(
        f"Another process answers on {path}.",
        next_step="A site is served once: end the other `cic serve` first.",
    )


def _unlink_own(path: Path, inode: int) -> None:
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass


def _runner(app: web.Application) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=_SHUTDOWN_S,
    )
