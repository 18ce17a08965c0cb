"""Compressed pixels made native, where a region of them has to be cleared.

pydicom decodes RLE by itself, and JPEG, JPEG 2000 and JPEG-LS where Pillow or another
of its plug-ins is installed. Each is asked for here and nowhere else.
"""

from __future__ import annotations

import io
import struct

from pydicom import dcmread

from theatrum.deidentify import part10
from theatrum.deidentify.elements import PIXEL_DATA, Element
from theatrum.deidentify.part10 import DataSet


def native(data_set: DataSet) -> list[Element] | None:
    """The elements that describe the decoded pixels; None where no decoder has them.

    Colour comes out as RGB, pixel by pixel.
    """
    content = b"".join(part10.write(data_set, "1.2", "1.2"))
    try:
        image = dcmread(io.BytesIO(content), force=True)
        pixels = image.pixel_array
    except Exception:  # decoders raise whatever their libraries do
        return None
    colour = pixels.ndim >= 3 and image.SamplesPerPixel == 3
    elements = [Element(PIXEL_DATA, "OW" if pixels.itemsize > 1 else "OB", b"")]
    elements[0].value = pixels.tobytes()
    if colour:
        elements.append(Element(0x00280004, "CS", b"RGB"))
        elements.append(Element(0x00280006, "US", struct.pack("<H", 0)))
    return elements
