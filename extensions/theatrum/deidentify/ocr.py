"""Text in pixels, read by Tesseract where it is installed: an optional extra.

`pytesseract` and the program `tesseract` are asked for here and nowhere else. Only
images whose profile says `text_detection: ocr` are looked at.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
from typing import Final

import numpy as np

from theatrum.deidentify.errors import Held

_LEAST_LETTERS: Final = 3
_LEAST_CONFIDENCE: Final = 60.0


def is_available() -> bool:
    """Whether text in pixels can be looked for on this machine."""
    found = importlib.util.find_spec("pytesseract")
    return found is not None and shutil.which("tesseract") is not None


def hold_if_text(content: bytes) -> None:
    """Hold a DICOM file in whose first, middle or last frame a word can be read.

    Raises
    ------
    Held
        `burned_in`; also where the pixels cannot be decoded, since then nobody looked.
    """
    import pytesseract  # type: ignore[import-not-found,unused-ignore]
    from pydicom import dcmread

    try:
        image = dcmread(io.BytesIO(content))
        pixels = image.pixel_array
    except Exception as err:  # decoders raise whatever their libraries do
        raise Held(
            "burned_in", "The pixels cannot be decoded to look for text."
        ) from err
    count = int(image.get("NumberOfFrames", 1) or 1)
    frames = pixels if count > 1 else pixels[None]
    for at in sorted({0, count // 2, count - 1}):
        frame = frames[at].astype(float)
        low, high = float(frame.min()), float(frame.max())
        grey = np.uint8((frame - low) / max(high - low, 1.0) * 255.0)
        found = pytesseract.image_to_data(grey, output_type=pytesseract.Output.DICT)
        for word, confidence in zip(found["text"], found["conf"], strict=True):
            letters = sum(character.isalnum() for character in word)
            if letters >= _LEAST_LETTERS and float(confidence) >= _LEAST_CONFIDENCE:
                raise Held("burned_in", "Text can be read in the pixels; look at it.")
