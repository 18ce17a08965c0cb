"""Results as the pathology server stores them (section 3 of the description).

The interface knows two kinds, graphics (`primitive`) and a gallery of patches
(`patchCollection`), and neither progress nor failure: these are graphics too, the
slide's outline with a text. An `Answer` is what a person is to see, in level-0 pixels;
`new_result` and `updated` write it in the version of the interface that was agreed on.
What others put into a stored result is kept when it is written back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.ia_api.coordinates import Point, level0, normalised, outline
from services.ia_api.errors import BadInvocation, Permanent
from services.ia_api.slide_info import SlideInfo
from services.ia_api.versions import LISTED_CONTENT, Version

Json = dict[str, Any]  # Any: JSON as the server sent it
Ring = Sequence[Point]

GALLERY_TAGS = 5
"""The most categories that a gallery can have."""
PATCHES = 50_000
"""The most that one gallery may have: about 5 MB of JSON."""
POINTS = 50_000
"""The most points that one result may have, our own limit: see `simplified`."""
TEXT_LENGTH = 200
WORKING, FAILED = "#FFA500", "#D00000"


@dataclass(frozen=True)
class Style:
    """How graphics are drawn; colours as `#RRGGBB` or `#RRGGBBAA`."""

    stroke: str | None = "#0B6E99"
    fill: str | None = None
    width: int | None = 2


@dataclass(frozen=True)
class Item:
    """Graphics of one style, in level-0 pixels. Rings are closed by themselves."""

    style: Style = Style()
    polygons: Sequence[Ring] = ()
    polylines: Sequence[Ring] = ()
    labels: Sequence[tuple[Point, str]] = ()


@dataclass(frozen=True)
class Patch:
    """A square of the slide around a centre in level-0 pixels, and its category."""

    centre: Point
    tag: int
    sort_key: float


@dataclass(frozen=True)
class Button:
    """A button of a gallery."""

    id: str
    name: str
    tooltip: str


@dataclass(frozen=True)
class Gallery:
    """Patches that a person can sort into categories."""

    description: str
    tags: Sequence[str]
    patches: Sequence[Patch]
    outlines: Sequence[Ring]
    patch_px: int = 64
    """The side of a patch in pixels at `magnification`."""
    magnification: float = 40.0
    buttons: Sequence[Button] = ()
    verifiable: bool = True


@dataclass(frozen=True)
class Answer:
    """What a person is to see of a job."""

    text: str
    properties: Mapping[str, str] = field(default_factory=dict)
    shown: Sequence[Item] | Gallery = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    """Our own notes, kept in the result; small, and never about a person."""


def working(slide: SlideInfo, percent: int | None = None) -> Answer:
    """The answer while a job waits (None) or runs."""
    text = (
        "analysis queued"
        if percent is None
        else f"analysis, progress {min(100, max(0, percent))} %"
    )
    properties = {"Progress": f"{percent or 0} %"}
    phase = "queued" if percent is None else "running"
    return _notice(slide, text, properties, phase, WORKING)


def failed(slide: SlideInfo, code: str) -> Answer:
    """The answer of a job that ended without a result; `code` is a short word."""
    text = f"Analysis failed ({code})"
    return _notice(slide, text, {"Error": code}, "failed", FAILED)


def cancelled(slide: SlideInfo) -> Answer:
    """The answer of a job that a person ended; a stored result cannot be deleted."""
    return _notice(slide, "Cancelled", {}, "cancelled", "#808080")


def _notice(
    slide: SlideInfo, text: str, properties: Mapping[str, str], phase: str, colour: str
) -> Answer:
    width, height = slide.size
    item = Item(
        Style(stroke=colour, width=None),
        polygons=[[(0, 0), (width, 0), (width, height), (0, height)]],
        labels=[((width / 2, 0), text)],
    )
    return Answer(text, properties, [item], {"phase": phase})


def new_result(
    answer: Answer,
    slide: SlideInfo,
    *,
    job_id: str,
    version: Version,
    application_version: str,
) -> Json:
    """A result to be stored for the first time."""
    return {
        "slideId": slide.id,
        "displayResult": _short(answer.text),
        "displayProperties": {
            _short(name): _short(value) for name, value in answer.properties.items()
        },
        "applicationVersion": application_version,
        "attachments": [],
        "data": {
            "context": {"jobId": job_id, **answer.context},
            "result": _result(answer.shown, slide.size, version),
        },
    }


def updated(
    stored: Json,
    answer: Answer,
    slide: SlideInfo,
    *,
    job_id: str,
    version: Version,
    application_version: str,
) -> Json:
    """A stored result with another answer, its id, version and unknown members kept."""
    fresh = new_result(
        answer,
        slide,
        job_id=job_id,
        version=version,
        application_version=application_version,
    )
    kept = copy.deepcopy(stored)
    data = kept.get("data") if isinstance(kept.get("data"), dict) else {}
    fresh["attachments"] = kept.get("attachments") or []
    return {**kept, **fresh, "data": {**(data or {}), **fresh["data"]}}


def _result(
    shown: Sequence[Item] | Gallery, size: tuple[int, int], version: Version
) -> Json:
    if isinstance(shown, Gallery):
        return {"type": "patchCollection", "content": _gallery(shown, size)}
    items = [_item(item, size[0]) for item in _within_limit(shown)]
    # Older servers were sent one object, and newer ones a list: read both, write
    # what fits the version.
    single = version < LISTED_CONTENT and len(items) == 1
    return {"type": "primitive", "content": items[0] if single else items}


def _item(item: Item, width: int) -> Json:
    return {
        "style": {
            "strokeStyle": item.style.stroke,
            "fillStyle": item.style.fill,
            "size": item.style.width,
        },
        "polygons": [
            {"points": normalised(ring, width)}
            for ring in map(_open, item.polygons)
            if len(ring) >= 3
        ],
        "polylines": [
            {"points": normalised(line, width)}
            for line in item.polylines
            if len(line) >= 2
        ],
        "labels": [
            {"location": normalised([at], width)[0], "label": _short(text)}
            for at, text in item.labels
        ],
    }


def _gallery(gallery: Gallery, size: tuple[int, int]) -> Json:
    if len(gallery.tags) > GALLERY_TAGS:
        raise Permanent(
            f"a gallery has at most {GALLERY_TAGS} categories, "
            f"this one has {len(gallery.tags)}"
        )
    width = size[0]
    rings = [_open(ring) for ring in gallery.outlines if len(_open(ring)) >= 3]
    if len(gallery.patches) > PATCHES:
        raise Permanent(
            f"a gallery has at most {PATCHES} patches, this one has "
            f"{len(gallery.patches)}: choose a smaller area"
        )
    return {
        "description": gallery.description,
        "polygons": [{"points": normalised(ring, width)} for ring in rings]
        or [{"points": outline(*size)}],
        "patches": [
            {
                "tag": patch.tag,
                "position": normalised([patch.centre], width)[0],
                "sortKeyValue": patch.sort_key,
            }
            for patch in gallery.patches
        ],
        "tags": list(gallery.tags),
        "patchSize": gallery.patch_px,
        "magnification": gallery.magnification,
        "statuses": {
            "allowVerify": {
                "value": gallery.verifiable,
                "message": "Ready for review" if gallery.verifiable else None,
            }
        },
        "actions": [
            {
                "id": button.id,
                "state": 0,
                "name": button.name,
                "tooltip": button.tooltip,
            }
            for button in gallery.buttons
        ],
    }


def _open(ring: Ring) -> Ring:
    """A ring without its first point repeated at the end."""
    return ring[:-1] if len(ring) > 1 and tuple(ring[0]) == tuple(ring[-1]) else ring


def _within_limit(items: Sequence[Item]) -> Sequence[Item]:
    """The items with rings simplified until all have at most POINTS points."""
    tolerance_px = 1.0
    while _points(items) > POINTS:
        items = [
            Item(
                item.style,
                [simplified(ring, tolerance_px) for ring in item.polygons],
                item.polylines,
                item.labels,
            )
            for item in items
        ]
        tolerance_px *= 2
        if tolerance_px > 1 << 20:
            raise Permanent("the result has too many graphics for the pathology server")
    return items


def _points(items: Sequence[Item]) -> int:
    return sum(
        len(ring) for item in items for ring in (*item.polygons, *item.polylines)
    )


def simplified(ring: Ring, tolerance_px: float) -> Ring:
    """A ring with fewer points, nowhere further off than the tolerance.

    By Douglas and Peucker (1973). A ring that would vanish stays a triangle at least.
    """
    from shapely import LinearRing

    if len(ring) < 4:
        return ring
    line = LinearRing(ring).simplify(tolerance_px, preserve_topology=True)
    return [(x, y) for x, y in line.coords][:-1]


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


# What a person did to a stored result, as a `modify` brings it.


def graphics(stored: Mapping[str, Any]) -> list[Json]:
    """The graphics of a stored primitive result, whichever form it has."""
    content = _content(stored)
    listed = content if isinstance(content, list) else [content]
    return [one for one in listed if isinstance(one, dict)]


def pressed(stored: Mapping[str, Any]) -> str | None:
    """The id of the button that was pressed; None for an edit of another kind."""
    content = _content(stored)
    actions = _listed(content, "actions") if isinstance(content, dict) else []
    for action in actions:
        if isinstance(action, dict) and action.get("state") == 1:
            return str(action.get("id"))
    return None


def sorted_patches(
    stored: Mapping[str, Any], width: int
) -> tuple[list[str], list[Patch]] | None:
    """The categories of a gallery and its patches as they are sorted now.

    None for a result that is no gallery; BadInvocation for a patch outside the
    categories or without a place.
    """
    content = _content(stored)
    if not isinstance(content, dict) or _kind(stored) != "patchCollection":
        return None
    tags = [str(tag) for tag in _listed(content, "tags")]
    patches = []
    for one in _listed(content, "patches"):
        try:
            (centre,) = level0([one["position"]], width)
            tag, key = int(one["tag"]), float(one.get("sortKeyValue") or 0.0)
        except (KeyError, TypeError, ValueError) as err:
            raise BadInvocation("a patch of the result lacks its place or tag") from err
        if not 0 <= tag < len(tags) or not all(map(math.isfinite, (*centre, key))):
            raise BadInvocation("a patch of the result has a tag that is not there")
        patches.append(Patch(centre, tag, key))
    return tags, patches


def with_numbers(
    stored: Mapping[str, Any], text: str, properties: Mapping[str, str]
) -> Json:
    """A stored result as it was edited, with new numbers and all buttons released."""
    edited = copy.deepcopy(dict(stored))
    edited["displayResult"] = _short(text)
    before = edited.get("displayProperties")
    edited["displayProperties"] = {
        **(before if isinstance(before, dict) else {}),
        **{_short(name): _short(value) for name, value in properties.items()},
    }
    return released(edited)


def released(stored: Mapping[str, Any]) -> Json:
    """A stored result with no button pressed."""
    edited = copy.deepcopy(dict(stored))
    content = _content(edited)
    if isinstance(content, dict):
        for action in _listed(content, "actions"):
            if isinstance(action, dict):
                action["state"] = 0
    return edited


def is_final(stored: Mapping[str, Any]) -> bool:
    """Whether a stored result is more than a notice of ours: never written over."""
    context = (stored.get("data") or {}).get("context") or {}
    phase = context.get("phase") if isinstance(context, dict) else None
    return phase not in {"queued", "running", "failed", "cancelled"}


def _listed(content: Mapping[str, Any], name: str) -> list[Any]:
    """A list of a stored result; BadInvocation where it is something else."""
    found = content.get(name) or []
    if not isinstance(found, list):
        raise BadInvocation(f"{name} of the result is no list")
    return found


def _result_of(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    data = stored.get("data")
    result = data.get("result") if isinstance(data, dict) else None
    return result if isinstance(result, dict) else {}


def _kind(stored: Mapping[str, Any]) -> str | None:
    return _result_of(stored).get("type")


def _content(stored: Mapping[str, Any]) -> Any:  # Any: a list or an object
    return _result_of(stored).get("content")
