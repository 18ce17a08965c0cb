"""What a node found, as what a person is to see of it in the viewer.

Marks that can be corrected become a gallery; all else becomes graphics. The numbers
stand in the list of annotations, in the pop-up, and once more beside the graphics. The
values that a recount needs are kept in the result itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from theatrum.node import Labels, Marks, Node, Number, Outputs, Polygon

from services.ia_api.errors import BadInvocation
from services.ia_api.results import (
    GALLERY_TAGS,
    PATCHES,
    Answer,
    Button,
    Gallery,
    Item,
    Patch,
    Ring,
    Style,
)
from services.ia_api.slide_info import SlideInfo

_COLOURS = ("#0B6E99", "#C0392B", "#1E8449", "#7D3C98", "#B9770E")
_MOST_POINTS_PER_CLASS = 2_000
_MOST_UNSHOWN = 5_000_000
"""Marks beyond a gallery that are counted: what a stored result says is only believed
so far, because the numbers are made anew while a person waits."""
_ADAPTER: TypeAdapter[Answer] = TypeAdapter(Answer)


@dataclass(frozen=True)
class Work:
    """What was analysed: the slide, and the user's regions in level-0 pixels."""

    slide: SlideInfo
    regions: Sequence[Polygon]


def answer_of(node: Node[..., Any], outputs: Outputs, work: Work) -> Answer:
    """The final answer of a job."""
    numbers = outputs.numbers
    values = {name: number.value for name, number in numbers.items()}
    text = headline(node, numbers, outputs)
    context: dict[str, Any] = {
        "phase": "done",
        "node": node.name,
        "version": node.version,
        "numbers": values,
    }
    marks = next(iter(outputs.of_kind("marks").values()), None)
    correctable = node.recounts or bool(node.actions)
    if marks is not None and correctable and len(marks.class_names) <= GALLERY_TAGS:
        gallery, unshown = _gallery(node, marks, work)
        context["unshown"] = unshown
        return Answer(text, properties(numbers, outputs), gallery, context)
    items = [*_graphics(outputs, work), _caption(text, work)]
    return Answer(text, properties(numbers, outputs), items, context)


def headline(
    node: Node[..., Any], numbers: Mapping[str, Number], outputs: Outputs | None = None
) -> str:
    """The one line of the list of annotations: the first number, or the verdict."""
    for number in numbers.values():
        return f"{number.title} {number}"
    if outputs is not None and outputs.quality is not None:
        return f"{node.title}: {outputs.quality.verdict}"
    return node.title


def properties(
    numbers: Mapping[str, Number], outputs: Outputs | None = None
) -> dict[str, str]:
    """The table of the pop-up."""
    found = {number.title: str(number) for number in numbers.values()}
    if outputs is not None:
        for kind in ("flag", "text"):
            for name, value in outputs.of_kind(kind).items():
                found[outputs.ports[name].title] = str(value)
        if outputs.quality is not None:
            found["Quality"] = outputs.quality.verdict
            found["Reason"] = outputs.quality.reason
    return found


def marks_of(
    tags: Sequence[str], patches: Sequence[Patch], unshown: Sequence[int]
) -> Marks:
    """The marks of a stored gallery as they are sorted now, with those not shown.

    Of marks beyond the gallery's size only the class is known: they lie at the origin.
    """
    counts = [max(0, int(count)) for count in unshown[: len(tags)]]
    if sum(counts) > _MOST_UNSHOWN:
        raise BadInvocation("the result says that it has more marks than any can have")
    rest = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    points = np.zeros((len(patches) + len(rest), 2))
    points[: len(patches)] = [patch.centre for patch in patches] or np.zeros((0, 2))
    keys = np.zeros(len(points))
    keys[: len(patches)] = [patch.sort_key for patch in patches]
    return Marks(
        points=points,
        classes=np.concatenate(
            [np.asarray([patch.tag for patch in patches], dtype=np.int64), rest]
        ),
        class_names=tuple(tags),
        scores=keys,
    )


def to_json(answer: Answer) -> bytes:
    return _ADAPTER.dump_json(answer)


def from_json(text: bytes) -> Answer:
    return _ADAPTER.validate_json(text)


def _gallery(
    node: Node[..., Any], marks: Marks, work: Work
) -> tuple[Gallery, list[int]]:
    """The gallery, and how many marks of each class have no place in it."""
    scores = marks.scores if marks.scores is not None else np.arange(len(marks))
    shown = np.argsort(scores, kind="stable")[:PATCHES]
    hidden = np.setdiff1d(np.arange(len(marks)), shown)
    patches = [
        Patch(
            (float(marks.points[index, 0]), float(marks.points[index, 1])),
            int(marks.classes[index]),
            float(scores[index]),
        )
        for index in shown
    ]
    unshown = [
        int((marks.classes[hidden] == index).sum())
        for index in range(len(marks.class_names))
    ]
    um = work.slide.um_per_pixel
    gallery = Gallery(
        description=(
            "Move what is sorted wrongly to the right category; the numbers follow."
        ),
        tags=marks.class_names,
        patches=patches,
        outlines=[_ring(region.exterior) for region in work.regions],
        # 10x is taken for 1 um per pixel, as this interface's users do.
        magnification=40.0 if um is None else round(max(1.0, min(80.0, 10 / um)), 1),
        buttons=[
            Button(action.id, action.title, action.tooltip) for action in node.actions
        ],
    )
    return gallery, unshown


def _graphics(outputs: Outputs, work: Work) -> Iterator[Item]:
    regions = [_ring(region.exterior) for region in work.regions]
    if regions:
        yield Item(Style(stroke="#444444", width=1), polygons=regions)
    colour = iter(_COLOURS * 8)
    for value in outputs.of_kind("polygon").values():
        found = value if isinstance(value, Sequence) else [value]
        yield Item(Style(stroke=next(colour)), polygons=list(_rings(found)))
    for labels in outputs.of_kind("labels").values():
        yield from _label_items(labels, next(colour))
    for marks in outputs.of_kind("marks").values():
        yield from _mark_items(marks)


def _rings(polygons: Sequence[Polygon]) -> Iterator[Ring]:
    """Exteriors and holes alike: the interface draws a hole as a ring of its own."""
    for polygon in polygons:
        yield _ring(polygon.exterior)
        for hole in polygon.holes:
            yield _ring(hole)


def _mark_items(marks: Marks) -> Iterator[Item]:
    for index, name in enumerate(marks.class_names):
        chosen = np.flatnonzero(marks.classes == index)
        if not len(chosen):
            continue
        colour = (
            marks.class_colours[index]
            if marks.class_colours
            else _COLOURS[index % len(_COLOURS)]
        )
        style = Style(stroke=colour, width=1)
        few = chosen[:_MOST_POINTS_PER_CLASS]
        if marks.outlines is not None:
            outlines = [marks.outlines[one] for one in few]
            yield Item(style, polygons=list(_rings(outlines)))
        else:
            squares = [_square(marks.points[one], 8.0) for one in few]
            yield Item(style, polygons=squares)
        at = marks.points[chosen[0]]
        yield Item(style, labels=[((float(at[0]), float(at[1])), name)])


def _label_items(labels: Labels, default: str) -> Iterator[Item]:
    """A mask as outlines: the interface has no pictures."""
    if labels.array.ndim != 2:
        return
    for number, _name in labels.names.items():
        rings = list(_outlines(labels.array == number, labels))
        if rings:
            colour = labels.colours.get(number, default)
            yield Item(Style(stroke=colour), polygons=rings)


def _outlines(mask: Any, labels: Labels) -> Iterator[Ring]:
    from skimage.measure import find_contours

    # A border of nothing closes the outlines that touch the edge.
    padded = np.pad(mask.astype(np.float32), 1)
    for contour in find_contours(padded, 0.5):
        if len(contour) < 4:
            continue
        # Rows and columns of pixels' centres, one off by the border.
        x = labels.origin[0] + (contour[:, 1] - 0.5) * labels.downsample
        y = labels.origin[1] + (contour[:, 0] - 0.5) * labels.downsample
        yield _ring(np.column_stack([x, y]))


def _caption(text: str, work: Work) -> Item:
    at = (work.slide.size[0] / 2, 0.0)
    if work.regions:
        left, top, _, _ = work.regions[0].bounds
        at = (left, top)
    return Item(Style(width=None), labels=[(at, text)])


def _square(centre: Any, half_px: float) -> Ring:
    x, y = float(centre[0]), float(centre[1])
    return [
        (x - half_px, y - half_px),
        (x + half_px, y - half_px),
        (x + half_px, y + half_px),
        (x - half_px, y + half_px),
    ]


def _ring(points: Any) -> Ring:
    return [(float(x), float(y)) for x, y in points]
