"""Alerts, events and history over the admin API."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec

from appliance.admin.calls import Call, Events, NoQuery, Route, Services
from appliance.admin.errors import BadRequest, NoSuchAlert
from appliance.admin.history import POINTS_MAX, UNITS, Span
from appliance.wire.admin import SEQ_MAX
from appliance.wire.stream import Alert, Event, HistorySeries

_NDJSON: Final = "application/x-ndjson"


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Those with a higher number than `since`; `follow` goes on with those to come."""

    since: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)] = 0
    follow: bool = False


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`series` "" is all. `of`: "" the site, deployment/NAME, tenant/ID, node/NAME, or a kind.

    `newest`: only of so many of the last steps; 0 is all that the span has.
    """

    series: str = ""
    of: str = ""
    span: Span = "1h"
    newest: Annotated[int, msgspec.Meta(ge=0, le=POINTS_MAX)] = 0


async def list_alerts(services: Services, _call: Call[NoQuery, None]) -> list[Alert]:
    return list(services.observer.alerts().values())


async def acknowledge(services: Services, call: Call[NoQuery, None]) -> Alert:
    """Audited. The alert stays until its cause is gone."""
    alert = services.observer.acknowledge(call.ref, call.actor)
    if alert is None:
        raise NoSuchAlert(
            f"There is no alert '{call.ref}'; it may have ended.",
            next_step="`cic alert list` shows those there are.",
        )
    await services.registry.audit.note(
        call.actor, "acknowledge", "alert", alert.id, alert.text, alert
    )
    return alert


async def events(services: Services, call: Call[EventQuery, None]) -> Events:
    pieces = _pieces(services, call.query.since, follow=call.query.follow)
    return Events(pieces, content_type=_NDJSON)


async def _pieces(services: Services, since: int, *, follow: bool) -> AsyncIterator[bytes]:
    observer = services.observer
    while True:
        found = observer.events(since)
        yield b"".join(msgspec.json.encode(event) + b"\n" for event in found)
        if found:
            since = found[-1].seq
        if not follow or not await observer.more(since):
            return


async def history(services: Services, call: Call[HistoryQuery, None]) -> list[HistorySeries]:
    query = call.query
    if query.series and query.series not in UNITS:
        raise BadRequest(
            f"series: there is no series '{query.series}'.",
            next_step=f"Series: {', '.join(UNITS)}.",
        )
    now_s = services.clock.wall_ns() // 10**9
    return services.observer.history.series(
        query.series, query.of, query.span, now_s, query.newest or POINTS_MAX
    )


ROUTES: Final = (
    Route("GET", "/v1/alerts", "What wants an administrator", list_alerts, list[Alert]),
    Route(
        *("POST", "/v1/alerts/{ref}/acknowledge", "Say that somebody looks after it", acknowledge),
        answer=Alert,
        role="operator",
    ),
    Route(
        *("GET", "/v1/events", "What happened on the site, one a line", events, Event),
        query=EventQuery,
        lines=True,
        streams=True,
    ),
    Route(
        *("GET", "/v1/history", "Figures of the past: an hour, a day, 30 days", history),
        answer=list[HistorySeries],
        query=HistoryQuery,
    ),
)
