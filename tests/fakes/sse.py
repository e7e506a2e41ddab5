"""Server-sent events as a client reads them."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sse:
    """One event: its name ("" where none was given) and its data."""

    event: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def done(self) -> bool:
        return self.data == "[DONE]"


def parse(body: bytes) -> list[Sse]:
    """All whole events; comments are left out. A half event at the end is not one."""
    found: list[Sse] = []
    name, data = "", []
    lines = body.decode().replace("\r\n", "\n").split("\n")
    for line in lines[:-1]:
        if not line:
            if data:
                found.append(Sse(name, "\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return found


def text(events: list[Sse]) -> str:
    """What a reader of the stream sees, in any of the four dialects."""
    return "".join(_text(event.json) for event in events if not event.done)


def _text(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    if value.get("type") == "response.output_text.delta":
        return str(value["delta"])
    if value.get("type") == "content_block_delta":
        return str(value["delta"].get("text", ""))
    return "".join(
        (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        for choice in value.get("choices", ())
    )
