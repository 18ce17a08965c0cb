"""A node's parameters as a form in the notebook, made of their JSON schema.

    asked = form(gauss)
    asked                       # fields with bounds, defaults and help
    images.map(gauss, **asked.values())

The same schema makes the form of a page; what it allows is decided by the node alone,
which checks the values once more when it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from theatrum.node.definition import Node
from theatrum.node.errors import BadInputs


class Form:
    """Fields for the parameters of a node; ipywidgets ships no types, hence Any."""

    def __init__(self, node: Node[..., Any]) -> None:
        import ipywidgets

        self.node = node
        schema = node.parameters
        self._readers: dict[str, Callable[[], Any]] = {}
        self.fields: dict[str, Any] = {}
        rows = []
        for name, told in schema.get("properties", {}).items():
            field, read = _field(name, _resolved(told, schema))
            self.fields[name] = field
            self._readers[name] = read
            rows.append(field)
            if told.get("description"):
                rows.append(ipywidgets.HTML(f"<small>{_plain(told)}</small>"))
        self.problem = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([*rows, self.problem])

    def values(self) -> dict[str, Any]:
        """Return what is filled in; raises BadInputs, and shows why."""
        found = {name: read() for name, read in self._readers.items()}
        given = {name: value for name, value in found.items() if value is not _EMPTY}
        try:
            checked = self.node.checked_parameters(given)
        except BadInputs as error:
            self.problem.value = f"<b>{_plain({'description': str(error)})}</b>"
            raise
        self.problem.value = ""
        return checked

    def _repr_mimebundle_(self, **more: Any) -> Any:
        return self.widget._repr_mimebundle_(**more)


def form(node: Node[..., Any]) -> Form:
    """Return a form for the parameters of a node."""
    return Form(node)


_EMPTY = object()


def _plain(told: Mapping[str, Any]) -> str:
    import html

    return html.escape(str(told["description"]))


def _resolved(told: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without references, and without its null."""
    merged = dict(told)
    if "$ref" in merged:
        name = str(merged.pop("$ref")).rpartition("/")[2]
        merged = {**schema.get("$defs", {}).get(name, {}), **merged}
    several = merged.get("anyOf")
    if several:
        kinds = [one for one in several if one.get("type") != "null"]
        if len(kinds) < len(several):
            merged["nullable"] = True
        if len(kinds) == 1:
            merged = {**_resolved(kinds[0], schema), **merged}
    return merged


def _field(name: str, told: Mapping[str, Any]) -> tuple[Any, Callable[[], Any]]:
    """Return a widget, and what reads its value."""
    import ipywidgets

    title = str(told.get("title") or name)
    wide = {"style": {"description_width": "12em"}, "description": title}
    default = told.get("default")
    kind = told.get("type")
    if "enum" in told:
        options = [*([None] if told.get("nullable") else []), *told["enum"]]
        chosen = default if default in options else options[0]
        field = ipywidgets.Dropdown(options=options, value=chosen, **wide)
        return field, lambda: field.value
    if kind == "boolean" and not told.get("nullable"):
        field = ipywidgets.Checkbox(value=bool(default), **wide)
        return field, lambda: field.value
    if kind in ("integer", "number") and not told.get("nullable"):
        return _number(told, kind, default, wide)
    shown = "" if default is None else default
    if kind == "string":
        field = ipywidgets.Text(value=str(shown), **wide)
        missing = _EMPTY if "default" not in told else default
        return field, lambda: field.value if field.value else missing
    # Lists, names with values, and numbers that may be left out: written as JSON.
    text = "" if default is None else json.dumps(default)
    field = ipywidgets.Text(value=text, placeholder="JSON", **wide)
    return field, lambda: _json(field.value, default)


def _number(
    told: Mapping[str, Any], kind: str, default: Any, wide: Mapping[str, Any]
) -> tuple[Any, Callable[[], Any]]:
    import ipywidgets

    low = told.get("minimum", told.get("exclusiveMinimum"))
    high = told.get("maximum", told.get("exclusiveMaximum"))
    start = default if default is not None else (low if low is not None else 0)
    whole = kind == "integer"
    if low is not None and high is not None:
        bounded = ipywidgets.BoundedIntText if whole else ipywidgets.BoundedFloatText
        field = bounded(value=start, min=low, max=high, **wide)
    else:
        free = ipywidgets.IntText if whole else ipywidgets.FloatText
        field = free(value=start, **wide)
    return field, lambda: field.value


def _json(text: str, default: Any) -> Any:
    if not text.strip():
        return default if default is not None else _EMPTY
    try:
        return json.loads(text)
    except ValueError:
        return text  # the node says what is wrong with it
