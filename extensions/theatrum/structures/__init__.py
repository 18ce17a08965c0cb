"""Structures on scans: contours as masks and back, compared, combined, and as DICOM."""

from theatrum.structures.comparison import Comparison, compare, dice
from theatrum.structures.errors import BadGeometry, BadStructures, StructureError
from theatrum.structures.frames import frame_number, frames, is_multiframe
from theatrum.structures.geometry import (
    SeriesGeometry,
    in_order,
    problems,
    series_geometry,
    volume,
)
from theatrum.structures.operations import OPERATIONS, run
from theatrum.structures.pictures import (
    PLANES,
    Outlined,
    centre_of,
    draw,
    picture,
    png,
    slice_count,
    window_of,
)
from theatrum.structures.rings import mask_of, rings_of
from theatrum.structures.structure_set import (
    Contour,
    Drawn,
    Roi,
    StructureSet,
    mask,
    read,
    structure_set,
)

__all__ = [
    "OPERATIONS",
    "PLANES",
    "BadGeometry",
    "BadStructures",
    "Comparison",
    "Contour",
    "Drawn",
    "Outlined",
    "Roi",
    "SeriesGeometry",
    "StructureError",
    "StructureSet",
    "centre_of",
    "compare",
    "dice",
    "draw",
    "frame_number",
    "frames",
    "in_order",
    "is_multiframe",
    "mask",
    "mask_of",
    "picture",
    "png",
    "problems",
    "read",
    "rings_of",
    "run",
    "series_geometry",
    "slice_count",
    "structure_set",
    "volume",
    "window_of",
]
