"""The node API on its unix socket: agents of this host introduce themselves and report.

Only processes of the appliance's own account, of the agent's, or of root, are listened to: the
kernel tells who is at the other end.
"""

import asyncio
import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from appliance.domain.errors import CrossLogicError
from appliance.fleet.errors import (
    BadReport,
    FleetError,
    ForeignNode,
    PeerRefused,
    UnknownNode,
    UnsupportedVersion,
)
from appliance.registry.errors import RegistryError
from appliance.wire.agent import Desired, Heartbeat, Hello, Refusal, Welcome
from appliance.wire.unix import socket_address

M = TypeVar("M", bound=msgspec.Struct)
A = TypeVar("A", bound=msgspec.Struct)

SOCKET_MODE: Final = 0o660
_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_BACKLOG: Final = 32
_SHUTDOWN_S: Final = 1.0
AGENT_ACCOUNT: Final = "crosslogic-agent"
_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_STATUS: Final[dict[type[CrossLogicError], int]] = {
    UnknownNode: 404,
    UnsupportedVersion: 426,
    PeerRefused: 403,
    ForeignNode: 403,
    BadReport: 400,
}


class Desk(Protocol):
    """Where what the agents say is taken in."""

    async def hello(self, hello: Hello) -> Welcome: ...

    async def heartbeat(self, heartbeat: Heartbeat) -> Desired: ...


class NodeServer:
    """Listens on the agents' socket from `start` to `stop`.

    The caller holds the home's lock, so a socket that lies there already is a dead one's.
    """

    def __init__(self, path: Path, desk: Desk) -> None:
        self._path = path
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[_answer_errors])
        app.router.add_post("/agent/v1/hello", _route(Hello, desk.hello))
        app.router.add_post("/agent/v1/heartbeat", _route(Heartbeat, desk.heartbeat))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        await self._runner.setup()
        listener = _listen(self._path)
        protocol = self._runner.server
        assert protocol is not None  # setup made it
        self._server = await asyncio.get_running_loop().create_unix_server(protocol, sock=listener)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        await self._runner.cleanup()


def _listen(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    address = socket_address(path)
    listener.bind(address)
    # Before listen, nobody can connect: the mode is right from the first connection on.
    os.chmod(address, SOCKET_MODE)  # noqa: PTH101 - the address may be a /proc path, not a Path's
    listener.listen(_BACKLOG)
    return listener


def _route(
    message: type[M], act: Callable[[M], Awaitable[A]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    decoder = msgspec.json.Decoder(message)

    async def handle(request: web.Request) -> web.Response:
        _check_peer(request.transport)
        try:
            decoded = decoder.decode(await request.read())
        except msgspec.DecodeError as error:
            raise BadReport(f"The message is not what this route takes: {error}.") from error
        return _json(await act(decoded))

    return handle


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (FleetError, RegistryError) as error:
        return _json(Refusal(code=error.code, message=str(error)), _STATUS.get(type(error), 400))


def _check_peer(transport: asyncio.BaseTransport | None) -> None:
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None:
        raise PeerRefused("The connection ended before it could be looked at.")
    _pid, uid, _gid = _UCRED.unpack(
        peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    if uid not in {0, os.geteuid(), _agents_uid()}:
        raise PeerRefused(
            f"Agents of the account {uid} are not listened to.",
            next_step=f"Run the agent under the appliance's account, or under {AGENT_ACCOUNT}.",
        )


@cache
def _agents_uid() -> int | None:
    """Of the account that the installer makes for agents; None where there is none."""
    try:
        return pwd.getpwnam(AGENT_ACCOUNT).pw_uid
    except KeyError:
        return None


def _json(message: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(message), status=status, content_type="application/json"
    )
