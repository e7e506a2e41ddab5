"""Server-sent events as bytes: cutting a stream into events, and one event into its fields.

The format is that of the WHATWG HTML standard, "Server-sent events". Engines write one `event:` and
one `data:` line at most; anything that is not a field of the format is not an event stream.
"""

from typing import Final

EVENT_BYTES_MAX: Final = 1024 * 1024
COMMENT: Final = b": waiting\n\n"

_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


class Cutter:
    """Collects bytes and gives back whole events, each without the blank line that ends it.

    The other line endings of the format (CRLF, CR) become LF: JSON has no raw line ends, so nothing
    inside an event changes.
    """

    __slots__ = ("_rest", "_torn")

    def __init__(self) -> None:
        self._rest = b""
        self._torn = False  # a CR came last: it may be half of a CRLF

    @property
    def pending_bytes(self) -> int:
        """Of an event that has begun and not ended."""
        return len(self._rest) + self._torn

    def feed(self, data: bytes) -> list[bytes]:
        if b"\r" in data or self._torn:
            data = self._with_lf(data)
        if self._rest:
            data = self._rest + data
        *events, self._rest = data.split(b"\n\n")
        # More blank lines than needed end nothing.
        return [stripped for event in events if (stripped := event.lstrip(b"\n"))]

    def _with_lf(self, data: bytes) -> bytes:
        if self._torn:
            data = b"\r" + data
        self._torn = data.endswith(b"\r")
        if self._torn:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def fields(event: bytes) -> tuple[bytes, bytes | None] | None:
    """(`event` field, `data` field) of an event; data None: comments only. None: not an event."""
    name = b""
    data: bytes | None = None
    for line in event.split(b"\n"):
        if not line.startswith(_FIELDS):
            return None
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value
    return name, data
