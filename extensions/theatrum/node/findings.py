"""What a node found: marks on a slide, tables, numbers with their units, a verdict.

Plane: level-0 pixels of the full slide, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from theatrum.node.errors import BadValue
from theatrum.node.shapes import Polygon


@dataclass(frozen=True, eq=False)
class Marks:
    """Points or areas on a slide, each of one class.

    Attributes
    ----------
    points
        (n, 2) level-0 pixels; of an area a point inside of it.
    classes
        (n,) indices into `class_names`: what a person corrects.
    class_names
        Few and short: a gallery has them as its tags.
    scores
        (n,) of any meaning that the node states, the higher the surer; or None.
    outlines
        One polygon a mark, in the same order; or None where there are points only.
    class_colours
        One for each class as CSS writes it, or empty.
    """

    points: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    scores: npt.NDArray[np.float64] | None = None
    outlines: tuple[Polygon, ...] | None = None
    class_colours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64).reshape(-1, 2)
        classes = np.asarray(self.classes, dtype=np.int64).reshape(-1)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if not np.isfinite(points).all():
            raise BadValue("A mark lies at a place that is not a finite number.")
        lengths = {len(points), len(classes)}
        if self.scores is not None:
            scores = np.asarray(self.scores, dtype=np.float64).reshape(-1)
            object.__setattr__(self, "scores", scores)
            lengths.add(len(scores))
        if self.outlines is not None:
            object.__setattr__(self, "outlines", tuple(self.outlines))
            lengths.add(len(self.outlines))
        if len(lengths) != 1:
            raise BadValue("Each mark needs one point, one class, and one of the rest.")
        if len(classes) and not (
            classes.min() >= 0 and classes.max() < len(self.class_names)
        ):
            raise BadValue("A mark's class is not one of class_names.")
        if self.class_colours and len(self.class_colours) != len(self.class_names):
            raise BadValue("Give a colour for each class, or none.")

    def __len__(self) -> int:
        return len(self.points)

    def count(self, name: str) -> int:
        """Return how many marks are of the class of this name."""
        if name not in self.class_names:
            raise BadValue(
                f"There is no class {name!r}: {', '.join(self.class_names)}."
            )
        return int((self.classes == self.class_names.index(name)).sum())

    def with_classes(self, classes: npt.ArrayLike) -> Marks:
        """Return the same marks as a person sorted them: (n,) indices."""
        return replace(self, classes=np.asarray(classes, dtype=np.int64))

    def to_geojson(self) -> dict[str, Any]:
        """Return a FeatureCollection in level-0 pixels, as `viewer.marks` takes it."""
        return {
            "type": "FeatureCollection",
            "features": [self._feature(index) for index in range(len(self))],
        }

    def _feature(self, index: int) -> dict[str, Any]:
        geometry: dict[str, Any] = {
            "type": "Point",
            "coordinates": self.points[index].tolist(),
        }
        if self.outlines is not None:
            geometry = self.outlines[index].to_geojson()
        properties: dict[str, Any] = {
            "class": self.class_names[int(self.classes[index])]
        }
        if self.scores is not None:
            properties["score"] = float(self.scores[index])
        return {"type": "Feature", "geometry": geometry, "properties": properties}


@dataclass(frozen=True)
class Table:
    """Columns of one length, by name.

    Attributes
    ----------
    columns
        Plain numbers, texts, or None where a cell is empty.
    units
        Of those columns that have one.
    """

    columns: Mapping[str, Sequence[float | int | str | bool | None]]
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) > 1:
            raise BadValue("The columns of this table are not of one length.")
        strange = sorted(set(self.units) - set(self.columns))
        if strange:
            raise BadValue(f"There is a unit, but no column {strange[0]!r}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def rows(self) -> Iterator[dict[str, float | int | str | bool | None]]:
        """Yield the rows, each by column name."""
        for index in range(len(self)):
            yield {name: column[index] for name, column in self.columns.items()}

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame whose column names carry the units."""
        import pandas as pd

        named = {
            f"{name} [{self.units[name]}]" if name in self.units else name: column
            for name, column in self.columns.items()
        }
        return pd.DataFrame(named)


@dataclass(frozen=True)
class Measure:
    """What a number means: the annotation of an output, `Annotated[float, Measure()]`.

    Attributes
    ----------
    unit
        As it is written behind the number: mm2, %, per mm2; empty for a count.
    title
        For people; the output's name if empty.
    digits
        Behind the decimal point, where it is shown; a whole number has none.
    """

    unit: str = ""
    title: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Number:
    """A number that a node found, with what it means. `str()` of it is for people."""

    value: float | int
    unit: str
    title: str
    digits: int

    def __str__(self) -> str:
        shown = (
            str(self.value)
            if isinstance(self.value, int)
            else f"{self.value:.{self.digits}f}"
        )
        if not self.unit:
            return shown
        return f"{shown} {self.unit}"


@dataclass(frozen=True)
class Quality:
    """Whether a slide is fit for use, in the words that the pathology server knows."""

    verdict: Literal["QualityOk", "Rejected"]
    reason: str

    def __post_init__(self) -> None:
        if self.verdict not in ("QualityOk", "Rejected"):
            raise BadValue('A verdict is "QualityOk" or "Rejected".')
