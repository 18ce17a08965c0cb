"""The JSON schemas of every body, and one function that checks a body against them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from .definitions import document

SCHEMA_FILE = Path(__file__).with_name("ia_api.schema.json")

__all__ = ["SCHEMA_FILE", "document", "schema_problem"]


def schema_problem(name: str, body: object, *, strict: bool = True) -> str | None:
    """Why the body is no `name` (such as "StoredResult"), or None where it is one."""
    validator = _validator(name, strict)
    if validator.is_valid(body):
        return None
    error = best_match(validator.iter_errors(body))
    place = "/".join(str(step) for step in error.absolute_path) or "the body"
    return f"{place}: {error.message[:300]} (schema {name})"


@cache
def _validator(name: str, strict: bool) -> Draft202012Validator:
    whole = document(strict=strict)
    if name not in whole["$defs"]:
        raise KeyError(f"no schema {name}: one of {', '.join(whole['$defs'])}")
    return Draft202012Validator({**whole, "$ref": f"#/$defs/{name}"})
