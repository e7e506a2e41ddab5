"""Log lines are JSON objects with the caller's fields, also for values JSON has no form for."""

import io
import json
import logging
from pathlib import Path

from appliance.wire.logs import JsonLines


def emit(level: int, event: str, **extra: object) -> dict[str, object]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    record = logging.getLogger("appliance.test").makeRecord(
        "appliance.test", level, __file__, 1, event, (), None, extra=extra
    )
    handler.emit(record)
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    decoded = json.loads(line)
    assert isinstance(decoded, dict)
    return decoded


def test_a_line_has_the_event_and_the_fields_of_its_caller() -> None:
    line = emit(logging.WARNING, "request ended", request_id="req_1", tokens=3)
    assert line.pop("at")
    assert line == {
        "level": "warning",
        "logger": "appliance.test",
        "event": "request ended",
        "request_id": "req_1",
        "tokens": 3,
    }


def test_an_odd_value_or_a_line_break_does_not_break_the_line() -> None:
    line = emit(logging.INFO, "two\nlines", path=Path("/x"), text='"\u2028')
    assert (line["event"], line["path"], line["text"]) == ("two\nlines", "/x", '"\u2028')
