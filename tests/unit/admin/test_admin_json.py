"""What is not exactly a message of the API is refused, and says what was wrong with it."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from appliance.commands.client import AdminClient
from appliance.metering.errors import LedgerUnavailable
from appliance.wire.admin import LedgerRow
from appliance.wire.command import CommandError
from tests.fakes.admin_site import WAIT_S, AdminSite, ledger_row, served

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSite]:
    with served(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "name"),
        (b"{}", "name"),
        (b"null", "object"),
        (b"[]", "object"),
        (b"{", "truncated"),
        (b'{"name": "a"} x', "trailing"),
        (b'{"name": "a", "colour": 1}', "colour"),
        (b'{"name": 7}', "str"),
        (b'{"name": NaN}', "malformed"),
        (b'{"name": "a", "plan": "gold"}', "gold"),
        (b'{"name": "\xff"}', ""),
        (b"{" * 5_000, ""),
    ],
    ids=repr,
)
def test_a_body_that_is_no_message_is_refused(site: AdminSite, body: bytes, said: str) -> None:
    response = site.client.post("/v1/tenants", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["code"] == "bad_request"
    assert said in response.json()["message"]
    assert site.client.get("/v1/tenants").json() == []


def test_only_json_is_taken(site: AdminSite) -> None:
    response = site.client.post("/v1/tenants", data={"name": "form"})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


def test_a_body_has_a_limit(site: AdminSite) -> None:
    response = site.client.post("/v1/tenants", content=b" " * 1_100_000, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("query", ["colour=1", "tenant=a&tenant=b", "cascade=perhaps"])
def test_a_query_is_as_strict_as_a_body(site: AdminSite, query: str) -> None:
    response = site.client.delete(f"/v1/environments/x?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/", 404), ("PATCH", "/v1/tenants", 405)],
)
def test_what_is_not_there_answers_in_json_too(
    site: AdminSite, method: str, path: str, status: int
) -> None:
    response = site.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, "no_such_route")


def test_a_defect_answers_500_without_its_details(
    site: AdminSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(site.records, "records", broken)
    response = site.client.get("/v1/status")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_a_list_that_breaks_off_is_seen_as_broken(tmp_path: Path) -> None:
    """Half an answer must not look like a whole one."""
    with served(tmp_path) as site:
        rows = [ledger_row(seq) for seq in range(1, 501)]

        def failing(since_seq: int, _count_max: int) -> list[object]:
            if since_seq:
                raise LedgerUnavailable("The disk failed.")
            return list(rows)

        site.records.rows = failing  # type: ignore[method-assign, assignment]
        with AdminClient(site.home) as client:
            lines = client.lines("/v1/ledger")
            with pytest.raises(CommandError, match="broke off"):
                list(lines)


def test_a_client_that_leaves_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = threading.Event()

    def rows(since_seq: int, _count_max: int) -> Sequence[LedgerRow]:
        assert not since_seq or left.wait(WAIT_S)
        return [ledger_row(since_seq + n) for n in range(1, 501)]

    async def handled() -> bool:
        """Whether a request was at work, which is over now."""
        tasks = [t for t in asyncio.all_tasks() if "_handle_request" in repr(t.get_coro())]
        await asyncio.wait(tasks)
        return len(tasks) == 1

    with served(tmp_path) as site:
        site.records.rows = rows  # type: ignore[method-assign, assignment]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(site.home.admin_socket))
            client.sendall(b"GET /v1/ledger HTTP/1.1\r\nHost: appliance\r\n\r\n")
            assert client.recv(1) == b"H"
            waiting = asyncio.run_coroutine_threadsafe(handled(), site.loop)
        left.set()
        assert waiting.result(WAIT_S)
    assert caplog.text == ""
