"""Reserved capacity over the admin socket: made, changed, refused with its figures, ended."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.admin_site import AdminSite, served


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSite]:
    with served(tmp_path_factory.mktemp("site")) as site:
        ask(site, "POST", "/v1/tenants", status=201, json={"name": "acme"})
        ask(site, "POST", "/v1/tenants", status=201, json={"name": "other"})
        deployment = {"name": "llama", "engine": "external", "url": "http://127.0.0.1:1"}
        ask(site, "POST", "/v1/deployments", status=201, json=deployment)
        yield site


def ask(site: AdminSite, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
    response = site.client.request(method, path, **options)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def test_one_is_made_shown_changed_and_ended(site: AdminSite) -> None:
    wanted = {"tenant": "acme", "model": "llama", "tokens_per_s": 40, "priority": 3}
    made = ask(site, "POST", "/v1/reservations", status=201, json=wanted)
    assert (made["state"], made["tokens_per_s"], made["environment"]) == ("active", 40, None)
    assert made["attained"]["attained_percent"] is None
    path = f"/v1/reservations/{made['id']}"
    shown = ask(site, "GET", path)
    assert [each["attained_percent"] for each in shown["minutes"]] == [100.0, 90.0, None]
    assert shown["waiting"] == 3
    assert ask(site, "GET", "/v1/reservations")[0]["minutes"] == []

    refusal = ask(
        *(site, "POST", "/v1/reservations"),
        status=409,
        json=wanted | {"tenant": "other", "tokens_per_s": 41},
    )
    assert refusal["code"] == "capacity_exceeded"
    assert "40 are free, 41 were asked for" in refusal["message"]
    (room,) = ask(site, "GET", "/v1/capacity")
    assert room == {
        "model": "llama",
        "measured_tokens_per_s": 100,
        "headroom_percent": 20,
        "promisable_tokens_per_s": 80,
        "promised_tokens_per_s": 40,
        "free_tokens_per_s": 40,
    }

    changed = ask(site, "PATCH", path, json={"tokens_per_s": 80, "ends_at": "2200-01-01T00:00:00Z"})
    assert changed["ends_at"].startswith("2200-01-01")
    assert ask(site, "PATCH", path, json={"ends_at": ""})["ends_at"] is None
    kept = ask(site, "DELETE", "/v1/deployments/llama", status=409)
    assert kept["code"] == "in_use"
    ended = ask(site, "POST", f"{path}/end")
    assert ended["state"] == "ended"
    assert ask(site, "GET", "/v1/reservations") == []
    (past,) = ask(site, "GET", "/v1/reservations?ended=true")
    assert past["id"] == made["id"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"tenant": "nobody"}, 404, "not_found"),
        ({"model": "nothing"}, 404, "not_found"),
        ({"tokens_per_s": 0}, 400, "bad_request"),
        ({"tokens_per_s": 1.5}, 400, "bad_request"),
        ({"priority": 101}, 400, "bad_request"),
        ({"starts_at": "soon"}, 400, "bad_request"),
        ({"ends_at": "2001-01-01T00:00:00Z"}, 400, "invalid_value"),
        ({"colour": "red"}, 400, "bad_request"),
    ],
)
def test_what_is_no_reservation_is_refused(
    site: AdminSite, change: dict[str, Any], status: int, code: str
) -> None:
    wanted = {"tenant": "acme", "model": "llama", "tokens_per_s": 1} | change
    assert ask(site, "POST", "/v1/reservations", status=status, json=wanted)["code"] == code
