"""SIGTERM in the midst of streams: they end as they should, then the appliance does."""

import json
import os
import signal
import time

import pytest

from tests.fakes.engine import EngineProcess
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, running_site

BODY = (
    b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"stream":true,'
    b'"max_tokens":30,"token_s":0.05}'
)


def open_stream(address: tuple[str, int], key: Key, request_id: str) -> RawClient:
    client = RawClient(address)
    headers = {**key.bearer, "X-Request-Id": request_id}
    client.send(request("POST", "/v1/chat/completions", BODY, headers))
    return client


def test_streams_in_flight_are_finished(engine: EngineProcess) -> None:
    with running_site() as site:
        site.deployment("fault", engine.url)
        key = site.key()
        clients = [open_stream(site.address, key, f"drain-{n}") for n in range(10)]
        site.until(lambda: engine.counts()["running"] == 10, 5, "ten streams")
        address = site.address
        os.kill(site.pid, signal.SIGTERM)
        for client in clients:
            with client:
                assert b"[DONE]" in client.answer().body
        assert site.stop() == 0
        with pytest.raises(ConnectionRefusedError):
            RawClient(address)
        rows = [json.loads(line) for line in site.run("ledger", "list").stdout.splitlines()]
        assert {(row["request_id"], row["status"]) for row in rows} >= {
            (f"drain-{n}", "ok") for n in range(10)
        }
        assert site.cic("ledger", "verify")["ok"] is True


def test_streams_that_do_not_end_are_cut_in_time(engine: EngineProcess) -> None:
    with running_site(settings={"CIC_TIMEOUTS_DRAIN_S": "0.5"}) as site:
        site.deployment("fault", engine.url)
        key = site.key()
        body = BODY.replace(b'"max_tokens"', b'"fault":"hang_mid_stream","max_tokens"')
        client = RawClient(site.address)
        client.send(
            request("POST", "/v1/chat/completions", body, {**key.bearer, "X-Request-Id": "cut"})
        )
        site.until(lambda: engine.counts()["running"] == 1, 5, "the stream")
        begun = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - begun < 5
        with client:
            assert b"[DONE]" not in client.rest()
        line = next(
            line for line in site.run("ledger", "list").stdout.splitlines() if '"cut"' in line
        )
        assert '"ok"' not in line
