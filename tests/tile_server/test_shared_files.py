"""Every real file, good and bad, through the service on a socket: served or refused.

The table is whole: a file that is in the folders and not in it fails a test.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tile_server.conftest import Server, decoded

FOLDERS = ("wsi", "multichannel", "malformed")
NO_SLIDE = "is not a slide in a format that can be read here"
# A part of the format's name for a file that is served, else the reason.
SERVED = {
    "wsi/CMU-1-Small-Region.svs": "aperio, JPEG",
    "wsi/TCGA-CR-7395-01A-01-TS1.svs": "aperio, JPEG 2000",
    "wsi/camelyon_level.dcm": "DICOM, JPEG",
    "wsi/cmu_pyramid.tiff": "generic-tiff, JPEG",
    "wsi/dicom_BPAEC": "DICOM, JPEG",
    **dict.fromkeys(
        ("wsi/dicom_BPAEC/1_Map", "wsi/dicom_BPAEC/2", "wsi/dicom_BPAEC/5_0"),
        "DICOM, JPEG",
    ),
    **{f"wsi/dicom_BPAEC/{number}_0": "DICOM, JPEG" for number in range(6, 13)},
    "wsi/dicom_cmu": "DICOM, JPEG",
    "wsi/dicom_cmu/label_387x463.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/overview_1280x431.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/thumbnail_187x140.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/volume_187x140.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/volume_375x281.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/volume_1500x1125.dcm": "DICOM, JPEG",
    "wsi/dicom_cmu/volume_6000x4500.dcm": "DICOM, JPEG",
    "wsi/hamamatsu_DAPI.ndpi": "hamamatsu",
    "wsi/synthetic_marked_6000x4500.svs": "aperio, JPEG",
    "wsi/yb10kx5k.zstd.tiff": "generic-tiff, Zstandard",
    "multichannel/multi-channel.ome.tif": "OME-TIFF",
    "multichannel/small_vectra.qptiff": "QPTIFF",
    "multichannel/vectra.ome.zarr.zip": "OME-Zarr 0.4",
    "multichannel/vectra_pyramid.ome.tiff": "OME-TIFF",
    # Named like something worse than they are, or damaged in part only.
    "malformed/damaged_tiles.svs": "aperio, JPEG",
    "malformed/png_named.dcm": "PNG",
    **{
        f"malformed/ct_missing_slice/IM-0001-000{number}.dcm": "DICOM CT"
        for number in (1, 2, 3, 5)
    },
}
REFUSED = {
    "wsi/dicom_BPAEC/readme.txt": NO_SLIDE,
    "malformed/ct_missing_slice": "lacks an image",
    "malformed/empty.dcm": "is empty",
    "malformed/no_preamble.dcm": "is DICOM or ACR-NEMA data without the preamble",
    "malformed/not_a_tiff.svs": NO_SLIDE,
    "malformed/rtstruct_missing_reference.dcm": "it is a DICOM file without an image",
    "malformed/text_named.dcm": NO_SLIDE,
    "malformed/truncated.nii.gz": "is cut off or damaged",
    "malformed/truncated.svs": "or it is cut off",
    "malformed/truncated_pixels.dcm": "it is cut off within its pixel data",
    "malformed/unreadable.svs": "has no pixels to show",
}
# Some of its tiles are overwritten; those are refused one by one.
HOLES = {"malformed/damaged_tiles.svs"}


def test_the_table_names_every_file_of_the_shared_data(shared_data: Path) -> None:
    there = {
        path.relative_to(shared_data).as_posix()
        for folder in FOLDERS
        for path in (shared_data / folder).rglob("*")
    }
    assert there == {*SERVED, *REFUSED}


@pytest.mark.parametrize("name", SERVED)
def test_every_good_file_is_served_at_every_level(
    server: Server, shared_data: Path, name: str
) -> None:
    token = server.seal(shared_data / name)
    answer = server.get(token, "view.json")
    assert answer.status_code == 200, answer.text
    view = answer.json()
    assert view["format"].startswith(SERVED[name])
    background = tuple(bytes.fromhex(view["background"].removeprefix("#")))
    shown = False
    for level in view["levels"]:
        for x, y in corners(level):
            tile = server.get(token, f"{level['z']}/{x}/{y}")
            if name in HOLES and tile.status_code == 422:
                assert "damaged" in tile.json()["detail"]
                continue
            assert tile.status_code == 200, tile.text
            pixels = decoded(tile.content)
            assert pixels.shape == (level["tile_height"], level["tile_width"], 3)
            shown = shown or bool(np.any(pixels != background))
    assert shown
    thumbnail = server.get(token, "thumbnail?size=64")
    assert thumbnail.status_code == 200
    assert max(decoded(thumbnail.content).shape) == min(
        64, max(view["width"], view["height"])
    )
    region = server.get(token, "region?x=0&y=0&width=5&height=4")
    assert np.load(io.BytesIO(region.content)).shape[:2] == (4, 5)


@pytest.mark.parametrize("name", REFUSED)
def test_every_bad_file_is_refused_with_its_name_and_reason(
    server: Server, shared_data: Path, name: str
) -> None:
    token = server.seal(shared_data / name)
    for rest in ("view.json", "0/0/0", "thumbnail"):
        answer = server.get(token, rest)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        detail = json.loads(answer.content)["detail"]
        assert detail.startswith(f"{Path(name).name} ")
        assert REFUSED[name] in detail
        assert str(shared_data) not in answer.text


def corners(level: dict[str, int]) -> Iterator[tuple[int, int]]:
    """The first and the last tile of a level, and the last of its first row."""
    columns = -(-level["width"] // level["tile_width"])
    rows = -(-level["height"] // level["tile_height"])
    yield from {(0, 0), (columns - 1, 0), (columns - 1, rows - 1)}
