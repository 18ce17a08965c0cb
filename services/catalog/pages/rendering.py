"""How a page of the catalogue leaves: its templates and what all of them need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from theatrum.catalog.rows import shown as plain

from hub.signin import Person
from services.catalog.api.here import Service

_HERE = Path(__file__).parent
_HUB = Path(__file__).parents[3] / "hub" / "static"
STATIC = {
    file.name: file
    for file in (
        _HUB / "pages.css",
        _HUB / "vendor" / "htmx.min.js",
        _HERE / "static" / "catalog.css",
        _HERE / "static" / "catalog.js",
        _HERE / "static" / "pictures.js",
        _HERE / "static" / "inbox.js",
    )
}
"""What the pages load; nothing comes from anywhere else."""

_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_marks = {
    name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    for name, file in STATIC.items()
}


def octets(count: float | None) -> str:
    """A size for people, in powers of ten."""
    size = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(seconds: float) -> str:
    """About how long something takes."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"


def length(mm: float) -> str:
    """A length in the unit that people use for it."""
    return f"{mm:.3g} mm" if mm >= 0.1 else f"{mm * 1000:.3g} µm"


def facts(image: Mapping[str, Any]) -> str:
    """What is said of an image below its picture."""
    shape = " × ".join(str(side) for side in image["shape"])
    size = shape or f"{image['width']:,} × {image['height']:,} px"
    said = [image["modality"] or image["format"] or "image", size]
    if image["spacing"]:
        said.append(length(image["spacing"]))
    # A fact is not torn apart at the end of a line.
    return " · ".join(one.replace(" ", "\N{NO-BREAK SPACE}") for one in said)


def sentence(text: str) -> str:
    """A text as a sentence; what has been cut into parts begins with a capital."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


_environment.filters.update(
    duration=duration,
    facts=facts,
    length=length,
    octets=octets,
    plain=plain,
    sentence=sentence,
)


def part(service: Service, template: str, **facts: Any) -> Markup:
    """A part of a page. Any: what the template shows."""
    text = _environment.get_template(template).render(
        prefix=service.prefix, base_url=service.settings.base_url, **facts
    )
    return Markup(text)  # noqa: S704 - made by a template of ours, which escapes


def page(
    service: Service,
    visitor: Person,
    template: str,
    *,
    status: int = 200,
    **facts: Any,  # Any: what the template shows
) -> Response:
    """A whole page; htmx takes the part of it that it wants."""
    text = _environment.get_template(template).render(
        visitor=visitor,
        prefix=service.prefix,
        base_url=service.settings.base_url,
        static={
            name: f"{service.prefix}static/{name}?v={mark}"
            for name, mark in _marks.items()
        },
        **facts,
    )
    return HTMLResponse(text, status)
