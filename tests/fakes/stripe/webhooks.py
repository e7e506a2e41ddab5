"""Events on their way to the endpoints of the receiver.

Sources: pages "Receive Stripe events in your webhook endpoint" (signature `t=…,v1=…`, retried for
up to three days with growing pauses, the same event may come twice and in any order) and "Event
destinations" (thin events); `stripe/_webhook.py` for the signature.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import json
import random

import aiohttp

from tests.fakes.stripe.account import Account, Object

RETRY_AFTER_S = (60, 300, 1_800, 7_200, 18_000, 36_000, 43_200, 43_200, 43_200, 43_200)
ANSWER_S = 20.0
PAUSE_S = 0.2  # between looks at what is due, while something waits


def signature(payload: str, secret: str, moment_s: int) -> str:
    digest = hmac.new(secret.encode(), f"{moment_s}.{payload}".encode(), hashlib.sha256)
    return f"t={moment_s},v1={digest.hexdigest()}"


@dataclasses.dataclass(slots=True)
class Delivery:
    """One event for one endpoint; `status` is of the last attempt."""

    event_id: str
    event_type: str
    url: str
    secret: str
    payload: str
    due_s: int
    attempts: int = 0
    status: int | None = None


class Webhooks:
    """Queues what is emitted and sends what is due; holds, doubles and shuffles on demand."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.waiting: list[Delivery] = []
        self.delivered: list[Delivery] = []
        self.given_up: list[Delivery] = []
        self.duplicates = 0  # how many of the next events are sent twice
        self._held = False
        self._changed = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        account.on_event = self.enqueue

    # Endpoints

    def add(self, url: str, secret: str, types: tuple[str, ...] = ("*",)) -> Object:
        """Register an endpoint as the dashboard would; it gets snapshot and thin events."""
        return self._account.add(
            "webhook_endpoint",
            {
                "api_version": None,
                "application": None,
                "description": None,
                "enabled_events": list(types),
                "metadata": {},
                "secret": secret,
                "status": "enabled",
                "url": url,
                "thin": True,
            },
        )

    def enqueue(self, event: Object) -> None:
        thin = event["object"] == "v2.core.event"
        for endpoint in self._account.objects["webhook_endpoint"].values():
            wanted = endpoint["enabled_events"]
            if "*" not in wanted and event["type"] not in wanted:
                continue
            if thin and not endpoint["thin"]:
                continue
            self._queue(event, endpoint["url"], endpoint["secret"])
        for target in self._account.objects["v2.core.event_destination"].values():
            if (
                thin is (target["event_payload"] == "thin")
                and event["type"] in (target["enabled_events"])
            ):
                hook = target["webhook_endpoint"]
                self._queue(event, hook["url"], hook["signing_secret"])

    def _queue(self, event: Object, url: str, secret: str) -> None:
        shown = {key: value for key, value in event.items() if value is not None}
        if event["object"] == "v2.core.event":
            shown.pop("data")
        payload = json.dumps(shown)
        now = self._account.clock.now_s()
        copies = 1
        if self.duplicates > 0:
            self.duplicates -= 1
            copies = 2
        for _ in range(copies):
            self.waiting.append(Delivery(event["id"], event["type"], url, secret, payload, now))
        self._changed.set()

    # On demand

    def hold(self) -> None:
        self._held = True

    def release(self, seed: int | None = None) -> None:
        """Send what was held, in another order when a seed is given."""
        if seed is not None:
            random.Random(seed).shuffle(self.waiting)
        self._held = False
        self._changed.set()

    def again(self, event_id: str) -> None:
        """Send an event that was delivered once more."""
        for done in self.delivered:
            if done.event_id == event_id:
                now = self._account.clock.now_s()
                self.waiting.append(dataclasses.replace(done, due_s=now, attempts=0))
                self._changed.set()
                return
        raise LookupError(event_id)

    # Sending

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        assert self._session is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._session.close()

    async def _run(self) -> None:
        while True:
            if not self.waiting:
                self._changed.clear()
                await self._changed.wait()
            await self.send_due()
            if self.waiting:
                await asyncio.sleep(PAUSE_S)

    async def send_due(self) -> None:
        """One attempt for everything that is due, one after the other."""
        async with self._sending:
            now = self._account.clock.now_s()
            if self._held:
                return
            for delivery in [one for one in self.waiting if one.due_s <= now]:
                await self._send(delivery, now)

    async def _send(self, delivery: Delivery, now: int) -> None:
        assert self._session is not None
        delivery.attempts += 1
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(delivery.payload, delivery.secret, now),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with self._session.post(
                delivery.url,
                data=delivery.payload.encode(),
                headers=headers,
                allow_redirects=False,
            ) as answer:
                delivery.status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            delivery.status = None
        if delivery.status is not None and 200 <= delivery.status < 300:
            self.waiting.remove(delivery)
            self.delivered.append(delivery)
        elif delivery.attempts > len(RETRY_AFTER_S):
            self.waiting.remove(delivery)
            self.given_up.append(delivery)
        else:
            delivery.due_s = now + RETRY_AFTER_S[delivery.attempts - 1]


def create_endpoint(account: Account, params: Object) -> Object:
    """The secret is told once, at creation; source: `stripe/_webhook_endpoint.py`."""
    secret = account.new_id("whsec")
    made = account.add(
        "webhook_endpoint",
        {
            "api_version": params.get("api_version"),
            "application": None,
            "description": params.get("description"),
            "enabled_events": params["enabled_events"],
            "metadata": params.get("metadata") or {},
            "secret": secret,
            "status": "enabled",
            "url": params["url"],
            "thin": False,
        },
    )
    return {key: value for key, value in made.items() if key != "thin"}


def listed_endpoints(account: Account, params: Object) -> Object:
    rows = [
        {key: value for key, value in one.items() if key not in ("thin", "secret")}
        for one in account.newest_first("webhook_endpoint")
    ]
    return {"object": "list", "data": rows, "has_more": False, "url": "/v1/webhook_endpoints"}


def delete_endpoint(account: Account, params: Object, webhook_endpoint: str) -> Object:
    account.get("webhook_endpoint", webhook_endpoint)
    del account.objects["webhook_endpoint"][webhook_endpoint]
    return {"id": webhook_endpoint, "object": "webhook_endpoint", "deleted": True}


def create_destination(account: Account, params: Object) -> Object:
    """An event destination of /v2; source: `stripe/v2/core/_event_destination.py`."""
    hook = params.get("webhook_endpoint", {})
    made = account.add(
        "v2.core.event_destination",
        {
            "description": params.get("description", ""),
            "enabled_events": params["enabled_events"],
            "event_payload": params["event_payload"],
            "metadata": params.get("metadata") or {},
            "name": params["name"],
            "status": "enabled",
            "type": params["type"],
            "webhook_endpoint": {
                "signing_secret": account.new_id("whsec"),
                "url": hook.get("url"),
            },
        },
    )
    shown = dict(made)
    if "webhook_endpoint.signing_secret" not in params.get("include", []):
        shown["webhook_endpoint"] = {"url": hook.get("url"), "signing_secret": None}
    return shown


def listed_events(account: Account, params: Object) -> Object:
    found = [
        one
        for one in account.newest_first("event")
        if params.get("type") in (None, one["type"])
        and ("types" not in params or one["type"] in params["types"])
    ]
    limit = params.get("limit", 10)
    more = len(found) > limit
    return {"object": "list", "data": found[:limit], "has_more": more, "url": "/v1/events"}


def retrieve_event(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return account.get("event", id)


def listed_thin_events(account: Account, params: Object) -> Object:
    """Lists of /v2 page by address, not by cursor; source: `stripe/v2/_list_object.py`."""
    found = [
        {key: value for key, value in one.items() if key != "data"}
        for one in account.newest_first("v2.core.event")
        if params.get("object_id") in (None, one.get("related_object", {}).get("id"))
        and ("types" not in params or one["type"] in params["types"])
    ]
    limit = params.get("limit", 20)
    return {"data": found[:limit], "next_page_url": None, "previous_page_url": None}


def retrieve_thin_event(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return account.get("v2.core.event", id)
