"""Clients of a deployment whose node is being wrecked, and what the ledger must say afterwards."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.fakes.site import Key, Site

ANSWER_S: Final = 60.0


@dataclass(slots=True)
class Seen:
    """What the clients were told, by request id."""

    answered: dict[str, tuple[int, int]] = field(default_factory=dict)  # prompt, output tokens
    cut: dict[str, str] = field(default_factory=dict)  # streams that ended with an error event
    failed: list[str] = field(default_factory=list)  # anything else


class Crowd:
    """Asks as long as the block lasts."""

    def __init__(
        self, site: Site, key: Key, model: str, *, clients: int = 3, tokens: tuple[int, int]
    ) -> None:
        """`tokens`: the least and the most an answer has."""
        self.seen = Seen()
        self._site, self._key, self._model = site, key, model
        self._clients, self._tokens = clients, tokens
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> "Crowd":
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        async with asyncio.timeout(ANSWER_S):
            await asyncio.gather(*self._tasks)

    async def until_answered(self, more: int) -> None:
        """Returns when so many requests more were answered."""
        wanted = len(self.seen.answered) + more
        async with asyncio.timeout(ANSWER_S):
            while len(self.seen.answered) < wanted:  # noqa: ASYNC110 - many tasks add to it
                await asyncio.sleep(0.01)

    async def _client(self, number: int) -> None:
        chance = random.Random(number)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(headers=self._key.bearer, timeout=timeout) as session:
            count = 0
            while not self._ending:
                count += 1
                name = f"kills-{self._model}-{number}-{count}"
                body = {
                    "model": self._model,
                    "messages": [{"role": "user", "content": f"river {chance.random()}"}],
                    "max_tokens": chance.randint(*self._tokens),
                    "ignore_eos": True,
                    "stream": chance.random() < 0.5,
                }
                if body["stream"]:
                    body["stream_options"] = {"include_usage": True}
                await self._one(session, name, body)

    async def _one(self, session: aiohttp.ClientSession, name: str, body: dict[str, Any]) -> None:
        try:
            async with session.post(
                f"{self._site.base_url}/chat/completions", json=body, headers={"x-request-id": name}
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen.failed.append(f"{name}: {error!r}")
            return
        if answer.status != 200:
            self.seen.failed.append(f"{name}: {answer.status} {content[:200]!r}")
        elif body["stream"]:
            self._note_stream(name, content)
        else:
            usage = json.loads(content)["usage"]
            self.seen.answered[name] = (usage["prompt_tokens"], usage["completion_tokens"])

    def _note_stream(self, name: str, content: bytes) -> None:
        lines = [line[6:] for line in content.splitlines() if line.startswith(b"data: ")]
        if lines and lines[-1] == b"[DONE]":
            usage = json.loads(lines[-2])["usage"]
            self.seen.answered[name] = (usage["prompt_tokens"], usage["completion_tokens"])
        elif lines and "error" in (last := json.loads(lines[-1])):
            self.seen.cut[name] = last["error"]["code"]
        else:
            self.seen.failed.append(f"{name}: its stream ends without an end {content[-200:]!r}")


def objections(site: Site, seen: Seen) -> list[str]:
    """Where the ledger is not as the clients were told."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in site.ledger():
        rows.setdefault(row["request_id"], []).append(row)
    wrong = list(seen.failed)
    for name, told in seen.answered.items():
        held = [(r["status"], r["input_tokens"], r["output_tokens"]) for r in rows.get(name, [])]
        if held != [("ok", *told)]:
            wrong.append(f"{name} was answered {told} and is {held}")
    for name, code in seen.cut.items():
        held = [(row["status"], row["error_code"]) for row in rows.get(name, [])]
        if held != [("failed", code)]:
            wrong.append(f"{name} was cut with {code} and is {held}")
    known = seen.answered.keys() | seen.cut.keys()
    wrong += [f"{name} is recorded and nobody heard of it" for name in rows.keys() - known]
    return wrong
