"""The simulated site answers as the real admin server does: the same reads are asked of both."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import httpx
import msgspec
import pytest

from appliance.admin.routes import ROUTES
from appliance.wire.admin import ErrorBody
from appliance.wire.home import Home
from appliance.wire.stream import Tick, Topic
from appliance.wire.unix import socket_address
from console.stream import SseReader
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.simulated_fleet import Condition
from tests.fakes.simulated_site import SimulatedSite, simulated_site
from tests.fakes.troubled_site import ROWS

TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
# Reads that the simulated site has of its own; what it is given for others is the test's affair.
READS: Final = ("/v1/me", "/v1/limits", "/v1/usage", "/v1/nodes", "/v1/gpus", "/v1/models",
                "/v1/environments", "/v1/keys")  # fmt: skip
CONDITIONS: Final[tuple[Condition, ...]] = get_args(Condition)
ANSWERS: Final[Mapping[str, Any]] = {
    route.path: route
    for route in ROUTES
    if route.method == "GET" and "{" not in route.path and not route.streams
}


@dataclass
class Event:
    """What one server-sent event held."""

    id: str
    tick: Tick


@contextlib.asynccontextmanager
async def client(home: Home) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=socket_address(home.admin_socket))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://appliance", timeout=10.0
    ) as made:
        yield made


async def events(http: httpx.AsyncClient, query: str, count: int, last_id: str = "") -> list[Event]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    reader, found = SseReader(), []
    async with http.stream("GET", f"/v1/stream{query}", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            event = reader.take(line.encode())
            if event is not None:
                found.append(Event(event.id, msgspec.json.decode(event.data, type=Tick)))
            if len(found) == count:
                break
    return found


def held(tick: Tick) -> dict[str, dict[str, dict[str, Any]]]:
    return {change.topic: change.rows for change in tick.changes}


@pytest.fixture
def real(tmp_path: Path) -> Iterator[AdminSite]:
    """A site with a tenant, an environment and a key."""
    with served(tmp_path / "real") as running:
        for path, body in (
            ("/v1/tenants", {"name": "acme"}),
            ("/v1/environments", {"tenant": "acme", "name": "prod"}),
            ("/v1/keys", {"tenant": "acme", "environment": "prod", "name": "web"}),
        ):
            running.client.post(path, json=body).raise_for_status()
        yield running


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[SimulatedSite]:
    async with simulated_site(tmp_path / "simulated", every_s=3_600) as running:
        running.frozen = True
        yield running


@pytest.fixture(params=["real", "simulated"])
async def either(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    if request.param == "real":
        with served(tmp_path / "real") as running:
            async with client(running.home) as http:
                yield http
    else:
        async with (
            simulated_site(tmp_path / "simulated", every_s=3_600) as site,
            client(site.home) as http,
        ):
            yield http


# Rows of the live stream.


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_simulated_rows_are_of_their_types(tmp_path: Path, condition: Condition) -> None:
    async with simulated_site(tmp_path, every_s=3_600, condition=condition) as site:
        for _ in range(30):
            site.step()
        async with client(site.home) as http:
            (event,) = await events(http, f"?topics={','.join(TOPICS)}", 1)
    tables = held(event.tick)
    assert set(tables) == set(TOPICS) == set(ROWS)
    for topic, rows in tables.items():
        names = {field.encode_name for field in msgspec.structs.fields(ROWS[topic])}
        for row_id, row in rows.items():
            assert set(row) == names, (topic, row_id)
            msgspec.convert(row, ROWS[topic], strict=True)
            assert row.get("id", row_id) == row_id, topic


async def test_rows_have_the_fields_of_the_real_ones(
    real: AdminSite, simulated: SimulatedSite
) -> None:
    async with client(real.home) as http:
        (event,) = await events(http, "", 1)
    told = held(event.tick)
    compared = set()
    for topic, table in simulated.fleet.tables().items():
        if table and told.get(topic):
            simulated_row, real_row = next(iter(table.values())), next(iter(told[topic].values()))
            assert set(simulated_row) == set(real_row), topic
            compared.add(topic)
    assert compared >= {"site", "sync", "tenants", "environments", "keys"}


# What the stream does.


async def test_the_first_tick_has_whole_tables_of_what_was_asked(either: httpx.AsyncClient) -> None:
    (event,) = await events(either, "?topics=tenants,site", 1)
    assert {change.topic for change in event.tick.changes} == {"site", "tenants"}
    assert all(change.whole for change in event.tick.changes)
    assert list(held(event.tick)["site"]) == ["site"]


async def test_without_topics_it_is_all_of_them(either: httpx.AsyncClient) -> None:
    (event,) = await events(either, "", 1)
    assert {"site", "nodes", "keys", "limits", "sync", "requests"} <= set(held(event.tick))


async def test_who_comes_back_is_told_nothing_twice(either: httpx.AsyncClient) -> None:
    (first,) = await events(either, "?topics=tenants,keys", 1)
    (again,) = await events(either, "?topics=tenants,keys", 1, first.id)
    assert again.tick.changes == []
    assert again.id.partition(".")[0] == first.id.partition(".")[0]


@pytest.mark.parametrize("last_id", ["other.5", "nonsense", "a.b.c", "."])
async def test_who_comes_back_to_another_appliance_gets_everything(
    either: httpx.AsyncClient, last_id: str
) -> None:
    (event,) = await events(either, "?topics=tenants,site", 1, last_id)
    assert {change.topic for change in event.tick.changes} == {"site", "tenants"}
    assert all(change.whole for change in event.tick.changes)


async def test_a_tick_comes_each_interval_though_nothing_changed(
    either: httpx.AsyncClient,
) -> None:
    found = await events(either, "?topics=tenants&every_s=0.5", 3)
    assert [event.tick.changes for event in found[1:]] == [[], []]


@pytest.mark.parametrize("query", ["?topics=tenants,weather", "?every_s=0.1", "?colour=blue"])
async def test_the_stream_refuses_what_it_does_not_know(
    either: httpx.AsyncClient, query: str
) -> None:
    async with either.stream("GET", f"/v1/stream{query}") as answer:
        assert answer.status_code == 400  # else it goes on and on
        body = msgspec.json.decode(await answer.aread(), type=ErrorBody)
    assert body.code == "bad_request"


async def test_of_a_changed_row_only_what_changed_is_told(
    real: AdminSite, simulated: SimulatedSite
) -> None:
    (tenant,) = real.client.get("/v1/tenants").json()
    simulated_id = next(iter(simulated.fleet.tables()["tenants"]))

    def suspend_real() -> None:
        real.client.post(f"/v1/tenants/{tenant['id']}/suspend").raise_for_status()

    def suspend_simulated() -> None:
        simulated.fleet.tables()["tenants"][simulated_id]["state"] = "suspended"
        simulated.tell()

    for home, row_id, change in (
        (real.home, tenant["id"], suspend_real),
        (simulated.home, simulated_id, suspend_simulated),
    ):
        async with client(home) as http:
            (before,) = await events(http, "?topics=tenants", 1)
            change()
            found = await events(http, "?topics=tenants&every_s=0.5", 3, before.id)
        changes = [each for event in found for each in event.tick.changes]
        assert not any(each.whole or each.gone for each in changes)
        fields = {name: value for each in changes for name, value in each.rows[row_id].items()}
        assert fields.pop("state") == "suspended"
        assert set(fields) <= {"requests_per_s", "output_tokens_per_s"}  # rates begin by themselves


async def test_a_row_that_ended_is_told_as_gone(real: AdminSite, simulated: SimulatedSite) -> None:
    (key,) = real.client.get("/v1/keys").json()
    simulated_id = next(iter(simulated.fleet.tables()["keys"]))

    def end_real() -> None:
        real.client.delete(f"/v1/keys/{key['id']}").raise_for_status()

    def end_simulated() -> None:
        del simulated.fleet.tables()["keys"][simulated_id]
        simulated.tell()

    for home, row_id, end in (
        (real.home, key["id"], end_real),
        (simulated.home, simulated_id, end_simulated),
    ):
        async with client(home) as http:
            (before,) = await events(http, "?topics=keys", 1)
            end()
            found = await events(http, "?topics=keys&every_s=0.5", 3, before.id)
        gone = [row for event in found for each in event.tick.changes for row in each.gone]
        assert gone == [row_id]


# What is asked once.


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_every_simulated_answer_is_of_the_type_of_its_route(
    tmp_path: Path, condition: Condition
) -> None:
    answered = set()
    async with (
        simulated_site(tmp_path, every_s=3_600, condition=condition) as site,
        client(site.home) as http,
    ):
        for path, route in ANSWERS.items():
            answer = await http.get(path)
            if answer.status_code == 404:
                continue
            assert answer.status_code == 200, (path, answer.text)
            lines = answer.content.splitlines() if route.lines else [answer.content]
            for line in lines:
                msgspec.json.decode(line, type=route.answer)
            answered.add(path)
    assert answered >= set(READS)


@pytest.mark.parametrize("path", READS)
async def test_both_answer_in_one_form(
    real: AdminSite, simulated: SimulatedSite, path: str
) -> None:
    forms = []
    for home in (real.home, simulated.home):
        async with client(home) as http:
            answer = await http.get(path)
        assert answer.status_code == 200, answer.text
        msgspec.json.decode(answer.content, type=ANSWERS[path].answer)
        forms.append((answer.headers["content-type"].partition(";")[0], type(answer.json())))
    assert forms[0] == forms[1]


async def test_what_neither_knows_is_refused_alike(either: httpx.AsyncClient) -> None:
    answer = await either.get("/v1/weather")
    body = msgspec.json.decode(answer.content, type=ErrorBody)
    assert (answer.status_code, body.code) == (404, "no_such_route")
