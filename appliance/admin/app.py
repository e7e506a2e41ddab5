"""The aiohttp application of the admin API: routes in, JSON out, every error an ErrorBody."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from appliance.admin.calls import Call, Events, Lines, Route, Services
from appliance.admin.errors import BadRequest, NoSuchRoute, body_of, status_of
from appliance.admin.metrics import CONTENT_TYPE, Exposition
from appliance.admin.openapi import describe
from appliance.admin.replays import Answered, blanked
from appliance.admin.roles import Caller
from appliance.admin.routes import ROUTES
from appliance.admin.sending import send_events, send_lines
from appliance.domain.errors import CrossLogicError
from appliance.wire.admin import ErrorBody

log = logging.getLogger(__name__)

# The largest body of this API is an object with a few names in it.
BODY_BYTES_MAX: Final = 1024 * 1024
_JSON: Final = "application/json"

_Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def admin_app(services: Services, exposition: Exposition) -> web.Application:
    """Everything the unix socket answers."""
    app = web.Application(middlewares=[_errors], client_max_size=BODY_BYTES_MAX)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(route, services))
    document = msgspec.json.encode(describe(ROUTES, services.site.version))

    async def openapi(request: web.Request) -> web.Response:
        await _demand_viewer(request, services)
        return web.Response(body=document, content_type=_JSON)

    async def metrics(request: web.Request) -> web.Response:
        await _demand_viewer(request, services)
        return _metrics(exposition)

    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/metrics", metrics)
    _add_health(app, services)
    return app


def metrics_app(exposition: Exposition) -> web.Application:
    """What is served over TCP when the settings ask for it: figures, and nothing else."""
    app = web.Application(middlewares=[_errors])

    async def metrics(_request: web.Request) -> web.Response:
        return _metrics(exposition)

    app.router.add_get("/metrics", metrics)
    return app


def _metrics(exposition: Exposition) -> web.Response:
    return web.Response(body=exposition.text(), headers={"Content-Type": CONTENT_TYPE})


async def _demand_viewer(request: web.Request, services: Services) -> None:
    roles = services.roles
    await roles.demand(await roles.caller(request.transport), "viewer", f"GET {request.path}")


def _add_health(app: web.Application, services: Services) -> None:
    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        if services.live.ready():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready"}, status=503)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)


def _endpoint(route: Route, services: Services) -> _Endpoint:
    doing = f"{route.method} {route.path}"

    async def endpoint(request: web.Request) -> web.StreamResponse:
        roles = services.roles
        caller = await roles.caller(request.transport)
        # Before anything of the body is read: who may not do this learns nothing by trying.
        await roles.demand(caller, route.least_role, doing)
        if route.body_bytes_max is not None:
            request = request.clone(client_max_size=route.body_bytes_max)
        raw = b"" if route.body is None else await request.read()
        key = request.headers.get("Idempotency-Key")
        if key is None or route.method == "GET" or route.streams:
            answer = await _handle(route, services, request, caller, raw)
            if isinstance(answer, Lines):
                return await send_lines(request, answer)
            if isinstance(answer, Events):
                return await send_events(request, answer)
            return _response(_answered(route, answer))

        async def run() -> Answered:
            return _answered(route, await _handle(route, services, request, caller, raw))

        whole = b"\0".join((request.method.encode(), request.raw_path.encode(), raw))
        answered, again = await services.replays.once(caller.actor, key, whole, run)
        response = _response(answered)
        if again:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    return endpoint


async def _handle(
    route: Route, services: Services, request: web.Request, caller: Caller, raw: bytes
) -> object:
    if route.grows:
        services.sync.check_changes()
    body = None if route.body is None else _body(raw, route.body, request)
    doing = f"{route.method} {route.path}"
    await services.roles.demand(caller, route.role_for(body), doing)
    call = Call(
        actor=caller.actor,
        ref=request.match_info.get("ref", ""),
        query=_query(request, route.query),
        body=body,
        caller=caller,
        last_id=request.headers.get("Last-Event-ID", ""),
    )
    return await route.handler(services, call)


def _answered(route: Route, answer: object) -> Answered:
    if route.answer is None:
        return Answered(HTTPStatus.NO_CONTENT, b"")
    body = msgspec.json.encode(answer)
    return Answered(route.status, body, blanked(body, route.secrets) if route.secrets else None)


def _response(answered: Answered) -> web.Response:
    if answered.status == HTTPStatus.NO_CONTENT:
        return web.Response(status=answered.status)
    return web.Response(body=answered.body, status=answered.status, content_type=_JSON)


def _query(request: web.Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise BadRequest(f"The query parameter '{name}' is given twice.")
        values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The query is not understood: {error}.") from error


def _body(raw: bytes, kind: type[msgspec.Struct], request: web.Request) -> msgspec.Struct:
    if raw and request.content_type != _JSON:
        raise BadRequest(f"The body must be {_JSON}, not {request.content_type}.")
    try:
        # No body at all stands for an object whose fields all have their defaults.
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"The body is not understood: {error}.", next_step="/openapi.json describes it."
        ) from error


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except CrossLogicError as error:
        status = status_of(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("admin request failed", extra={"path": request.path, "code": error.code})
        return _error_response(body_of(error), status)
    except web.HTTPRequestEntityTooLarge as error:
        body = ErrorBody(code="body_too_large", message=f"The body is too large: {error.text}.")
        return _error_response(body, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except web.HTTPException as error:
        nothing = NoSuchRoute(
            f"{request.method} {request.path} is not part of this API.",
            next_step="GET /openapi.json lists what is.",
        )
        return _error_response(body_of(nothing), HTTPStatus(error.status))
    except ConnectionResetError:
        return web.Response()  # the client has left, which is no error; nobody reads this
    # The boundary of one request: its defect must not end the connection without an answer.
    except Exception:
        log.exception("admin request failed", extra={"path": request.path})
        body = ErrorBody(
            code="internal_error",
            message="The appliance failed on this request.",
            next_step="Its log says more; please report it.",
        )
        return _error_response(body, HTTPStatus.INTERNAL_SERVER_ERROR)
    return response


def _error_response(body: ErrorBody, status: HTTPStatus) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type=_JSON)
