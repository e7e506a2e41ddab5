"""Clients of the whole appliance, and what they may expect of its ledger afterwards."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from appliance.metering.reader import LedgerReader
from tests.fakes.engine_answers import figures
from tests.fakes.site import Key

MODEL = "fault"
CLIENTS = 24
ANSWER_S = 20.0

# The operation, its path, and how the end of its stream is told.
STREAMED = (
    ("chat", "/chat/completions", b"data: [DONE]"),
    ("completions", "/completions", b"data: [DONE]"),
    ("responses", "/responses", b"event: response.completed"),
    ("messages", "/messages", b"event: message_stop"),
)
WHOLE = (*STREAMED, ("embeddings", "/embeddings", b""))


@dataclass(frozen=True, slots=True)
class Asked:
    operation: str
    path: str
    body: dict[str, Any]
    end: bytes  # of a stream; empty for an answer in one piece
    leaves: bool  # the client goes after the first bytes


@dataclass(slots=True)
class Answers:
    """What clients were answered in full: the ledger must hold it, once and truly."""

    tokens: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # by request id
    failures: list[str] = field(default_factory=list)  # answers that break the interface


def ask(chance: random.Random) -> Asked:
    """One request of any kind."""
    streamed = chance.random() < 0.6
    operation, path, end = chance.choice(STREAMED if streamed else WHOLE)
    text = " ".join(["word"] * chance.randint(1, 40))
    body: dict[str, Any] = {"model": MODEL}
    if operation in {"chat", "messages"}:
        body["messages"] = [{"role": "user", "content": text}]
    elif operation == "completions":
        body["prompt"] = text
    else:
        body["input"] = text
    if operation != "embeddings":
        name = "max_output_tokens" if operation == "responses" else "max_tokens"
        body[name] = chance.randint(1, 12)
        body["stream"] = streamed
    leaves = streamed and chance.random() < 0.1
    return Asked(operation, path, body, end if streamed else b"", leaves)


async def crowd(
    base_url: str, key: Key, seed: int, answers: Answers, stop: Callable[[], None], after: int
) -> None:
    """Clients that ask until they are cancelled; `stop` is called once `after` were answered."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    before = len(answers.tokens)

    async def client(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        count = 0
        while True:
            count += 1
            try:
                await _one(session, base_url, f"k{seed}-{number}-{count}", ask(chance), answers)
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.01)  # the site is gone, or not yet there
            if len(answers.tokens) - before >= after:
                stop()

    async with (
        aiohttp.ClientSession(headers=key.bearer, connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as clients,
    ):
        for number in range(CLIENTS):
            clients.create_task(client(number))


async def _one(
    session: aiohttp.ClientSession, base_url: str, name: str, asked: Asked, answers: Answers
) -> None:
    # Every third client leaves the choice of the id to the appliance.
    given = {} if hash(name) % 3 == 0 else {"x-request-id": name}
    async with session.post(base_url + asked.path, json=asked.body, headers=given) as answer:
        request_id = answer.headers.get("x-request-id", "")
        if answer.status != 200:
            return
        if given and request_id != name:
            answers.failures.append(f"{name} was echoed as {request_id!r}")
        if asked.end:
            received = b""
            async for piece in answer.content.iter_any():
                received += piece
                if asked.leaves:
                    return
                if asked.end in received:
                    break
            else:
                answers.failures.append(f"{name} ended without its last event: {received[-200:]!r}")
                return
            await answer.read()
        else:
            json.loads(await answer.read())
        if request_id in answers.tokens:
            answers.failures.append(f"{request_id} was answered twice")
        told = figures(asked.operation, asked.body)
        answers.tokens[request_id] = (told.input, told.output, told.cached)


def objections(ledger: Path, answers: Answers) -> list[str]:
    """What the ledger does not hold as the clients were answered."""
    wrong = list(answers.failures)
    held: dict[str, list[tuple[str, tuple[int, int, int]]]] = {}
    for record in LedgerReader(ledger).rows():
        tokens = (record.input_tokens, record.output_tokens, record.cached_tokens)
        held.setdefault(record.request_id, []).append((record.status, tokens))
    for request_id, records in held.items():
        if len(records) > 1:
            wrong.append(f"{request_id} is there {len(records)} times")
    for request_id, tokens in answers.tokens.items():
        records = held.get(request_id, [])
        if not records:
            wrong.append(f"{request_id} was answered and is missing")
        elif records[0] != ("ok", tokens):
            wrong.append(f"{request_id} was answered {tokens} and is {records[0]}")
    return wrong
