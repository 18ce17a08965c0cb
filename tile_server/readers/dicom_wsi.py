"""The readers for DICOM whole slides, by pydicom's headers and own frame tables.

A slide is a series: one matrix per level, label, overview and thumbnail
(`dicom_matrix`). Colour slides are served as RGB, JPEG frames undecoded
(`DicomReader`). Monochrome ones, such as fluorescence with one optical path per dye,
are images of planes (`DicomPlanes`): optical paths are channels, focal planes are z.
A colour slide of several optical paths or focal planes shows the first path's middle
plane; a style reaches the others (`ColourPlanes`), each path as three channels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tile_server import icc
from tile_server.errors import UnreadableSlide
from tile_server.pixels import Colour, Pixels, plain
from tile_server.readers.dicom_files import (
    CODECS,
    Instance,
    OpticalPath,
    read_instance,
    slide_files,
)
from tile_server.readers.dicom_matrix import Matrix
from tile_server.readers.planes import (
    BLACK,
    WHITE,
    Channel,
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    default_colour,
    rgb_channels,
)
from tile_server.readers.protocol import Closes, Level, SlideFacts
from tile_server.reading import Place

log = logging.getLogger(__name__)

_ASSOCIATED = {"LABEL": "label", "OVERVIEW": "macro", "THUMBNAIL": "thumbnail"}
_MOST_ASSOCIATED_PIXELS = 2**26
# Where a frame is no square of a usual size, the grid is made.
_GRID = 512
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048


class _Series:
    """The matrices and facts that both readers share; owns the open files."""

    def __init__(self, path: Path, instances: Sequence[Instance]) -> None:
        self.path = path
        self.matrices: list[Matrix] = []
        self._associated: dict[str, Matrix] = {}
        volumes = _levels(instances)
        if not volumes:
            raise UnreadableSlide(
                f"{path.name} belongs to a DICOM series without a slide's picture."
            )
        try:
            for group in volumes:
                self.matrices.append(Matrix(group))
            self._open_associated(instances)
        except BaseException:
            self.close()
            raise
        self.full = volumes[0][0]
        self.paths = _paths(volumes)
        self.levels = tuple(_level(matrix) for matrix in self.matrices)
        # The number of a path within each level's own table of optical paths.
        self.numbers = [
            [_find(matrix.identifiers, one.identifier) for one in self.paths]
            for matrix in self.matrices
        ]

    @property
    def depths(self) -> tuple[float, ...]:
        """The focal planes of level 0, in micrometres or counted."""
        return self.matrices[0].depths

    def depth(self, level: int, z: int) -> int:
        """The focal plane of a level that shows `z`; a coarse one may have fewer."""
        own = self.matrices[level].depths
        if len(own) == len(self.depths):
            return z
        return min(range(len(own)), key=lambda one: abs(own[one] - self.depths[z]))

    def plane_facts(self, channels: tuple[Channel, ...]) -> PlaneFacts:
        return PlaneFacts(
            channels=channels,
            depths=len(self.depths),
            times=1,
            dtype="uint8" if self.full.bits == 8 else "uint16",
            z_step_um=self._step_um(),
        )

    def _step_um(self) -> float | None:
        if len(self.depths) < 2 or self.full.depth_step_um is None:
            return None
        return self.depths[1] - self.depths[0]

    def facts(self, background: Colour) -> SlideFacts:
        full = self.full
        # What is made of grey planes has colours of ours, which no profile describes.
        colour = full.samples == 3
        spacing = full.spacing_mm
        optics = [path.objective for path in self.paths if path.objective]
        return SlideFacts(
            format=f"DICOM, {CODECS[full.syntax]}",
            mpp_x=spacing[0] * 1000 if spacing else None,
            mpp_y=spacing[1] * 1000 if spacing else None,
            objective=optics[0] if optics else None,
            background=background,
            associated=tuple(sorted(self._associated)),
            series=full.series,
            profile=icc.profile_of(self.paths[0].profile) if colour else None,
        )

    @property
    def properties(self) -> Mapping[str, str]:
        """What openslide would say of the series, without anything of a patient."""
        return {"dicom.SeriesInstanceUID": self.full.series}

    @property
    def named(self) -> tuple[tuple[str, Matrix], ...]:
        """Every matrix with the name of its associated image, "" for the levels."""
        levels = [("", matrix) for matrix in self.matrices]
        return (*levels, *sorted(self._associated.items()))

    def associated_image(self, name: str) -> Pixels:
        matrix = self._associated[name]
        pixels = plain(matrix.width, matrix.height, WHITE)
        if matrix.samples == 3:
            matrix.read(0, 0, pixels, path=0, depth=0)
        else:
            grey = np.zeros(pixels.shape[:2], np.uint8)
            matrix.read(0, 0, grey, path=0, depth=0)
            pixels[:] = grey[:, :, None]
        return pixels

    def close(self) -> None:
        for matrix in (*self.matrices, *self._associated.values()):
            matrix.close()

    def _open_associated(self, instances: Sequence[Instance]) -> None:
        for one in instances:
            name = _ASSOCIATED.get(one.kind)
            if name is None or name in self._associated:
                continue
            if one.width * one.height > _MOST_ASSOCIATED_PIXELS or one.bits != 8:
                log.info("an associated image is left out: it is too large")
                continue
            try:
                self._associated[name] = Matrix([one])
            except UnreadableSlide as error:
                log.info("an associated image is left out: %s", type(error).__name__)


class _Reader(Closes):
    """What both readers have in common."""

    def __init__(self, series: _Series, background: Colour) -> None:
        self._series = series
        self._facts = series.facts(background)

    @property
    def path(self) -> Path:
        return self._series.path

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._series.levels

    @property
    def facts(self) -> SlideFacts:
        return self._facts

    @property
    def properties(self) -> Mapping[str, str]:
        return self._series.properties

    @property
    def matrices(self) -> tuple[tuple[str, Matrix], ...]:
        """Every matrix of the series with the name of its associated image.

        That is "" for levels, which come first, full resolution before all.
        """
        return self._series.named

    def associated_image(self, name: str) -> Pixels:
        return self._series.associated_image(name)

    def close(self) -> None:
        self._series.close()


class DicomReader(_Reader):
    """A colour slide; see `protocol.Reader`."""

    def __init__(self, series: _Series) -> None:
        super().__init__(series, WHITE)
        middle = len(series.depths) // 2
        self._spots = [
            (series.numbers[level][0] or 0, series.depth(level, middle))
            for level in range(len(series.levels))
        ]
        self._planes = ColourPlanes(self, series)

    @property
    def colour_planes(self) -> PlaneReader:
        """All optical paths and focal planes; open as long as this reader is."""
        return self._planes

    def place(self, level: int, t_x: int, t_y: int) -> Place | None:
        if not self.levels[level].encoded:
            return None
        path, depth = self._spots[level]
        return self._series.matrices[level].place(t_x, t_y, path=path, depth=depth)

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:
        if not self.levels[level].encoded:
            return None
        path, depth = self._spots[level]
        return self._series.matrices[level].encoded(t_x, t_y, path=path, depth=depth)

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        pixels = plain(*size, self._facts.background)
        path, depth = self._spots[level]
        self._series.matrices[level].read(l_x, l_y, pixels, path=path, depth=depth)
        return pixels


class ColourPlanes(_Reader):
    """The pictures of a colour slide as planes; see `planes.PlaneReader`.

    Optical path p is the channels 3p to 3p + 2. The slide stays its reader's.
    """

    def __init__(self, slide: DicomReader, series: _Series) -> None:
        self._series = series
        self._facts = slide.facts
        many = len(series.paths) > 1
        self.planes = series.plane_facts(
            tuple(
                replace(
                    channel,
                    name=f"{path.name} {channel.name}" if many else channel.name,
                    shown=number == 0,
                )
                for number, path in enumerate(series.paths)
                for channel in rgb_channels()
            )
        )

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        number, sample = divmod(plane.channel, 3)
        path = self._series.numbers[level][number]
        pixels = plain(*size, self._facts.background)
        if path is not None:
            depth = self._series.depth(level, plane.z)
            matrix = self._series.matrices[level]
            matrix.read(l_x, l_y, pixels, path=path, depth=depth)
        return np.ascontiguousarray(pixels[:, :, sample])

    def close(self) -> None:
        """Nothing of its own is open."""


class DicomPlanes(_Reader):
    """A monochrome slide of one or more optical paths; see `planes.PlaneReader`."""

    def __init__(self, series: _Series) -> None:
        super().__init__(series, BLACK)
        stored = series.full.bits_stored
        window = (0.0, float(2**stored - 1)) if stored <= 8 else None
        count = len(series.paths)
        self.planes = series.plane_facts(
            tuple(
                Channel(path.name, path.colour or default_colour(number, count), window)
                for number, path in enumerate(series.paths)
            )
        )

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        numbers = np.zeros((size[1], size[0]), self.planes.number_type)
        path = self._series.numbers[level][plane.channel]
        if path is not None:
            depth = self._series.depth(level, plane.z)
            self._series.matrices[level].read(l_x, l_y, numbers, path=path, depth=depth)
        return numbers


def open_dicom(path: Path) -> DicomReader | DicomPlanes | None:
    """The slide that `path` (a file or a folder) is part of; None if it is none.

    Raises UnreadableSlide with the name of the file that cannot be read.
    """
    files = slide_files(path)
    if not files:
        return None
    found = [one for file in files if (one := read_instance(file)) is not None]
    unique = {one.uid: one for one in found}
    series = _Series(path, list(unique.values()))
    samples = {matrix.samples for matrix in series.matrices}
    bits = {matrix.bits for matrix in series.matrices}
    if len(samples) > 1 or len(bits) > 1:
        series.close()
        raise UnreadableSlide(f"{path.name} mixes levels of colour and of grey.")
    return DicomReader(series) if samples == {3} else DicomPlanes(series)


def _levels(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The instances of each level, full resolution first."""
    groups: dict[tuple[int, int], list[Instance]] = {}
    for one in instances:
        if one.kind == "VOLUME":
            groups.setdefault((one.width, one.height), []).append(one)
    return [groups[size] for size in sorted(groups, reverse=True)]


def _paths(volumes: Sequence[Sequence[Instance]]) -> list[OpticalPath]:
    found: dict[str, OpticalPath] = {}
    for group in volumes:
        for one in group:
            for path in one.optical_paths:
                found.setdefault(path.identifier, path)
    return list(found.values())


def _level(matrix: Matrix) -> Level:
    across, down = matrix.tile_width, matrix.tile_height
    usual = across == down and _SMALLEST_TILE <= across <= _LARGEST_TILE
    if not usual:
        across = down = _GRID
    encoded = matrix.samples == 3 and matrix.passes
    return Level(matrix.width, matrix.height, across, down, encoded=encoded)


def _find(identifiers: Sequence[str], wanted: str) -> int | None:
    return identifiers.index(wanted) if wanted in identifiers else None
