"""The readers for DICOM whole slides, by pydicom's headers and own frame tables.

A slide is a series: one matrix per level, label, overview and thumbnail
(`dicom_matrix`). Colour slides are served as RGB, JPEG frames undecoded
(`DicomReader`). Monochrome ones, such as fluorescence with one optical path per dye,
are images of planes (`DicomPlanes`): optical paths are channels, focal planes are z.
A colour slide of several focal planes shows the middle one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

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
    default_colour,
)
from tile_server.readers.protocol import Level, SlideFacts
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


class _Reader:
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

    def associated_image(self, name: str) -> Pixels:
        return self._series.associated_image(name)

    def close(self) -> None:
        self._series.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class DicomReader(_Reader):
    """A colour slide; see `protocol.Reader`."""

    def __init__(self, series: _Series) -> None:
        super().__init__(series, WHITE)
        self._depths = [len(matrix.depths) // 2 for matrix in series.matrices]

    def place(self, level: int, t_x: int, t_y: int) -> Place | None:
        if not self.levels[level].encoded:
            return None
        matrix = self._series.matrices[level]
        return matrix.place(t_x, t_y, path=0, depth=self._depths[level])

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:
        if not self.levels[level].encoded:
            return None
        matrix = self._series.matrices[level]
        return matrix.encoded(t_x, t_y, path=0, depth=self._depths[level])

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        pixels = plain(*size, self._facts.background)
        matrix = self._series.matrices[level]
        matrix.read(l_x, l_y, pixels, path=0, depth=self._depths[level])
        return pixels


class DicomPlanes(_Reader):
    """A monochrome slide of one or more optical paths; see `planes.PlaneReader`."""

    def __init__(self, series: _Series) -> None:
        super().__init__(series, BLACK)
        stored = series.full.bits_stored
        window = (0.0, float(2**stored - 1)) if stored <= 8 else None
        count = len(series.paths)
        channels = tuple(
            Channel(path.name, path.colour or default_colour(number, count), window)
            for number, path in enumerate(series.paths)
        )
        depths = series.matrices[0].depths
        step = None
        if len(depths) > 1 and series.full.places is not None:
            step = depths[1] - depths[0]
        self._planes = PlaneFacts(
            channels=channels,
            depths=max(len(depths), 1),
            times=1,
            dtype="uint8" if series.full.bits == 8 else "uint16",
            z_step_um=step,
        )
        identifiers = [path.identifier for path in series.paths]
        # The number of a channel within each level's own table of optical paths.
        self._numbers = [
            [_find(matrix.identifiers, one) for one in identifiers]
            for matrix in series.matrices
        ]

    @property
    def planes(self) -> PlaneFacts:
        return self._planes

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        matrix = self._series.matrices[level]
        numbers = np.zeros((size[1], size[0]), self._planes.number_type)
        path = self._numbers[level][plane.channel]
        if path is not None and plane.z < len(matrix.depths):
            matrix.read(l_x, l_y, numbers, path=path, depth=plane.z)
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
