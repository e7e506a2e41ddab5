"""Roles by Unix groups: each route has one, and who has too little of it changes nothing."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.admin.calls import Route
from appliance.admin.peer import Peer
from appliance.admin.roles import role_of
from appliance.admin.routes import ROUTES
from appliance.settings import Access
from appliance.wire.access import ACCESS_ROLES
from appliance.wire.unix import socket_address
from tests.fakes.admin_site import AdminSite, served

MAPPING = Access(viewers=("look",), operators=("run",), admins=("own",))
OTHER_UID = 54_321  # an account that this host has not
CHANGES = [route for route in ROUTES if route.method != "GET"]
# What an operator may do. A route that is new and not named here takes an admin.
OPERATORS = {
    ("DELETE", "/v1/chat-passes/{ref}"),
    ("PATCH", "/v1/deployments/{ref}"),
    ("POST", "/v1/bursts/plan"),
    ("POST", "/v1/documents"),
    ("POST", "/v1/manifests/seal"),
    ("POST", "/v1/models/packs/look"),
    ("POST", "/v1/nodes/{ref}/drain"),
    ("POST", "/v1/nodes/{ref}/maintenance"),
    ("POST", "/v1/nodes/{ref}/notice"),
    ("POST", "/v1/sync/now"),
} | {
    ("POST", f"/v1/{nouns}/{{ref}}/{verb}")
    for nouns in ("tenants", "environments", "keys", "models", "deployments", "nodes")
    for verb in ("suspend", "resume")
}


class Groups:
    """The host's groups, as the test says."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    def __call__(self, peer: Peer) -> frozenset[str]:
        assert peer.uid in {os.geteuid(), OTHER_UID}
        return self.names


@pytest.fixture
def folder() -> Iterator[Path]:
    """A home that another account can reach: pytest's own folders are closed."""
    made = Path(tempfile.mkdtemp(prefix="cic-roles-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Other:
    """Calls as an account that neither serves nor is root."""

    def __init__(self, site: AdminSite) -> None:
        self._site = site

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if os.geteuid() != 0:
            answer = self._site.client.request(method, path, json=body)
            return answer.status_code, answer.json() if answer.content else None
        return self._in_child(method, path, body)

    def _in_child(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Really as another uid: the kernel says so to the server."""
        address = socket_address(self._site.home.admin_socket)
        # Made here: it reads certificates from where that account may not look.
        transport = httpx.HTTPTransport(uds=address)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(OTHER_UID)
                os.setuid(OTHER_UID)
                with httpx.Client(transport=transport, base_url="http://appliance") as client:
                    answer = client.request(method, path, json=body)
                said = answer.json() if answer.content else None
                os.write(writing, json.dumps([answer.status_code, said]).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        code, answered = json.loads(said)
        return code, answered


@pytest.fixture
def other(folder: Path, groups: Groups) -> Iterator[tuple[Other, AdminSite]]:
    with served(folder, access=MAPPING, own_uid=OTHER_UID + 1, groups_of=groups) as site:
        site.home.run.chmod(0o755)
        site.home.admin_socket.chmod(0o666)
        yield Other(site), site


def address(route: Route) -> str:
    return route.path.replace("{ref}", "anything")


def test_every_route_has_a_role_and_no_change_is_a_viewers() -> None:
    for route in ROUTES:
        assert route.least_role in ACCESS_ROLES
        if route.method != "GET":
            assert route.least_role != "viewer", route.path
    operators = {(r.method, r.path) for r in CHANGES if r.least_role == "operator"}
    assert operators >= OPERATORS
    wide = {"keys", "limits", "settings", "tokens", "backup", "certificates"}
    for method, path in operators - OPERATORS:
        assert method == "POST", f"{method} {path} is an operator's"
        assert not wide & set(path.split("/")), f"{path} is an operator's"


@pytest.mark.parametrize("groups", [Groups("look", "users")], ids=["viewer"])
def test_a_viewer_changes_nothing_by_any_route(other: tuple[Other, AdminSite]) -> None:
    call, site = other
    assert call("GET", "/v1/tenants") == (200, [])
    for route in CHANGES:
        status, body = call(route.method, address(route), {})
        assert (status, body["code"]) == (403, "not_permitted_role"), route.path
        assert route.least_role in body["message"]
        assert "own" in body["next_step"]
    entries = [json.loads(line) for line in _own(site, "/v1/audit").splitlines()]
    refused = [entry for entry in entries if entry["action"] == "refuse"]
    assert len(refused) == 1, "once for each account and hour"
    assert refused[0]["actor"].startswith(f"{OTHER_UID if os.geteuid() == 0 else os.geteuid()}:")
    assert refused[0]["after"]["role"] == "viewer"
    status, me = call("GET", "/v1/me")
    assert (status, me["role"], me["mapped"]) == (200, "viewer", True)
    assert me["groups"] == ["look", "users"]
    assert "may read" in me["read_only_reason"]


@pytest.mark.parametrize("groups", [Groups("run")], ids=["operator"])
def test_an_operator_scales_and_changes_nothing_else_of_a_deployment(
    other: tuple[Other, AdminSite],
) -> None:
    call, _site = other
    path = "/v1/deployments/absent"
    assert call("PATCH", path, {"replicas": 2})[1]["code"] == "not_found"
    refused = call("PATCH", path, {"replicas": 2, "api_key": "sk-other"})
    assert (refused[0], refused[1]["code"]) == (403, "not_permitted_role")
    assert call("POST", "/v1/tenants", {"name": "acme"})[0] == 403
    assert call("POST", "/v1/tenants/absent/suspend")[0] == 404
    pinning = {"envelopes": [], "control_plane_key": "PEM"}
    assert call("POST", "/v1/documents", pinning)[0] == 403


@pytest.mark.parametrize("groups", [Groups("own", "look")], ids=["admin"])
def test_the_highest_role_of_all_groups_counts(other: tuple[Other, AdminSite]) -> None:
    call, _site = other
    assert call("POST", "/v1/tenants", {"name": "acme"})[0] == 201
    assert call("GET", "/v1/me")[1]["read_only_reason"] == ""


@pytest.mark.parametrize("groups", [Groups("users")], ids=["nobody"])
def test_who_is_in_no_named_group_sees_nothing_but_health(other: tuple[Other, AdminSite]) -> None:
    call, _site = other
    for path in ("/v1/me", "/v1/status", "/openapi.json", "/metrics"):
        status, body = call("GET", path)
        assert (status, body["code"]) == (403, "not_permitted_role")
        assert "no role" in body["message"]
        assert "look or run or own" in body["next_step"]
    assert call("GET", "/healthz")[0] == 200


def test_without_a_mapping_who_opens_the_socket_is_an_admin() -> None:
    assert role_of(1000, frozenset(), Access(), own_uid=7) == "admin"
    assert role_of(1000, frozenset({"look"}), Access(admins=("own",)), own_uid=7) is None


@pytest.mark.parametrize("uid", [0, 7])
def test_root_and_who_serves_are_admins_in_no_group(uid: int) -> None:
    assert role_of(uid, frozenset(), MAPPING, own_uid=7) == "admin"


def test_root_is_an_admin_at_the_socket_too(tmp_path: Path) -> None:
    with served(tmp_path, access=MAPPING) as site:
        me = site.client.get("/v1/me").json()
    assert (me["role"], me["site"]) == ("admin", "test")
    assert me["account"].startswith(f"{os.geteuid()}:")


def _own(site: AdminSite, path: str) -> str:
    """As root, who is always an admin, or as who runs the test and may read at least."""
    return site.client.get(path).text
