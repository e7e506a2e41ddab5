"""A stateful double of the Stripe API on loopback, for the real SDK 16.1 to talk to.

What it is: one account in test mode, in memory, with a clock that can be moved, faults on demand,
signed webhooks, and refusals where Stripe documents them. Requests are checked against the SDK's
own parameter types. Each simulated behaviour names its source in the module that simulates it.

What it is not: Stripe. Its sources are the public documentation and the SDK; that the real
service does the same is unproven until `make test-stripe` has run the same tests against Stripe's
test mode. What it does not know it refuses with HTTP 501. It knows no payments: an invoice that is
charged automatically is paid when it is final, unless `account.pays` says otherwise.

- In a test: `async with StripeDouble(clock) as double:` → `double.base_url`, `double.api_key`,
  `double.webhook_secret`, `double.faults.plan("answer_lost", "/v1/billing/meter_events")`,
  `await double.advance(86_400)`, `double.usage()`.
- For other processes: `python -m tests.fakes.stripe --port N [--state FILE]`, steered by
  `/__double__/…` (tests/fakes/stripe/control.py).
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from appliance.domain.clock import Clock, SystemClock
from tests.fakes.stripe import limits, meters
from tests.fakes.stripe.account import API_VERSION, Account, Object
from tests.fakes.stripe.clock import ShiftedClock
from tests.fakes.stripe.control import control_routes
from tests.fakes.stripe.cycle import catch_up
from tests.fakes.stripe.errors import ApiError
from tests.fakes.stripe.expansion import expanded
from tests.fakes.stripe.faults import Faults, Planned
from tests.fakes.stripe.idempotency import IdempotencyKeys
from tests.fakes.stripe.limits import Limits
from tests.fakes.stripe.parameters import checked, decode_pairs
from tests.fakes.stripe.routes import METER_EVENTS, Route, find
from tests.fakes.stripe.webhooks import Webhooks

API_KEY = "sk_test_double"
WEBHOOK_SECRET = "whsec_double"


class StripeDouble:
    """The server; everything a test steers is an attribute of it."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        api_key: str = API_KEY,
        webhook_secret: str = WEBHOOK_SECRET,
        state: Path | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = ShiftedClock(clock or SystemClock())
        self.api_key = api_key
        self.webhook_secret = webhook_secret
        self.port = 0
        self.account = Account(self.clock)
        self._state = state
        if state is not None and state.exists():
            self.account.load(state.read_text(encoding="utf-8"))
        self.faults = Faults()
        self.limits = Limits(monotonic_s)
        self.webhooks = Webhooks(self.account)
        self.aggregation_lag_s = 0  # until a meter event counts; page "Meter event summary"
        self.latency_s = 0.002  # of a meter event: how long it holds its customer and meter
        self.requests: list[Object] = []  # method, path, params, key, status of every call
        self._keys = IdempotencyKeys(self.account)
        self._runner: web.AppRunner | None = None

    # Life

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 20)
        control_routes(app, self)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        await self.webhooks.start()

    async def stop(self) -> None:
        assert self._runner is not None
        await self.webhooks.stop()
        await self._runner.cleanup()

    async def __aenter__(self) -> "StripeDouble":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Steering

    def endpoint(self, url: str, types: tuple[str, ...] = ("*",)) -> Object:
        """Send events to `url`, signed with `webhook_secret`."""
        return self.webhooks.add(url, self.webhook_secret, types)

    async def advance(self, seconds: int) -> None:
        """Move the clock, do what has become due, and send the webhooks that are due."""
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Do what is due by now, and attempt every delivery that is due."""
        catch_up(self.account)
        await self.webhooks.send_due()
        self.save()

    def save(self) -> None:
        if self._state is not None:
            self.account.save(self._state)

    # Looking

    def usage(self) -> dict[tuple[str, str, int], int]:
        """(customer, event name, hour as seconds) -> what was taken, lag or not."""
        sums: dict[tuple[str, str, int], int] = {}
        for kept in self.account.meter_events:
            if kept["problem"] is None and not kept["cancelled"]:
                hour = kept["timestamp"] // 3_600 * 3_600
                place = (kept["customer"], kept["event_name"], hour)
                sums[place] = sums.get(place, 0) + kept["value"]
        return sums

    # Answering

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """One call: key, fault, parameters, limits, idempotency key, work, answer."""
        account = self.account
        fault = self.faults.take(request.method, request.path)
        if fault is not None and fault.fault == "reset_before":
            return _reset(request)
        account.sequence += 1
        request_id = f"req_Double{account.sequence:010d}"
        seen: Object = {"method": request.method, "path": request.path, "status": None}
        seen["key"] = request.headers.get("Idempotency-Key")
        seen["request_id"] = request_id
        self.requests.append(seen)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        if seen["key"] is not None:
            headers["Idempotency-Key"] = seen["key"]
        try:
            status, body = await self._work(request, seen, fault, headers)
        except ApiError as refusal:
            status, body = refusal.status, json.dumps(refusal.body())
            if refusal.retry is not None:
                headers["Stripe-Should-Retry"] = "true" if refusal.retry else "false"
        seen["status"] = status
        return await _sent(request, status, body, headers, fault)

    async def _work(
        self, request: web.Request, seen: Object, fault: Planned | None, headers: dict[str, str]
    ) -> tuple[int, str]:
        self._authenticate(request)
        catch_up(self.account)
        route, names = find(request.method, request.path)
        given = await _given(request)
        seen["params"] = given
        _refused_by_fault(fault)
        params = checked(route.shape, given) if route.shape is not None else given
        if route.path == METER_EVENTS:
            self.limits.count()
        key = seen["key"] if request.method == "POST" else None
        if key is None:
            return await self._carried_out(route, params, names, seen, fault)
        stored = self._keys.begin(key, request.method, request.path, given)
        if stored is not None:
            headers["Idempotent-Replayed"] = "true"
            return stored
        try:
            status, body = await self._carried_out(route, params, names, seen, fault)
        except ApiError as refusal:
            if refusal.begun:
                body = json.dumps(refusal.body())
                self._keys.keep(key, request.method, request.path, given, refusal.status, body)
                self.save()
            raise
        finally:
            self._keys.end(key)
        self._keys.keep(key, request.method, request.path, given, status, body)
        self.save()
        return status, body

    async def _carried_out(
        self,
        route: Route,
        params: Object,
        names: dict[str, str],
        seen: Object,
        fault: Planned | None,
    ) -> tuple[int, str]:
        """The work itself; a meter event holds its customer and meter while it lasts."""
        if fault is not None and fault.fault == "stored_500":
            return 500, _SERVER_ERROR
        if route.path == METER_EVENTS:
            customer = str(params["payload"].get("stripe_customer_id"))
            with self.limits.one_at_a_time(customer, params["event_name"]):
                await asyncio.sleep(self.latency_s)
                if fault is not None and fault.fault == "slow":
                    await asyncio.sleep(fault.seconds)
                answer = self._done(route, params, names, seen)
        else:
            if fault is not None and fault.fault == "slow":
                await asyncio.sleep(fault.seconds)
            answer = self._done(route, params, names, seen)
        self.save()
        if fault is not None and fault.fault == "stored_500_after":
            return 500, _SERVER_ERROR
        return 200, json.dumps(answer)

    def _done(self, route: Route, params: Object, names: dict[str, str], seen: Object) -> Any:
        account = self.account
        account.request_id, account.request_key = seen["request_id"], seen["key"]
        try:
            if route.path == METER_EVENTS:
                return meters.record(account, params, self.aggregation_lag_s)
            answer = route.run(account, params, **names)
        finally:
            account.request_id = account.request_key = None
        return expanded(account, answer, params.get("expand", []))

    def _authenticate(self, request: web.Request) -> None:
        """Source: page "Authentication": the secret key as a bearer token; 401 without."""
        kind, _, key = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not key:
            raise ApiError(401, "You did not provide an API key.", begun=False)
        if key != self.api_key:
            raise ApiError(401, f"Invalid API Key provided: {key[:8]}****", begun=False)


_SERVER_ERROR = json.dumps(
    {"error": {"type": "api_error", "message": "An unknown error occurred."}}
)


def _refused_by_fault(fault: Planned | None) -> None:
    """The faults that are answers, given before anything is done or kept."""
    if fault is None:
        return
    if fault.fault == "rate_limited":
        raise limits.rate_limited()
    if fault.fault == "locked":
        raise limits.locked()
    if fault.fault == "unavailable":
        raise ApiError(503, "Service unavailable.", kind="api_error", begun=False)


async def _given(request: web.Request) -> Object:
    """The parameters as they came: JSON for /v2, else form or query with brackets."""
    if request.path.startswith("/v2/"):
        if request.method == "POST":
            try:
                decoded = json.loads(await request.read() or b"{}")
            except ValueError:
                raise ApiError(400, "The body is not JSON.", begun=False) from None
            return decoded if isinstance(decoded, dict) else {}
        return decode_pairs(parse_qsl(request.query_string, keep_blank_values=True))
    text = request.query_string
    if request.method == "POST":
        text = (await request.read()).decode(errors="replace")
    return decode_pairs(parse_qsl(text, keep_blank_values=True))


async def _sent(
    request: web.Request, status: int, body: str, headers: dict[str, str], fault: Planned | None
) -> web.StreamResponse:
    """The answer, or what is left of it."""
    if fault is not None and fault.fault == "reset_after":
        return _reset(request)
    if fault is not None and fault.fault == "answer_lost":
        if request.transport is not None:
            request.transport.close()
        return web.Response()
    raw = body.encode()
    if fault is not None and fault.fault == "truncated":
        cut = web.StreamResponse(status=status, headers=headers)
        cut.content_type = "application/json"
        cut.content_length = len(raw)
        await cut.prepare(request)
        await cut.write(raw[: len(raw) // 2])
        if request.transport is not None:
            request.transport.close()
        return cut
    return web.Response(status=status, body=raw, headers=headers, content_type="application/json")


def _reset(request: web.Request) -> web.StreamResponse:
    """End the connection at once, without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
