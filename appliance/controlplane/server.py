"""The process: listens, bills in the background, and stops without leaving anything half done."""

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import uvloop
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from appliance.controlplane.app import App
from appliance.controlplane.billing.billing_api import BILLING_ROUTES
from appliance.controlplane.errors import ControlPlaneError
from appliance.controlplane.operator_api import SITE_ROUTES
from appliance.controlplane.payments.provisioning import customer_card
from appliance.controlplane.payments.stripe_billing import StripeBilling, stripe_billing
from appliance.controlplane.service import ControlPlane, open_control_plane
from appliance.controlplane.settings import ControlHome, ControlPlaneSettings, Listen
from appliance.domain.clock import Clock
from appliance.wire import logs

log = logging.getLogger(__name__)

_RESTART_S: Final = 1.0  # before background work that failed begins again
_LINGER_S: Final = 1.0
_HEAD_BYTES_MAX: Final = 16 * 1024


def run(home: ControlHome, settings: ControlPlaneSettings, clock: Clock | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Prints `ready http://HOST:PORT`. Raises CrossLogicError."""
    logs.configure(settings.log.level)
    uvloop.run(_serve(home, settings, clock))


async def _serve(home: ControlHome, settings: ControlPlaneSettings, clock: Clock | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    plane = open_control_plane(home, clock=clock, settings=settings)
    try:
        async with serving(plane) as url:
            sys.stdout.write(f"ready {url}\n")
            sys.stdout.flush()
            await stopped.wait()
            log.info("stopping", extra={"stop_s": settings.listen.stop_s})
    finally:
        plane.close()
    log.info("stopped")


@asynccontextmanager
async def serving(plane: ControlPlane) -> AsyncIterator[str]:
    """Listen and bill for as long as the block lasts; the base URL. Raises ControlPlaneError."""
    if HttpRequestParser is HttpRequestParserPy:
        raise ControlPlaneError(
            "aiohttp runs without its C parser.",
            next_step="Install aiohttp from its wheel for this platform.",
        )
    billing = stripe_billing(
        plane.database, plane.settings, plane.clock, plane.entropy, customer_card
    )
    webhook = None if billing is None else billing.webhooks.receive
    app = App(plane, webhook, (*SITE_ROUTES, *BILLING_ROUTES))
    listen = plane.settings.listen
    runner = web.AppRunner(
        app.application(),
        access_log=None,
        # Also the longest that a head may take: aiohttp's timer runs while it waits for one.
        keepalive_timeout=listen.head_s,
        lingering_time=_LINGER_S,
        shutdown_timeout=listen.stop_s,
        auto_decompress=False,
        max_line_size=_HEAD_BYTES_MAX,
        max_field_size=_HEAD_BYTES_MAX,
    )
    await runner.setup()
    try:
        url = await _listen(runner, listen)
        async with asyncio.TaskGroup() as background:
            task = None if billing is None else background.create_task(_kept(billing.run))
            try:
                yield url
            finally:
                app.ready = False
                if task is not None:
                    task.cancel()
    finally:
        await runner.cleanup()
        app.close()
        await _closed(billing)


async def _listen(runner: web.AppRunner, listen: Listen) -> str:
    host, _, port = listen.address.rpartition(":")
    tls = _tls(listen)
    try:
        site = web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=tls)
        await site.start()
    except (OSError, ValueError) as error:
        raise ControlPlaneError(
            f"Cannot listen on {listen.address}: {error}.",
            next_step="Set [listen] address to a HOST:PORT of this machine that is free.",
        ) from error
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"{'http' if tls is None else 'https'}://{shown}:{bound[1]}"


def _tls(listen: Listen) -> ssl.SSLContext | None:
    if not listen.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(listen.tls_certificate, listen.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise ControlPlaneError(
            f"The certificate {listen.tls_certificate} cannot be used: {error}.",
            next_step="Correct [listen] tls_certificate and tls_key: PEM files.",
        ) from error
    return context


async def _kept(work: Callable[[], Awaitable[None]]) -> None:
    """Run background work again whenever it fails."""
    while True:
        try:
            await work()
        # The supervision of a task: its crash is told and contained, and the service goes on.
        except Exception:
            log.exception("background work failed")
            await asyncio.sleep(_RESTART_S)
        else:
            return


async def _closed(billing: StripeBilling | None) -> None:
    if billing is not None:
        with suppress(asyncio.CancelledError):
            await billing.close()
