"""The node API: HTTP over TLS 1.3 for the agents of other hosts.

A node is who its certificate says. Three routes need none: the CA's certificate, joining with a
token, and rejoining with a certificate that has expired. TLS has checked that a certificate is the
site's and in force; whether it was revoked is asked with every request.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from appliance.domain.clock import Clock
from appliance.domain.errors import CrossLogicError
from appliance.domain.ids import NodeId
from appliance.fleet.errors import (
    BadReport,
    ForeignNode,
    NoCertificate,
    NodeApiClosed,
    RejoinRefused,
    UnknownNode,
    UnsupportedVersion,
)
from appliance.fleet.node_guests import NodeGuests, listening_socket
from appliance.fleet.sessions import Origin
from appliance.registry.errors import CertificateRefused, NotFound, TokenRefused
from appliance.registry.node_certificates import Certificate
from appliance.wire.agent import Desired, Heartbeat, Hello, Refusal, Welcome
from appliance.wire.join import Joined, JoinRequest, RejoinRequest, RenewRequest

log = logging.getLogger(__name__)

M = TypeVar("M", bound=msgspec.Struct)

_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_UNKNOWN_BODY_BYTES_MAX: Final = 64 * 1024  # of those who have shown nothing yet
_BODY_S: Final = 10.0
_SHUTDOWN_S: Final = 1.0
_KEEPALIVE_S: Final = 75.0
_STATUS: Final[dict[type[CrossLogicError], int]] = {
    UnknownNode: 404,
    UnsupportedVersion: 426,
    ForeignNode: 403,
    BadReport: 400,
    NoCertificate: 401,
    CertificateRefused: 401,
    TokenRefused: 403,
    RejoinRefused: 403,
    NotFound: 404,
}

# Another part's route: the request, and the certificate of who asks.
NodeHandler = Callable[[web.Request, Certificate], Awaitable[web.StreamResponse]]


class NodeDesk(Protocol):
    """Where what nodes say is taken in: the fleet."""

    async def hello(self, hello: Hello, origin: Origin) -> Welcome: ...

    async def heartbeat(self, heartbeat: Heartbeat, origin: Origin) -> Desired: ...


class Joining(Protocol):
    """Where certificates come from."""

    @property
    def ca_pem(self) -> str: ...

    async def join(self, request: JoinRequest) -> Joined: ...

    async def rejoin(self, request: RejoinRequest) -> Joined: ...

    async def renew(self, request: RenewRequest, held: Certificate) -> Joined: ...


class NodeApi:
    """Listens from `listen` to `stop`."""

    def __init__(
        self,
        *,
        desk: NodeDesk,
        joining: Joining,
        check: Callable[[str], Awaitable[Certificate]],
        context: Callable[[], ssl.SSLContext],
        clock: Clock,
        others: Sequence[tuple[str, str, NodeHandler]] = (),
    ) -> None:
        """`check` tells by its serial whether a certificate is good; `context` keeps the
        appliance's own new. `others`: method, path and handler of other parts' routes.
        """
        self._desk = desk
        self._joining = joining
        self._check = check
        self._context = context
        self._clock = clock
        self.port: int | None = None  # None: it does not listen
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[_answer_errors])
        app.router.add_get("/node/v1/ca", self._ca)
        app.router.add_post("/node/v1/join", self._open_route(JoinRequest, joining.join))
        app.router.add_post("/node/v1/rejoin", self._open_route(RejoinRequest, joining.rejoin))
        app.router.add_post("/node/v1/renew", self._node_route(RenewRequest, self._renew))
        app.router.add_post("/node/v1/hello", self._node_route(Hello, self._hello))
        app.router.add_post("/node/v1/heartbeat", self._node_route(Heartbeat, self._heartbeat))
        for method, path, handler in others:
            app.router.add_route(method, path, self._guarded(handler))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=_KEEPALIVE_S,
            lingering_time=1.0,
        )
        self._guests: NodeGuests | None = None

    async def listen(self, host: str, port: int, *, or_any: bool = False) -> int:
        """The port it got. `or_any`: another one where that is taken. Raises NodeApiClosed."""
        if self._runner.server is None:
            await self._runner.setup()
        protocol = self._runner.server
        assert protocol is not None  # setup made it
        try:
            listener = listening_socket(host, port, or_any=or_any)
        except (OSError, ValueError, OverflowError) as error:
            raise NodeApiClosed(
                f"The node API cannot listen on {host}:{port}: {error}.",
                next_step="Stop the program that has the port, or name another: nodes.listen.",
            ) from error
        bound = int(listener.getsockname()[1])
        self._guests = NodeGuests(listener, protocol, self._context)
        self._guests.begin()
        self.port = bound
        if port not in (0, bound):
            log.warning("node API took another port", extra={"taken": port, "port": bound})
        log.info("node API listens", extra={"host": host, "port": bound})
        return bound

    async def stop(self) -> None:
        if self._guests is not None:
            await self._guests.end()
            self._guests = None
            self.port = None
        await self._runner.cleanup()

    # Routes.

    async def _ca(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=self._joining.ca_pem, content_type="application/x-pem-file")

    async def _hello(self, hello: Hello, held: Certificate, peer: str) -> Welcome:
        return await self._desk.hello(hello, Origin(NodeId(held.node_id), peer))

    async def _heartbeat(self, heartbeat: Heartbeat, held: Certificate, peer: str) -> Desired:
        return await self._desk.heartbeat(heartbeat, Origin(NodeId(held.node_id), peer))

    async def _renew(self, request: RenewRequest, held: Certificate, _peer: str) -> Joined:
        return await self._joining.renew(request, held)

    def _open_route(
        self, message: type[M], act: Callable[[M], Awaitable[msgspec.Struct]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """For those who have no certificate: little is read of what they send."""

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await _body(request, _UNKNOWN_BODY_BYTES_MAX)
            return _json(await act(_decoded(body, message)))

        return handle

    def _node_route(
        self, message: type[M], act: Callable[[M, Certificate, str], Awaitable[msgspec.Struct]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            held = await self._who(request)
            body = await _body(request, _BODY_BYTES_MAX)
            return _json(await act(_decoded(body, message), held, _peer_host(request)))

        return handle

    def _guarded(
        self, handler: NodeHandler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request, await self._who(request))

        return handle

    async def _who(self, request: web.Request) -> Certificate:
        """The node at the other end. Raises NoCertificate, CertificateRefused."""
        transport = request.transport
        shown: Any = None if transport is None else transport.get_extra_info("peercert")
        if not shown:
            raise NoCertificate(
                "This needs a node's certificate.", next_step="Join first: `cic agent join`."
            )
        held = await self._check(str(shown["serialNumber"]).lstrip("0"))
        # TLS looked at the handshake; a connection may live longer than the certificate.
        if self._clock.wall_ns() >= held.expires_at_ns:
            raise CertificateRefused(
                "This certificate has expired.", next_step="Connect with the renewed one."
            )
        return held


def _peer_host(request: web.Request) -> str:
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        raise NoCertificate("The connection ended before it could be looked at.")
    return str(peer[0])


async def _body(request: web.Request, bytes_max: int) -> bytes:
    """Raises BadReport: too long, or too slow."""
    if request.content_length is not None and request.content_length > bytes_max:
        raise BadReport("The message is too long.")
    if "Content-Encoding" in request.headers:
        raise BadReport("The message is compressed: that is not taken here.")
    try:
        async with asyncio.timeout(_BODY_S):
            body = bytearray()
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > bytes_max:
                    raise BadReport("The message is too long.")
            return bytes(body)
    except TimeoutError as error:
        raise BadReport("The message did not come in time.") from error


def _decoded(body: bytes, message: type[M]) -> M:
    try:
        return msgspec.json.decode(body, type=message)
    except msgspec.DecodeError as error:
        raise BadReport(f"The message is not what this route takes: {error}.") from error


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except CrossLogicError as error:
        status = _STATUS.get(type(error), 400)
        if status in {401, 403}:
            extra = {"path": request.path, "code": error.code, "why": error.message}
            log.warning("node refused", extra=extra)
        text = error.message if error.next_step is None else f"{error.message} {error.next_step}"
        return _json(Refusal(code=error.code, message=text), status)


def _json(message: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(message), status=status, content_type="application/json"
    )
