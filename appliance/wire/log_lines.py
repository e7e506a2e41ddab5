"""The appliance's own log, as the admin API gives it.

GET    /v1/logs?since=&after=&level=&contains=&lines=&follow=     NDJSON of LogLine

While it is followed and nothing happens, an empty line comes from time to time: it says nothing.
"""

from typing import Final, Literal, get_args

import msgspec

from appliance.wire.admin_message import Message

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LOG_LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)


class LogLine(Message, frozen=True):
    """One event. Numbers begin anew with each start of the appliance."""

    seq: int
    at: str
    level: LogLevel
    logger: str
    event: str
    fields: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)  # what was told with it
    missed: int = 0  # lines before this one that were forgotten before they could be sent
