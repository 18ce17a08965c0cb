"""An image in a notebook: its geometry, its pixels as arrays, its thumbnail.

An `Image` knows where it came from and so can renew its capability, the expiring
address under which a tile service gives its pixels. Arguments are level-0 pixels; the
arrays that come back carry micrometres where the image knows them.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from theatrum.errors import (
    BadRegion,
    Expired,
    ImageError,
    NoSuchImage,
    NotAllowed,
    Replaced,
    Unreachable,
    refusal,
)
from theatrum.local import local_address
from theatrum.session import current_session
from theatrum.view import Level, Scan, View, view_from_json

if TYPE_CHECKING:
    import numpy.typing as npt
    import PIL.Image
    import xarray

    from theatrum.results import AnalysisResult

TIMEOUT_S = 60.0
"""For one answer of a service: a large composed region takes seconds."""


class Source(Protocol):
    """Where an image comes from, and so how a fresh capability is had."""

    def view(self) -> View:
        """Return the image's geometry and fresh addresses, or raise ImageError."""

    def results(self) -> tuple[AnalysisResult, ...]:
        """Return what analyses found on the image, the newest first."""


@dataclass(frozen=True)
class LocalFile:
    """A slide in the user's own folders."""

    path: Path

    def view(self) -> View:
        """Ask the tile service beside the kernel."""
        where = local_address(self.path)
        described = fetch(f"{where.kernel}view.json").json()
        return view_from_json(
            {
                **described,
                "id": self.path.name,
                "name": self.path.stem,
                "version": where.version,
            },
            kernel_url=where.kernel,
            tiles=where.tiles,
            expires=where.expires,
        )

    def results(self) -> tuple[AnalysisResult, ...]:
        """None: only the catalogue keeps results."""
        return ()


class Image:
    """An image that this person may see."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._view = source.view()

    @property
    def id(self) -> str:
        """The catalogue's id; of a local slide its file name."""
        return self._view.id

    @property
    def name(self) -> str:
        """Name for people."""
        return self._view.name

    @property
    def version(self) -> str:
        """Changes whenever the file does."""
        return self._view.version

    @property
    def width(self) -> int:
        """Level-0 pixels."""
        return self._view.width

    @property
    def height(self) -> int:
        """Level-0 pixels."""
        return self._view.height

    @property
    def levels(self) -> tuple[Level, ...]:
        """The ladder, full resolution first."""
        return self._view.levels

    @property
    def mpp_x(self) -> float | None:
        """Micrometres per level-0 pixel to the right; None where unknown."""
        return self._view.mpp_x

    @property
    def mpp_y(self) -> float | None:
        """Micrometres per level-0 pixel down; None where unknown."""
        return self._view.mpp_y

    @property
    def objective(self) -> float | None:
        """Magnification of the scan; None where the file does not say."""
        return self._view.objective

    @property
    def background(self) -> str:
        """Colour of the slide where there is no tissue, as CSS writes it."""
        return self._view.background

    @property
    def tiles(self) -> str:
        """URL template with {z}, {x} and {y}; it works until it expires."""
        return self._view.tiles

    @property
    def results(self) -> tuple[AnalysisResult, ...]:
        """What analyses found on the image, the newest first; asked for each time."""
        return self._source.results()

    def renew(self) -> None:
        """Get a fresh capability; Replaced if the file is another one by now."""
        fresh = self._source.view()
        if fresh.version != self._view.version:
            raise Replaced(
                f"{self.name} is another file now. Run this cell again to see it; "
                "marks made before belong to the old one."
            )
        self._view = fresh

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> xarray.DataArray:
        """Read a rectangle of the slide as an array.

        Parameters
        ----------
        x, y, width, height
            Level-0 pixels, whatever the level.
        level
            Rung of the ladder: 0 (the default) is full resolution, k is 2**k coarser.
        mpp
            Instead of a level: the resolution wished, in micrometres per pixel.

        Returns
        -------
        uint8 with dimensions y, x, c (R, G, B). The coordinates x and y are those of
        the pixels' centres on the slide, in µm, or in level-0 pixels where the image
        does not know its resolution: `attrs["units"]` says which.
        """
        if level is not None and mpp is not None:
            raise BadRegion("Give a level or an mpp, not both.")
        if not (width > 0 and height > 0):
            raise BadRegion("Width and height must be more than 0 level-0 pixels.")
        query: dict[str, float | str] = {
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "format": "npy",
        }
        if mpp is not None:
            query["mpp"] = mpp
        else:
            query["level"] = level or 0
        return self._labelled(self._read("region", query), (x, y, width, height))

    @property
    def scan(self) -> Scan | None:
        """Where its planes lie in a patient; None for what is no scan."""
        return self._view.scan

    def numbers(self, z: int = 0) -> npt.NDArray[Any]:
        """Return the file's own numbers of one plane: (channel, y, x).

        Of CT these are Hounsfield units.
        """
        import numpy as np

        query: dict[str, float | str] = {
            "x": 0,
            "y": 0,
            "width": self.width,
            "height": self.height,
            "numbers": 1,
            "z": z,
        }
        numbers: npt.NDArray[Any] = np.load(
            io.BytesIO(self._read("region", query)), allow_pickle=False
        )
        return numbers

    def thumbnail(self, size: int = 256) -> PIL.Image.Image:
        """Return a small picture, `size` pixels along its longer side."""
        import PIL.Image

        jpeg = io.BytesIO(self._read("thumbnail", {"size": size}))
        with PIL.Image.open(jpeg) as picture:
            return picture.convert("RGB")

    def _read(self, route: str, query: Mapping[str, float | str]) -> bytes:
        """Return a route's bytes, with a fresh capability where the old one ended."""
        if time.time() >= self._view.expires:
            self.renew()
        try:
            return fetch(f"{self._view.kernel_url}{route}", query).content
        except (NotAllowed, Unreachable):
            # Expired by the service's clock, or the service beside the kernel was
            # restarted: one fresh address is worth trying, a second is not.
            self.renew()
        return fetch(f"{self._view.kernel_url}{route}", query).content

    def _labelled(
        self, npy: bytes, rectangle: tuple[float, float, float, float]
    ) -> xarray.DataArray:
        import numpy as np
        import xarray

        pixels = np.load(io.BytesIO(npy), allow_pickle=False)
        x, y, width, height = rectangle
        rows, columns, _ = pixels.shape
        l0_x = x + (np.arange(columns) + 0.5) * (width / columns)
        l0_y = y + (np.arange(rows) + 0.5) * (height / rows)
        units = "px"
        if self.mpp_x is not None and self.mpp_y is not None:
            l0_x, l0_y, units = l0_x * self.mpp_x, l0_y * self.mpp_y, "µm"
        return xarray.DataArray(
            pixels,
            dims=("y", "x", "c"),
            coords={
                "y": ("y", l0_y, {"units": units}),
                "x": ("x", l0_x, {"units": units}),
                "c": ["R", "G", "B"],
            },
            name=self.name,
            attrs={
                "units": units,
                "image": self.id,
                "version": self.version,
                "l0_region": [x, y, width, height],
            },
        )

    def __repr__(self) -> str:
        mpp = f"{self.mpp_x:g} µm per pixel" if self.mpp_x else "resolution unknown"
        return f"<Image {self.name}: {self.width} x {self.height} px, {mpp}>"


def open_image(image: str | os.PathLike[str]) -> Image:
    """Open a slide by its path, or an image of the catalogue by its id or name.

    A path is always a file; a string is a file if there is one of that name, else
    `"collection/name"` or an id of the catalogue.
    """
    path = Path(image)
    if not isinstance(image, str) or path.is_file():
        return Image(LocalFile(path.absolute()))
    if current_session().catalog_url is not None:
        from theatrum.hub_images import images

        return images[image]
    raise NoSuchImage(
        f"There is no file {image} in this notebook's folder, and no catalogue to "
        "look in: give the path of a slide on this machine.",
        title="This image was not found",
    )


def fetch(
    url: str,
    query: Mapping[str, float | str] | None = None,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    content: Iterable[bytes] | None = None,
) -> httpx.Response:
    """Ask a service, and raise its refusal as an ImageError.

    Never through a proxy of the environment (`trust_env`), and never with the
    address in an error's text: it is a capability.
    """
    try:
        with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
            answer = client.request(
                method, url, params=query, headers=headers, content=content
            )
    except httpx.HTTPError as error:
        raise Unreachable(
            f"There was no answer ({type(error).__name__}). Try again; if it stays "
            "so, tell whoever runs this server."
        ) from None
    if answer.is_success:
        return answer
    raise _refused(answer)


def _refused(answer: httpx.Response) -> ImageError:
    problem: Any = None  # whatever JSON a service or a proxy before it answers
    if "json" in answer.headers.get("content-type", ""):
        with contextlib.suppress(ValueError):  # cut off: the status says enough
            problem = answer.json()
    error = refusal(answer.status_code, problem if isinstance(problem, dict) else {})
    if answer.status_code == httpx.codes.FORBIDDEN and "expired" in error.title.lower():
        return Expired(error.detail, title=error.title)
    return error
