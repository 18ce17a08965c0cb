"""The case that has everything in it: point 18 of the protocol's test requirements.

Seven slides of one case, each with the one thing that breaks a client that forgot it.
They are small, so that an application may analyse all of them in a test.
"""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image, ImageDraw

from .slides import Slide, invented_phi, synthetic_slide

CASE_ACCESSION = "ACC/2025 0001"


def case_scenario(accession_number: str = CASE_ACCESSION) -> tuple[Slide, ...]:
    """The slides of the case, the plain one first."""
    made = (
        synthetic_slide(
            "sl-0001",
            width=1300,
            height=970,
            tile=(240, 240),
            specimen={"anatomy": "Lymph node", "description": "Sentinel node"},
            label=label_image("PHI-NAME"),
        ),
        synthetic_slide("sl-rejected", quality="Rejected"),
        synthetic_slide("sl-files-only", streamable=False),
        synthetic_slide("sl-portrait", width=501, height=1207, mpp=0.5),
        # Its id holds what the path of a tile is split at.
        synthetic_slide(
            "sl_0002_z", focal_planes=(("-1", -2.0), ("0", 0.0), ("1", 2.0))
        ),
        synthetic_slide(
            "sl-fluorescence",
            optical_paths=(
                ("DAPI", "DAPI"),
                ("FITC", "FITC"),
                ("TRITC", "TRITC"),
                ("Cy5", "Cy5"),
            ),
            quality=None,
        ),
        synthetic_slide(
            "sl-texts",
            staining="Ki-67/MIB1 (øæå)",
            block="../B 2",
            specimen={"description": "Mamma; Süd/Nord \\ 染色"},
        ),
    )
    return tuple(
        _of_case(slide, number, accession_number) for number, slide in enumerate(made)
    )


def label_image(text: str) -> bytes:
    """A label with a name on it, as JPEG."""
    image = Image.new("RGB", (160, 80), "white")
    ImageDraw.Draw(image).text((8, 30), text, fill="black")
    held = io.BytesIO()
    image.save(held, "JPEG")
    return held.getvalue()


def _of_case(slide: Slide, number: int, accession_number: str) -> Slide:
    phi = invented_phi(slide.slide_id, accession_number)
    phi["seriesInstanceUid"] = f"1.2.826.0.1.3680043.10.999.1.{number + 1}"
    return replace(slide, phi=phi)
