"""Fields of a form out of the JSON schema of a node's parameters, and back again.

What a plain field can hold (one of several words, yes or no, a number, a text, a list
of numbers or words) is typed as such; anything else is typed as JSON. A field's hint
says in words what it takes and what holds where nothing is typed. The last word on a
value is always the node's own (`Node.checked_parameters`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theatrum.catalog.errors import BadQuery

from services.catalog.pages.acting import Fields, one

Schema = Mapping[str, Any]
"""A JSON schema (Any: as open as the standard leaves it)."""
_PLAIN = {
    "boolean": "checkbox",
    "integer": "number",
    "number": "number",
    "string": "text",
}
_LISTS = {"integer": "numbers", "number": "numbers", "string": "words"}


@dataclass(frozen=True)
class Input:
    """One field of a form.

    Attributes
    ----------
    kind
        select, checkbox, number, text, numbers, words or json.
    value
        What holds where nothing else is said, as it is typed.
    takes
        What may be typed, in words.
    attributes
        Of the HTML element: bounds, step, length, pattern.
    """

    name: str
    title: str
    hint: str
    kind: str
    value: str
    takes: str
    choices: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def inputs(properties: Mapping[str, Schema]) -> list[Input]:
    """The fields of parameters, in their order."""
    return [_input(name, said) for name, said in properties.items()]


def typed(
    wanted: Sequence[Input], form: Fields, mark: str = "p."
) -> dict[str, Any]:  # Any: values of whatever type the schema says
    """The parameters as typed; what is left empty is as usual. Raises BadQuery."""
    said: dict[str, Any] = {}
    for each in wanted:
        text = one(form, mark + each.name)
        if each.kind == "checkbox":
            said[each.name] = text.lower() == "true"
        elif text:
            said[each.name] = _read(each, text)
    return said


def shown(value: object, kind: str) -> str:
    """A value as it is typed into a field of a kind."""
    if value is None:
        return ""
    if kind in ("numbers", "words") and isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _input(name: str, said: Schema) -> Input:
    usual = said.get("default")
    ways = [way for way in said.get("anyOf", [said]) if way.get("type") != "null"]
    only: Schema = ways[0] if len(ways) == 1 else {}
    type_ = str(only.get("type", "")) or _type_of(usual)
    kind = "select" if "enum" in only else _PLAIN.get(type_, "json")
    items = _items(only)
    if type_ == "array" and items is not None:
        kind = _LISTS.get(str(items.get("type", "")), "json")
    title = str(said.get("title", "")) or name.replace("_", " ").capitalize()
    return Input(
        name=name,
        title=title,
        hint=str(said.get("description", "")),
        kind=kind,
        value=shown(usual, kind),
        takes=_takes(kind, type_, only, usual, nothing=len(ways) < _ways(said)),
        choices=[str(choice) for choice in only.get("enum", ())],
        attributes=_attributes(type_, kind, only),
    )


def _ways(said: Schema) -> int:
    return len(said.get("anyOf", [said]))


def _items(only: Schema) -> Schema | None:
    """The schema of a list's items, where all are of one."""
    each = only.get("prefixItems") or ([only["items"]] if "items" in only else [])
    found: Schema | None = each[0] if each else None
    return found if all(one == found for one in each) else None


def _type_of(usual: object) -> str:
    match usual:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return ""


def _attributes(type_: str, kind: str, only: Schema) -> dict[str, Any]:
    if kind == "number":
        bounds = {
            html: only[name]
            for html, name in (("min", "minimum"), ("max", "maximum"))
            if name in only
        }
        step = only.get("multipleOf", 1) if type_ == "integer" else "any"
        return bounds | {"step": step}
    if kind == "text":
        named = {"maxlength": "maxLength", "pattern": "pattern"}
        return {html: only[name] for html, name in named.items() if name in only}
    return {}


def _takes(kind: str, type_: str, only: Schema, usual: object, *, nothing: bool) -> str:
    parts = []
    if kind == "number":
        whole = "whole number" if type_ == "integer" else "number"
        parts.append(" ".join(filter(None, (whole, _range(only)))))
    elif kind in ("numbers", "words"):
        least, most = only.get("minItems"), only.get("maxItems")
        of = "numbers" if kind == "numbers" else "words"
        count = f"{least} " if least is not None and least == most else ""
        parts.append(f"{count}{of}, with commas between them")
    elif kind == "json":
        parts.append("JSON")
    elif kind == "text" and "pattern" in only:
        parts.append(f"like {only['pattern']}")
    if nothing:
        parts.append("may be left empty")
    elif kind in ("number", "numbers", "words", "text") and usual not in (None, ""):
        parts.append(f"{shown(usual, kind)} if nothing is said")
    return "; ".join(parts)


def _range(only: Schema) -> str:
    low = only.get("minimum")
    over = only.get("exclusiveMinimum")
    high = only.get("maximum")
    under = only.get("exclusiveMaximum")
    said = []
    if low is not None:
        said.append(f"from {low}")
    elif over is not None:
        said.append(f"above {over}")
    if high is not None:
        said.append(f"to {high}")
    elif under is not None:
        said.append(f"below {under}")
    if "multipleOf" in only:
        said.append(f"a multiple of {only['multipleOf']}")
    return ", ".join(said)


def _read(each: Input, text: str) -> Any:
    """What was typed as its type; raises BadQuery."""
    if each.kind in ("text", "select"):
        return text
    if each.kind == "words":
        return [word.strip() for word in text.split(",") if word.strip()]
    written = f"[{text}]" if each.kind == "numbers" else text
    try:
        said = json.loads(written, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as err:
        raise BadQuery(f"{each.title} cannot be read: {text}") from err
    if each.kind == "number" and not isinstance(said, int | float):
        raise BadQuery(f"{each.title} is a number: {text}")
    return said


def finite(text: str) -> float:
    """A number that JSON can hold; raises ValueError for the others."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
