"""Asking an engine for real work: readiness, speed, progress. HTTP on the loopback address.

These requests are ours and not a tenant's: they pass by the gateway, so no ledger ever sees them.
"""

import asyncio
import time
from typing import Any, Final

import aiohttp
import msgspec

from agent.engines.kind import Address, Kind, Load
from agent.errors import EngineUnfit
from agent.events import Measured
from appliance.wire.agent import DesiredReplica

_FIRST_TOKEN_S: Final = 300.0
_WARM_UP_S: Final = 60.0
_WATCH_S: Final = 5.0
_SLEEP_S: Final = 120.0  # weights go to memory and come back
_WARM_UP_TOKENS: Final = 16
_WARM_UP_REQUESTS_MAX: Final = 8
_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
# Plain prose, as requests are: the figure of tokens for each byte is taken from it.
_TEXT_SHORT: Final = "What was the weather of that evening?"
_CONTEXT_TOKENS_SHORT: Final = 1_024  # below it, the text might not fit
_TEXT: Final = (
    "A lighthouse keeper wrote down the weather of every evening for forty years. When the books"
    " were read again, the long summers and the hard winters could be told from the colour of the"
    " ink. What would you have written down in his place, and why would it matter to anyone?"
)


class Engine:
    """One engine process, asked over HTTP."""

    __slots__ = ("_base", "_headers", "_kind", "_replica", "_session")

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
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def measure(self) -> Measured:
        """One real token (or vector), then a short warm-up over the slots. Raises EngineUnfit."""
        if self._replica.embedding:
            path, body = "/v1/embeddings", self._embedding()
        else:
            path, body = "/v1/chat/completions", self._chat(1)
        answer = await self._post(path, body, _FIRST_TOKEN_S)
        prompt_tokens = _usage(answer, "prompt_tokens")
        if prompt_tokens <= 0 or not (_vector(answer) or _usage(answer, "completion_tokens") > 0):
            raise EngineUnfit("The engine answered without giving a token.")
        speed = await self._speed(path)
        said = self._kind.properties(_decode(await self._get(self._kind.properties_path)))
        return Measured(said.slots, said.context_tokens, speed, prompt_tokens / len(body))

    async def load(self) -> Load:
        """Requests and counters. Raises EngineUnfit when it does not tell in time."""
        return self._kind.load((await self._get("/metrics")).decode(errors="replace"))

    async def healthy(self) -> bool:
        """Whether it takes requests by now."""
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

    def _chat(self, tokens: int) -> bytes:
        return msgspec.json.encode(
            {
                "model": self._replica.model_name,
                "messages": [{"role": "user", "content": self._text()}],
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


def _vector(answer: dict[str, Any]) -> bool:
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and bool(first.get("embedding"))
