"""Every image format that is taken in, behind one protocol: sniff, open, lazy scenes.

from theatrum.catalog.formats import open_scenes, sniff

for scene in open_scenes([Path("brain.nii.gz")]):
    scene.array          # xarray over dask: nothing is read yet
    scene.orientation    # "LAS"
"""

from theatrum.catalog.formats.choose import open_scenes, sniff
from theatrum.catalog.formats.errors import (
    Damaged,
    FileChanged,
    FormatError,
    NotAnImage,
    NoVolume,
)
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene

__all__ = [
    "Acquisition",
    "Channel",
    "Damaged",
    "FileChanged",
    "FormatError",
    "NoVolume",
    "NotAnImage",
    "Scene",
    "open_scenes",
    "sniff",
]
