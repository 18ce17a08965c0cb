"""The settings as they are now, to be looked at; of secrets whether they are set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from services.ia_api.pages.wording import octets
from services.ia_api.settings import ServiceSettings


@dataclass(frozen=True)
class Chosen:
    """One setting."""

    name: str
    value: str
    default: bool
    meaning: str


def chosen(settings: ServiceSettings) -> list[Chosen]:
    """All settings but the apps, which stand in a table of their own."""
    return list(_rows(settings, ""))


def _rows(table: BaseModel, before: str) -> Iterator[Chosen]:
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if name == "apps":
            continue
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{before}{name}.")
            continue
        yield Chosen(
            name=f"{before}{name}",
            value=octets(value) if name.endswith("_bytes") else shown(value),
            default=_is_default(field, value),
            meaning=" ".join((field.description or "").replace("`", "").split()),
        )


def _is_default(field: FieldInfo, value: Any) -> bool:  # Any: of any setting
    return not field.is_required() and bool(value == field.get_default())


def shown(value: Any) -> str:  # Any: of any setting
    """A value as text, without what is secret."""
    if isinstance(value, SecretStr):
        return "set (hidden)" if value.get_secret_value() else "not set"
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} → {one}" for name, one in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(one) for one in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
