"""Logs as JSON lines on standard error: one object for each event.

Fields every line has: `at` (UTC), `level`, `logger`, `event`. What a caller puts into `extra`
follows. Prompts, completions and keys are never logged: callers log ids.
"""

import logging
import sys
from typing import Final, TextIO

import msgspec

from appliance.domain.clock import iso

# What logging itself puts on a record; anything else came from `extra`.
_BUILT_IN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line. Values that JSON has no form for are written as their text."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "at": iso(int(record.created * 1_000_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        event.update((k, v) for k, v in vars(record).items() if k not in _BUILT_IN)
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event, enc_hook=str).decode()


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Send every logger of this process to `stream` as JSON lines. Replaces earlier handlers."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their access lines and connection chatter say nothing that our own events do not.
    for noisy in ("aiohttp.access", "aiohttp.server", "asyncio", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
