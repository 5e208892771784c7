"""What the OpenAPI document says about each route, for tests that go over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.api_fixtures import Api

_METHODS = ("get", "put", "post", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path, with the names of its parameters and of its body's fields."""

    method: str
    path: str
    in_path: tuple[str, ...]
    in_query: frozenset[str]
    in_body: frozenset[str]
    needs_body: bool
    is_list: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes(api: Api) -> list[Route]:
    """Every route that is described."""
    document = api.ask("GET", "/openapi.json").json()
    return [
        _route(document, method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]


def _route(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Route:
    named = [(each["in"], each["name"]) for each in operation.get("parameters", ())]
    asked = operation.get("requestBody", {})
    body = asked.get("content", {}).get("application/json", {}).get("schema", {})
    success = next(each for status, each in operation["responses"].items() if status.startswith("2"))
    shown = success.get("content", {}).get("application/json", {}).get("schema", {})
    return Route(
        method.upper(),
        path,
        tuple(name for place, name in named if place == "path"),
        frozenset(name for place, name in named if place == "query"),
        frozenset(_fields(document, body)),
        asked.get("required", False),
        method == "get" and "data" in _fields(document, shown),
    )


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """Names of an object's fields, whichever of the alternatives it is."""
    if "$ref" in schema:
        return _fields(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    found = set(schema.get("properties", ()))
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found |= _fields(document, each)
    return found
