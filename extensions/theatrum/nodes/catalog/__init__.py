"""The catalogue's first nodes: pure functions on labelled arrays, one idea a module.

    from theatrum.nodes.catalog import project
    project(image.array, how="max", along="z")

Each is loaded when it is first asked for. `NODES` has the names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.node import Node

_MODULES = {
    "orientation": "orient resample crop pad pick_time",
    "intensity": "rescale_slope window clip_percentile zscore minmax",
    "bias": "n4 nyul nyul_standard",
    "masks": "brain_mask threshold label clusters regionprops",
    "slicing": "slices",
    "quality": "normalise quantise slice_quality",
    "rendering": "jpg thumbnail",
    "projections": "project",
    "filters": "gauss median prewitt sobel laplace unsharp tophat",
    "channels": "map_channels merge_channels split_channels unmix flatfield",
    "restoration": "deconvolve",
    "lines": "straighten_line profile length",
    "measures": "colocalise histogram",
    "slides": "tile_slide tissue_mask stain_normalise",
    "registration": "register_affine",
    "exports": "to_nifti to_bids to_ome_zarr to_ome_tiff",
    "segmentations": "to_dicom_seg",
    "reports": "profile_report",
    "spreadsheet": "to_excel",
    "programs": "run_notebook run_container run_bids_app",
}
_HOME = {
    name: f"theatrum.nodes.catalog.{module}"
    for module, names in _MODULES.items()
    for name in names.split()
}
NODES = tuple(sorted(_HOME))


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*NODES, "NODES", "all_nodes"])


def all_nodes() -> dict[str, Node[..., Any]]:
    """Return every node of the catalogue by its name; loads all of their modules."""
    return {name: __getattr__(name) for name in NODES}
