"""Queries and rows in a notebook, as HTML that needs no further request."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from theatrum.catalog.errors import CatalogError
from theatrum.catalog.query.fields import RESOURCES

if TYPE_CHECKING:
    from theatrum.catalog.query.lazy import Query

SHOWN = 10
"""Rows of a table: thumbnails make the notebook's file larger."""
THUMBNAIL_PX = 96

COLUMNS = {
    "images": ("name", "kind", "modality", "dims", "shape", "spacing", "state"),
    "runs": ("id", "state", "requested_by", "started_at", "ended_at"),
    "channels": ("index", "name", "marker", "excitation_nm", "emission_nm"),
}
_WANTED = ("name", "label", "title", "kind", "key", "text", "state", "created_at")


# Any: rows of any kind
def table(query: Query[Any]) -> str:
    """The first rows as a table, of images with thumbnails, and how many there are."""
    from theatrum.catalog.rows import shown

    spec = query.spec
    count = query.count()
    rows = [*iter(query[:SHOWN])]
    if spec.values:
        names: tuple[str, ...] = spec.values
        cells = [[shown(row[name]) for name in names] for row in rows]
    else:
        names = _columns(spec.of, rows)
        cells = [[shown(getattr(row, name)) for name in names] for row in rows]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    pictures = spec.of == "images" and not spec.values
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        first = f"<td>{thumbnail(row)}</td>" if pictures else ""
        rest = "".join(f"<td>{html.escape(text)}</td>" for text in texts)
        lines.append(f"<tr>{first}{rest}</tr>")
    more = f", the first {len(rows)} shown" if count > len(rows) else ""
    return (
        f"<table><caption>{count} {html.escape(spec.of)}{more}</caption>"
        f"<thead><tr>{'<th>picture</th>' if pictures else ''}{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _columns(resource: str, rows: list[Any]) -> tuple[str, ...]:
    if resource in COLUMNS or not rows:
        return COLUMNS.get(resource, ("name",))
    known = rows[0].to_dict()
    return tuple(name for name in _WANTED if name in known) or tuple(known)[:6]


def thumbnail(image: Any) -> str:
    """An image's thumbnail as an element, or why there is none."""
    name = html.escape(str(image.name))
    try:
        jpeg = image.thumbnail_jpeg(THUMBNAIL_PX)
    except CatalogError as error:
        return f"<small>{html.escape(str(error))}</small>"
    encoded = base64.b64encode(jpeg).decode()
    return f'<img alt="{name}" src="data:image/jpeg;base64,{encoded}">'


def facts(said: Mapping[str, Any]) -> str:
    """Names and values as a table."""
    from theatrum.catalog.rows import shown

    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(shown(value))}</td></tr>"
        for name, value in said.items()
    )
    return f"<table><tbody>{lines}</tbody></table>"


def resources() -> str:
    """What can be asked for."""
    return ", ".join(RESOURCES)
