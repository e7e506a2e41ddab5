"""Requests that last while their replica has to go: what fits into the time given ends well, the
rest ends as an error with its usage counted, and what still waits is served elsewhere.

A real site and real agents; the engine is slow on purpose.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.site import Key, Site, running_site
from tests.fakes.sse import Sse, parse
from tests.fakes.tiny_llama import write_tiny_llama
from tests.fakes.vllm_process import write_vllm_program
from tests.integration.placement.test_changes_under_load import (
    DEADLINE_S,
    agents,
    nodes_of,
)

TOKEN_S = 0.05


@contextmanager
def slow_site(folder: Path, drain_s: float, queue_wait_s: float = 30.0) -> Iterator[Site]:
    """A site whose engines take their time for each token once they are ready."""
    settings = {
        "CIC_FLEET_HEARTBEAT_S": "0.2",
        "CIC_FLEET_DRAIN_S": f"{drain_s}",
        "CIC_SCHEDULER_QUEUE_WAIT_S": f"{queue_wait_s}",
        "CIC_SCHEDULER_REQUESTS_PER_REPLICA_MAX": "1",
        "CROSSLOGIC_VLLM": str(write_vllm_program(folder / "bin")),
    }
    with running_site(folder / "site", settings=settings) as site:
        yield site


def deploy(site: Site, *, parallel: int = 4) -> Key:
    control = site.folder / "control.json"
    control.write_text(json.dumps({}))
    site.admin(
        "POST",
        "/v1/deployments",
        {
            "name": "small",
            "engine": "vllm",
            "model": str(write_tiny_llama(site.folder / "model")),
            "parallel": parallel,
            "context_tokens": 2048,
            "settings": {"arguments": [f"--fake-control={control}"]},
        },
    )
    site.wait_ready("small")
    control.write_text(json.dumps({"token_s": TOKEN_S}))
    return site.key()


class Asking(threading.Thread):
    """One request in a thread of its own."""

    def __init__(self, site: Site, key: Key, seconds: float, *, stream: bool = True) -> None:
        super().__init__(daemon=True)
        self._site, self._key = site, key
        self._stream = stream
        self._tokens = max(1, round(seconds / TOKEN_S))
        self.begun = threading.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.content = b""
        self.ended_s = 0.0
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection(*self._site.address, timeout=60)
        body = {
            "model": "small",
            "messages": [{"role": "user", "content": "go on"}],
            "max_tokens": self._tokens,
            "stream": self._stream,
        }
        with contextlib.closing(connection):
            connection.request("POST", "/v1/chat/completions", json.dumps(body), self._key.bearer)
            answer = connection.getresponse()
            self.status = answer.status
            self.headers = {name.lower(): text for name, text in answer.getheaders()}
            while part := answer.read1(65_536):
                self.content += part
                self.begun.set()
        self.ended_s = time.monotonic()

    def result(self) -> list[Sse]:
        self.join(60)
        assert not self.is_alive(), "it never ended"
        return parse(self.content)

    def record(self) -> Any:
        return self._site.record(self.headers["x-request-id"])


def emptied(site: Site, node: str) -> bool:
    return bool(site.cic("node", "show", node)["state"] == "maintenance")


def begin(site: Site, way: str) -> None:
    """Make the replica on node a go, in one of the ways there are."""
    if way == "drain":
        site.cic("node", "drain", "a")
    elif way == "notice":
        site.cic("node", "drain", "a", "--notice", "20s")
    else:
        site.cic("deployment", "update", "small", "--parallel", "3")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["drain", "notice", "update"])
def test_a_long_stream_ends_well_within_the_time_that_is_given(way: str, tmp_path: Path) -> None:
    with slow_site(tmp_path, drain_s=20.0) as site, agents(site, "a"):
        key = deploy(site)
        with agents(site, "b"):
            (before,) = site.cic("deployment", "show", "small")["replicas"]
            long = Asking(site, key, 7.0)
            assert long.begun.wait(10)
            begin(site, way)

            def other() -> bool:
                replicas = site.cic("deployment", "show", "small")["replicas"]
                return any(r["state"] == "ready" and r["id"] != before["id"] for r in replicas)

            site.until(other, DEADLINE_S, "another replica to serve")
            assert long.is_alive(), "the other one serves before this one has to be done"
            assert Asking(site, key, 0.1).result()[-1].done
            events = long.result()
            assert events[-1].done
            record = long.record()
            assert record["status"] == "ok"
            assert record["output_tokens"] == 140

            def gone() -> bool:
                replicas = site.cic("deployment", "show", "small")["replicas"]
                return before["id"] not in {r["id"] for r in replicas}

            site.until(gone, DEADLINE_S, "the old replica to be gone")
            if way != "update":
                site.until(lambda: emptied(site, "a"), DEADLINE_S, "the node to be empty")
                assert nodes_of(site) == ["b"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["drain", "update"])
def test_what_does_not_end_in_time_is_an_error_and_its_usage_is_counted(
    way: str, tmp_path: Path
) -> None:
    with slow_site(tmp_path, drain_s=2.0) as site, agents(site, "a"):
        key = deploy(site)
        with agents(site, "b"):
            long = Asking(site, key, 60.0)
            assert long.begun.wait(10)
            begin(site, way)
            events = long.result()
            assert not events[-1].done
            assert "error" in events[-1].json
            record = long.record()
            assert record["status"] == "failed"
            told = sum(1 for event in events if b'"so "' in json.dumps(event.json).encode())
            assert record["output_tokens"] >= told > 0
            assert Asking(site, key, 0.1).result()[-1].done


@pytest.mark.timeout(120)
def test_what_waits_for_a_draining_replica_is_served_by_another(tmp_path: Path) -> None:
    with slow_site(tmp_path, drain_s=20.0) as site, agents(site, "a"):
        key = deploy(site, parallel=1)
        with agents(site, "b"):
            long = Asking(site, key, 9.0)
            assert long.begun.wait(10)
            waiting = [Asking(site, key, 0.2) for _ in range(3)]
            site.until(lambda: site.status()["requests_queued"] >= 1, 10, "requests to wait")
            site.cic("node", "drain", "a")
            for each in waiting:
                assert each.result()[-1].done
                assert each.record()["status"] == "ok"
            assert long.is_alive(), "they did not wait for its place"
            assert long.result()[-1].done


@pytest.mark.timeout(120)
def test_what_waits_where_there_is_no_other_is_told_to_come_back(tmp_path: Path) -> None:
    with slow_site(tmp_path, drain_s=4.0, queue_wait_s=6.0) as site, agents(site, "a"):
        key = deploy(site, parallel=1)
        long = Asking(site, key, 3.0)
        assert long.begun.wait(10)
        streams = [Asking(site, key, 0.2) for _ in range(2)]
        plain = [Asking(site, key, 0.2, stream=False) for _ in range(2)]
        site.until(lambda: site.status()["requests_queued"] == 4, 10, "requests to wait")
        site.cic("node", "maintenance", "a")
        for each in plain:
            each.result()
            assert each.status == 503, each.content
            assert int(each.headers["retry-after"]) >= 1
            assert json.loads(each.content)["error"]["code"] == "model_unavailable"
        for each in streams:  # they were told that they wait, so the error is an event
            (event,) = each.result()
            assert event.json["error"]["code"] == "model_unavailable"
        assert long.result()[-1].done
        site.wait_idle()
