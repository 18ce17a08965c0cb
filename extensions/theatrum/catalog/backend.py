"""What a catalogue must be able to do, be it a database here or a service far away.

Rows are dictionaries of a table's columns, moments as `datetime`. Everything that a
backend gives is narrowed to what its user may see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from theatrum.catalog.query.facets import Facet
from theatrum.catalog.query.spec import Spec

if TYPE_CHECKING:
    import xarray

# Any: columns of whatever table
RowData = dict[str, Any]

PLANE = (
    *("t", "c", "z", "position_x_mm", "position_y_mm", "position_z_mm"),
    *("delta_t_s", "exposure_ms"),
)
"""What is said of a plane; None where it is not known."""


class Backend(Protocol):
    """One catalogue as one user sees it."""

    @property
    def user(self) -> str:
        """The human who asks, and for whom runs are recorded."""

    def rows(self, spec: Spec) -> list[RowData]:
        """What a question finds, in its order."""

    def each(self, spec: Spec) -> Iterator[RowData]:
        """The same, one after the other, however many there are."""

    def count(self, spec: Spec) -> int:
        """How many rows it finds, after its slice."""

    def facets(
        self, spec: Spec, facets: Sequence[Facet]
    ) -> dict[str, list[tuple[Any, int]]]:
        """For each facet its values and how many rows have them."""

    def sql(self, spec: Spec) -> str:
        """The question as the database is asked it."""

    def create(self, resource: str, values: Mapping[str, Any]) -> RowData:
        """Write a new row; raises BadRecord or NotAllowed."""

    def change(self, resource: str, key: str, values: Mapping[str, Any]) -> RowData:
        """Set columns of a row; raises NotFound, BadRecord or NotAllowed."""

    def remove(self, resource: str, key: str) -> None:
        """Take a row out of sight; raises NotFound or NotAllowed."""

    def lineage(self, kind: str, key: str) -> dict[str, Any]:
        """What a row came from and what came from it; see `lineage.Lineage`."""

    def array(self, image: RowData, level: int) -> xarray.DataArray:
        """An image's array at a level, not yet read."""

    def thumbnail(self, image: RowData, size: int) -> bytes:
        """A JPEG whose longer side is at most `size` pixels; raises NotOpened."""

    def keep(self, array: xarray.DataArray, kept: Mapping[str, Any]) -> RowData:
        """Store an array as a new image, with the run that made it.

        `kept`: project, name, title, kind, node, params, inputs (ids of images), and
        columns of `image` under fields.
        """

    def planes(self, image: RowData) -> list[RowData]:
        """What the image's file said of its planes: the columns of `PLANE`, and more.

        Empty where it said nothing.
        """

    def close(self) -> None:
        """Give back what is held."""
