"""`cic bench`: a small load measurement of a running endpoint, for its administrator.

It asks as a client does, with a key of the site: what it sends is admitted, limited and metered.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import click
import httpx
import msgspec

from appliance.commands.context import cic_line
from appliance.commands.measurement import Report, Sample, Spread, report
from appliance.commands.output import print_fields, print_json, progress
from appliance.wire.command import CommandError, ExitCode, Invocation
from appliance.wire.home import Home

PROMPT: Final = "Count from one to one hundred in words."
CONNECT_S: Final = 5.0
READ_S: Final = 300.0  # no piece of an answer for this long is an error


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Error(msgspec.Struct):
    code: str | int | None = None  # other servers than ours send numbers, or nothing


class _Event(msgspec.Struct):
    """What is read of a streamed event, and of an error's body."""

    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    error: _Error | None = None


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask, how often, and how many at once."""

    url: str
    key: str
    model: str
    requests: int
    concurrency: int
    max_tokens: int


@click.command()
@click.option("--url", help="Base URL, as http://HOST:PORT/v1. Default: this home's endpoint.")
@click.option("--key", required=True, envvar="CIC_BENCH_KEY", help="An API key of the site.")
@click.option("--model", help="Default: the first of the key's that chats.")
@click.option("--requests", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=8, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.pass_obj
def bench(
    invocation: Invocation,
    /,
    url: str | None,
    key: str,
    model: str | None,
    requests: int,
    concurrency: int,
    max_tokens: int,
) -> None:
    """Measure the endpoint under a small load.

    Sends streamed chat completions, so many at once, and prints the time to the first token, the
    time between tokens, tokens a second, and the errors by their code. The requests are real: they
    count against the key's limits and are in the ledger. The key is better given as CIC_BENCH_KEY
    than typed, where the shell's history keeps it.
    """
    base_url = (url or endpoint_of(invocation.home)).rstrip("/")
    asked = model or first_model(base_url, key)
    load = Load(base_url, key, asked, requests, concurrency, max_tokens)
    with shown_progress(requests) as answered:
        found = asyncio.run(measure(load, answered))
    if invocation.json:
        print_json({"url": base_url, "model": asked, **msgspec.to_builtins(found)})
    else:
        show(load, found)
    if not found.answered:
        raise CommandError(
            f"None of {requests} requests was answered: {', '.join(found.errors)}.",
            next_step="See docs/API.md for what each error code means.",
        )


def endpoint_of(home: Home) -> str:
    """The endpoint of the appliance that runs in this home."""
    try:
        return home.endpoint_file.read_text().strip()
    except FileNotFoundError:
        raise CommandError(
            f"No appliance runs in {home.config}.",
            next_step=f"Start it with `{cic_line(home, 'serve')}`, or name an endpoint with --url.",
            exit_code=ExitCode.UNREACHABLE,
        ) from None


def first_model(base_url: str, key: str) -> str:
    """The first model of the key's that does not refuse a chat completion; some only embed.

    An error that is not the request's, such as a busy engine, is for the measurement to tell.
    """
    names = models_of(base_url, key)
    if len(names) == 1:
        return names[0]
    for name in names:
        body = {"model": name, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1}
        url = f"{base_url}/chat/completions"
        try:
            answer = httpx.post(url, json=body, headers=bearer(key), timeout=READ_S)
        except httpx.HTTPError:
            return name
        if not answer.is_client_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return name
    raise CommandError(
        f"No model of this key does chat completions: it has {', '.join(names) or 'none'}.",
        next_step="Deploy one: `cic deployment create --help`.",
        exit_code=ExitCode.NOT_FOUND,
    )


def models_of(base_url: str, key: str) -> list[str]:
    """The models that the key may use."""
    try:
        answer = httpx.get(f"{base_url}/models", headers=bearer(key), timeout=CONNECT_S)
    except httpx.HTTPError as error:
        raise CommandError(
            f"{base_url} cannot be reached: {error}.",
            next_step="Check the URL, and that the appliance runs.",
            exit_code=ExitCode.UNREACHABLE,
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise CommandError(
            f"{base_url}/models answered {failure_of(answer.status_code, answer.content)}.",
            next_step="Check the key: `cic key list` shows the keys of the site.",
        )
    return [named.id for named in msgspec.json.decode(answer.content, type=_Models).data]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def failure_of(status: int, body: bytes) -> str:
    """What an answer that is no success is counted as: `429 rate_limit_exceeded`."""
    try:
        error = msgspec.json.decode(body, type=_Event).error
    except msgspec.MsgspecError:
        error = None
    return f"{status} {error.code}" if error and isinstance(error.code, str) else str(status)


async def measure(load: Load, answered: Callable[[], None]) -> Report:
    """Ask `requests` times, `concurrency` at once; `answered` is called after each."""
    samples: list[Sample] = []
    remaining = iter(range(load.requests))
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    limits = httpx.Limits(max_connections=load.concurrency)

    async def ask_again() -> None:
        for _ in remaining:
            samples.append(await ask(client, load))
            answered()

    begun_s = time.monotonic()
    async with (
        httpx.AsyncClient(headers=bearer(load.key), timeout=timeout, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(min(load.concurrency, load.requests)):
            group.create_task(ask_again())
    return report(samples, time.monotonic() - begun_s)


async def ask(client: httpx.AsyncClient, load: Load) -> Sample:
    """One streamed chat completion."""
    body = {
        "model": load.model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": load.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun_s = time.monotonic()
    times_s: list[float] = []
    error: str | None = "stream_cut"
    tokens = 0
    try:
        async with client.stream("POST", f"{load.url}/chat/completions", json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                failure = failure_of(answer.status_code, await answer.aread())
                return Sample(failure, (), 0, time.monotonic() - begun_s)
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    error = None
                elif line.startswith("data: "):
                    event = msgspec.json.decode(line[len("data: ") :], type=_Event)
                    if event.error is not None:
                        error = f"stream {event.error.code}"
                        break
                    if any(choice.delta.content for choice in event.choices):
                        times_s.append(time.monotonic() - begun_s)
                    tokens = event.usage.completion_tokens if event.usage else tokens
    except httpx.HTTPError as failed:
        error = type(failed).__name__
    except msgspec.MsgspecError:
        error = "not_json"
    return Sample(error, tuple(times_s), tokens, time.monotonic() - begun_s)


@contextlib.contextmanager
def shown_progress(requests: int) -> Iterator[Callable[[], None]]:
    """Counts the answers on standard error where that is a terminal."""
    done = 0
    with progress(f"0 of {requests} requests") as update:

        def answered() -> None:
            nonlocal done
            done += 1
            update(f"{done} of {requests} requests")

        yield answered


def show(load: Load, found: Report) -> None:
    def times(spread: Spread) -> str:
        return f"{spread.p50_ms:,.1f} ms   p90 {spread.p90_ms:,.1f}   p99 {spread.p99_ms:,.1f}"

    print_fields(
        [
            ("endpoint", load.url),
            ("model", load.model),
            (
                "requests",
                f"{found.answered} of {found.requests} answered, {load.concurrency} at once",
            ),
            ("elapsed", f"{found.elapsed_s:,.1f} s, {found.requests_per_s:,.1f} requests/s"),
            (
                "output",
                f"{found.output_tokens:,} tokens, {found.output_tokens_per_s:,.1f} tokens/s",
            ),
            ("first token", times(found.first_token)),
            ("between tokens", times(found.between_tokens)),
            ("whole answer", times(found.total)),
            *((f"error {code}", count) for code, count in found.errors.items()),
        ]
    )
