"""A Sectra pathology server for tests: strict, scriptable, on a real socket.

Both directions of the image analysis API: `PathologyServer` answers an application's
callbacks, `Viewer` invokes the application as a user, an administrator or a scanner
would. Nothing in here knows the application under test. The README tells how to use it.
"""

from __future__ import annotations

from .clock import Clock
from .deepzoom import Box, Pyramid
from .faults import (
    Delay,
    DropAfter,
    FaultPlan,
    Passes,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
)
from .files import FilePart, SlideFiles, dicom_like, single
from .pictures import ArrayPicture, FilePicture, Pattern, open_picture
from .record import Exchange, Record
from .scenario import CASE_ACCESSION, case_scenario
from .server import BASE_PATH, PASSWORD, USER, PathologyServer
from .slides import Slide, slide_of_file, synthetic_slide
from .viewer import Answer, ProtocolViolation, Viewer

__all__ = [
    "BASE_PATH",
    "CASE_ACCESSION",
    "PASSWORD",
    "USER",
    "Answer",
    "ArrayPicture",
    "Box",
    "Clock",
    "Delay",
    "DropAfter",
    "Exchange",
    "FaultPlan",
    "FilePart",
    "FilePicture",
    "Passes",
    "PathologyServer",
    "Pattern",
    "ProtocolViolation",
    "Pyramid",
    "Record",
    "Reset",
    "Slide",
    "SlideFiles",
    "Stall",
    "Status",
    "Truncate",
    "Viewer",
    "WrongLength",
    "case_scenario",
    "dicom_like",
    "open_picture",
    "single",
    "slide_of_file",
    "synthetic_slide",
]
