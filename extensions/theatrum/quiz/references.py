"""References: what the right answer to a question is, and how near an answer comes.

A reference is a value that the teacher writes into a hidden test. It is checked when
it is made: one that makes no sense raises `BadReference` in the teacher's own run.
Its `assess` takes any answer that `read_answer` returns, and raises nothing but
`UnusableAnswer`, in words for the student.

Positions are level-0 pixels. A tolerance is in micrometres (`tolerance_um`, which needs
`mpp`, the micrometres per pixel), or in level-0 pixels (`tolerance_px`) for an image
whose pixel size is unknown. The reasons are read by the student: they state the rule
and the tolerance, not where the right place is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import ClassVar, Protocol, TypeGuard, TypeVar, runtime_checkable

from shapely.affinity import scale
from shapely.geometry import Point

from theatrum.quiz.answers import Answer, Chosen, Clicked, Outlined
from theatrum.quiz.errors import BadReference, UnusableAnswer
from theatrum.quiz.shapes import (
    Region,
    Shape,
    outline_region,
    overlap,
    reference_region,
)

T = TypeVar("T", Chosen, Clicked, Outlined)

EDGE_PX = 0.01
"""Answers are kept to a hundredth of a pixel; so near to an edge is on the edge."""

PixelSize = float | tuple[float, float]
"""Micrometres per pixel: one number, or (along x, along y)."""


@dataclass(frozen=True)
class Assessment:
    """How much of the points an answer earns, and why."""

    fraction: float
    """0 to 1."""

    reason: str
    """Whole sentences for the student."""


@runtime_checkable
class Reference(Protocol):
    """What `grade` compares an answer with."""

    @property
    def image(self) -> str | None:
        """The version of the image that an answer must be about; None for any."""

    def assess(self, answer: Answer) -> Assessment:
        """Return what an answer earns. Raises `UnusableAnswer` for another kind."""


@dataclass(frozen=True)
class Choice:
    """The right option, or options, of a choice.

    One right option: all or nothing. Several: (right - wrong) / all right ones, not
    below zero, so that a wrong tick costs what a right one earns.

    Parameters
    ----------
    right
        The key of the right option, or the keys.
    options
        All keys of the question. With them, an answer that names another key earns
        nothing; without, such a key counts as a wrong one.
    """

    right: str | Iterable[str]
    _: KW_ONLY
    options: Iterable[str] | None = None
    image: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        right = _keys(self.right, "Choice needs the key of the right option")
        object.__setattr__(self, "right", right)
        if self.options is None:
            return
        options = _keys(self.options, "options must be the keys of the question")
        object.__setattr__(self, "options", options)
        if not right <= options:
            raise BadReference(
                f"The right keys {sorted(right - options)} are not among the options "
                f"{sorted(options)}."
            )

    def assess(self, answer: Answer) -> Assessment:
        """Return the share of the right options that the answer found."""
        given = _expect(Chosen, answer)
        chosen = frozenset(given.keys)
        right = frozenset(self.right)
        if self.options is not None and not chosen <= frozenset(self.options):
            return Assessment(
                0.0, "Your answer names an option that this question does not have."
            )
        found, wrong = len(chosen & right), len(chosen - right)
        fraction = max(found - wrong, 0) / len(right)
        if chosen == right:
            return Assessment(1.0, "Your choice is right.")
        if len(right) == 1 and len(chosen) == 1:
            return Assessment(0.0, "Your choice is not right.")
        return Assessment(
            fraction,
            f"You chose {found} of {_count(len(right), 'right option')} and {wrong} "
            "wrong; each wrong choice takes away a right one.",
        )


@dataclass(frozen=True)
class Inside:
    """A click is right inside a region; its edge counts as inside.

    Parameters
    ----------
    polygon
        Corners in level-0 pixels, or GeoJSON of polygons (see `reference_region`).
    image
        The version of the image that the answer must be about; None for any.
    mpp
        Micrometres per pixel, one number or (x, y); needed with `tolerance_um`.
    tolerance_um, tolerance_px
        How far outside of the region a click still counts.
    """

    polygon: Shape
    _: KW_ONLY
    image: str | None = None
    mpp: PixelSize | None = None
    tolerance_um: float = 0.0
    tolerance_px: float = 0.0

    def __post_init__(self) -> None:
        _check_version(self.image)
        _check_pixel_size(self.mpp)
        _check_length("tolerance_um", self.tolerance_um)
        _check_length("tolerance_px", self.tolerance_px)
        if self.tolerance_um and self.tolerance_px:
            raise BadReference("Give tolerance_um or tolerance_px, not both.")
        if self.tolerance_um and self.mpp is None:
            raise BadReference(_NEEDS_MPP)
        reference_region(self.polygon)

    @property
    def region(self) -> Region:
        """The region in level-0 pixels."""
        return reference_region(self.polygon)

    def assess(self, answer: Answer) -> Assessment:
        """Return all for a point in the region or within the tolerance, else none."""
        given = _expect(Clicked, answer)
        region, point = self.region, Point(given.point)
        if region.distance(point) <= EDGE_PX:
            return Assessment(1.0, "Your point lies in the right region.")
        if self.tolerance_um:
            x_um, y_um = _axes(self.mpp)
            region = scale(region, x_um, y_um, origin=(0, 0))
            point = scale(point, x_um, y_um, origin=(0, 0))
        tolerance = self.tolerance_um or self.tolerance_px
        unit = "µm" if self.tolerance_um else "px"
        allowed = f"the tolerance of {tolerance:g} {unit}"
        if tolerance and region.distance(point) <= tolerance:
            return Assessment(
                1.0,
                f"Your point lies beside the right region, within {allowed}.",
            )
        return Assessment(
            0.0,
            "Your point does not lie in the right region"
            + (f", nor within {allowed}." if tolerance else "."),
        )


@dataclass(frozen=True)
class Near:
    """A click is right near a point.

    All points within the tolerance. With `zero_um` (or `zero_px`) they fall linearly
    from there to nothing at that distance; without it, nothing beyond the tolerance.

    Parameters
    ----------
    point
        (x, y) in level-0 pixels.
    tolerance_um, zero_um
        Distances in micrometres; they need `mpp`.
    tolerance_px, zero_px
        The same in level-0 pixels, for an image of unknown pixel size.
    mpp
        Micrometres per pixel, one number or (x, y).
    image
        The version of the image that the answer must be about; None for any.
    """

    point: tuple[float, float]
    _: KW_ONLY
    tolerance_um: float | None = None
    zero_um: float | None = None
    tolerance_px: float | None = None
    zero_px: float | None = None
    mpp: PixelSize | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        _check_version(self.image)
        _check_pixel_size(self.mpp)
        if not _is_pair(self.point):
            raise BadReference("Near needs a point (x, y) in level-0 pixels.")
        for name in ("tolerance_um", "zero_um", "tolerance_px", "zero_px"):
            if getattr(self, name) is not None:
                _check_length(name, getattr(self, name))
        if (self.tolerance_um is None) == (self.tolerance_px is None):
            raise BadReference("Near needs tolerance_um, or else tolerance_px.")
        in_um = self.tolerance_um is not None
        if in_um and self.mpp is None:
            raise BadReference(_NEEDS_MPP)
        if (self.zero_px if in_um else self.zero_um) is not None:
            raise BadReference("Give the tolerance and the zero in the same unit.")
        tolerance, zero, _ = self._limits()
        if zero < tolerance:
            raise BadReference("The distance of no points is below the tolerance.")

    @property
    def region(self) -> Region:
        """What lies within the tolerance, in level-0 pixels."""
        tolerance, _, unit = self._limits()
        x_scale, y_scale = _axes(self.mpp) if unit == "µm" else (1.0, 1.0)
        radius = max(tolerance, EDGE_PX)
        circle = Point(self.point).buffer(1)
        return scale(circle, radius / x_scale, radius / y_scale, origin=self.point)

    def assess(self, answer: Answer) -> Assessment:
        """Return all within the tolerance, falling to none at the zero distance."""
        given = _expect(Clicked, answer)
        tolerance, zero, unit = self._limits()
        x_scale, y_scale = _axes(self.mpp) if unit == "µm" else (1.0, 1.0)
        x, y = given.point
        distance = math.hypot(
            (x - self.point[0]) * x_scale, (y - self.point[1]) * y_scale
        )
        rule = f"up to {tolerance:g} {unit} gives full points"
        if zero > tolerance:
            rule += f", {zero:g} {unit} or more gives none"
        reason = (
            f"Your point is {distance:.1f} {unit} away from the right place; {rule}."
        )
        if distance <= tolerance + EDGE_PX * max(x_scale, y_scale):
            return Assessment(1.0, reason)
        if distance >= zero:
            return Assessment(0.0, reason)
        return Assessment((zero - distance) / (zero - tolerance), reason)

    def _limits(self) -> tuple[float, float, str]:
        """Return the tolerance, the distance of no points, and their unit."""
        if self.tolerance_um is not None:
            tolerance, zero, unit = self.tolerance_um, self.zero_um, "µm"
        else:
            tolerance, zero, unit = self.tolerance_px or 0.0, self.zero_px, "px"
        return tolerance, tolerance if zero is None else zero, unit


@dataclass(frozen=True)
class Outline:
    """An outline is right where it covers the same region.

    The measure is intersection over union (IoU): the area that both cover, divided by
    the area that either covers. It does not depend on the pixel size.

    Parameters
    ----------
    polygon
        Corners in level-0 pixels, or GeoJSON of polygons (see `reference_region`).
    full, none
        IoU from which all points are given, and up to which none; linear in between.
    image
        The version of the image that the answer must be about; None for any.
    """

    polygon: Shape
    _: KW_ONLY
    full: float = 0.75
    none: float = 0.3
    image: str | None = None

    def __post_init__(self) -> None:
        _check_version(self.image)
        if not (
            _is_number(self.full)
            and _is_number(self.none)
            and 0 <= self.none < self.full <= 1
        ):
            raise BadReference(
                "Outline needs 0 <= none < full <= 1, as intersection over union; "
                f"it got none={self.none!r} and full={self.full!r}."
            )
        reference_region(self.polygon)

    @property
    def region(self) -> Region:
        """The region in level-0 pixels."""
        return reference_region(self.polygon)

    def assess(self, answer: Answer) -> Assessment:
        """Return the share that the overlap with the reference earns."""
        given = _expect(Outlined, answer)
        iou = overlap(outline_region(given.polygon), self.region)
        fraction = min(max((iou - self.none) / (self.full - self.none), 0.0), 1.0)
        # Rounded down, so that 0.7499 does not read as the 75 % that give all.
        percent = math.floor(iou * 100 + 1e-9)
        reason = (
            f"Your outline overlaps the reference by {percent} % "
            f"(IoU {percent / 100:.2f}); {self.full * 100:g} % gives full points, "
            f"{self.none * 100:g} % or less gives none."
        )
        return Assessment(fraction, reason)


_NEEDS_MPP = (
    "tolerance_um needs mpp, the micrometres per pixel (image.mpp_x); "
    "for an image of unknown pixel size give tolerance_px instead."
)

_KINDS = {Chosen: "a choice", Clicked: "a click on the image", Outlined: "an outline"}


def _expect(kind: type[T], answer: Answer) -> T:
    if isinstance(answer.given, kind):
        return answer.given
    raise UnusableAnswer(
        f"This question asks for {_KINDS[kind]}, but your answer file holds "
        f"{_KINDS[type(answer.given)]}."
    )


def _keys(keys: str | Iterable[str], wanted: str) -> frozenset[str]:
    # A plain string is one key: frozenset("ab") would be the two keys "a" and "b".
    try:
        found = [keys] if isinstance(keys, str) else list(keys)
    except TypeError as error:
        raise BadReference(f"{wanted}, as text.") from error
    if not found or not all(isinstance(key, str) and key for key in found):
        raise BadReference(f"{wanted}, as text; it got {keys!r}.")
    return frozenset(found)


def _axes(mpp: PixelSize | None) -> tuple[float, float]:
    if mpp is None:
        raise BadReference(_NEEDS_MPP)
    return mpp if isinstance(mpp, tuple) else (mpp, mpp)


def _check_version(image: object) -> None:
    if image is not None and (not isinstance(image, str) or not image):
        raise BadReference("image must be an image's version (image.version) or None.")


def _check_pixel_size(mpp: object) -> None:
    sizes: Sequence[object] = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    if mpp is not None and not (
        len(sizes) == 2 and all(_is_number(size) and size > 0 for size in sizes)
    ):
        raise BadReference(
            "mpp must be micrometres per pixel above zero: one number, or (x, y)."
        )


def _check_length(name: str, length: object) -> None:
    if not (_is_number(length) and length >= 0):
        raise BadReference(f"{name} must be a number that is not negative.")


def _is_number(number: object) -> TypeGuard[float]:
    if isinstance(number, bool) or not isinstance(number, Real):
        return False
    return math.isfinite(number)


def _is_pair(point: object) -> bool:
    return (
        isinstance(point, Sequence)
        and len(point) == 2
        and all(_is_number(coordinate) for coordinate in point)
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
