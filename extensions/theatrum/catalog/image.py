"""An image of the catalogue in a notebook: a lazy array with all that is known of it.

    image = catalog.images.filter(modality="MR").first()
    image.array                             # xarray over dask, nothing read yet
    image.sel(z=slice(10, 20))              # by millimetres
    image.sel(x=(100, 200), unit="um")
    image.biometa.channels                  # pandas
    image.viewer.show(plane="cor", project="max")
    image.derive("max over z", lambda array: array.max("z")).save("brain-max")
    image.crop("tumour").save("tumour")     # Bergen called it a transformation
    image.lineage                           # a picture; .to_prov() for machines

What is saved is a new image of the catalogue with the run that made it: for whom, from
what, with which parameters, even where nothing but a notebook's cell did it.
"""

from __future__ import annotations

import hashlib
import inspect as source_of
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.biometa import Biometa
from theatrum.catalog.errors import BadArray, NotFound
from theatrum.catalog.facts import MM
from theatrum.catalog.lineage import Lineage, lineage_from_json
from theatrum.catalog.query.fields import way
from theatrum.catalog.query.lazy import Query
from theatrum.catalog.query.spec import Q
from theatrum.catalog.rows import Row
from theatrum.catalog.show import Viewer

if TYPE_CHECKING:
    import numpy.typing as npt
    import PIL.Image
    import xarray

# Any: an index, a slice, or a list of indices
Indexer = Any


class CatalogImage(Row):
    """An image; its columns, relations, pixels, and what is said of it."""

    def __init__(self, backend: Backend, columns: RowData) -> None:
        super().__init__(backend, columns, "images")

    # Pixels

    @property
    def array(self) -> xarray.DataArray:
        """The finest level, not yet read; coordinates in mm and s."""
        return self.level(0)

    def level(self, number: int) -> xarray.DataArray:
        """A level, 0 the finest, not yet read; raises NotOpened and Gone."""
        return self._backend.array(self._columns, number)

    @property
    def tree(self) -> xarray.DataTree:
        """All levels: `scale0`, `scale1`, ..., each a dataset of one `image`."""
        import xarray as xr

        levels = range(max(self._columns["n_levels"], 1))
        return xr.DataTree.from_dict(
            {
                f"scale{number}": self.level(number).to_dataset(name="image")
                for number in levels
            },
            name=self._columns["name"],
        )

    def isel(self, **at: Indexer) -> xarray.DataArray:
        """A part by places, as xarray's `isel`: an index, a slice or (from, to)."""
        return self.array.isel({dim: _as_slice(one) for dim, one in at.items()})

    def sel(self, *, unit: str = "mm", **at: Indexer) -> xarray.DataArray:
        """A part by lengths in a unit, times in seconds, and names of channels.

        A number takes the voxel that is nearest, a slice or (from, to) all between,
        both ends included.
        """
        if unit not in MM:
            raise BadArray(f"lengths are in {', '.join(MM)}, not {unit!r}")
        array = self.array
        for dim, one in at.items():
            if dim not in array.dims:
                raise BadArray(
                    f"{self.name} has no {dim}: its dimensions are "
                    f"{', '.join(map(str, array.dims))}"
                )
            scale = MM[unit] if dim in ("x", "y", "z") else 1.0
            array = _selected(array, dim, one, scale)
        return array

    @property
    def biometa(self) -> Biometa:
        """What is known beside the pixels, as data frames."""
        return Biometa(self)

    @property
    def viewer(self) -> Viewer:
        """`viewer.show(...)` draws a picture, `viewer()` opens one to move in."""
        full = {axis: int(self._columns[f"n_{axis}"] or 1) for axis in ("x", "y", "z")}
        if not self._columns["n_x"]:
            full = {str(k): int(v) for k, v in self.array.sizes.items()}
        levels = [
            full | {"x": full["x"] >> number, "y": full["y"] >> number}
            for number in range(max(self._columns["n_levels"], 1))
        ]
        return Viewer(levels, self.level, self)

    def thumbnail_jpeg(self, size: int = 256) -> bytes:
        """A JPEG whose longer side is at most `size` pixels."""
        return self._backend.thumbnail(self._columns, size)

    def thumbnail(self, size: int = 256) -> PIL.Image.Image:
        """A small picture, at most `size` pixels a side."""
        import io

        import PIL.Image

        with PIL.Image.open(io.BytesIO(self.thumbnail_jpeg(size))) as stored:
            return stored.convert("RGB")

    # Any: nibabel has no types
    def to_nifti(self, path: Path | str | None = None, *, level: int = 0) -> Any:
        """The image as nibabel's, the same voxels and affine; written where named."""
        from theatrum.nodes.catalog.nifti import nifti_image

        made = nifti_image(self.level(level))
        if path is not None:
            import nibabel

            nibabel.save(made, str(path))
        return made

    # New images

    def derive(
        self,
        node: str | Callable[..., xarray.DataArray],
        make: Callable[..., xarray.DataArray] | None = None,
        /,
        **params: Any,
    ) -> Derived:
        """What a function makes of the array, not yet computed, nor saved.

        Parameters
        ----------
        node
            What it is called in the lineage; left out, the function's own name.
        make
            Takes the array, and `params` as keywords; gives an array.
        params
            Recorded with the run.
        """
        name = node if isinstance(node, str) else getattr(node, "__name__", "function")
        made_by = make if isinstance(node, str) else node
        if made_by is None:
            raise BadArray("give the function, as derive('name', function)")
        array = _cut_from(self.array, made_by(self.array, **params))
        code = _digest_of_code(made_by)
        return Derived(self, array, node=name, params=params, code=code)

    def crop(
        self, roi: Row | str | Mapping[str, float], *, mask: bool = False
    ) -> Derived:
        """The part of the image in a region's box, not yet saved.

        Parameters
        ----------
        roi
            A region, its id or name, or a box as {"x0": ..., "x1": ...} in pixels of
            level 0.
        mask
            Whether what lies outside of a polygon becomes 0.
        """
        box, geometry, said = self._box(roi)
        array = self.array
        for axis in ("x", "y", "z", "t"):
            low, high = box.get(f"{axis}0"), box.get(f"{axis}1")
            if axis not in array.dims or low is None or high is None:
                continue
            begin = max(math.floor(low), 0)
            end = min(max(math.ceil(high), begin + 1), array.sizes[axis])
            if begin >= array.sizes[axis] or high < 0:
                raise BadArray(f"the region lies outside of {self.name} along {axis}")
            array = array.isel({axis: slice(begin, end)})
            array = _moved(array, axis, begin)
        if mask:
            array = _masked(array, geometry, box)
        return Derived(
            self, array, node="crop", params=said | {"mask": mask}, kind="crop"
        )

    def _box(
        self, roi: Row | str | Mapping[str, float]
    ) -> tuple[dict[str, float | None], dict[str, Any], dict[str, Any]]:
        if isinstance(roi, Mapping):
            return dict(roi), {}, {"box": dict(roi)}
        if isinstance(roi, str):
            found = self.rois.filter(Q(id=roi) | Q(name=roi) | Q(label__name=roi))
            row = found.first()
            if row is None:
                raise NotFound(f"{self.name} has no region {roi}")
            roi = row
        assert isinstance(roi, Row)  # noqa: S101
        box = {
            f"{axis}{end}": getattr(roi, f"{axis}{end}")
            for axis in "xyzt"
            for end in "01"
        }
        return box, roi.geometry, {"roi": roi.id}

    def save(
        self,
        array: xarray.DataArray,
        name: str = "",
        *,
        node: str = "notebook",
        kind: str = "derived",
        params: Mapping[str, Any] | None = None,
        also: Sequence[CatalogImage] = (),
        **fields: Any,
    ) -> CatalogImage:
        """Keep an array that was made of this image; the run is recorded with it.

        Parameters
        ----------
        array
            Written as OME-Zarr; of a lazy one block by block.
        name
            The new image's; by default this one's with the node behind.
        node, params
            What made it, and with what.
        kind
            derived, crop, label, probability
        also
            Further images that went in.
        fields
            Columns of the new image: `description`, `project` (its name), ...
        """
        kept = {
            "name": name or f"{self.name}-{node}",
            "project": fields.pop("project", None),
            "title": fields.pop("title", ""),
            "kind": kind,
            "node": node,
            "params": dict(params or {}),
            "code_version": fields.pop("code_version", ""),
            "inputs": [self.id, *(one.id for one in also)],
            "fields": fields,
        }
        source = self.array
        array = _with_place(_cut_from(source, array), source)
        return CatalogImage(self._backend, self._backend.keep(array, kept))

    @property
    def lineage(self) -> Lineage:
        """What it came from: runs, inputs, originals, people."""
        return lineage_from_json(self._backend.lineage("image", self.id))

    # What is said of it

    @property
    def tags(self) -> list[str]:
        """Its tags, by alphabet."""
        return sorted(row.key for row in self._notes("tags"))

    def tag(self, *words: str) -> None:
        """Tag it; a tag that it has already stays one."""
        for word in words:
            self._say({"kind": "tag", "key": word})

    def untag(self, *words: str) -> None:
        """Take tags away."""
        for row in self._notes("tags").filter(key__in=words):
            row.delete()

    @property
    def key_values(self) -> dict[str, Any]:
        """Its values by key."""
        return {row.key: row.value for row in self._notes("key_values")}

    def set_value(self, key: str, value: Any, *, unit: str | None = None) -> None:
        """Give it a value for a key; `filter(kv__KEY=...)` finds it."""
        self._say({"kind": "value", "key": key, "value": value, "unit": unit})

    @property
    def comments(self) -> Query[Row]:
        """What people said of it."""
        return self._notes("comments").order_by("created_at")

    def comment(self, text: str) -> None:
        """Say something of it."""
        self._say({"kind": "comment", "text": text})

    def add_roi(
        self, kind: str, coordinates: Sequence[Any], *, name: str = "", **fields: Any
    ) -> Row:
        """Draw a region: coordinates as GeoJSON's, in pixels of level 0.

        `kind` is point, line, polyline, box, ellipse, polygon, cube; a label is given
        by its id as `label_id`.
        """
        geometry = {"type": _GEOJSON.get(kind, "Polygon"), "coordinates": coordinates}
        said = {"image_id": self.id, "kind": kind, "name": name, "geometry": geometry}
        return Row(self._backend, self._backend.create("rois", said | fields), "rois")

    def _notes(self, name: str) -> Query[Row]:
        over = way("image", name)
        assert over is not None  # noqa: S101
        query: Query[Row] = self._over(over)
        return query

    def _say(self, said: Mapping[str, Any]) -> None:
        target = {"target_kind": "image", "target_id": self.id}
        self._backend.create("annotations", {**target, **said})

    def _repr_html_(self) -> str:
        from theatrum.catalog.query import html

        names = html.COLUMNS["images"]
        said = {name: self._columns[name] for name in names} | {
            "project": self.project.name,
            "id": self.id,
        }
        return f"<div>{html.thumbnail(self)}{html.facts(said)}</div>"


class Derived:
    """An array that was made of an image, with how; `save` keeps it."""

    def __init__(
        self,
        source: CatalogImage,
        array: xarray.DataArray,
        *,
        node: str,
        params: Mapping[str, Any],
        kind: str = "derived",
        code: str = "",
    ) -> None:
        self._source = source
        self.array = array
        self.node = node
        self.params = dict(params)
        self.kind = kind
        self._code = code

    @property
    def viewer(self) -> Viewer:
        """`viewer.show(...)` draws a picture, `viewer()` opens one to move in."""
        sizes = {str(dim): int(size) for dim, size in self.array.sizes.items()}
        return Viewer([sizes], lambda _: self.array)

    def save(self, name: str = "", **fields: Any) -> CatalogImage:
        """Keep it as a new image; the parameters are those of `CatalogImage.save`."""
        given = {"kind": self.kind, "code_version": self._code} | fields
        return self._source.save(
            self.array, name, node=self.node, params=self.params, **given
        )

    def __repr__(self) -> str:
        return f"<{self.node} of {self._source.name}>\n{self.array!r}"

    def _repr_html_(self) -> str:
        return str(self.array._repr_html_())  # type: ignore[no-untyped-call]


_GEOJSON = {"point": "Point", "line": "LineString", "polyline": "LineString"}


def _as_slice(one: Indexer) -> Indexer:
    return slice(*one) if isinstance(one, tuple) else one


def _selected(
    array: xarray.DataArray, dim: str, one: Indexer, scale: float
) -> xarray.DataArray:
    one = _as_slice(one)
    if dim not in array.coords:
        raise BadArray(f"{dim} has no coordinates: choose by isel({dim}=...)")
    try:
        if isinstance(one, slice):
            ends = [
                None if end is None else end * scale for end in (one.start, one.stop)
            ]
            return array.sel({dim: slice(*ends)})
        if isinstance(one, int | float):
            return array.sel({dim: one * scale}, method="nearest")
        return array.sel({dim: one})
    except KeyError as err:
        raise BadArray(f"there is no {dim} {one}") from err


def _moved(array: xarray.DataArray, axis: str, begin: int) -> xarray.DataArray:
    """The affine of a part that begins further on."""
    affine = array.attrs.get("affine")
    if affine is None or axis == "t":
        return array
    column = "xyz".index(axis)
    moved = [list(map(float, row)) for row in affine]
    for row in moved[:3]:
        row[3] += row[column] * begin
    return array.assign_attrs(affine=moved)


def _cut_from(source: xarray.DataArray, array: xarray.DataArray) -> xarray.DataArray:
    """The array with the affine of its own first voxel, where a part was taken.

    A part by `isel` or `sel` keeps the source's attributes, and tells only by its
    coordinates where it begins, how it steps, and whether it runs backwards. What was
    padded has coordinates in its inside only: outwards they go on as they step there.
    """
    array = _gone_on(source, array)
    affine = array.attrs.get("affine")
    if affine is None or affine != source.attrs.get("affine"):
        return array
    moved = [list(map(float, row)) for row in affine]
    for column, dim in enumerate("xyz"):
        if dim not in source.coords or dim not in array.coords:
            if dim in source.dims and array.sizes.get(dim) != source.sizes[dim]:
                # Nothing tells which part is left, or all of it went into each number.
                return _unplaced(array)
            continue
        old, new = (one.coords[dim].values.reshape(-1) for one in (source, array))
        step = _step_of(source, dim)
        if not step or not new.size:
            continue
        if new.size > 2 and not _is_even(new):
            return _unplaced(array)
        begin = (float(new[0]) - float(old[0])) / step
        stride = (float(new[1]) - float(new[0])) / step if new.size > 1 else 1.0
        for row in moved[:3]:
            row[3] += row[column] * begin
            row[column] *= stride
    if moved == affine:
        return array
    from theatrum.catalog.facts import facts_of_array

    array = array.assign_attrs(affine=moved)
    return array.assign_attrs(orientation=facts_of_array(array).get("orientation"))


def _is_even(along: npt.NDArray[Any]) -> bool:
    """Whether places lie equally far apart; what was chosen freely does not."""
    import numpy as np

    steps = np.diff(along.astype(float))
    return bool(np.abs(steps - steps[0]).max() <= 1e-3 * abs(steps[0]))


def _unplaced(array: xarray.DataArray) -> xarray.DataArray:
    """The array without a place in the patient; its spacing stays."""
    kept = {
        name: value
        for name, value in array.attrs.items()
        if name not in ("affine", "orientation", "convention")
    }
    bare = array.copy(deep=False)
    bare.attrs = kept
    return bare


def _step_of(source: xarray.DataArray, dim: str) -> float:
    """How far apart two voxels lie along a dimension; 0 where nothing tells it."""
    along = source.coords[dim].values.reshape(-1)
    if along.size > 1:
        return float(along[1] - along[0])
    affine = source.attrs.get("affine")
    if affine is None or dim == "t":
        return 0.0
    column = "xyz".index(dim)
    return math.hypot(*(float(row[column]) for row in affine[:3]))


def _gone_on(source: xarray.DataArray, array: xarray.DataArray) -> xarray.DataArray:
    """The array with coordinates along x, y, z, t where `pad` left none (NaN)."""
    import numpy as np

    for dim in ("x", "y", "z", "t"):
        if dim not in array.dims or dim not in array.coords or dim not in source.coords:
            continue
        along = array.coords[dim]
        if along.dtype.kind != "f" or along.ndim != 1 or np.isfinite(along).all():
            continue
        known = np.flatnonzero(np.isfinite(along.values))
        if not known.size:
            array = array.drop_vars(dim)
            continue
        step = _step_of(source, dim)
        if known.size > 1:
            ends = along.values[known[[0, -1]]]
            step = float(ends[1] - ends[0]) / float(known[-1] - known[0])
        if not step:  # of one plane nobody knows how it would go on
            array = array.drop_vars(dim)
            continue
        first = float(along.values[known[0]]) - step * float(known[0])
        places = first + step * np.arange(along.size)
        places[known] = along.values[known]
        array = array.assign_coords({dim: (dim, places, along.attrs)})
    return array


def _masked(
    array: xarray.DataArray, geometry: Mapping[str, Any], box: Mapping[str, Any]
) -> xarray.DataArray:
    import numpy as np
    import xarray as xr
    from skimage.draw import polygon2mask

    if geometry.get("type") != "Polygon":
        raise BadArray("only a polygon has an inside to mask by")
    left, top = (max(math.floor(box[name] or 0), 0) for name in ("x0", "y0"))
    shape = array.sizes["y"], array.sizes["x"]
    inside = np.zeros(shape, bool)
    for place, ring in enumerate(geometry["coordinates"]):
        # A pixel belongs to it by its centre.
        corners = [(y - top - 0.5, x - left - 0.5) for x, y, *_ in ring]
        within = polygon2mask(shape, np.asarray(corners))
        inside = inside | within if place == 0 else inside & ~within
    return array.where(xr.DataArray(inside, dims=("y", "x")), 0).astype(array.dtype)


def _with_place(array: xarray.DataArray, source: xarray.DataArray) -> xarray.DataArray:
    """The array with the source's place in the patient where it lost its attributes.

    Only one whose axes still begin and step where the source's do lies where it lay.
    """
    if "affine" in array.attrs or "affine" not in source.attrs:
        return array
    space = [dim for dim in ("x", "y", "z") if dim in source.dims]
    for dim in space:
        if dim not in array.dims or not array.coords[dim].equals(source.coords[dim]):
            return array
    kept = ("affine", "orientation", "convention", "modality")
    return array.assign_attrs(
        {name: source.attrs[name] for name in kept if name in source.attrs}
    )


def _digest_of_code(function: Callable[..., Any]) -> str:
    """The digest of a function's source; empty where there is none to read."""
    try:
        text = source_of.getsource(function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
