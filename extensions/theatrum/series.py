"""Scans in a notebook: a series as one volume, structures on it, how they agree.

    from theatrum.series import open_series

    scan = open_series("CT/")              # a folder, or "collection/name" of the hub
    mine = scan.structures("mine.dcm")     # an RT Structure Set on these images
    scan.show(mine)
    mine.compare(scan.structures("theirs.dcm"))

Voxels are [z, y, x]; millimetres are LPS, to the patient's left, posterior, superior.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from theatrum.errors import FileMissing, ImageError, Unreadable
from theatrum.hub_images import Catalog, images
from theatrum.image import Image
from theatrum.node import Labels, Volume
from theatrum.session import current_session
from theatrum.structures import (
    Comparison,
    Outlined,
    Roi,
    SeriesGeometry,
    StructureError,
    StructureSet,
    compare,
    mask,
    read,
    series_geometry,
    volume,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from theatrum.slices import SliceViewer

Mask = npt.NDArray[np.bool_]
PLAIN = (255, 255, 0)


@dataclass(frozen=True, eq=False)
class Series:
    """A scan: its voxels, and where they lie in the patient.

    Attributes
    ----------
    name
        For people: the folder's, or the catalogue's. It tells nothing of a patient
        unless the folder does.
    files
        The images, where they are files here; of an image of the catalogue none.
    image_id
        In the catalogue; of a folder none.
    """

    name: str
    volume: Volume = field(repr=False)
    geometry: SeriesGeometry = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    image_id: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.volume.array.shape
        return slices, rows, columns

    def structures(self, source: str | os.PathLike[str] | Dataset) -> Structures:
        """The structures of an RT Structure Set that lies on these images.

        Raises StructureError where it lies on others.
        """
        import pydicom

        if isinstance(source, pydicom.Dataset):
            found = read(source)
        else:
            found = read(_dicom(Path(source)))
        mine = self.geometry.frame_of_reference_uid
        frames = {one for one in found.frame_of_reference_uids if one}
        if mine and frames and mine not in frames:
            raise StructureError(
                "This structure set lies in another frame of reference: it was drawn "
                "on other images."
            )
        return Structures(found, self)

    def labelled(self, labels: Labels | Sequence[Labels]) -> Structures:
        """The labels that a node found, as structures to look at and to compare."""
        listed = [labels] if isinstance(labels, Labels) else list(labels)
        masks = {
            name: one.array == number
            for one in listed
            for number, name in one.names.items()
        }
        for name, area in masks.items():
            if area.shape != self.volume.array.shape:
                raise StructureError(f"{name} is not on the voxels of this scan.")
        rois = tuple(Roi(at, name) for at, name in enumerate(masks, start=1))
        frame = (self.geometry.frame_of_reference_uid,)
        return Structures(StructureSet("labels", rois, (), frame), self, masks)

    def stored_structures(self) -> Structures:
        """The structures that a case of the catalogue came with.

        For teachers; for students where their teacher shared them. Raises NoSuchImage.
        """
        import pydicom

        if not self.image_id:
            raise Unreadable("This scan is no case of the catalogue: name the file.")
        content = Catalog(current_session()).structures(self.image_id)
        return self.structures(pydicom.dcmread(io.BytesIO(content)))

    def add_to_collection(
        self,
        collection: str,
        name: str,
        structures: str | os.PathLike[str] | None = None,
        *,
        shared: bool = False,
    ) -> str:
        """Put a de-identified case into a teaching collection, for its course.

        Parameters
        ----------
        collection
            One that is open to the teachers of a course that you teach.
        name
            Of the case: small letters, digits, hyphens and underscores. Afterwards
            `open_series("collection/name")` opens it.
        structures
            An RT Structure Set on these images, de-identified with them.
        shared
            Whether students get the structures too; else they are the reference that
            only teachers and the course's grader see.

        Returns the image's id. Raises ImageError with what is wrong: among others where
        a file does not say that it was de-identified.
        """
        if not self.files:
            raise Unreadable("Only a scan of your own files can be added.")
        files = [*self.files, *([] if structures is None else [Path(structures)])]
        with tempfile.TemporaryFile() as packed:
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for number, file in enumerate(files, start=1):
                    # A file's own name could be that of a person.
                    archive.write(file, f"{number}.dcm")
            packed.seek(0)
            return Catalog(current_session()).add_case(
                iter(lambda: packed.read(1 << 20), b""),
                collection=collection,
                name=name,
                shared=str(shared).lower(),
            )

    def show(self, *structures: Structures) -> SliceViewer:
        """Slices of three planes to look through, with outlines drawn on them."""
        from theatrum.slices import SliceViewer

        return SliceViewer(self, *structures)

    def __repr__(self) -> str:
        slices, rows, columns = self.shape
        x, y, z = self.volume.spacing_mm
        return (
            f"<Series {self.name}: {self.volume.modality}, {columns} x {rows} x "
            f"{slices} voxels of {x:.3g} x {y:.3g} x {z:.3g} mm>"
        )


@dataclass(frozen=True, eq=False)
class Structures(Mapping[str, Mask]):
    """The structures on a series: a mapping of names to masks, [z, y, x].

    A mask is made from the contours when it is first asked for.
    """

    found: StructureSet = field(repr=False)
    series: Series = field(repr=False)
    _masks: dict[str, Mask] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Mask:
        if name not in self._masks:
            try:
                roi = self.found.roi(name)
            except StructureError as error:
                raise KeyError(str(error)) from error
            self._masks[name] = mask(roi, self.series.geometry)
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(one.name for one in self.found.rois)

    def __len__(self) -> int:
        return len(self.found.rois)

    def contours(self, name: str) -> list[npt.NDArray[np.float64]]:
        """The contours of a structure as they were drawn: (n, 3) LPS millimetres."""
        return [one.points_mm for one in self.found.roi(name).contours]

    def volume_ml(self, name: str) -> float:
        """Of a structure, in millilitres."""
        return float(self[name].sum()) * self.series.volume.voxel_ml

    def outlined(self) -> list[Outlined]:
        """What is drawn of them."""
        return [
            Outlined(one.name, self[one.name], one.colour or PLAIN)
            for one in self.found.rois
        ]

    def compare(
        self,
        reference: Structures,
        pairs: Mapping[str, str] | None = None,
        *,
        tolerance_mm: float = 3.0,
    ) -> Agreement:
        """Measure these structures against others on the same images.

        `pairs` are the reference's names by the names here; without it, those that
        both have.
        """
        chosen = pairs or {name: name for name in self if name in set(reference)}
        if not chosen:
            raise StructureError(
                f"No name is the same. Here: {', '.join(self)}; there: "
                f"{', '.join(reference)}. Say which belong together: "
                "compare(reference, {'mine': 'theirs'})."
            )
        x, y, z = self.series.volume.spacing_mm
        return Agreement(
            {
                name: compare(self[name], reference[other], (z, y, x), tolerance_mm)
                for name, other in chosen.items()
            }
        )

    def __repr__(self) -> str:
        return f"<Structures on {self.series.name}: {', '.join(self)}>"


@dataclass(frozen=True)
class Agreement(Mapping[str, Comparison]):
    """How well structures agree with a reference, by their names."""

    measured: Mapping[str, Comparison]

    def __getitem__(self, name: str) -> Comparison:
        return self.measured[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, one in self.measured.items():
            yield (
                name,
                f"{one.dice:.3f}",
                f"{one.surface_dice:.3f}",
                f"{one.hausdorff_95_mm:.1f}",
                f"{one.volume_ml:.1f}",
                f"{one.reference_ml:.1f}",
            )

    _HEAD = ("structure", "Dice", "surface Dice", "HD95 mm", "ml", "reference ml")

    def __repr__(self) -> str:
        rows = [self._HEAD, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        )

    def _repr_html_(self) -> str:
        import html

        def row(cells: Sequence[str], tag: str) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self._rows())
        return f"<table><tr>{row(self._HEAD, 'th')}</tr>{body}</table>"


def open_series(source: str | os.PathLike[str] | Image) -> Series:
    """Open a scan: a folder with the files of one series, or one of the catalogue.

    A string is a folder if there is one of that name, else `"collection/name"` or an id
    of the catalogue. Raises ImageError.
    """
    if isinstance(source, Image):
        return _from_image(source)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if isinstance(source, str) and not path.exists():
        return _from_image(images[source])
    raise FileMissing(f"There is no folder {path.name} here: name that of the images.")


def _from_folder(folder: Path) -> Series:
    import pydicom

    found: dict[str, list[tuple[Path, Dataset]]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        if "ImagePositionPatient" in header:
            uid = str(header.get("SeriesInstanceUID", ""))
            found.setdefault(uid, []).append((path, header))
    if len(found) != 1:
        raise Unreadable(
            f"{folder.name} holds {len(found)} series of images: name a folder with "
            "the files of one."
        )
    (files,) = found.values()
    geometry = series_geometry([header for _, header in files])
    datasets = [pydicom.dcmread(path) for path, _ in files]
    return Series(
        folder.name, volume(datasets), geometry, tuple(path for path, _ in files)
    )


def _from_image(image: Image) -> Series:
    """Read all slices of an image of the catalogue."""
    scan = image.scan
    if scan is None:
        raise Unreadable(f"{image.name} is no scan: open it with SlideViewer.")
    slices = [image.numbers(z=z)[0] for z in range(scan.slices)]
    array = np.stack(slices)
    geometry = SeriesGeometry(
        (image.width, image.height, scan.slices), np.array(scan.affine_lps), (), ""
    )
    return Series(
        image.name,
        Volume(array, np.array(scan.affine_lps), scan.modality),
        geometry,
        image_id=image.id,
    )


def _dicom(path: Path) -> Any:  # pydicom's reading has no types
    import pydicom

    try:
        return pydicom.dcmread(path)
    except FileNotFoundError as error:
        raise FileMissing(f"There is no file {path.name} here.") from error
    except pydicom.errors.InvalidDicomError as error:
        raise ImageError(
            f"{path.name} is no DICOM file.", title="This file cannot be read"
        ) from error
