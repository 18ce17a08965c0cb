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
THUMBNAIL_PX = 128
SHOWN_PX = 64
"""How high a thumbnail is on the page: what is small is made as high as the others."""

COLUMNS = {
    "images": ("name", "kind", "modality", "dims", "shape", "spacing", "state"),
    "runs": ("id", "state", "requested_by", "started_at", "ended_at"),
    "channels": ("index", "name", "marker", "excitation_nm", "emission_nm"),
}
_WANTED = ("name", "label", "title", "kind", "key", "text", "state", "created_at")


# Any: rows of any kind
def table(query: Query[Any]) -> str:
    """The first rows as a table, of images with thumbnails, and how many there are."""
    spec = query.spec
    count = query.count()
    rows = [*iter(query[:SHOWN])]
    if spec.values:
        names: tuple[str, ...] = spec.values
        cells = [[_said(name, row[name]) for name in names] for row in rows]
    else:
        names = _columns(spec.of, rows)
        cells = [[_said(name, getattr(row, name)) for name in names] for row in rows]
    head = "".join(f"<th{_LEFT}>{html.escape(_title(name))}</th>" for name in names)
    pictures = spec.of == "images" and not spec.values
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        first = f"<td{_LEFT}>{thumbnail(row)}</td>" if pictures else ""
        rest = "".join(f"<td{_LEFT}>{html.escape(text)}</td>" for text in texts)
        lines.append(f"<tr>{first}{rest}</tr>")
    more = f", the first {len(rows)} shown" if count > len(rows) else ""
    what = RESOURCES.get(spec.of, spec.of).replace("_", " ") if count == 1 else spec.of
    told = f"{count:,} {html.escape(what.replace('_', ' '))}{more}"
    if not rows:
        return f"<p>{told}</p>"
    return (
        f"<table><caption{_LEFT}>{told}</caption>"
        f"<thead><tr>{f'<th{_LEFT}></th>' if pictures else ''}{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


# A notebook sets numbers and names alike to the right.
_LEFT = ' style="text-align:left"'


def _title(name: str) -> str:
    return name.replace("__", " ").replace("_", " ")


# Any: a column's value
def _said(name: str, value: Any) -> str:
    """A value as people write it: sides with a cross between them, lengths in mm."""
    from theatrum.catalog.rows import shown

    if isinstance(value, list | tuple):
        return (" × " if name == "shape" else ", ").join(shown(one) for one in value)
    if name in _MILLIMETRES and isinstance(value, int | float):
        return f"{value:.4g} mm" if value >= 0.1 else f"{value * 1000:.4g} µm"
    return shown(value)


_MILLIMETRES = frozenset({"spacing", "px_x", "px_y", "px_z"})


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
    return (
        f'<img alt="{name}" src="data:image/jpeg;base64,{encoded}" '
        f'style="height:{SHOWN_PX}px;max-width:none;background:#10131a">'
    )


def facts(said: Mapping[str, Any]) -> str:
    """Names and values as a table."""
    lines = "".join(
        f"<tr><th{_LEFT}>{html.escape(_title(name))}</th>"
        f"<td{_LEFT}>{html.escape(_said(name, value))}</td></tr>"
        for name, value in said.items()
    )
    return f"<table><tbody>{lines}</tbody></table>"


def resources() -> str:
    """What can be asked for."""
    return ", ".join(RESOURCES)
