"""Engines' answers that are not streamed: what they report, and what a refusal of theirs means."""

import re
from typing import Final

import msgspec

from appliance.gateway import usage
from appliance.gateway.answer_head import AnswerHead
from appliance.gateway.errors import (
    BadRequest,
    ContextLengthExceeded,
    EngineError,
    GatewayError,
)
from appliance.gateway.routes import Route
from appliance.metering.accounting import Figures, estimate_output

JSON: Final = b"application/json"
_MESSAGE_CHARS_MAX: Final = 500
_ENGINE_FAILED: Final = "The model's engine failed to answer."
_TRY_AGAIN: Final = "Try again; if it goes on, tell your administrator."

# Statuses with which an engine says that the request itself is wrong.
_REQUEST_AT_FAULT: Final = frozenset({400, 413, 415, 422})
# Statuses that another replica would answer just so, though the request is not at fault.
_NOT_RETRIED: Final = frozenset({401, 403, 404, 405, 501})
_OVERFLOW_TYPES: Final = frozenset({"exceed_context_size_error"})  # llama.cpp
_OVERFLOW_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_OVERFLOW_TEXT: Final = re.compile(
    r"maximum context length|max_model_len|exceeds? the available context|context (size|length)",
    re.I,
)
# What a message of an engine could tell about the inside of the site.
_INSIDE: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+"  # an address with its scheme
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"  # IPv4
    r"|\[?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}\]?(?::\d+)?"  # IPv6
    r"|\b(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)*):\d{2,5}\b"  # host:port
    r"|(?<![\w/])/(?:[\w.+-]+/)+[\w.+-]*",  # a path of the file system
    re.I,
)


class _Body(msgspec.Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    object: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    detail: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct, gc=False):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None

    def texts(self) -> list[str | None]:
        message = self.message
        if message is None:
            return [self.text]
        calls = "" if message.tool_calls == _NULL else bytes(message.tool_calls).decode()
        return [message.content, message.reasoning_content, calls]


class _Item(msgspec.Struct, gc=False):
    content: list[_Part] = []


class _Texts(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    content: list[_Part] = []
    output: list[_Item] = []


_DECODE_TEXTS: Final = msgspec.json.Decoder(_Texts).decode
_DECODE_BODY: Final = msgspec.json.Decoder(_Body).decode
_DECODE_ERROR: Final = msgspec.json.Decoder(_Error).decode
_NULL: Final = msgspec.Raw(b"null")
_ERROR_OBJECT: Final = msgspec.Raw(b'"error"')


class Unusable(Exception):
    """A success that is none. The text is for logs."""


def read(head: AnswerHead, body: bytes, route: Route) -> Figures | None:
    """The figures in a successful answer. Raises Unusable when it is not an answer of this API."""
    if route.multipart and head.content_type != JSON:
        return None  # a transcription as plain text or subtitles
    if head.content_type != JSON:
        raise Unusable(f"content type {head.content_type!r}")
    try:
        answer = _DECODE_BODY(body)
        if not body.isascii():
            body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # Scores are a list at some engines; anything else that is no object is no answer.
        raise Unusable("the body is not the JSON of this API") from error
    if (answer.error and answer.error != _NULL) or answer.object == _ERROR_OBJECT:
        raise Unusable("an error with the status of a success")
    return usage.read(answer.usage)


def text_bytes(body: bytes) -> int:
    """The length of the text an engine generated, for when it does not count its tokens."""
    try:
        answer = _DECODE_TEXTS(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return len(body)
    texts = [text for choice in answer.choices for text in choice.texts()]
    texts += [part.text for part in answer.content]
    texts += [part.text for item in answer.output for part in item.content]
    return sum(len(text.encode()) for text in texts if text)


def tokens_of_choices(body: bytes, full_tokens: int) -> int:
    """Tokens of all choices together: `full_tokens` for each that ended because it had no more room
    than that, an estimate from its text for any other.
    """
    try:
        choices = _DECODE_TEXTS(body).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return estimate_output(len(body))
    return sum(
        full_tokens
        if choice.finish_reason == "length"
        else estimate_output(sum(len(text.encode()) for text in choice.texts() if text))
        for choice in choices
    )


def retried(status: int) -> bool:
    """Whether another replica may do better than an answer with this status."""
    return status not in _REQUEST_AT_FAULT and status not in _NOT_RETRIED


def is_sound_error(body: bytes) -> bool:
    """Whether this is an error in whole JSON, as only a living engine writes it."""
    return _error(body).message is not None


def failed() -> EngineError:
    return EngineError(_ENGINE_FAILED, next_step=_TRY_AGAIN)


def refused(status: int, body: bytes) -> GatewayError:
    """What to tell the client about a status that was not a success and is not retried."""
    if status not in _REQUEST_AT_FAULT:
        return failed()
    error = _error(body)
    message = _INSIDE.sub("…", error.message or "").strip()[:_MESSAGE_CHARS_MAX]
    message = "".join(c for c in message if c.isprintable())
    overflow = (
        error.type in _OVERFLOW_TYPES
        or error.code in _OVERFLOW_CODES
        or _OVERFLOW_TEXT.search(message) is not None
    )
    if overflow:
        return ContextLengthExceeded(
            message or "The request is longer than the model's context.", param=error.param
        )
    return BadRequest(message or "The model's engine refused the request.", param=error.param)


def _error(body: bytes) -> _Error:
    """The error in any of the shapes engines use; empty when there is none to be found."""
    try:
        answer = _DECODE_BODY(body)
        if answer.error and answer.error != _NULL:
            if bytes(answer.error).startswith(b'"'):
                return _Error(message=msgspec.json.decode(answer.error, type=str))
            return _DECODE_ERROR(answer.error)
        if answer.message:
            return _DECODE_ERROR(body)
        if bytes(answer.detail).startswith(b'"'):
            return _Error(message=msgspec.json.decode(answer.detail, type=str))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Error()
    return _Error()
