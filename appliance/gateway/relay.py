"""A stream on its way from the engine to the client: checked, and stripped of what was not asked.

Pure: the engine's payload goes in, bytes for the client come out. What comes in one read and is an
event as it stands leaves as the very bytes that came, chunk framing included.
"""

from typing import Final

import msgspec

from appliance.gateway import head, sse, usage
from appliance.gateway.dialects import Dialect, Kind, Sight
from appliance.gateway.naming import Naming
from appliance.metering.accounting import Figures

_DATA: Final = b"data: "
_END: Final = b"\n\n"
_USAGE_KEY: Final = b',"usage":'
_NULL_USAGE: Final = b',"usage":null}'
_NULL: Final = msgspec.Raw(b"null")
_DECODE_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Relay:
    """One stream. After each `feed` look at `failure` first, then at `done`.

    - `failure`: why the stream cannot go on, "" while it can. For logs, not for clients.
    - `done`: the engine has said all it meant to. `held` is what must not leave before the record
      is durable: final usage and end marker, not framed.
    - `tokens`: counted, one for each delta. `figures`: as the engine reported them last.
    - `alive`: the last feed had an event that is more than a comment.
    """

    __slots__ = (
        "_asked",
        "_begun",
        "_chunked",
        "_cutter",
        "_dialect",
        "_every",
        "_last_chunk",
        "_naming",
        "_usage_end",
        "_usage_start",
        "alive",
        "done",
        "failure",
        "held",
        "tokens",
    )

    def __init__(
        self,
        dialect: Dialect,
        *,
        asked: bool,
        every: bool,
        chunked: bool,
        naming: Naming | None = None,
    ) -> None:
        self._dialect = dialect
        self._naming = naming
        self._asked = asked or not dialect.usage_on_request
        self._every = every  # the client wants usage on every chunk, as vLLM can
        self._chunked = chunked
        self._begun = False  # some event that is neither an error nor the end has come
        self._cutter: sse.Cutter | None = None  # made when an event comes in pieces
        self._last_chunk = b""
        self._usage_start: msgspec.Raw | None = None
        self._usage_end: msgspec.Raw | None = None
        self.alive = False
        self.done = False
        self.failure = ""
        self.held: list[bytes] = []
        self.tokens = 0

    def feed(self, payload: bytes, framed: bytes | None) -> bytes:
        """What may leave now. `framed` are the bytes as received, when they are whole chunks."""
        if (
            self._cutter is None
            and payload.startswith(_DATA)
            and payload.endswith(_END)
            and payload.find(b"\n") == len(payload) - 2
        ):
            out = self._data_event(b"", payload[6:-2], payload)
            if out is payload and framed is not None and self._chunked:
                return framed
        else:
            out = self._feed_pieces(payload)
            if framed is not None and self._chunked and out == payload:
                return framed
        return head.chunk(out) if out and self._chunked else out

    def close(self) -> None:
        """The engine's body has ended."""
        if not self.done and not self.failure:
            self.failure = "the stream ended early"

    @property
    def figures(self) -> Figures | None:
        """What the engine reported. Of a usage in two parts, each figure from where it is."""
        last = None if self._usage_end is None else usage.read(self._usage_end)
        first = None if self._usage_start is None else usage.read(self._usage_start)
        if first is None:
            return last
        if last is None:
            # What a stream says of its output at the start is not what it will be.
            return Figures(first.input, None, first.cached)
        return Figures(
            first.input if last.input is None else last.input,
            last.output,
            max(first.cached, last.cached),
        )

    def final_usage(self, figures: Figures) -> bytes:
        """The usage chunk a client asked for and the engine did not send; else b""."""
        if not (self._dialect.usage_on_request and self._asked and self._last_chunk):
            return b""
        members = _DECODE_MEMBERS(self._last_chunk)
        members["choices"] = msgspec.Raw(b"[]")
        members["usage"] = msgspec.Raw(
            msgspec.json.encode(
                {
                    "prompt_tokens": figures.input,
                    "completion_tokens": figures.output,
                    "total_tokens": (figures.input or 0) + (figures.output or 0),
                }
            )
        )
        return b"data: %b\n\n" % msgspec.json.encode(members)

    def _feed_pieces(self, payload: bytes) -> bytes:
        if self._cutter is None:
            self._cutter = sse.Cutter()
        self.alive = False
        outs = []
        for event in self._cutter.feed(payload):
            if self.done or self.failure:
                break
            whole = event + _END
            if event.startswith(_DATA) and b"\n" not in event:
                outs.append(self._data_event(b"", event[6:], whole))
                continue
            found = sse.fields(event)
            if found is None:
                self.failure = "a line that is no event"
                break
            name, data = found
            outs.append(whole if data is None else self._data_event(name, data, whole))
        if self._cutter.pending_bytes > sse.EVENT_BYTES_MAX:
            self.failure = "an event that does not end"
        elif not self._cutter.pending_bytes:
            self._cutter = None
        return b"".join(outs)

    def _data_event(self, name: bytes, data: bytes, whole: bytes) -> bytes:
        """What may leave of one event: itself, a changed one, or nothing yet."""
        if len(data) > sse.EVENT_BYTES_MAX:
            self.failure = "an event that is too large"
            return b""
        if self._naming is not None:
            data = self._naming.for_client(data)
            whole = self._naming.for_client(whole)
        sight = self._dialect.see(name, data)
        kind = sight.kind
        if kind is Kind.CONTENT:
            self.alive = self._begun = True
            self.tokens += sight.tokens
            if sight.usage or self._asked:
                whole = self._with_right_usage(sight, data, whole)
            if not self.held:
                return whole
            self._hold(whole)
        elif kind is Kind.FIGURES:
            self.alive = self._begun = True
            self._usage_end = sight.usage.copy()
            if self._asked:
                self._last_chunk = b""
                self._hold(whole)
        elif kind is Kind.LAST and not self._begun:
            self.failure = "an end without a beginning"
        elif kind is Kind.LAST:
            if sight.usage:
                self._usage_end = sight.usage.copy()
            self._hold(whole)
            self.done = True
        elif kind is Kind.FAILED:
            self.failure = "the engine reported an error"
        else:
            self.failure = "an event that is not of this API"
        return b""

    def _hold(self, event: bytes) -> None:
        self.held.append(event)
        if sum(map(len, self.held)) > sse.EVENT_BYTES_MAX:
            self.failure = "no end after the final usage"

    def _with_right_usage(self, sight: Sight, data: bytes, whole: bytes) -> bytes:
        """The chunk with the usage the client asked for: none, null, or the engine's own."""
        said = bool(sight.usage) and sight.usage != _NULL
        if not self._dialect.usage_on_request:
            if said:
                self._usage_start = sight.usage.copy()
            return whole
        if said:
            # A copy: the view would keep the whole read alive.
            self._usage_end = sight.usage.copy()
        if self._asked:
            self._last_chunk = data
            if self._every or sight.usage == _NULL:
                return whole
            if not sight.usage:
                return b"data: %b%b\n\n" % (data[:-1], _NULL_USAGE)
        stripped = _without_usage(data, sight.usage)
        if self._asked:
            return b"data: %b%b\n\n" % (stripped[:-1], _NULL_USAGE)
        return b"data: %b\n\n" % stripped


def _without_usage(data: bytes, raw: msgspec.Raw) -> bytes:
    """The chunk without its `usage`.

    Engines write it last: what stands between the last `,"usage":` and the closing brace is then
    exactly the value that was decoded, and can be cut off. Otherwise the members are written anew.
    """
    at = data.rfind(_USAGE_KEY)
    if at > 0 and data.endswith(b"}") and data[at + len(_USAGE_KEY) : -1] == bytes(raw):
        return data[:at] + b"}"
    members = _DECODE_MEMBERS(data)
    members.pop("usage", None)
    return msgspec.json.encode(members)
