"""Structures on scans: contours as masks and back, compared, combined, and as DICOM."""

from theatrum.structures.comparison import Comparison, compare, dice
from theatrum.structures.errors import BadGeometry, BadStructures, StructureError
from theatrum.structures.geometry import (
    SeriesGeometry,
    in_order,
    problems,
    series_geometry,
    volume,
)
from theatrum.structures.operations import OPERATIONS, run
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
    "BadGeometry",
    "BadStructures",
    "Comparison",
    "Contour",
    "Drawn",
    "Roi",
    "SeriesGeometry",
    "StructureError",
    "StructureSet",
    "compare",
    "dice",
    "in_order",
    "mask",
    "mask_of",
    "problems",
    "read",
    "rings_of",
    "run",
    "series_geometry",
    "structure_set",
    "volume",
]
