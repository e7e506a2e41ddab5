"""A registry on disk and HTTP engines on loopback for the fleet's tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from appliance.domain.clock import SystemClock
from appliance.registry.registry import Registry, initialise, open_database
from appliance.security.seal import Seal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
StartEngine = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    path = tmp_path / "registry.db"
    clock = SystemClock()
    initialise(path, actor="test", region="local", clock=clock)
    database = open_database(path)
    registry = Registry(database, pepper=b"p" * 32, seal=Seal(b"s" * 32), clock=clock)
    yield registry
    await registry.close()
    database.close()


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Starts an HTTP server that answers everything with the handler; gives its base URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()
