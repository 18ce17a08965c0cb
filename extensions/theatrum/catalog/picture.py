"""A plane of an array as a picture: which plane, projected how, in which window.

Planes of a scan are anatomical: `ax`, `cor` and `sag` cut along the array's axis that
runs closest to the patient's, and are shown as radiologists look: from the feet, from
the front, from the left, so that the patient's right is on the picture's left. Without
an affine `ax` is the plane of x and y, `cor` that of x and z, `sag` that of y and z, as
they are stored. Millimetres of `at` are those of the array's own coordinates. Pixels
come out with equal sides: the shorter ones are repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from theatrum.catalog.display import is_colour, names_of
from theatrum.catalog.errors import BadArray, near

if TYPE_CHECKING:
    import PIL.Image
    import xarray

LONGEST_PX = 2000
"""Of a picture, and of the level that it is drawn from."""

PLANES = {"ax": 2, "cor": 1, "sag": 0}
"""Which of R, A, S a plane is cut along."""
_PLAIN = {"ax": "z", "cor": "y", "sag": "x"}
_ALSO = {"axial": "ax", "xy": "ax", "coronal": "cor", "xz": "cor", "sagittal": "sag",
         "yz": "sag"}  # fmt: skip
PROJECTIONS = ("max", "min", "mean", "sum", "std", "median")

Window = str | tuple[float, float]
At = str | int | float
Numbers = npt.NDArray[np.float64]


def draw(
    array: xarray.DataArray,
    *,
    plane: str = "ax",
    at: At = "center",
    project: str | None = None,
    channels: Sequence[str | int] | None = None,
    window: Window | Mapping[str, tuple[float, float]] = "auto",
    t: int = 0,
    whole: Mapping[str, int] | None = None,
) -> PIL.Image.Image:
    """A plane of an array as an 8-bit picture.

    Parameters
    ----------
    array
        Dimensions among t, c, z, y, x.
    plane
        `ax`, `cor` or `sag`.
    at
        `"center"`, an index (int) or millimetres (float); of a projection nothing.
    project
        One of `PROJECTIONS`, across the plane.
    channels
        Names or numbers; one is shown in grey, three or more as R, G, B (further ones
        are passed over), two as R and G. None: of RGB all, else the first three.
    window
        `"auto"` (from the 1st to the 99th percentile), `"full"`, or the values of black
        and white, for all channels or by channel.
    t
        Which time.
    whole
        Of a coarser level the sizes of level 0: an index counts its planes.

    Raises
    ------
    BadArray
        For a plane, channel or place that the array does not have.
    """
    import PIL.Image

    if "t" in array.dims:
        array = array.isel(t=_within(t, array.sizes["t"], "t"))
    # Cut first: dask hands slices down to the file through nothing but slices.
    across, rows, columns, flips = _axes(array, plane)
    if whole is not None and isinstance(at, int) and across in array.dims:
        count = array.sizes[across]
        at = plane_at(at, whole.get(across, count), count)
    array = _cut(array, across, at, project)
    array, names = _channels(array, channels)
    kept = [dim for dim in (rows, columns) if dim in array.dims]
    if len(kept) < 2:
        raise BadArray(f"an array of {', '.join(map(str, array.dims))} has no plane")
    pixels = array.transpose("c", rows, columns).to_numpy()
    for axis, flip in zip((1, 2), flips, strict=True):
        if flip:
            pixels = np.flip(pixels, axis)
    if pixels.dtype == np.uint8 and window == "auto" and is_colour(names):
        bytes_ = pixels  # a colour picture is as it is
    else:
        bytes_ = np.stack(
            [
                _windowed(pixels[place], _window(window, name))
                for place, name in enumerate(names)
            ]
        )
    picture = PIL.Image.fromarray(_coloured(bytes_))
    return _square(picture, array, rows, columns)


def level_for(shapes: Sequence[Mapping[str, int]], longest: int = LONGEST_PX) -> int:
    """The finest of the levels whose sides are not longer, else the coarsest."""
    for level, sizes in enumerate(shapes):
        if max(sizes.get("x", 1), sizes.get("y", 1)) <= longest:
            return level
    return len(shapes) - 1


def plane_at(index: int, l0_count: int, count: int) -> int:
    """The plane of a coarser level in which a plane of level 0 lies.

    `l0_count` and `count` are the planes of level 0 and of the level. Levels are halves
    of halves as a rule: 9, 5 and 3 planes are every one, two and four of level 0, the
    last not full. Raises BadArray for an index that level 0 does not have.
    """
    index = _within(index, l0_count, "index")
    if count >= l0_count:
        return index
    halvings = [2**n for n in range(1, l0_count.bit_length() + 1)]
    rounded_up = [one for one in halvings if -(-l0_count // one) == count]
    rounded_down = [one for one in halvings if l0_count // one == count]
    factor = [*rounded_up, *rounded_down, l0_count / count][0]
    return min(int(index / factor), count - 1)


def _within(at: int, size: int, name: str) -> int:
    if not -size <= at < size:
        raise BadArray(f"{name} goes from 0 to {size - 1}: {at} is outside")
    return at % size


def _channels(
    array: xarray.DataArray, wanted: Sequence[str | int] | None
) -> tuple[xarray.DataArray, list[str]]:
    if "c" not in array.dims:
        if wanted not in (None, [0], (0,)):
            raise BadArray("the array has no channels to choose from")
        return array.expand_dims("c"), ["0"]
    names = names_of(array)
    if wanted is None:
        places = list(range(min(len(names), 3)))
    else:
        places = []
        for one in wanted:
            if isinstance(one, str):
                if one not in names:
                    raise BadArray(f"there is no channel {one}.{near(one, names)}")
                places.append(names.index(one))
            else:
                places.append(_within(one, len(names), "a channel"))
    if not places:
        raise BadArray("choose a channel at least")
    places = places[:3]
    return array.isel(c=places), [names[place] for place in places]


def _axes(
    array: xarray.DataArray, plane: str
) -> tuple[str, str, str, tuple[bool, bool]]:
    """The dimensions across the plane, of its rows, its columns; which are flipped."""
    plane = _ALSO.get(plane, plane)
    if plane not in PLANES:
        raise BadArray(f"a plane is ax, cor or sag, not {plane!r}")
    affine = array.attrs.get("affine")
    if affine is None or "z" not in array.dims:
        across = _PLAIN[plane]
        rows, columns = {"z": ("y", "x"), "y": ("z", "x"), "x": ("z", "y")}[across]
        return across, rows, columns, (False, False)
    dims, signs = closest_axes(np.asarray(affine, float))
    across = dims[PLANES[plane]]
    # Rows go down: to the back, else to the feet. Columns go right: to the left of the
    # patient, or to the back.
    row, column = {"ax": (1, 0), "cor": (2, 0), "sag": (2, 1)}[plane]
    return across, dims[row], dims[column], (signs[row] > 0, signs[column] > 0)


def closest_axes(affine: Numbers) -> tuple[tuple[str, str, str], tuple[int, int, int]]:
    """For R, A, S: the array's dimension that runs closest to it, and its direction."""
    directions = affine[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    cosines = np.abs(directions / np.where(lengths == 0, 1, lengths))
    left = {0, 1, 2}
    found: dict[int, int] = {}
    for axis in np.argsort(-cosines.max(axis=1)):
        best = max(left, key=lambda column: cosines[axis, column])
        found[int(axis)] = best
        left.discard(best)
    dims = tuple("xyz"[found[axis]] for axis in range(3))
    signs = tuple(1 if directions[axis, found[axis]] > 0 else -1 for axis in range(3))
    return dims, signs  # type: ignore[return-value]


def _cut(
    array: xarray.DataArray, across: str, at: At, project: str | None
) -> xarray.DataArray:
    if across not in array.dims:
        return array
    if project is not None:
        if project not in PROJECTIONS:
            raise BadArray(
                f"one projects by {', '.join(PROJECTIONS)}.{near(project, PROJECTIONS)}"
            )
        if project == "median":
            array = array.chunk({across: -1})
        reduced: xarray.DataArray = getattr(array, project)(across)
        return reduced
    if at == "center":
        return array.isel({across: array.sizes[across] // 2})
    if isinstance(at, int):
        return array.isel({across: _within(at, array.sizes[across], across)})
    if isinstance(at, str):
        raise BadArray(f"at is 'center', an index or millimetres, not {at!r}")
    if across not in array.coords:
        raise BadArray(f"{across} has no millimetres: give an index as at=")
    return array.sel({across: at}, method="nearest")


def _window(window: Window | Mapping[str, tuple[float, float]], name: str) -> Window:
    if isinstance(window, Mapping):
        return window.get(name, "auto")
    return window


def _windowed(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[np.uint8]:
    numbers = pixels.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return np.zeros(numbers.shape, np.uint8)
    match window:
        case "auto":
            low, high = np.percentile(finite, (1, 99))
            if low == high:
                low, high = finite.min(), finite.max()
        case "full":
            low, high = finite.min(), finite.max()
        case (low, high):
            pass
        case _:
            raise BadArray("a window is 'auto', 'full' or (black, white)")
    if low == high:
        # One value alone: black, unless the window says otherwise.
        return np.asarray(np.where(numbers > high, 255, 0), np.uint8)
    scaled = np.clip((numbers - low) / (high - low), 0, 1) * 255
    return np.asarray(np.nan_to_num(scaled).round(), np.uint8)


def _coloured(channels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if len(channels) == 1:
        return np.asarray(channels[0])
    if len(channels) == 2:
        channels = np.concatenate([channels, np.zeros_like(channels[:1])])
    return np.ascontiguousarray(np.moveaxis(channels, 0, -1))


def _square(
    picture: PIL.Image.Image, array: xarray.DataArray, rows: str, columns: str
) -> PIL.Image.Image:
    """The picture with pixels of equal sides, not longer than `LONGEST_PX`."""
    import PIL.Image

    tall, wide = (_step(array, dim) for dim in (rows, columns))
    width, height = picture.size
    least = min(tall, wide)
    size = max(1, round(width * wide / least)), max(1, round(height * tall / least))
    factor = min(1.0, LONGEST_PX / max(size))
    size = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    if size == picture.size:
        return picture
    # Along an axis that grows it repeats pixels, along one that shrinks it takes means.
    return picture.resize(size, PIL.Image.Resampling.BOX)


def _step(array: xarray.DataArray, dim: str) -> float:
    if dim not in array.coords or array.sizes[dim] < 2:
        return 1.0
    along = array.coords[dim]
    return abs(float(along[1] - along[0])) or 1.0
