"""The metadata services of AWS, GCP and Azure on the loopback, as strict as the real ones.

One server answers for all three. What a machine would be told is set with the fields.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class MetadataService:
    """What the clouds say now."""

    url: str = ""
    aws_action: dict[str, Any] | None = None
    aws_events: list[dict[str, Any]] | None = None
    gcp_preempted: str = "FALSE"
    gcp_maintenance: str = "NONE"
    azure_events: list[dict[str, Any]] = field(default_factory=list)
    azure_name: str = "gpu-7"
    broken: int | None = None  # answer everything with this status
    garbage: bool = False  # answer with what is no answer
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@asynccontextmanager
async def metadata_service(port: int = 0) -> AsyncIterator[MetadataService]:
    service = MetadataService()
    app = web.Application(middlewares=[_told(service)])
    serial = itertools.count(1)

    async def aws_token(request: web.Request) -> web.Response:
        ttl = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21_600 or "X-Forwarded-For" in request.headers:
            return web.Response(status=400)
        token = f"AQAE{next(serial):04d}=="
        service.tokens.add(token)
        return web.Response(text=token)

    def aws(answer: Callable[[], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if request.headers.get("X-aws-ec2-metadata-token") not in service.tokens:
                return web.Response(status=401)
            content = answer()
            return web.Response(status=404) if content is None else web.json_response(content)

        return handle

    def gcp(answer: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if request.headers.get("Metadata-Flavor") != "Google":
                return web.Response(status=403)
            return web.Response(text=answer(), headers={"Metadata-Flavor": "Google"})

        return handle

    def azure(answer: Callable[[], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if request.headers.get("Metadata") != "true" or "api-version" not in request.query:
                return web.Response(status=400)
            return web.json_response(answer())

        return handle

    add = app.router.add_route
    add("PUT", "/latest/api/token", aws_token)
    add("GET", "/latest/meta-data/spot/instance-action", aws(lambda: service.aws_action))
    add("GET", "/latest/meta-data/events/maintenance/scheduled", aws(lambda: service.aws_events))
    add("GET", "/computeMetadata/v1/instance/preempted", gcp(lambda: service.gcp_preempted))
    add(
        *("GET", "/computeMetadata/v1/instance/maintenance-event"),
        gcp(lambda: service.gcp_maintenance),
    )
    add("GET", "/metadata/instance/compute", azure(lambda: {"name": service.azure_name}))
    add(
        *("GET", "/metadata/scheduledevents"),
        azure(lambda: {"DocumentIncarnation": 1, "Events": service.azure_events}),
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    service.url = f"http://{host}:{bound}"
    try:
        yield service
    finally:
        await runner.cleanup()


def _told(service: MetadataService) -> Any:
    @web.middleware
    async def note(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        service.asked.append(f"{request.method} {request.path}")
        if service.broken is not None:
            return web.Response(status=service.broken)
        answer = await handler(request)
        if service.garbage and request.method == "GET":
            return web.Response(text="<html>", headers={"Metadata-Flavor": "Google"})
        return answer

    return note
