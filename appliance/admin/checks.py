"""Health checks on the admin API: each result is sent when it is there."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec

from appliance.admin.calls import Call, Events, Route, Services
from appliance.wire.checks import CheckResult


class ChecksQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`only` is how names begin: `disk`, `deployment`."""

    only: Annotated[str, msgspec.Meta(max_length=64)] = ""


async def run_checks(services: Services, call: Call[ChecksQuery, None]) -> Events:
    return Events(_pieces(services.upkeep.checks.run(call.query.only)), "application/x-ndjson")


async def _pieces(results: AsyncIterator[CheckResult]) -> AsyncIterator[bytes]:
    async for result in results:
        yield msgspec.json.encode(result) + b"\n"


ROUTES: Final = (
    Route(
        *("GET", "/v1/checks", "Run the health checks, each with what to do", run_checks),
        answer=CheckResult,
        query=ChecksQuery,
        lines=True,
        streams=True,
        role="operator",
    ),
)
