"""The site's endpoint as a client of it sees it: with a key, like everybody else."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from console.client import AdminError

_CONNECT_S: Final = 5.0
_SPAN_S: Final = 0.2  # a shorter stream says nothing of its speed
_SILENCE_S: Final = 300.0  # a model that loads first takes its time


@dataclass(slots=True)
class Answer:
    """What came of one question. Seconds are from its sending; None: not yet, or not told."""

    began_s: float
    text: str = ""
    first_token_s: float | None = None
    took_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    refused: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Of the stream, without the wait for its beginning; None where it was too short."""
        if not self.output_tokens or self.took_s is None or self.first_token_s is None:
            return None
        span_s = self.took_s - self.first_token_s
        return self.output_tokens / span_s if span_s >= _SPAN_S else None


@dataclass(frozen=True, slots=True)
class Question:
    model: str
    messages: Sequence[dict[str, str]]
    max_tokens: int = 512
    extra: dict[str, Any] = field(default_factory=dict)


async def ask(
    base_url: str,
    key: str,
    question: Question,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Answer, None]:
    """The same Answer, each time more of it came. Closing it ends the request.

    A refusal is in `refused`, in the endpoint's own words. Raises AdminError where there is no
    endpoint to ask.
    """
    import httpx  # noqa: PLC0415 (0.07 s, and not before the first question)

    body = {
        "model": question.model,
        "messages": list(question.messages),
        "max_tokens": question.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **question.extra,
    }
    answer = Answer(began_s=monotonic_s())
    timeout = httpx.Timeout(_CONNECT_S, read=_SILENCE_S)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream(
                "POST",
                f"{base_url}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
            ) as response,
        ):
            if response.status_code >= 400:
                answer.refused = _refusal(response.status_code, await response.aread())
                yield answer
                return
            async for line in response.aiter_lines():
                if line.startswith("data: ") and _take(answer, line[6:], monotonic_s):
                    yield answer
    except httpx.TimeoutException as error:
        raise AdminError("timeout", "The endpoint did not go on in time.") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
        raise AdminError("endpoint_away", f"The endpoint cannot be asked: {error}.") from error
    answer.took_s = monotonic_s() - answer.began_s
    yield answer


def _take(answer: Answer, data: str, monotonic_s: Callable[[], float]) -> bool:
    """Whether an event brought anything that is shown."""
    if data == "[DONE]":
        return False
    try:
        event = msgspec.json.decode(data.encode())
        if event.get("error"):
            answer.refused = str(event["error"].get("message", "The answer broke off."))
            return True
        usage = event.get("usage")
        if usage:
            answer.input_tokens = usage.get("prompt_tokens")
            answer.output_tokens = usage.get("completion_tokens")
        pieces = [str(each["delta"].get("content") or "") for each in event.get("choices", ())]
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return False
    piece = "".join(pieces)
    if piece and answer.first_token_s is None:
        answer.first_token_s = monotonic_s() - answer.began_s
    answer.text += piece
    return bool(piece or usage)


def _refusal(status: int, content: bytes) -> str:
    try:
        error = msgspec.json.decode(content)["error"]
        return f"{error['message']} (HTTP {status}, {error.get('code') or error.get('type')})"
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        return f"The endpoint answered HTTP {status}."
