"""Where in a dataset a rule looks: a path of keywords or numbers, through sequences.

`Modality`, `(0008,0060)` and `00080060` are the same element;
`RequestAttributesSequence.ScheduledProcedureStepDescription` looks into every item of
the sequence, and `RequestAttributesSequence[0].CodeValue` into the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.tag import BaseTag, Tag

_NUMBER = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
_STEP = re.compile(r"(?P<tag>[^\[\]]+)(?:\[(?P<item>\d{1,5})\])?")


class BadPath(ValueError):
    """A path names no element; the message says what is allowed."""


@dataclass(frozen=True)
class Step:
    """One element of a path; `item` is None where every item of it is looked into."""

    tag: BaseTag
    item: int | None = None


@dataclass(frozen=True)
class Path:
    """An element, and the sequences on the way to it."""

    steps: tuple[Step, ...]

    @property
    def vr(self) -> str | None:
        """What the dictionary says of the last element; None for a private one."""
        tag = self.steps[-1].tag
        return dictionary_VR(tag) if dictionary_has_tag(tag) else None

    def __str__(self) -> str:
        return ".".join(_written(step) for step in self.steps)


def path(text: str) -> Path:
    """Read a path; BadPath where an element has no such name."""
    # A point parts the steps, but not inside the brackets of a number.
    parts = [part.strip() for part in text.split(".")]
    if not text.strip() or not all(parts):
        raise BadPath("name an element, such as Modality or (0008,0060)")
    return Path(tuple(_step(part) for part in parts))


def elements(dataset: Dataset, where: Path) -> Iterator[DataElement]:
    """Every element of a dataset that a path leads to, in order."""
    yield from _below(dataset, where.steps)


def _below(dataset: Dataset, steps: tuple[Step, ...]) -> Iterator[DataElement]:
    first, rest = steps[0], steps[1:]
    if first.tag not in dataset:
        return
    found = dataset[first.tag]
    if not rest:
        yield found
        return
    if found.VR != "SQ":
        return
    items = list(found.value or [])
    chosen = items if first.item is None else items[first.item : first.item + 1]
    for item in chosen:
        yield from _below(item, rest)


def _step(text: str) -> Step:
    found = _STEP.fullmatch(text)
    if not found:
        raise BadPath(f"{text[:64]!r} is no element: write Modality or (0008,0060)")
    item = None if found["item"] is None else int(found["item"])
    return Step(_tag(found["tag"].strip()), item)


def _tag(name: str) -> BaseTag:
    number = _NUMBER.fullmatch(name)
    if number:
        return Tag(int(number[1], 16), int(number[2], 16))
    try:
        return Tag(name)
    except (ValueError, OverflowError) as err:
        raise BadPath(
            f"{name[:64]!r} is no keyword of the DICOM dictionary (PS3.6); "
            "a private element is named by its number, as (0019,1008)"
        ) from err


def _written(step: Step) -> str:
    name = keyword_for_tag(step.tag) or f"({step.tag.group:04X},{step.tag.element:04X})"
    return name if step.item is None else f"{name}[{step.item}]"
