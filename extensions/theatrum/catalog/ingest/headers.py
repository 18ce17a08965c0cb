"""Which series a DICOM file belongs to, and whether it holds an image at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from theatrum.catalog.formats import FormatError
from theatrum.catalog.formats.dicom import read_header


@dataclass(frozen=True)
class Identified:
    """What groups a file with others; `refusal` where it is no image."""

    series: str = ""
    whole_slide: bool = False
    refusal: str = ""


def identify(paths: Sequence[Path]) -> list[Identified]:
    """Of each DICOM file its series; decodes nothing."""
    found = []
    for path in paths:
        try:
            header = read_header(path)
        except FormatError as error:
            found.append(Identified(refusal=str(error)))
        else:
            found.append(Identified(header.series, header.is_whole_slide))
    return found
