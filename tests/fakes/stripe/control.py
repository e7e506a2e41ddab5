"""Steering the double from other processes, under `/__double__/`.

- `POST clock` {"advance_s": n}; `POST settle`; `GET state` (clock, counts)
- `POST faults` {"fault", "path", "method"?, "count"?, "after"?, "seconds"?}; `POST faults/random`
  {"seed", "rate", "kinds"?, "path"?}; `POST faults/clear`; `GET faults`
- `POST lag` {"seconds": n}; `POST endpoints` {"url"}; `POST webhooks`
  {"duplicates"?, "hold"?, "release"?, "seed"?, "again"?}; `GET webhooks`
- `GET usage`: [{customer, event_name, hour_s, value}]; `GET meter_events`; `GET requests`;
  `GET objects/{kind}`
"""

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.stripe.faults import FAULTS

if TYPE_CHECKING:
    from tests.fakes.stripe.double import StripeDouble


def control_routes(app: web.Application, double: "StripeDouble") -> None:
    control = Control(double)
    app.router.add_route("*", "/__double__/{what:.+}", control.answer)


class Control:
    """Turns each path into a call on the double."""

    def __init__(self, double: "StripeDouble") -> None:
        self._double = double

    async def answer(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        given = json.loads(await request.read() or b"{}")
        verb = f"{request.method} {what.split('/')[0]}"
        match verb:
            case "POST clock":
                await self._double.advance(int(given["advance_s"]))
                found: Any = self._state()
            case "POST settle":
                await self._double.settle()
                found = self._state()
            case "POST faults":
                found = self._plan_faults(what, given)
            case "POST lag":
                self._double.aggregation_lag_s = int(given["seconds"])
                found = self._state()
            case "POST endpoints":
                found = self._double.endpoint(given["url"])
                self._double.save()
            case "POST webhooks":
                found = self._webhooks(given)
            case _ if request.method == "GET":
                found = self._look(what)
            case _:
                found = None
        if found is None:
            return web.json_response({"error": f"unknown: {verb}"}, status=404)
        return web.json_response(found)

    def _state(self) -> dict[str, Any]:
        account = self._double.account
        return {
            "now_s": self._double.clock.now_s(),
            "meter_events": len(account.meter_events),
            "requests": len(self._double.requests),
            "overlaps": self._double.limits.overlaps,
            "webhooks_waiting": len(self._double.webhooks.waiting),
        }

    def _plan_faults(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        faults = self._double.faults
        if what == "faults/random":
            kinds = tuple(given.get("kinds", FAULTS))
            faults.at_random(given["seed"], given["rate"], kinds, given.get("path", "/v1/"))
        elif what == "faults/clear":
            faults.clear()
        else:
            faults.plan(given.pop("fault"), given.pop("path", "/v1/"), **given)
        return {"happened": faults.happened}

    def _webhooks(self, given: dict[str, Any]) -> dict[str, Any]:
        webhooks = self._double.webhooks
        webhooks.duplicates += int(given.get("duplicates", 0))
        if given.get("hold"):
            webhooks.hold()
        if given.get("release"):
            webhooks.release(given.get("seed"))
        if "again" in given:
            webhooks.again(given["again"])
        return self._deliveries()

    def _deliveries(self) -> dict[str, Any]:
        webhooks = self._double.webhooks
        return {
            name: [
                {"event": one.event_id, "type": one.event_type, "attempts": one.attempts}
                for one in deliveries
            ]
            for name, deliveries in (
                ("waiting", webhooks.waiting),
                ("delivered", webhooks.delivered),
                ("given_up", webhooks.given_up),
            )
        }

    def _look(self, what: str) -> Any:
        account = self._double.account
        match what.split("/"):
            case ["state"]:
                return self._state()
            case ["faults"]:
                return {"happened": self._double.faults.happened}
            case ["webhooks"]:
                return self._deliveries()
            case ["usage"]:
                return [
                    {
                        "customer": place[0],
                        "event_name": place[1],
                        "hour_s": place[2],
                        "value": sum_,
                    }
                    for place, sum_ in sorted(self._double.usage().items())
                ]
            case ["meter_events"]:
                return account.meter_events
            case ["requests"]:
                return self._double.requests
            case ["objects", kind] if kind in account.objects:
                return list(account.objects[kind].values())
        return None
