"""The OpenAPI 3.1 description, made from the routes that are served."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.admin.calls import Route
from appliance.wire.admin import ErrorBody

_REF_TEMPLATE: Final = "#/components/schemas/{name}"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def describe(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document, ready to be encoded. Every operation may answer an ErrorBody."""
    types: list[Any] = [ErrorBody]
    for route in routes:
        types.extend(kind for kind in (route.answer, route.body) if kind is not None)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF_TEMPLATE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": _DIALECT,
        "info": {
            "title": "CrossLogic admin API",
            "version": version,
            "description": "Spoken on the unix socket of a site; the file's mode and the kernel's"
            " peer credentials say who may use it.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def operation_id(route: Route) -> str:
    """`POST /v1/keys/{ref}/rotate` -> `post_keys_ref_rotate`."""
    words = re.findall(r"[a-z]+", route.path.removeprefix("/v1"))
    return "_".join((route.method.lower(), *words))


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.answer is not None:
        media = "application/x-ndjson" if route.lines else "application/json"
        answer["content"] = {media: {"schema": schema_of[repr(route.answer)]}}
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.path.split("/")[2]],
        "x-role": route.least_role,
        "responses": {
            str(route.status if route.answer is not None else 204): answer,
            "default": {
                "description": "What went wrong, and what to do about it",
                "content": {"application/json": {"schema": schema_of[repr(ErrorBody)]}},
            },
        },
    }
    parameters = [*_path_parameters(route.path), *_query_parameters(route.query)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(route.body)),
            "content": {"application/json": {"schema": schema_of[repr(route.body)]}},
        }
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "id or name",
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    (_, components) = msgspec.json.schema_components([query], ref_template=_REF_TEMPLATE)
    properties: dict[str, Any] = components[query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]
