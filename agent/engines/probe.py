"""Asking an engine for real work: readiness, speed, progress. HTTP on the loopback address.

These requests are ours and not a tenant's: they pass by the gateway, so no ledger ever sees them.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any, Final

import aiohttp
import msgspec

from agent.engines.kind import Address, Kind, Load
from agent.errors import EngineUnfit
from agent.events import Measured
from appliance.wire.agent import DesiredReplica

_FIRST_TOKEN_S: Final = 300.0
_WARM_UP_S: Final = 60.0
_WATCH_S: Final = 3.0
_PROPERTIES_S: Final = 60.0  # once, of an engine that just worked: a busy node makes it late
_SLEEP_S: Final = 120.0  # weights go to memory and come back
_WARM_UP_TOKENS: Final = 16
_WARM_UP_REQUESTS_MAX: Final = 8
_GOLDEN_TOKENS_MAX: Final = 64  # of an answer that must hold certain words
_PREFILL_TOKENS: Final = (256, 2_048)  # the longer prompt where the shorter takes no time
_PREFILL_QUICK_S: Final = 0.25
_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
# Plain prose, as requests are: the figure of tokens for each byte is taken from it.
_TEXT_SHORT: Final = "What was the weather of that evening?"
_PROSE_SHARE: Final = 0.7  # of a request's bytes, the rest are its fields
_CONTEXT_TOKENS_SHORT: Final = 1_024  # below it, the text might not fit
_TEXT: Final = (
    "A lighthouse keeper wrote down the weather of every evening for forty years. When the books"
    " were read again, the long summers and the hard winters could be told from the colour of the"
    " ink. What would you have written down in his place, and why would it matter to anyone?"
)


class Engine:
    """One engine process, asked over HTTP."""

    __slots__ = ("_base", "_follows", "_headers", "_kind", "_replica", "_session")

    def __init__(
        self,
        session: aiohttp.ClientSession,
        kind: Kind,
        replica: DesiredReplica,
        address: Address,
        api_key: str | None,
    ) -> None:
        self._session = session
        self._kind = kind
        self._replica = replica
        self._base = f"http://{address.host}:{address.port}"
        self._follows = replica.pipeline is not None and replica.pipeline.rank > 0
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def first_token(self) -> float | None:
        """One real token (or vector), and the golden prompt's answer where there is one.

        The prompt's tokens for each byte of the request; None of a process that follows on
        another node and serves nothing. Raises EngineUnfit.
        """
        if self._follows:
            return None
        body = self._embedding() if self._replica.embedding else self._chat(1)
        answer = await self._post(self._path, body, _FIRST_TOKEN_S)
        prompt_tokens = _usage(answer, "prompt_tokens")
        if prompt_tokens <= 0 or not (_vector(answer) or _usage(answer, "completion_tokens") > 0):
            raise EngineUnfit("The engine answered without giving a token.")
        if self._replica.probe_prompt and not self._replica.embedding:
            await self._golden()
        return prompt_tokens / len(body)

    async def warm_up(self, prompt_tokens_per_byte: float | None) -> Measured:
        """How fast it is with every slot at work, and with a long prompt. Raises EngineUnfit."""
        if prompt_tokens_per_byte is None:  # the one it follows is measured
            return Measured(None, None, None, None)
        speed = await self._speed(self._path)
        prefill = speed if self._replica.embedding else await self._prefill(prompt_tokens_per_byte)
        path = self._kind.properties_path
        said = self._kind.properties(_decode(await self._ask("GET", path, None, _PROPERTIES_S)))
        # What does not say was told it with its arguments, and queues what goes beyond.
        slots = said.slots or self._replica.parallel
        return Measured(slots, said.context_tokens, speed, prompt_tokens_per_byte, prefill)

    async def load(self) -> Load:
        """Requests and counters. Raises EngineUnfit when it does not tell in time.

        Where a front process counts the requests it has taken in, that counts too: the figures of
        an engine that hangs behind it stand still with whatever they last said.
        """
        if self._follows:
            return Load(requests=0, progress=())
        load = self._kind.load((await self._get("/metrics")).decode(errors="replace"))
        if self._kind.load_path is None:
            return load
        with contextlib.suppress(EngineUnfit):  # a release without it
            taken = _decode(await self._get(self._kind.load_path)).get("server_load")
            if isinstance(taken, int) and taken > load.requests:
                return replace(load, requests=taken)
        return load

    async def healthy(self) -> bool:
        """Whether it takes requests by now; one that follows never does, and is well."""
        if self._follows:
            return True
        try:
            await self._ask("GET", self._kind.health_path, None, _WATCH_S)
        except EngineUnfit:
            return False
        return True

    async def sleep(self) -> None:
        """Have it give its GPU memory back. Raises EngineUnfit, also where its kind cannot."""
        await self._switch(self._kind.sleep_path, "sleep")

    async def wake(self) -> None:
        """Have it serve again. Raises EngineUnfit, also where its kind cannot."""
        await self._switch(self._kind.wake_path, "wake")

    async def _switch(self, path: str | None, what: str) -> None:
        if path is None:
            raise EngineUnfit(f"An engine of the kind {self._kind.name} cannot {what}.")
        await self._ask("POST", path, b"", _SLEEP_S)

    @property
    def _path(self) -> str:
        return "/v1/embeddings" if self._replica.embedding else "/v1/chat/completions"

    async def _golden(self) -> None:
        """The words the model's pack promises. Raises EngineUnfit: these are not those weights."""
        wanted = self._replica.probe_answer
        body = self._chat(_GOLDEN_TOKENS_MAX if wanted else 1, self._replica.probe_prompt)
        answer = await self._post(self._path, body, _FIRST_TOKEN_S)
        if wanted not in _said(answer):
            raise EngineUnfit(
                "The model does not answer the prompt of its pack as it should: it is damaged,"
                " or this release of the engine does not fit it. Import the pack again."
            )

    async def _prefill(self, tokens_per_byte: float) -> float | None:
        """Prompt tokens per second; None: it takes too long to tell here, or a prompt is too long.

        The text begins with what no earlier one began with, so that no cache answers.
        """
        speed = None
        for wanted in _PREFILL_TOKENS:
            tokens = min(wanted, self._replica.context_tokens // 2)
            # The bytes around the text count for the ratio too, so this is no exact length.
            chars = max(1, int(tokens / tokens_per_byte * _PROSE_SHARE))
            text = f"{time.monotonic_ns()} {_TEXT * (chars // len(_TEXT) + 1)}"[:chars]
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(_WARM_UP_S):
                    answer = await self._post(self._path, self._chat(1, text), _FIRST_TOKEN_S)
            except (TimeoutError, EngineUnfit):
                break
            took_s = time.monotonic() - began_s
            read = _usage(answer, "prompt_tokens")
            if read > 0 and took_s > 0:
                speed = read / took_s
            if took_s >= _PREFILL_QUICK_S or tokens < wanted:
                break
        return speed

    async def _speed(self, path: str) -> float | None:
        """Tokens per second over the slots: generated ones, or embedded ones of an embedder.

        None: it takes too long to tell here, which is slow but no fault.
        """
        count = min(self._replica.parallel, _WARM_UP_REQUESTS_MAX)
        embedding = self._replica.embedding
        body = self._embedding() if embedding else self._chat(_WARM_UP_TOKENS)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_WARM_UP_S):
                answers = await self._at_once(path, body, count)
        except TimeoutError:
            return None
        took_s = time.monotonic() - began_s
        kind = "prompt_tokens" if embedding else "completion_tokens"
        tokens = sum(_usage(answer, kind) for answer in answers)
        return tokens / took_s if tokens > 0 and took_s > 0 else None

    async def _at_once(self, path: str, body: bytes, count: int) -> list[dict[str, Any]]:
        try:
            async with asyncio.TaskGroup() as requests:
                tasks = [
                    requests.create_task(self._post(path, body, _FIRST_TOKEN_S))
                    for _ in range(count)
                ]
        except* EngineUnfit as group:
            raise EngineUnfit(f"It failed in its warm-up: {group.exceptions[0]}") from group
        return [task.result() for task in tasks]

    def _text(self) -> str:
        return _TEXT if self._replica.context_tokens >= _CONTEXT_TOKENS_SHORT else _TEXT_SHORT

    def _chat(self, tokens: int, text: str | None = None) -> bytes:
        return msgspec.json.encode(
            {
                "model": self._replica.model_name,
                "messages": [{"role": "user", "content": text or self._text()}],
                "max_tokens": tokens,
                "temperature": 0,
                "stream": False,
                **self._kind.probe_fields,
            }
        )

    def _embedding(self) -> bytes:
        return msgspec.json.encode({"model": self._replica.model_name, "input": self._text()})

    async def _post(self, path: str, body: bytes, deadline_s: float) -> dict[str, Any]:
        return _decode(await self._ask("POST", path, body, deadline_s))

    async def _get(self, path: str) -> bytes:
        return await self._ask("GET", path, None, _WATCH_S)

    async def _ask(self, method: str, path: str, body: bytes | None, deadline_s: float) -> bytes:
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._session.request(
                    method,
                    self._base + path,
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,
                ) as answer,
            ):
                content = await answer.content.read(_ANSWER_BYTES_MAX)
                while not answer.content.at_eof() and len(content) < _ANSWER_BYTES_MAX:
                    content += await answer.content.read(_ANSWER_BYTES_MAX - len(content))
                if answer.status != 200:
                    raise EngineUnfit(f"The engine answers {answer.status} to {path}.")
                return content
        except TimeoutError as error:
            raise EngineUnfit(
                f"The engine gives no answer to {path} within {deadline_s:g} s."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnfit(f"The engine cannot be asked: {type(error).__name__}.") from error


def _decode(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise EngineUnfit("The engine's answer is not the JSON it should be.") from error


def _usage(answer: dict[str, Any], name: str) -> int:
    usage = answer.get("usage")
    tokens = usage.get(name) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else 0


def _said(answer: dict[str, Any]) -> str:
    """The model's words."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _vector(answer: dict[str, Any]) -> bool:
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and bool(first.get("embedding"))
