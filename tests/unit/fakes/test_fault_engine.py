"""Every other suite trusts the fault engine: its honesty and its faults are checked first."""

import asyncio
import json
import re
import time

import openai

from tests.fakes.engine import FaultEngine, engine_as_process, engine_in_thread
from tests.fakes.engine_answers import figures
from tests.fakes.engine_faults import ABSURD, FAULTS

MESSAGES = [{"role": "user", "content": "five words are in here"}]


async def exchange(engine: FaultEngine, body: dict[str, object], path: str) -> bytes:
    """Everything the engine sends until it is silent for a moment or closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    data = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n".encode()
        + b"Connection: close\r\n\r\n"
        + data
    )
    answer = b""
    try:
        async with asyncio.timeout(1.0):
            while part := await reader.read(65_536):
                answer += part
                if len(answer) > 1_000_000:
                    break
    except (TimeoutError, ConnectionResetError):
        pass
    writer.transport.abort()
    return answer


def test_an_honest_answer_has_the_figures_a_test_can_work_out() -> None:
    with (
        engine_in_thread() as engine,
        openai.OpenAI(base_url=engine.url + "/v1", api_key="x") as client,
    ):
        answer = client.chat.completions.create(model="fault", messages=MESSAGES, max_tokens=7, n=2)
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 14)
        body = engine.requests[-1].json
        assert figures("chat", body).output == 14

        stream = client.chat.completions.create(
            model="fault",
            messages=MESSAGES,
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 7
        texts = [c.choices[0].delta.content for c in chunks if c.choices]
        assert len({text for text in texts if text}) == 7
        assert len(engine.requests) == 2
        assert all(request.closed_at is None for request in engine.requests)


# These answer as an honest engine would, late, or are wrong only when usage was asked for.
ALIKE = {
    "absurd_usage",
    "close_on_reuse",
    "json_for_stream",
    "late_start",
    "no_usage",
    "slow_head",
    "trickled",
    "usage_on_finish",
}


async def strike(engine: FaultEngine, name: str, *, stream: bool) -> None:
    argument = ":negative" if name == "absurd_usage" else ""
    body = {"model": "fault", "messages": MESSAGES, "stream": stream, "fault": name + argument}
    honest = await exchange(engine, {**body, "fault": ""}, "/v1/chat/completions")
    wrong = await exchange(engine, body, "/v1/chat/completions")
    assert name in ALIKE or wrong != honest, name


async def test_every_fault_strikes_and_ends_when_the_client_leaves() -> None:
    async with FaultEngine() as engine:
        await asyncio.gather(
            *(strike(engine, name, stream=stream) for name in FAULTS for stream in (False, True))
        )
        left = time.monotonic()
        await engine.seen(lambda _: engine.running() == 0, 2.0)
        assert all(r.closed_at is None or r.closed_at - left < 0.5 for r in engine.requests)


async def test_the_absurd_figures_reach_a_stream_that_asked_for_usage() -> None:
    async with FaultEngine() as engine:
        for name in ABSURD:
            body = {
                "messages": MESSAGES,
                "stream": True,
                "stream_options": {"include_usage": True},
                "fault": f"absurd_usage:{name}",
            }
            answer = await exchange(engine, body, "/v1/chat/completions")
            found = re.search(rb'"usage":(?!null)(.+?)\}\n\n', answer)
            assert found
            assert json.loads(found[1]) == ABSURD[name]


async def test_a_queued_fault_strikes_once() -> None:
    async with FaultEngine() as engine:
        engine.next_fault("status:503", path="/v1/chat/completions")
        body = {"messages": MESSAGES}
        first = await exchange(engine, body, "/v1/chat/completions")
        second = await exchange(engine, body, "/v1/chat/completions")
        assert first.startswith(b"HTTP/1.1 503")
        assert second.startswith(b"HTTP/1.1 200")


def test_the_engine_as_a_process() -> None:
    with (
        engine_as_process("--model", "other") as engine,
        openai.OpenAI(base_url=engine.url + "/v1", api_key="x") as client,
    ):
        assert [model.id for model in client.models.list()] == ["other"]
        stream = client.chat.completions.create(
            model="other", messages=MESSAGES, stream=True, extra_body={"fault": "gated"}
        )
        next(iter(stream))
        assert engine.counts()["running"] == 1
        engine.control("open")
        assert list(stream)[-1].choices[0].finish_reason == "length"
        assert engine.requests()[0]["tokens_sent"] == 8
