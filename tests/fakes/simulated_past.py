"""The past of a simulated site: what `GET /v1/history` answers, of the site and its deployments."""

import math
from collections.abc import Callable, Mapping

from appliance.wire.stream import HistoryPoint, HistorySeries
from tests.fakes.simulated_fleet import SimulatedFleet

_RINGS = {"1h": (10, 360), "24h": (60, 1_440), "30d": (3_600, 720)}
_UNITS = {
    "output_tokens_per_s": "tokens/s",
    "utilisation": "%",
    "queued": "requests",
    "first_token_p95_ms": "ms",
}
# Of the site: a value by minutes before now. Nothing was told between the 20th and the 25th.
_SITE: Mapping[str, Callable[[float], float]] = {
    "output_tokens_per_s": lambda back: 4_210 + 900 * math.sin(back / 9),
    "utilisation": lambda back: 64 + 18 * math.sin(back / 9 + 1),
    "queued": lambda back: max(0.0, round(9 * math.sin(back / 5 + 3))),
    "first_token_p95_ms": lambda back: 275 + 120 * max(0.0, math.sin(back / 5 + 3)),
}


def past(fleet: SimulatedFleet, query: Mapping[str, str]) -> list[HistorySeries]:
    """By the query of the real one: `series`, `of`, `span`, `newest`."""
    if fleet.condition == "empty":
        return []
    kind, _, name = query.get("of", "").partition("/")
    if kind == "":
        made = [(series, "", value) for series, value in sorted(_SITE.items())]
    else:
        rows = fleet.tables()["deployments"].values() if kind == "deployment" else ()
        made = [
            ("output_tokens_per_s", row["name"], _near(row["output_tokens_per_s"] or 0.0, at))
            for at, row in enumerate(rows)
            if name in ("", row["name"])
        ]
    return [_told(fleet, each, query) for each in made if query.get("series", "") in ("", each[0])]


def _near(now: float, number: int) -> Callable[[float], float]:
    return lambda back: now * (0.7 + 0.3 * math.cos(back * (1 + number % 5) / 4))


def _told(
    fleet: SimulatedFleet,
    made: tuple[str, str, Callable[[float], float]],
    query: Mapping[str, str],
) -> HistorySeries:
    series, of, value = made
    step_s, steps = _RINGS[query.get("span", "1h")]
    newest = min(steps, int(query.get("newest", 0)) or steps)
    last = int(fleet.now.timestamp()) // step_s
    points = [
        HistoryPoint(
            at_s=slot * step_s,
            mean=round(value(back_min), 2),
            largest=round(value(back_min) * 1.1, 2),
        )
        for slot in range(last - newest + 1, last + 1)
        for back_min in ((last - slot) * step_s / 60,)
        if of or not 20 <= back_min < 25
    ]
    return HistorySeries(series=series, of=of, unit=_UNITS[series], step_s=step_s, points=points)
