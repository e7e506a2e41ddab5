"""What the gateway reads out of a request's body, and the bytes it sends on in its place.

The client's bytes are forwarded as they came; a field is added in front or replaced only where the
gateway has to.
"""

import re
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from appliance.domain.usage import Operation
from appliance.gateway import strict_json
from appliance.gateway.errors import BadRequest
from appliance.gateway.routes import Route
from appliance.scheduler.replicas import ReplicaTarget

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Fields(msgspec.Struct, gc=False):
    """The fields that decide something here. All others pass through unread."""

    model: _Name | UnsetType = UNSET
    stream: bool | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    n: _Choices | None = None
    best_of: _Choices | None = None
    messages: list[msgspec.Raw] | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()
    cache_salt: msgspec.Raw = msgspec.Raw()
    priority: msgspec.Raw = msgspec.Raw()


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


_DECODE_FIELDS: Final = msgspec.json.Decoder(_Fields).decode
_DECODE_OPTIONS: Final = msgspec.json.Decoder(_StreamOptions | None).decode
_DECODE_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")
_ASK_USAGE: Final = b'{"stream_options":{"include_usage":true},'
_INCLUDE_USAGE: Final = msgspec.Raw(b"true")
_USAGE_ON_REQUEST: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request as far as the gateway has to understand it."""

    model: str
    stream: bool
    output_tokens: int | None  # the most that one choice may have; None: not said
    choices: int  # how many outputs are generated
    usage_asked: bool  # stream_options.include_usage
    usage_on_every: bool  # stream_options.continuous_usage_stats
    options_given: bool  # there is a stream_options
    reserved_given: bool  # there is a field that only the gateway may set


def parse(body: bytes, route: Route, depth_max: int, messages_max: int) -> Ask:
    """Read a JSON body strictly. Raises BadRequest that names the field at fault."""
    strict_json.check(body, depth_max)
    try:
        fields = _DECODE_FIELDS(body)
        options = _DECODE_OPTIONS(fields.stream_options) if fields.stream_options else None
    except msgspec.ValidationError as error:
        raise _bad_field(error) from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from error
    if fields.model is UNSET:
        raise BadRequest("You must say which model to use.", param="model")
    if route.messages and not fields.messages:
        raise BadRequest("There must be at least one message.", param="messages")
    if fields.messages is not None and len(fields.messages) > messages_max:
        raise BadRequest(f"More than {messages_max} messages in one request.", param="messages")
    output_tokens = fields.max_completion_tokens
    if output_tokens is None:
        output_tokens = fields.max_tokens
    if output_tokens is None:
        output_tokens = fields.max_output_tokens
    choices = max(fields.n or 1, fields.best_of or 1)
    if fields.prompt:
        choices *= _prompts(bytes(fields.prompt))
    return Ask(
        model=fields.model,
        stream=bool(fields.stream),
        output_tokens=output_tokens,
        choices=choices,
        usage_asked=options is not None and bool(options.include_usage),
        usage_on_every=options is not None and bool(options.continuous_usage_stats),
        options_given=bool(fields.stream_options),
        reserved_given=bool(fields.cache_salt) or bool(fields.priority),
    )


def forwarded(
    body: bytes, ask: Ask, operation: Operation, *, upstream_model: str | None, cache_salt: str
) -> bytes:
    """The body for the engine.

    - A stream of chat or completions always asks for usage.
    - `cache_salt` ("" for engines that do not know it) separates the prefix caches of tenants; it
      and the engine's own `priority` are not the client's to set.
    - `upstream_model` is the engine's own name of the model, None where it is the client's.
    """
    ask_usage = ask.stream and not ask.usage_asked and operation in _USAGE_ON_REQUEST
    rename = upstream_model is not None and upstream_model != ask.model
    if rename or (ask_usage and ask.options_given) or (cache_salt and ask.reserved_given):
        members = _DECODE_MEMBERS(body)
        if upstream_model is not None:
            members["model"] = msgspec.Raw(msgspec.json.encode(upstream_model))
        if ask_usage:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        if cache_salt:
            members.pop("priority", None)
            members["cache_salt"] = msgspec.Raw(msgspec.json.encode(cache_salt))
        return msgspec.json.encode(members)
    if not (ask_usage or cache_salt):
        return body
    added = _ASK_USAGE if ask_usage else b"{"
    if cache_salt:
        added += b'"cache_salt":%b,' % msgspec.json.encode(cache_salt)
    # A body has at least its model, so a comma after what is added is always right.
    return added + body[body.index(b"{") + 1 :]


def head(
    target: ReplicaTarget,
    path: str,
    content_type: bytes,
    body_bytes: int,
    request_id: str,
    *,
    stream: bool,
) -> bytes:
    """The head of the request to the engine: nothing of the client's but its id."""
    return b"%bContent-Type: %b\r\nAccept: %b\r\nX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n" % (
        _fixed_head(target, path),
        content_type,
        b"text/event-stream" if stream else b"*/*",
        request_id.encode(),
        body_bytes,
    )


@lru_cache(maxsize=1024)
def _fixed_head(target: ReplicaTarget, path: str) -> bytes:
    """What is the same for every request to a path of a replica."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = f"POST {target.base_path}{path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
    if target.api_key is not None:
        lines += f"Authorization: Bearer {target.api_key}\r\n"
    return lines.encode()


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    members = msgspec.json.decode(options or b"null", type=dict[str, msgspec.Raw] | None) or {}
    members["include_usage"] = _INCLUDE_USAGE
    return msgspec.Raw(msgspec.json.encode(members))


def _prompts(prompt: bytes) -> int:
    """How many prompts a completion request carries: each is answered on its own."""
    if not prompt.startswith(b"["):
        return 1
    items = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    if items and bytes(items[0])[:1] in (b'"', b"["):
        return len(items)
    return 1


def _bad_field(error: msgspec.ValidationError) -> BadRequest:
    text = str(error)
    found = _PATH.search(text)
    param = found.group(1) if found else ""
    reason = _PATH.sub("", text)
    if not param:
        return BadRequest(f"The body is not what was expected: {reason}.")
    return BadRequest(f"'{param}' is not valid: {reason}.", param=param)
