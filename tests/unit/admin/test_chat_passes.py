"""Passes with which administrators ask: whose they are, how long they live, who gets none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from appliance.admin.chatting import PASSES_MAX, TENANT
from appliance.security.api_keys import well_formed
from tests.fakes.admin_site import AdminSite, served


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSite]:
    with served(tmp_path_factory.mktemp("site")) as site:
        for name, region in (("near", "local"), ("far", "elsewhere")):
            body = {
                "name": name,
                "engine": "external",
                "url": "http://127.0.0.1:1",
                "region": region,
            }
            ask(site, "POST", "/v1/deployments", status=201, json=body)
        yield site


def ask(site: AdminSite, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
    response = site.client.request(method, path, **options)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def given(site: AdminSite, model: str = "near") -> Any:
    return ask(site, "POST", "/v1/chat-passes", status=201, json={"model": model})


def test_a_pass_is_a_key_of_the_sites_own_tenant_and_says_who_asked(site: AdminSite) -> None:
    first, second = given(site), given(site, "far")
    assert well_formed(first["key"])
    assert (first["tenant"], first["environment"]) == (TENANT, "local")
    assert second["environment"] == "elsewhere", "an environment uses what is in its region"
    keys = ask(site, "GET", f"/v1/keys?tenant={TENANT}")
    assert {key["id"] for key in keys} == {first["id"], second["id"]}
    assert all(key["expires_at"] and key["name"].startswith("0-") for key in keys)
    assert first["key"] not in str(keys)
    (tenant,) = ask(site, "GET", "/v1/tenants")
    assert tenant["name"] == TENANT
    ask(site, "DELETE", f"/v1/chat-passes/{first['id']}", status=204)
    again = ask(site, "DELETE", f"/v1/chat-passes/{first['id']}", status=404)
    assert again["code"] == "no_such_pass"


def test_no_other_key_is_ended_as_a_pass(site: AdminSite) -> None:
    ask(site, "POST", "/v1/tenants", status=201, json={"name": "acme"})
    ask(site, "POST", "/v1/environments", status=201, json={"name": "prod", "tenant": "acme"})
    body = {"tenant": "acme", "environment": "prod", "name": "app"}
    key = ask(site, "POST", "/v1/keys", status=201, json=body)
    given(site)
    refusal = ask(site, "DELETE", f"/v1/chat-passes/{key['id']}", status=404)
    assert refusal["code"] == "no_such_pass"
    assert ask(site, "GET", f"/v1/keys/{key['id']}")["state"] == "active"


def test_a_tenant_of_that_name_is_not_made_the_sites(site: AdminSite) -> None:
    ask(site, "POST", "/v1/tenants", status=201, json={"name": TENANT})
    made = given(site)
    assert made["tenant"] == f"{TENANT}-2"
    ask(site, "DELETE", f"/v1/tenants/{made['tenant']}?cascade=true", status=204)
    assert given(site)["tenant"] == f"{TENANT}-2", "deleted, it is made anew"


def test_there_are_only_so_many(site: AdminSite) -> None:
    for _ in range(PASSES_MAX):
        given(site)
    refusal = ask(site, "POST", "/v1/chat-passes", status=503, json={"model": "near"})
    assert refusal["code"] == "too_many_passes"
    unknown = ask(site, "POST", "/v1/chat-passes", status=404, json={"model": "none"})
    assert unknown["code"] == "not_found"


def test_a_suspended_environment_is_not_gone_around(site: AdminSite) -> None:
    first = given(site)
    ask(site, "POST", f"/v1/environments/{first['environment']}/suspend?tenant={TENANT}")
    assert given(site)["environment"] == "local"
    rows = ask(site, "GET", f"/v1/environments?tenant={TENANT}")
    assert [row["name"] for row in rows] == ["local"]


def test_many_may_ask_at_once(site: AdminSite) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: given(site), range(16)))
    assert len({each["id"] for each in made}) == 16
    assert {each["environment"] for each in made} == {"local"}


def test_a_key_without_an_end_is_no_pass(site: AdminSite) -> None:
    made = given(site)
    body = {"tenant": TENANT, "environment": made["environment"], "name": "kept"}
    key = ask(site, "POST", "/v1/keys", status=201, json=body)
    refusal = ask(site, "DELETE", f"/v1/chat-passes/{key['id']}", status=404)
    assert refusal["code"] == "no_such_pass"
