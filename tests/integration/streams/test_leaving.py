"""Clients that leave, in every phase: the engine is told at once, and nothing stays held."""

import asyncio
import json
import random
import socket
import struct
import time
from typing import Any

import pytest

from tests.fakes.engine import EngineProcess
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, Row, Site

CANCEL_S = 0.5

# name: (fault and pace, streamed, read this much first, tokens generated at least)
PHASES: dict[str, tuple[dict[str, Any], bool, int, int]] = {
    "before the head": ({"fault": "hang_before_head"}, True, 0, 0),
    "before the head, not streamed": ({"fault": "hang_before_head"}, False, 0, 0),
    "after the head": ({"fault": "hang_after_head"}, True, 0, 0),
    "within the body": ({"fault": "hang_mid_body"}, False, 0, 0),
    "between two tokens": ({"fault": "hang_mid_stream:3"}, True, 400, 3),
    "while tokens flow": ({"token_s": 0.01, "max_tokens": 5_000}, True, 2_000, 3),
    "when all is said": ({"fault": "hang_before_done"}, True, 1_500, 6),
}


def body_of(**more: Any) -> bytes:
    body = {"model": "fault", "messages": [{"role": "user", "content": "one two three"}]}
    return json.dumps({**body, "max_tokens": 6, **more}).encode()


def begin(site: Site, key: Key, request_id: str, **more: Any) -> RawClient:
    client = RawClient(site.address)
    headers = {**key.bearer, "X-Request-Id": request_id}
    client.send(request("POST", "/v1/chat/completions", body_of(**more), headers))
    return client


def read_at_least(client: RawClient, count: int) -> None:
    got = 0
    while got < count:
        part = client.socket.recv(65_536)
        assert part
        got += len(part)


def leave(client: RawClient, how: str) -> float:
    """When the client left."""
    if how == "reset":
        linger = struct.pack("ii", 1, 0)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    now = time.monotonic()
    client.close()
    return now


def wait_started(site: Site, engine: EngineProcess) -> None:
    site.until(lambda: engine.counts()["requests"] > 0, 5, "the engine's request")


def wait_left(site: Site, engine: EngineProcess) -> Row:
    def found() -> Row | None:
        request_seen = engine.requests()[-1]
        return request_seen if request_seen["closed_at"] else None

    return site.until(found, 3, "the engine to be told")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_leaving(site: Site, engine: EngineProcess, key: Key, phase: str, how: str) -> None:
    more, stream, read_bytes, generated = PHASES[phase]
    request_id = site.new_request_id()
    client = begin(site, key, request_id, stream=stream, **more)
    wait_started(site, engine)
    if read_bytes:
        read_at_least(client, read_bytes)
    left = leave(client, how)
    seen = wait_left(site, engine)
    # Both clocks are this machine's CLOCK_MONOTONIC.
    assert seen["closed_at"] - left <= CANCEL_S
    record = site.record(request_id)
    assert (record["status"], record["http_status"]) == ("aborted", 499)
    assert generated <= record["output_tokens"] <= seen["tokens_sent"]
    assert record["input_tokens"] > 0
    site.wait_idle(2)


def test_who_leaves_is_not_charged_what_was_reserved(
    site: Site, engine: EngineProcess, key: Key
) -> None:
    """The engine tells usage at the end, which never comes: the prompt is charged as is likely."""
    messages = [{"role": "user", "content": "word " * 300}]
    whole = site.new_request_id()
    with begin(site, key, whole, messages=messages) as client:
        assert client.answer().status == 200
    left = site.new_request_id()
    client = begin(site, key, left, messages=messages, stream=True, fault="hang_mid_stream:3")
    wait_started(site, engine)
    read_at_least(client, 400)
    leave(client, "reset")
    true, charged = (site.record(one)["input_tokens"] for one in (whole, left))
    assert true == 300
    assert true * 0.8 <= charged <= true * 1.2


def test_leaving_after_the_last_byte_is_no_abort(
    site: Site, engine: EngineProcess, key: Key
) -> None:
    request_id = site.new_request_id()
    client = begin(site, key, request_id, stream=True)
    assert b"[DONE]" in client.answer().body
    leave(client, "reset")
    assert site.record(request_id)["status"] == "ok"


def test_half_a_close_is_not_leaving_before_the_answer(
    site: Site, engine: EngineProcess, key: Key
) -> None:
    """A client that shut its sending side may still read: answered, or treated as gone; metered."""
    request_id = site.new_request_id()
    client = begin(site, key, request_id, fault="slow_head:0.3")
    client.socket.shutdown(socket.SHUT_WR)
    with client:
        client.rest()
    record = site.record(request_id)
    assert (record["status"], record["http_status"]) in {("ok", 200), ("aborted", 499)}


async def leave_at_random(site: Site, key: Key, dice: random.Random, number: int) -> str:
    """One request of any kind, left after a random moment."""
    more, stream, _, _ = dice.choice(list(PHASES.values()))
    request_id = f"left-{number}"
    reader, writer = await asyncio.open_connection(*site.address)
    headers = {**key.bearer, "X-Request-Id": request_id}
    whole = request("POST", "/v1/chat/completions", body_of(stream=stream, **more), headers)
    writer.write(whole if dice.random() < 0.9 else whole[: dice.randrange(len(whole))])
    try:
        async with asyncio.timeout(dice.random() * 0.5):
            while await reader.read(65_536):
                pass
    except TimeoutError:
        pass
    writer.transport.abort()
    return request_id


async def test_many_who_leave_hold_nothing(site: Site, engine: EngineProcess) -> None:
    key = site.key(limits={"concurrency": 50, "tokens_per_min": 100_000_000})
    dice = random.Random(20)
    first = site.ledger()[-1]["seq"] if site.ledger() else 0
    for start in range(0, 400, 40):
        await asyncio.gather(
            *(leave_at_random(site, key, dice, number) for number in range(start, start + 40))
        )
    await asyncio.to_thread(site.wait_idle, 5)
    assert engine.counts()["running"] == 0

    layers = site.admin("GET", f"/v1/limits?key={key.id}")
    mine = next(layer for layer in layers if layer["layer"] == "key")
    assert mine["used"]["concurrency"] == 0
    # Every request that reached an engine has one record, and the held budget was replaced by it.
    records = [row for row in site.ledger(first) if row["key"] == key.name]
    assert len(records) == len({row["request_id"] for row in records})
    assert engine.counts()["requests"] <= len(records)
    assert {row["status"] for row in records} <= {"aborted", "ok", "failed"}
    spent = sum(row["input_tokens"] + row["output_tokens"] for row in records)
    assert mine["used"]["tokens_per_min"] == spent
    # And all fifty slots are free.
    answers = await asyncio.gather(
        *(
            asyncio.to_thread(site.post, "/chat/completions", json.loads(body_of()), key)
            for _ in range(50)
        )
    )
    assert [status for status, _, _ in answers] == [200] * 50


def test_connections_to_the_engine_are_given_back(
    site: Site, engine: EngineProcess, key: Key
) -> None:
    """A cancelled request costs its own connection and no other."""
    for _ in range(20):
        client = begin(site, key, site.new_request_id(), stream=True, fault="hang_mid_stream:1")
        read_at_least(client, 200)
        leave(client, "close")
    site.wait_idle(2)
    site.until(lambda: engine.counts()["running"] == 0, 2, "the engine to be idle")
    assert engine.counts()["connections"] <= 10
