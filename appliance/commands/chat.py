"""`cic chat`: ask a model through the endpoint, as the site's administrator."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click
import httpx
import msgspec

from appliance.commands.client import AdminClient, object_path
from appliance.commands.context import Refused
from appliance.commands.output import print_json
from appliance.wire.chat import ChatPass, ChatPassAsk
from appliance.wire.command import ExitCode, Invocation
from appliance.wire.home import Home

_CONNECT_S: Final = 5.0
_SILENCE_S: Final = 300.0  # a model that loads first takes its time
_SPAN_S: Final = 0.2  # a shorter stream says nothing of its speed
_PROMPT: Final = "> "


@dataclass(slots=True)
class _Answer:
    text: str = ""
    first_token_s: float | None = None
    took_s: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        if not self.output_tokens or self.first_token_s is None:
            return None
        span_s = self.took_s - self.first_token_s
        return round(self.output_tokens / span_s, 1) if span_s >= _SPAN_S else None


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="What the model is told before all else.")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.pass_obj
def chat(
    invocation: Invocation,
    model: str,
    prompt: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float | None,
) -> None:
    """Ask the deployment MODEL: PROMPT, standard input, or line by line in a terminal.

    What is asked goes through the endpoint as everything does, and counts as the use of the
    site's own tenant `site-console`. Neither question nor answer is kept anywhere.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens}
    if temperature is not None:
        body["temperature"] = temperature
    said = [] if system is None else [{"role": "system", "content": system}]
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise Refused("usage", "There is no question.", next_step="Write it behind the model.")
    with _passed(invocation.home, model) as given:
        if prompt is not None:
            said.append({"role": "user", "content": prompt})
            _show(invocation, _asked(given, {**body, "messages": said}, quiet=invocation.json))
            return
        for line in _lines():
            said.append({"role": "user", "content": line})
            answer = _asked(given, {**body, "messages": said}, quiet=invocation.json)
            said.append({"role": "assistant", "content": answer.text})
            _show(invocation, answer)


@contextmanager
def _passed(home: Home, model: str) -> Iterator[ChatPass]:
    """A pass for as long as the block lasts."""
    with AdminClient(home) as client:
        given = client.send("POST", "/v1/chat-passes", ChatPass, ChatPassAsk(model=model))
    try:
        yield given
    finally:
        with AdminClient(home) as client:
            client.send("DELETE", object_path("chat-passes", given.id), type(None), None)


def _lines() -> Iterator[str]:
    """What a person types, until the end of it."""
    while True:
        click.echo(_PROMPT, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            click.echo(err=True)
            return
        if line.strip():
            yield line.strip()


def _asked(given: ChatPass, body: dict[str, Any], *, quiet: bool) -> _Answer:
    """The answer; its text is printed as it comes, unless `quiet`."""
    sent = {**body, "stream": True, "stream_options": {"include_usage": True}}
    answer, began_s = _Answer(), time.monotonic()
    try:
        with httpx.stream(
            "POST",
            f"{given.endpoint}/chat/completions",
            json=sent,
            headers={"Authorization": f"Bearer {given.key}"},
            timeout=httpx.Timeout(_CONNECT_S, read=_SILENCE_S),
            trust_env=False,
        ) as response:
            if response.status_code >= 400:
                raise _refused(response.read(), response.status_code)
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    piece = _take(answer, line[6:].encode(), began_s)
                    if not quiet:
                        click.echo(_printable(piece), nl=False)
                        sys.stdout.flush()
    except httpx.HTTPError as error:
        raise Refused(
            "endpoint_away",
            f"The endpoint {given.endpoint} cannot be asked: {error or type(error).__name__}.",
            next_step="See `cic status`.",
            exit_code=ExitCode.UNREACHABLE,
        ) from error
    answer.took_s = time.monotonic() - began_s
    if not quiet:
        click.echo()
    return answer


def _take(answer: _Answer, data: bytes, began_s: float) -> str:
    event = msgspec.json.decode(data)
    if event.get("error"):
        raise _refused(data, 0)
    usage = event.get("usage")
    if usage:
        answer.input_tokens = usage.get("prompt_tokens")
        answer.output_tokens = usage.get("completion_tokens")
    pieces = []
    for choice in event.get("choices", ()):
        pieces.append(str(choice["delta"].get("content") or ""))
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    piece = "".join(pieces)
    if piece and answer.first_token_s is None:
        answer.first_token_s = time.monotonic() - began_s
    answer.text += piece
    return piece


def _refused(content: bytes, status: int) -> Refused:
    try:
        error = msgspec.json.decode(content)["error"]
        code, message = str(error.get("code") or error.get("type")), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        code, message = "endpoint_refused", f"The endpoint answered HTTP {status}."
    return Refused(code, message, next_step="See `cic deployment list` and `cic status`.")


def _show(invocation: Invocation, answer: _Answer) -> None:
    if invocation.json:
        print_json(
            {
                "text": answer.text,
                "finish_reason": answer.finish_reason,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "first_token_ms": _ms(answer.first_token_s),
                "took_ms": _ms(answer.took_s),
                "tokens_per_s": answer.tokens_per_s,
            }
        )
        return
    rate = "" if answer.tokens_per_s is None else f", {answer.tokens_per_s} tokens/s"
    first = "" if answer.first_token_s is None else f", first token {_ms(answer.first_token_s)} ms"
    counted = f"{answer.input_tokens} tokens in, {answer.output_tokens} out{first}{rate}"
    if answer.finish_reason == "length":
        counted += "; cut off by --max-tokens"
    click.echo(click.style(counted, dim=True), err=True)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _printable(text: str) -> str:
    """Nothing that a model says commands the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else " " for sign in text)
