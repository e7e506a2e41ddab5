"""The description is of what is served: every route, every type, nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from appliance.admin.app import admin_app
from appliance.admin.metrics import Exposition
from appliance.admin.openapi import describe
from appliance.admin.ports import Figures
from appliance.admin.routes import ROUTES
from tests.fakes.admin_site import FixedFigures, served

UNDESCRIBED = {"/openapi.json", "/metrics", "/healthz", "/readyz"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(describe(ROUTES, "1.2.3")))
    return decoded


def nodes(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for nested in value.values():
            yield from nodes(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from nodes(nested)


def test_what_is_described_is_what_is_registered(document: dict[str, Any]) -> None:
    services: Any = type("Unused", (), {"site": type("Site", (), {"version": "1"})})
    app = admin_app(services, Exposition(FixedFigures(Figures(ready=True)), "1"))
    registered = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert isinstance(app, web.Application)
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert registered - described == {("GET", path) for path in UNDESCRIBED}
    assert described <= registered


def test_it_has_the_form_of_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == "1.2.3"
    identifiers = []
    for path, operations in document["paths"].items():
        assert path.startswith("/v1/")
        for method, operation in operations.items():
            assert method in {"get", "post", "put", "patch", "delete"}
            assert operation["summary"]
            identifiers.append(operation["operationId"])
            assert "default" in operation["responses"]
            assert any(re.fullmatch("2[0-9][0-9]", status) for status in operation["responses"])
            in_path = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert in_path == re.findall(r"{(\w+)}", path)
            assert all(p["required"] for p in operation.get("parameters", []) if p["in"] == "path")
            assert ("requestBody" in operation) <= (method in {"post", "put", "patch"})
    assert len(set(identifiers)) == len(identifiers)


def test_a_body_is_required_where_a_field_of_it_is(document: dict[str, Any]) -> None:
    def required(path: str) -> bool:
        return bool(document["paths"][path]["post"]["requestBody"]["required"])

    assert required("/v1/keys")
    assert not required("/v1/keys/{ref}/rotate")


def test_every_reference_leads_somewhere_and_nothing_is_left_over(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    referred = {node["$ref"] for node in nodes(document) if "$ref" in node}
    assert referred == {f"#/components/schemas/{name}" for name in schemas}


def test_the_served_document_is_this_one(tmp_path: Path, document: dict[str, Any]) -> None:
    with served(tmp_path) as site:
        answered = site.client.get("/openapi.json").json()
    assert answered["paths"] == document["paths"]
    assert answered["components"] == document["components"]
