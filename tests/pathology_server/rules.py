"""What a result must fulfil beyond its schema.

`refusals` are reasons to answer 400, `warnings` are likely mistakes that the real
server lets pass, such as pixel coordinates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from .slides import Json, Slide
from .versions import ITEM_LISTS, Version

GRAPHICS = ("polygons", "polylines", "arcs", "labels")


class NotJson(ValueError):
    """The body is no JSON that the protocol allows."""


def read_json(body: bytes) -> object:
    """Parse strictly: UTF-8, no NaN, no Infinity, no number that overflows to it.

    Raises NotJson.
    """

    def refuse(text: str) -> float:
        raise NotJson(f"{text} is no number of JSON")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=refuse, parse_float=finite
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NotJson(f"the body is no JSON: {error}") from error


def items_of(content: object) -> list[Json]:
    """The items of a primitive, whichever of its two shapes it has."""
    if isinstance(content, list):
        return content
    return [content] if isinstance(content, dict) else []


def refusals(
    result: Json, slide: Slide | None, declared: Version, *, strict: bool
) -> Iterator[str]:
    """Why the server does not take this result, which fits its schema."""
    if slide is None:
        yield "slideId: there is no such slide"
    shown = result["data"]["result"]
    content = shown["content"]
    if shown["type"] == "patchCollection":
        beyond = {patch["tag"] for patch in content["patches"]} - set(
            range(len(content["tags"]))
        )
        if beyond:
            yield f"patches: tag {min(beyond)} is beyond the list of tags"
    if not strict:
        return
    if shown["type"] == "primitive":
        if isinstance(content, dict) and declared >= ITEM_LISTS:
            yield "content: from version 1.6 a primitive is a list of items"
        lists = {
            name: one[name]
            for one in items_of(content)
            for name in GRAPHICS
            if name in one and one[name] is None
        }
    else:
        lists = {"actions": content["actions"]} if "actions" in content else {}
    lists["attachments"] = result.get("attachments", [])
    for name, value in lists.items():
        if value is None:
            yield f"{name}: send an empty list instead of null"


def warnings(result: Json, slide: Slide) -> Iterator[str]:
    """What is probably not meant: points beyond the slide, a state left pressed."""
    limit = slide.picture.height / slide.picture.width
    shown = result["data"]["result"]
    # Rounding to a few digits may pass the edge by as little.
    room = 1e-6
    for x, y in _points(shown["content"]):
        if not (-room <= x <= 1 + room and -room <= y <= limit + room):
            yield (
                f"point ({x:g}, {y:g}) lies outside the slide, whose corner is"
                f" (1, {limit:g}): both axes are divided by the width"
            )
            break
    if shown["type"] == "patchCollection" and any(
        action["state"] for action in shown["content"].get("actions") or ()
    ):
        yield "actions: a pressed button was stored; set every state back to 0"


def _points(content: Any) -> Iterator[tuple[float, float]]:
    # Any: a walk over JSON of any depth that has passed its schema.
    if isinstance(content, dict):
        if isinstance(content.get("x"), int | float) and isinstance(
            content.get("y"), int | float
        ):
            yield content["x"], content["y"]
            return
        content = list(content.values())
    if isinstance(content, list):
        for one in content:
            yield from _points(one)
