"""The appliance's own log on the admin API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec

from appliance.admin.calls import Call, Events, Route, Services
from appliance.admin.log_ring import LogRing, Wanted
from appliance.admin.moments import parse_moment
from appliance.wire.admin import SEQ_MAX
from appliance.wire.log_lines import LogLevel, LogLine

_NDJSON: Final = "application/x-ndjson"
_PIECE_LINES: Final = 200

Number = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`since` is ISO 8601, `after` a line's number; `lines` at most, of the last that fit."""

    since: str | None = None
    after: Number = 0
    level: LogLevel = "debug"
    contains: Annotated[str, msgspec.Meta(max_length=256)] = ""
    lines: Number | None = None
    follow: bool = False


async def read_logs(services: Services, call: Call[LogQuery, None]) -> Events:
    query = call.query
    wanted = Wanted(
        after=query.after,
        since_s=0.0 if query.since is None else parse_moment(query.since, "since") / 1e9,
        level=query.level,
        contains=query.contains,
        lines=query.lines,
    )
    return Events(_pieces(services.upkeep.logs, wanted, follow=query.follow), _NDJSON)


async def _pieces(ring: LogRing, wanted: Wanted, *, follow: bool) -> AsyncIterator[bytes]:
    if follow:
        yield b"\n"  # the head goes out at once, whether there is a line or not
        async for line in ring.follow(wanted):
            yield b"\n" if line is None else msgspec.json.encode(line) + b"\n"
        return
    lines = await asyncio.to_thread(ring.lines, wanted)
    for start in range(0, len(lines), _PIECE_LINES):
        yield b"".join(
            msgspec.json.encode(line) + b"\n" for line in lines[start : start + _PIECE_LINES]
        )


ROUTES: Final = (
    Route(
        *("GET", "/v1/logs", "The appliance's own log, as it was and as it comes", read_logs),
        answer=LogLine,
        query=LogQuery,
        lines=True,
        streams=True,
        role="operator",
    ),
)
