"""What an honest engine answers, as pure functions of the request.

The figures can be worked out by a test, so that a ledger can be checked to the token:

- input tokens are the whitespace-separated words of everything that is sent as prompt,
- output tokens are `max_tokens` (whatever the dialect calls it) times `n`, else DEFAULT_OUTPUT,
- cached tokens are a quarter of the input tokens, rounded down.

Shapes were taken from captures of vLLM 0.32 and llama.cpp and from the API references of OpenAI
and Anthropic. `say` in the body makes every token that text; otherwise tokens differ.
"""

import base64
import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT_OUTPUT = 8
EMBEDDING_WIDTH = 8
CREATED_S = 1_795_374_878

Body = dict[str, Any]

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}
STREAMED = frozenset({"chat", "completions", "responses", "messages"})


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens of one request, as the engine reports them."""

    input: int
    output: int
    cached: int


def words(value: object) -> int:
    """Whitespace words of a prompt in any of its forms; a list of token ids counts its length."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, int):
        return 1
    if isinstance(value, list):
        return sum(words(item) for item in value)
    if isinstance(value, dict):
        return sum(
            words(value[name]) for name in ("content", "text", "input_text") if name in value
        )
    return 0


PROMPT_FIELDS = {
    "chat": ("messages",),
    "completions": ("prompt",),
    "embeddings": ("input",),
    "responses": ("instructions", "input"),
    "messages": ("system", "messages"),
    "count_tokens": ("system", "messages"),
    "rerank": ("query", "documents"),
    "score": ("text_1", "text_2", "queries", "documents"),
    "tokenize": ("prompt", "content", "messages"),
    "detokenize": ("tokens",),
}


def prompts(body: Body) -> int:
    """How many prompts a completion request carries: each gets `n` choices."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def choices(operation: str, body: Body) -> int:
    n = body.get("n") or 1
    return n * prompts(body) if operation == "completions" else n


def output_each(body: Body) -> int:
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return int(body[name])
    return DEFAULT_OUTPUT


def figures(operation: str, body: Body) -> Figures:
    """What the engine will report for this request, and what the ledger must hold."""
    count = sum(words(body.get(name)) for name in PROMPT_FIELDS[operation])
    output = 0
    if operation in {"chat", "completions"}:
        output = output_each(body) * choices(operation, body)
    elif operation in {"responses", "messages"}:
        output = output_each(body)
    return Figures(count, output, count // 4 if operation in STREAMED else 0)


_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sha", "to", "ve", "wi", "zu")


def tokens(body: Body, count: int) -> list[str]:
    """The text of each output token: all different, or all as `say` says."""
    say = body.get("say")
    if isinstance(say, str):
        return [say] * count
    return [
        ("" if index == 0 else " ")
        + _SYLLABLES[index % 10]
        + _SYLLABLES[index // 10 % 10]
        + (str(index) if index > 99 else "")
        for index in range(count)
    ]


def usage(operation: str, body: Body) -> dict[str, Any]:
    """The usage object in the operation's dialect."""
    tally = figures(operation, body)
    if operation == "responses":
        return {
            "input_tokens": tally.input,
            "input_tokens_details": {"cached_tokens": tally.cached},
            "output_tokens": tally.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tally.input + tally.output,
        }
    if operation == "messages":
        # Anthropic counts what came from the cache beside the input tokens, not in them.
        return {
            "input_tokens": tally.input - tally.cached,
            "cache_read_input_tokens": tally.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": tally.output,
        }
    if operation in {"embeddings", "rerank", "score"}:
        return {"prompt_tokens": tally.input, "total_tokens": tally.input}
    return {
        "prompt_tokens": tally.input,
        "completion_tokens": tally.output,
        "total_tokens": tally.input + tally.output,
        "prompt_tokens_details": {"cached_tokens": tally.cached},
    }


def answer(operation: str, body: Body, model: str) -> dict[str, Any]:
    """The whole answer, not streamed."""
    builders = {
        "chat": _chat,
        "completions": _completion,
        "embeddings": _embeddings,
        "responses": _response,
        "messages": _message,
        "rerank": _rerank,
        "score": _score,
    }
    if operation in builders:
        return builders[operation](body, model)
    count = figures(operation, body).input
    if operation == "count_tokens":
        return {"input_tokens": count}
    if operation == "tokenize":
        return {"count": count, "max_model_len": 4096, "tokens": list(range(count))}
    return {"prompt": " ".join(tokens({}, count)), "content": " ".join(tokens({}, count))}


def _chat(body: Body, model: str) -> dict[str, Any]:
    text = "".join(tokens(body, output_each(body)))
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "length"
    if body.get("tools"):
        function = body["tools"][0]["function"]["name"]
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": function, "arguments": '{"city":"Bern"}'},
                }
            ],
        }
        finish = "tool_calls"
    if (body.get("response_format") or {}).get("type") in {"json_object", "json_schema"}:
        message["content"] = '{"city":"Bern","people":134591}'
        finish = "stop"
    logprobs = None
    if body.get("logprobs"):
        logprobs = {
            "content": [
                {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}
                for token in tokens(body, output_each(body))
            ]
        }
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": model,
        "choices": [
            {"index": i, "message": message, "logprobs": logprobs, "finish_reason": finish}
            for i in range(choices("chat", body))
        ],
        "usage": usage("chat", body),
    }


def _completion(body: Body, model: str) -> dict[str, Any]:
    text = "".join(tokens(body, output_each(body)))
    return {
        "id": "cmpl-fake",
        "object": "text_completion",
        "created": CREATED_S,
        "model": model,
        "choices": [
            {"index": i, "text": text, "logprobs": None, "finish_reason": "length"}
            for i in range(choices("completions", body))
        ],
        "usage": usage("completions", body),
    }


def _embeddings(body: Body, model: str) -> dict[str, Any]:
    inputs = body.get("input")
    many = inputs if isinstance(inputs, list) and not isinstance(inputs[0], int) else [inputs]
    data: list[dict[str, Any]] = []
    for index, _ in enumerate(many):
        vector = [float(index) + step / 8 for step in range(EMBEDDING_WIDTH)]
        packed = base64.b64encode(struct.pack(f"<{EMBEDDING_WIDTH}f", *vector)).decode()
        value = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    return {"object": "list", "model": model, "data": data, "usage": usage("embeddings", body)}


def _response(body: Body, model: str) -> dict[str, Any]:
    text = "".join(tokens(body, output_each(body)))
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": CREATED_S,
        "status": "completed",
        "model": model,
        "output": [
            {
                "id": "msg_fake",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage("responses", body),
    }


def _message(body: Body, model: str) -> dict[str, Any]:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(tokens(body, output_each(body)))}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": usage("messages", body),
    }


def _rerank(body: Body, model: str) -> dict[str, Any]:
    documents = body.get("documents", [])
    return {
        "id": "rerank-fake",
        "model": model,
        "usage": usage("rerank", body),
        "results": [
            {"index": i, "document": {"text": text}, "relevance_score": 1 / (1 + i)}
            for i, text in enumerate(documents)
        ],
    }


def _score(body: Body, model: str) -> dict[str, Any]:
    return {
        "id": "score-fake",
        "object": "list",
        "model": model,
        "data": [{"index": 0, "object": "score", "score": 0.5}],
        "usage": usage("score", body),
    }


# --- streams -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One streamed event: its bytes, and whether it carries a token."""

    data: bytes
    token: bool


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def _named(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + _data({"type": name, **value})


def events(
    operation: str, body: Body, model: str, *, usage_on_every: bool = False
) -> Iterator[Event]:
    """The events of a streamed answer, made as they are asked for.

    `usage_on_every`: as vLLM with --enable-force-include-usage and continuous usage, which reports
    it on every chunk and at the end, asked or not.
    """
    if operation == "responses":
        return _response_events(body, model)
    if operation == "messages":
        return _message_events(body, model)
    return _openai_events(operation, body, model, usage_on_every=usage_on_every)


def _openai_events(
    operation: str, body: Body, model: str, *, usage_on_every: bool
) -> Iterator[Event]:
    options = body.get("stream_options") or {}
    asked = bool(options.get("include_usage"))
    chat = operation == "chat"
    tally = figures(operation, body)
    base: dict[str, Any] = {
        "id": "chatcmpl-fake" if chat else "cmpl-fake",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": CREATED_S,
        "model": model,
    }
    sent = 0

    def chunk(choice: dict[str, Any]) -> bytes:
        value: dict[str, Any] = {**base, "choices": [choice]}
        if usage_on_every:
            value["usage"] = {
                "prompt_tokens": tally.input,
                "completion_tokens": sent,
                "total_tokens": tally.input + sent,
            }
        elif asked:
            value["usage"] = None
        return _data(value)

    count = choices(operation, body)
    if chat:
        for index in range(count):
            delta = {"role": "assistant", "content": ""}
            yield Event(
                chunk({"index": index, "delta": delta, "logprobs": None, "finish_reason": None}),
                token=False,
            )
    each = output_each(body)
    texts = tokens(body, each)
    for step, index in itertools.product(range(each), range(count)):
        sent += 1
        finish = "length" if step == each - 1 else None
        content = {"delta": {"content": texts[step]}} if chat else {"text": texts[step]}
        yield Event(
            chunk({"index": index, **content, "logprobs": None, "finish_reason": finish}),
            token=True,
        )
    if asked or usage_on_every:
        yield Event(_data({**base, "choices": [], "usage": usage(operation, body)}), token=False)
    yield Event(DONE, token=False)


def _response_events(body: Body, model: str) -> Iterator[Event]:
    whole = _response(body, model)
    number = itertools.count()

    def named(name: str, value: dict[str, Any]) -> bytes:
        return _named(name, {"sequence_number": next(number), **value})

    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield Event(named("response.created", {"response": begun}), token=False)
    item = {**whole["output"][0], "status": "in_progress", "content": []}
    yield Event(named("response.output_item.added", {"output_index": 0, "item": item}), token=False)
    place = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    yield Event(named("response.content_part.added", {**place, "part": part}), token=False)
    for text in tokens(body, output_each(body)):
        delta = {**place, "delta": text, "logprobs": []}
        yield Event(named("response.output_text.delta", delta), token=True)
    text = whole["output"][0]["content"][0]["text"]
    done = {**place, "text": text, "logprobs": []}
    yield Event(named("response.output_text.done", done), token=False)
    item = {"output_index": 0, "item": whole["output"][0]}
    yield Event(named("response.output_item.done", item), token=False)
    yield Event(named("response.completed", {"response": whole}), token=False)


def _message_events(body: Body, model: str) -> Iterator[Event]:
    whole = _message(body, model)
    final = whole["usage"]
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**final, "output_tokens": 0}}
    yield Event(_named("message_start", {"message": begun}), token=False)
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    yield Event(_named("content_block_start", block), token=False)
    for text in tokens(body, output_each(body)):
        delta = {"index": 0, "delta": {"type": "text_delta", "text": text}}
        yield Event(_named("content_block_delta", delta), token=True)
    yield Event(_named("content_block_stop", {"index": 0}), token=False)
    end = {
        "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
        "usage": {"output_tokens": final["output_tokens"]},
    }
    yield Event(_named("message_delta", end), token=False)
    yield Event(_named("message_stop", {}), token=False)
