"""How each API family streams: what an event means, which one carries usage, which one ends it.

A dialect looks at one event and says what it is. It keeps no state and never changes bytes; the
relay does.
"""

from enum import IntEnum
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from appliance.domain.usage import Operation

DONE: Final = b"[DONE]"


class Kind(IntEnum):
    """What an event is to the stream it is part of."""

    CONTENT = 0  # passes on
    FIGURES = 1  # carries nothing but usage: held back until the record is durable
    LAST = 2  # ends the stream, and was meant to
    FAILED = 3  # the engine reports its own failure
    BROKEN = 4  # not what this dialect can say


class Sight:
    """One event as seen. `usage` is the raw usage object, empty when there is none."""

    __slots__ = ("kind", "tokens", "usage")

    def __init__(self, kind: Kind, tokens: int, usage: msgspec.Raw) -> None:
        self.kind = kind
        self.tokens = tokens  # that this event brought, when each delta is one token
        self.usage = usage


class Dialect(Protocol):
    """The events of one API family."""

    # Whether usage is sent only to those who ask, so that the gateway has to add and take away.
    usage_on_request: bool

    def see(self, name: bytes, data: bytes) -> Sight:
        """What the event is. `name` is its `event:` field, "" without one."""
        ...


_NO_RAW: Final = msgspec.Raw()
_BROKEN: Final = Sight(Kind.BROKEN, 0, _NO_RAW)
_FAILED: Final = Sight(Kind.FAILED, 0, _NO_RAW)
_LAST: Final = Sight(Kind.LAST, 0, _NO_RAW)
_TOKEN: Final = Sight(Kind.CONTENT, 1, _NO_RAW)
_SILENT: Final = Sight(Kind.CONTENT, 0, _NO_RAW)


class _Delta(msgspec.Struct, gc=False):
    content: str | UnsetType | None = UNSET
    role: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | UnsetType = UNSET
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    object: str | None = None


_DECODE_CHUNK: Final = msgspec.json.Decoder(_Chunk).decode


class Chunks:
    """`/v1/chat/completions` and `/v1/completions`: unnamed chunks, then `[DONE]`."""

    usage_on_request = True

    def see(self, name: bytes, data: bytes) -> Sight:
        if data == DONE:
            return _LAST
        try:
            chunk = _DECODE_CHUNK(data)
            if not data.isascii():
                data.decode()  # fields that are not read here were not checked
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _FAILED if name == b"error" else _BROKEN
        # vLLM's errors: {"error": {…}}, in older versions {"object": "error", …}.
        if (chunk.error and chunk.error != _NULL) or chunk.object == "error" or name == b"error":
            return _FAILED
        choices = chunk.choices
        if choices is UNSET:
            return _BROKEN
        if len(choices) == 1 and not chunk.usage:
            return _TOKEN if _is_token(choices[0]) else _SILENT
        if not choices and chunk.usage and chunk.usage != _NULL:
            return Sight(Kind.FIGURES, 0, chunk.usage)
        return Sight(Kind.CONTENT, sum(_is_token(choice) for choice in choices), chunk.usage)


_NULL: Final = msgspec.Raw(b"null")


def _is_token(choice: _Choice) -> bool:
    """Whether a choice brought a token. An engine's first chunk (the role) and its last (why it
    ended) bring none; an empty text in between is a token that is no character yet.
    """
    delta = choice.delta
    if delta is None:
        return choice.text is not None and (choice.text != "" or choice.finish_reason is None)
    if delta.content is not UNSET and delta.content is not None:
        if delta.content != "":
            return True
        if delta.role is None and choice.finish_reason is None:
            return True
    return bool(delta.reasoning_content or delta.reasoning or delta.refusal or delta.tool_calls)


class _Holder(msgspec.Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw()


class _Named(msgspec.Struct, gc=False):
    type: str | UnsetType = UNSET
    response: _Holder | None = None
    message: _Holder | None = None
    usage: msgspec.Raw = msgspec.Raw()


_DECODE_NAMED: Final = msgspec.json.Decoder(_Named).decode


def _named(data: bytes) -> _Named | None:
    try:
        event = _DECODE_NAMED(data)
        if not data.isascii():
            data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if event.type is UNSET else event


class Responses:
    """`/v1/responses`: named events; the last one holds the whole answer with its usage."""

    usage_on_request = False

    def see(self, name: bytes, data: bytes) -> Sight:
        event = _named(data)
        if event is None:
            if data == DONE:
                return _SILENT
            return _FAILED if name == b"error" or b'"error"' in data else _BROKEN
        kind = event.type
        if kind in {"response.completed", "response.incomplete"}:
            return Sight(Kind.LAST, 0, _NO_RAW if event.response is None else event.response.usage)
        if kind in {"response.failed", "error"}:
            return _FAILED
        return _TOKEN if str(kind).endswith(".delta") else _SILENT


class Messages:
    """`/v1/messages`: named events; usage comes in two parts, at the start and near the end."""

    usage_on_request = False

    def see(self, name: bytes, data: bytes) -> Sight:
        event = _named(data)
        if event is None:
            if data == DONE:
                return _SILENT
            return _FAILED if name == b"error" or b'"error"' in data else _BROKEN
        kind = event.type
        if kind == "content_block_delta":
            return _TOKEN
        if kind == "message_start":
            return Sight(Kind.CONTENT, 0, _NO_RAW if event.message is None else event.message.usage)
        if kind == "message_delta":
            return Sight(Kind.FIGURES, 0, event.usage)
        if kind == "message_stop":
            return _LAST
        return _FAILED if kind == "error" else _SILENT


_CHUNKS: Final = Chunks()
DIALECTS: Final[dict[Operation, Dialect]] = {
    Operation.CHAT: _CHUNKS,
    Operation.COMPLETIONS: _CHUNKS,
    Operation.RESPONSES: Responses(),
    Operation.MESSAGES: Messages(),
}
