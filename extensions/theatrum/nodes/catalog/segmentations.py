"""Masks as DICOM segmentations (PS3.3 A.51) on the images they were drawn on."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import (
    Array,
    BadInputs,
    BadValue,
    Context,
    Dims,
    DType,
    File,
    Placed,
    node,
)
from theatrum.nodes.catalog.grid import affine_needed

Values = npt.NDArray[Any]  # of any kind of number


@node(version="1.0.0", kind="export", pure=False)
def to_dicom_seg(
    labels: Annotated[Array, Dims("z y x"), Placed(), DType("whole")],
    source: File,
    *,
    names: tuple[str, ...] = (),
    series_description: Annotated[str, Field(max_length=64)] = "Segmentation",
    context: Context | None = None,
) -> File:
    """Write labels as a DICOM segmentation of the series that they lie on.

    Not pure: each one gets UIDs of its own.

    Parameters
    ----------
    source
        The folder of the DICOM images, one file a slice, or one file of many frames.
    names
        Of the labels 1, 2, ...; made up where left out.
    """
    import highdicom
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    images = _sorted(source)
    values = _on_slices(labels, images)
    count = int(values.max(initial=0))
    if count == 0:
        raise BadValue("These labels are empty: there is nothing to write.")
    said = [*names, *(f"Label {at + 1}" for at in range(len(names), count))]
    maker = highdicom.AlgorithmIdentificationSequence(
        name="theatrum",
        version="1.0.0",
        family=codes.cid7162.ArtificialIntelligence,
    )
    segments = [
        SegmentDescription(
            segment_number=at + 1,
            segment_label=said[at][:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=maker,
        )
        for at in range(count)
    ]
    # One bit for each label, so that any viewer of segmentations can show it.
    stack = np.stack([values == at + 1 for at in range(count)], axis=-1)
    made = Segmentation(
        source_images=images,
        pixel_array=stack.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Theatrum",
        manufacturer_model_name="catalogue",
        software_versions="1.0.0",
        device_serial_number="0",
        series_description=series_description,
    )
    path = (context or Context()).path("segmentation.dcm")
    made.save_as(path)
    return File(path, "application/dicom", "export", series_description)


def _sorted(source: File) -> list[Any]:
    """Return the series' datasets, lowest first along their normal."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    files = sorted(source.path.rglob("*")) if source.path.is_dir() else [source.path]
    images = []
    for file in files:
        if not file.is_file():
            continue
        try:
            dataset = pydicom.dcmread(file)
        except InvalidDicomError:
            continue  # a folder of images may hold a note beside them
        if "PixelData" in dataset and "ImagePositionPatient" in dataset:
            images.append(dataset)
    if not images:
        raise BadInputs("There are no DICOM slices in the source given.")
    if len({one.SeriesInstanceUID for one in images}) > 1:
        raise BadInputs("The source holds more than one series: give one.")
    normal = _normal(images[0])
    return sorted(
        images, key=lambda one: float(np.dot(one.ImagePositionPatient, normal))
    )


def _normal(image: Any) -> Values:
    row, column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.cross(row, column)


def _on_slices(labels: Any, images: list[Any]) -> Values:
    """Return the labels' values on the images' own rows, columns and slices."""
    first = images[0]
    row, column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    down, right = (float(one) for one in first.PixelSpacing)
    affine = affine_needed(labels)
    inverse = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # from LPS
    out = np.zeros((len(images), first.Rows, first.Columns), np.int32)
    values = labels.values
    j, i = np.meshgrid(np.arange(first.Rows), np.arange(first.Columns), indexing="ij")
    for at, image in enumerate(images):
        origin = np.array(image.ImagePositionPatient, dtype=float)
        points = (
            origin
            + i[..., None] * (row * right)  # PS3.3 C.7.6.2.1.1
            + j[..., None] * (column * down)
        )
        voxels = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        x, y, z = voxels[..., 0], voxels[..., 1], voxels[..., 2]
        inside = (
            (x >= 0)
            & (y >= 0)
            & (z >= 0)
            & (x < values.shape[2])
            & (y < values.shape[1])
            & (z < values.shape[0])
        )
        out[at][inside] = values[z[inside], y[inside], x[inside]]
    return out
