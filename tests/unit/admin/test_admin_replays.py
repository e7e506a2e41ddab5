"""A change that is sent again under its Idempotency-Key is carried out once."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from appliance.admin.errors import KeyOfAnotherRequest
from appliance.admin.replays import ANSWER_BYTES_MAX, ANSWERS_MAX, KEPT_S, Answered, Replays
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.clock import ManualClock


def keyed(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def entries(site: AdminSite, action: str, kind: str) -> int:
    lines = site.client.get("/v1/audit").text.splitlines()
    found = [json.loads(line) for line in lines]
    return sum(e["action"] == action and e["object_kind"] == kind for e in found)


def test_the_first_answer_is_given_again(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        made = site.client.post("/v1/tenants", json={"name": "acme"}, headers=keyed("a"))
        again = site.client.post("/v1/tenants", json={"name": "acme"}, headers=keyed("a"))
        assert (again.status_code, again.json()) == (201, made.json())
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in made.headers
        assert entries(site, "create", "tenant") == 1
        other = site.client.post("/v1/tenants", json={"name": "beta"}, headers=keyed("a"))
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        elsewhere = site.client.post("/v1/regions", json={"name": "acme"}, headers=keyed("a"))
        assert elsewhere.status_code == 409
        gone = site.client.delete("/v1/tenants/acme", headers=keyed("b"))
        assert (gone.status_code, gone.content) == (204, b"")
        assert site.client.delete("/v1/tenants/acme", headers=keyed("b")).status_code == 204
        assert entries(site, "delete", "tenant") == 1


def test_a_refusal_may_be_tried_again_under_its_key(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        path = "/v1/environments"
        body = {"name": "prod", "tenant": "acme"}
        assert site.client.post(path, json=body, headers=keyed("a")).status_code == 404
        site.client.post("/v1/tenants", json={"name": "acme"})
        assert site.client.post(path, json=body, headers=keyed("a")).status_code == 201
        bad = site.client.post(path, json=body, headers=keyed("x" * 256))
        assert (bad.status_code, bad.json()["code"]) == (400, "bad_request")


def test_a_secret_is_in_the_first_answer_alone(tmp_path: Path) -> None:
    with served(tmp_path) as site:
        site.client.post("/v1/tenants", json={"name": "acme"})
        site.client.post("/v1/environments", json={"name": "prod", "tenant": "acme"})
        asked = {"tenant": "acme", "environment": "prod", "name": "web"}
        first = site.client.post("/v1/keys", json=asked, headers=keyed("k")).json()
        again = site.client.post("/v1/keys", json=asked, headers=keyed("k")).json()
        assert first["key"].startswith("clsk_")
        assert "secret_shown" not in first
        assert again == first | {"key": "", "secret_shown": True}
        token = site.client.post("/v1/node-tokens", json={}, headers=keyed("t"))
        told = site.client.post("/v1/node-tokens", json={}, headers=keyed("t")).json()
        assert (told["token"], told["command"], told["secret_shown"]) == ("", "", True)
        assert told["id"] == token.json()["id"]
        assert first["key"].encode() not in _held(site)
        assert token.json()["token"].encode() not in _held(site)


def _held(site: AdminSite) -> bytes:
    return b"".join(kept.answer.result().body for kept in site.services.replays._kept.values())


def test_duplicates_at_once_run_once(tmp_path: Path) -> None:
    with served(tmp_path) as site, ThreadPoolExecutor(8) as pool:

        def post(_number: int) -> httpx.Response:
            return site.client.post("/v1/tenants", json={"name": "acme"}, headers=keyed("a"))

        answers = list(pool.map(post, range(16)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert entries(site, "create", "tenant") == 1


async def test_who_comes_while_the_first_runs_gets_its_failure_too() -> None:
    replays = Replays(ManualClock(), os.urandom)
    runs = 0
    go_on = asyncio.Event()

    async def run() -> Answered:
        nonlocal runs
        runs += 1
        await go_on.wait()
        raise KeyOfAnotherRequest("refused")

    asked = [asyncio.create_task(replays.once("0:root", "a", b"x", run)) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert runs == 1
    assert [str(error) for error in done] == ["refused"] * 3

    async def answer() -> Answered:
        return Answered(200, b"{}")

    assert await replays.once("0:root", "a", b"x", answer) == (Answered(200, b"{}"), False)


async def test_answers_are_kept_for_a_day_by_account_and_bounded() -> None:
    clock = ManualClock()
    replays = Replays(clock, os.urandom)
    runs: list[str] = []

    async def ask(actor: str, key: str, size: int = 2) -> bool:
        async def run() -> Answered:
            runs.append(key)
            return Answered(200, b"x" * size)

        return (await replays.once(actor, key, b"body", run))[1]

    assert not await ask("0:root", "a")
    assert not await ask("7:ops", "a"), "another account's key is another key"
    assert await ask("0:root", "a")
    clock.turn(KEPT_S)
    assert not await ask("0:root", "a")
    assert not await ask("0:root", "large", ANSWER_BYTES_MAX + 1)

    async def never() -> Answered:
        pytest.fail("it ran twice")

    told, _ = await replays.once("0:root", "large", b"body", never)
    assert told.status == 409
    assert b"answer_not_kept" in told.body
    for number in range(ANSWERS_MAX + 5):
        await ask("0:root", f"n{number}")
    assert len(replays._kept) == ANSWERS_MAX
