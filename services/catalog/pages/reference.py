"""The page of the HTTP interface: every route as the OpenAPI document has it.

Made from the document that programs read, so the two cannot differ, and drawn here,
since the usual viewers of such documents load themselves from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request, Response

from hub.problems import MEDIA_TYPE
from services.catalog.api.here import Here
from services.catalog.pages.acting import Looker
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)

Schema = Mapping[str, Any]  # Any: a JSON schema


@dataclass(frozen=True)
class Field:
    """A parameter, or a property of a body."""

    name: str
    place: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    tag: str
    method: str
    path: str
    summary: str
    description: str
    scopes: tuple[str, ...]
    fields: tuple[Field, ...]
    answers: tuple[tuple[str, str, str], ...]


@router.get("/reference")
def reference(request: Request, service: Here, visitor: Looker) -> Response:
    """All routes by what they are about, each with its scope, fields and answers."""
    document = cast(FastAPI, request.app).openapi()
    found = sorted(operations(document, service.api), key=lambda one: one.tag)
    return page(
        service,
        visitor,
        "reference.html",
        groups=[(tag, list(of)) for tag, of in groupby(found, lambda one: one.tag)],
        api=service.api,
        document=f"{service.api}/openapi.json",
    )


def operations(document: Schema, prefix: str) -> Iterator[Operation]:
    """What an OpenAPI document offers, in its order; paths are told below `prefix`."""
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield Operation(
                tag=(said.get("tags") or ["more"])[0].replace("_", " "),
                method=method.upper(),
                path=path.removeprefix(prefix),
                summary=said.get("summary", ""),
                description=said.get("description", ""),
                scopes=tuple(
                    scope
                    for way in said.get("security", [])
                    for scopes in way.values()
                    for scope in scopes
                ),
                fields=(*_parameters(said, schemas), *_body(said, schemas)),
                answers=tuple(_answers(said)),
            )


def kind_of(schema: Schema, schemas: Schema) -> str:
    """A schema in a few words: `text or null`, `list of numbers`, `one of a, b`."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        found = schemas.get(name, {})
        return kind_of(found, schemas) if "enum" in found else str(name)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(kind_of(one, schemas) for one in schema[several])
    if "enum" in schema:
        return "one of " + ", ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}), schemas)}"
    words = {"string": "text", "boolean": "true or false"}
    said = words.get(kind, str(kind))
    if schema.get("format") == "binary":
        said = "bytes"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{said} from {least} to {most}"
    if "default" in schema and schema["default"] not in (None, "", [], {}):
        return f"{said}, else {schema['default']}"
    return said


def _parameters(said: Schema, schemas: Schema) -> Iterator[Field]:
    for one in said.get("parameters", []):
        yield Field(
            one["name"],
            one["in"],
            kind_of(one.get("schema", {}), schemas),
            bool(one.get("required")),
            one.get("description", ""),
        )


def _body(said: Schema, schemas: Schema) -> Iterator[Field]:
    for media_type, content in said.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        if "$ref" in schema:
            schema = schemas.get(schema["$ref"].rsplit("/", 1)[-1], {})
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        if not properties:
            yield Field("", media_type, kind_of(schema, schemas), True, "")
        for name, one in properties.items():
            yield Field(
                name,
                media_type,
                kind_of(one, schemas),
                name in required,
                one.get("description", ""),
            )


def _answers(said: Schema) -> Iterator[tuple[str, str, str]]:
    """Status, what it means, and of which media type; what refuses comes last."""
    for status, answer in sorted(said.get("responses", {}).items()):
        types = [one for one in answer.get("content", {}) if one != MEDIA_TYPE]
        means = answer.get("description", "").replace("Successful Response", "Done")
        yield status, means, ", ".join(types)
