"""What the gateway reads out of a request's body, and the bytes it sends on in its place.

The client's bytes are forwarded as they came; a field is added in front or replaced only where the
gateway has to.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from appliance.domain.usage import Operation
from appliance.gateway import strict_json
from appliance.gateway.errors import BadRequest, UnsupportedOperation
from appliance.gateway.routes import Route
from appliance.scheduler.replicas import ReplicaTarget

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Fields(msgspec.Struct, gc=False):
    """The fields that decide something here. All others pass through unread."""

    model: _Name | UnsetType = UNSET
    stream: bool | None = None
    messages: list[msgspec.Raw] | None = None
    stream_options: msgspec.Raw = msgspec.Raw()
    cache_salt: msgspec.Raw = msgspec.Raw()
    priority: msgspec.Raw = msgspec.Raw()


class _Generating(_Fields, gc=False):
    """All names by which some engine is told how much to generate.

    Engines differ in which of several they follow: llama.cpp prefers `n_predict`, vLLM
    `max_completion_tokens`. So each counts, whatever the operation.
    """

    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    n_predict: _Tokens | None = None
    num_predict: _Tokens | None = None
    max_new_tokens: _Tokens | None = None
    max_length: _Tokens | None = None
    max_tokens_to_sample: _Tokens | None = None
    n: _Choices | None = None
    n_cmpl: _Choices | None = None
    best_of: _Choices | None = None


class _Completion(_Generating, gc=False):
    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()


class _Response(_Generating, gc=False):
    background: msgspec.Raw = msgspec.Raw()
    store: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()


class _Embedding(_Fields, gc=False):
    input: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()  # llama.cpp's other name for it


class _Pairing(_Fields, gc=False):
    """What rerank and score compare: the single text is read again with each of the others."""

    query: msgspec.Raw = msgspec.Raw()
    queries: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()
    texts: msgspec.Raw = msgspec.Raw()
    text_1: msgspec.Raw = msgspec.Raw()
    text_2: msgspec.Raw = msgspec.Raw()
    data_1: msgspec.Raw = msgspec.Raw()
    data_2: msgspec.Raw = msgspec.Raw()


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


_DECODE_FIELDS: Final = msgspec.json.Decoder(_Fields).decode
_DECODE_GENERATING: Final = msgspec.json.Decoder(_Generating).decode
_DECODE_OF: Final[dict[Operation, Callable[[bytes], _Fields]]] = {
    Operation.CHAT: _DECODE_GENERATING,
    Operation.MESSAGES: _DECODE_GENERATING,
    Operation.COMPLETIONS: msgspec.json.Decoder(_Completion).decode,
    Operation.RESPONSES: msgspec.json.Decoder(_Response).decode,
    Operation.EMBEDDINGS: msgspec.json.Decoder(_Embedding).decode,
    Operation.RERANK: msgspec.json.Decoder(_Pairing).decode,
    Operation.SCORE: msgspec.json.Decoder(_Pairing).decode,
}
_DECODE_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_OPTIONS: Final = msgspec.json.Decoder(_StreamOptions | None).decode
_DECODE_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")
_ASK_USAGE: Final = b'{"stream_options":{"include_usage":true},'
_INCLUDE_USAGE: Final = msgspec.Raw(b"true")
_NULL: Final = msgspec.Raw(b"null")
_FALSE: Final = msgspec.Raw(b"false")
_USAGE_ON_REQUEST: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request as far as the gateway has to understand it."""

    model: str
    stream: bool
    output_tokens: int | None  # the most that one choice may have; None: not said
    choices: int  # how many outputs are generated, over all inputs
    usage_asked: bool  # stream_options.include_usage
    usage_on_every: bool  # stream_options.continuous_usage_stats
    options_given: bool  # there is a stream_options
    reserved_given: bool  # there is a field that only the gateway may set
    input_bytes: int  # that the engine reads, JSON and all: of the body, repetitions counted
    inputs: int = 1  # how many prompts, texts or pairs are worked on, each in a context of its own
    token_ids: int = 0  # how many tokens of input came as numbers


def parse(body: bytes, route: Route, depth_max: int, messages_max: int) -> Ask:
    """Read a JSON body strictly. Raises BadRequest that names the field at fault."""
    strict_json.check(body, depth_max)
    try:
        fields = _DECODE_OF.get(route.operation, _DECODE_FIELDS)(body)
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
    output_tokens = None
    choices = inputs = 1
    token_ids = 0
    input_bytes = len(body)
    if isinstance(fields, _Generating):
        output_tokens = _longest(fields)
        choices = max(fields.n or 1, fields.best_of or 1, fields.n_cmpl or 1)
        if isinstance(fields, _Completion):
            inputs, token_ids = _inputs(fields.prompt, fields.prompt_embeds)
        elif isinstance(fields, _Response):
            _stateless(fields)
    elif isinstance(fields, _Embedding):
        inputs, token_ids = _inputs(fields.input, fields.content)
    elif isinstance(fields, _Pairing):
        inputs, token_ids, repeated_bytes = _pairs(fields)
        input_bytes += repeated_bytes
    return Ask(
        model=fields.model,
        stream=bool(fields.stream),
        output_tokens=output_tokens,
        choices=choices * inputs,
        usage_asked=options is not None and bool(options.include_usage),
        usage_on_every=options is not None and bool(options.continuous_usage_stats),
        options_given=bool(fields.stream_options),
        reserved_given=bool(fields.cache_salt) or bool(fields.priority),
        input_bytes=input_bytes,
        inputs=inputs,
        token_ids=token_ids,
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


def _longest(fields: _Generating) -> int | None:
    """The most tokens that any of the fields allows one output to have; None: none says it."""
    longest = fields.max_tokens
    for tokens in (
        fields.max_completion_tokens,
        fields.max_output_tokens,
        fields.n_predict,
        fields.num_predict,
        fields.max_new_tokens,
        fields.max_length,
        fields.max_tokens_to_sample,
    ):
        if tokens is not None and (longest is None or tokens > longest):
            longest = tokens
    return longest


def _stateless(fields: _Response) -> None:
    """Raise unless the response is made now, for this request, and forgotten.

    A response made in the background would be counted by nobody; one that an engine keeps could be
    read by every tenant of that engine.
    """
    for name, given in (
        ("background", fields.background),
        ("store", fields.store),
        ("previous_response_id", fields.previous_response_id),
        ("conversation", fields.conversation),
    ):
        if given and given not in (_NULL, _FALSE):
            raise UnsupportedOperation(
                f"'{name}' is not supported: nothing is kept between requests.",
                next_step="Send the whole conversation as 'input', and 'store' as false.",
                param=name,
            )


def _inputs(*fields: msgspec.Raw) -> tuple[int, int]:
    """How many inputs these fields hold together, at least 1, and how many token ids."""
    inputs = token_ids = 0
    for field in fields:
        if not field or field == _NULL:
            continue
        if _first_byte(field) != b"[":
            inputs += 1
            continue
        value = bytes(field)
        texts = b'"' in value or b"{" in value
        if not texts:
            # Lists of numbers: as many as there are commas between and within them, and one.
            token_ids += value.count(b",") + 1
        # A list of nothing but numbers is one input; in any other each item is one.
        inputs += len(_DECODE_ITEMS(field)) if texts or b"[" in value[1:] else 1
    return max(inputs, 1), token_ids


def _pairs(fields: _Pairing) -> tuple[int, int, int]:
    """Inputs, token ids, and the bytes of what is read again with each text it is compared to."""
    inputs = 0
    token_ids = 0
    single_bytes = 0
    for field in (
        fields.query,
        fields.queries,
        fields.documents,
        fields.texts,
        fields.text_1,
        fields.text_2,
        fields.data_1,
        fields.data_2,
    ):
        if not field:
            continue
        if _first_byte(field) == b"{":  # of pictures and texts: {"content": [{…}, …]}
            count, ids = max(bytes(field).count(b"{") - 1, 1), 0
        else:
            count, ids = _inputs(field)
        inputs += count
        token_ids += ids
        if count == 1:
            single_bytes += memoryview(field).nbytes
    return max(inputs, 1), token_ids, single_bytes * max(inputs - 2, 0)


def _first_byte(value: msgspec.Raw) -> bytes:
    return bytes(memoryview(value)[:1])


def _bad_field(error: msgspec.ValidationError) -> BadRequest:
    text = str(error)
    found = _PATH.search(text)
    param = found.group(1) if found else ""
    reason = _PATH.sub("", text)
    if not param:
        return BadRequest(f"The body is not what was expected: {reason}.")
    return BadRequest(f"'{param}' is not valid: {reason}.", param=param)
