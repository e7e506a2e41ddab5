"""The whole appliance on a disk that fails, and after the power was cut."""

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.metering.reader import LedgerReader
from tests.fakes.engine import engine_in_thread
from tests.fakes.site import Key, Site
from tests.integration.crash.clients import MODEL, Answers, crowd, objections
from tests.integration.crash.evidence import Evidence
from tests.integration.crash.evidence import objections as ledger_objections
from tests.integration.crash.power import Disk, cut

DEADLINE_S = 20.0
CUTS = 20


@contextlib.contextmanager
def recorded_site(recorder: Path) -> Iterator[tuple[Site, Disk]]:
    """A site of which ledger.db is recorded: it is made by the first start."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    home = folder / "home"
    site = Site(folder)
    try:
        site.init()
        (home / "ledger.db").unlink()
        disk = Disk(folder, recorder, watched=home)
        site.settings.update(disk.environ)
        site.start()
        yield site, disk
    finally:
        site.kill()
        shutil.rmtree(folder, ignore_errors=True)


def ready(site: Site) -> int:
    connection = http.client.HTTPConnection(*site.address, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().status


def until(wanted: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not wanted():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def chat(site: Site, key: Key, **more: object) -> tuple[int, dict[str, str], Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "one two"}],
        "max_tokens": 5,
        **more,
    }
    status, headers, content = site.post("/chat/completions", body, key)
    return status, headers, content if more.get("stream") else json.loads(content)


@pytest.mark.parametrize("how", [b"s", b"f"], ids=["full", "sync_error"])
def test_nothing_is_answered_that_cannot_be_recorded(recorder: Path, how: bytes) -> None:
    with engine_in_thread() as engine, recorded_site(recorder) as (site, disk):
        site.deployment(MODEL, engine.url)
        key = site.key()
        assert chat(site, key)[0] == 200
        assert ready(site) == 200

        disk.fail(how)
        status, headers, answer = chat(site, key)
        assert (status, answer["error"]["code"]) == (503, "ledger_unavailable")
        refused = headers["x-request-id"]
        until(lambda: ready(site) == 503, "/readyz to tell")

        disk.fail(b"n")
        until(lambda: ready(site) == 200, "the ledger to work again")
        status, headers, _ = chat(site, key)
        assert status == 200
        served = headers["x-request-id"]
        assert site.stop() == 0
        found = site.cic("ledger", "verify")
        assert (found["ok"], found["open"]) == (True, 0), found["problems"]
        statuses = {r.request_id: r.status for r in LedgerReader(site.home / "ledger.db").rows()}
        assert statuses[served] == "ok"
        assert statuses.get(refused) != "ok"


def test_a_stream_whose_end_cannot_be_recorded_is_not_called_done(recorder: Path) -> None:
    with engine_in_thread() as engine, recorded_site(recorder) as (site, disk):
        site.deployment(MODEL, engine.url)
        key = site.key()
        connection = http.client.HTTPConnection(*site.address, timeout=DEADLINE_S)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "one two"}],
            "max_tokens": 5,
            "stream": True,
            "token_s": 0.1,
        }
        with contextlib.closing(connection):
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(body),
                {**key.bearer, "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            assert answer.status == 200
            request_id = answer.headers["x-request-id"]
            received = answer.readline()
            disk.fail(b"s")
            received += answer.read()
        assert b"[DONE]" not in received
        assert b"ledger_unavailable" in received
        disk.fail(b"n")
        record = site.record(request_id)  # it was owed, and is written when there is space
        assert (record["status"], record["error_code"]) == ("failed", "ledger_unavailable")
        assert (record["http_status"], record["output_tokens"]) == (503, 5)
        assert site.stop() == 0


async def test_what_clients_were_answered_survives_a_power_cut(
    tmp_path: Path, recorder: Path
) -> None:
    answers = Answers()
    with engine_in_thread() as engine, recorded_site(recorder) as (site, disk):
        site.deployment(MODEL, engine.url)
        key = site.key()
        busy = asyncio.Event()
        clients = asyncio.create_task(crowd(site.base_url, key, 1, answers, busy.set, after=150))
        await asyncio.wait_for(busy.wait(), DEADLINE_S)
        await asyncio.to_thread(site.kill)
        clients.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clients
        entries = disk.entries()
    chance = random.Random(1)
    for number in range(CUTS):
        after = tmp_path / f"cut-{number}"
        after.mkdir()
        for name, content in cut(entries, chance).items():
            if name.startswith("ledger.db"):
                (after / name).write_bytes(content)
        ledger = after / "ledger.db"
        assert await asyncio.to_thread(ledger_objections, ledger, Evidence()) == []
        assert objections(ledger, answers) == []
    assert len(answers.tokens) >= 150
