"""ICC profiles reach the browser inside the tiles, which stay undecoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests import slides
from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.tile_server.conftest import Server, decoded
from tile_server import icc
from tile_server.codecs import encode_jpeg, encode_png
from tile_server.readers import open_slide

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def longer(profile: bytes, length: int) -> bytes:
    """The same profile, made `length` bytes long."""
    whole = profile + bytes(length - len(profile))
    return length.to_bytes(4) + whole[4:]


def write_tiff(path: Path, profile: bytes) -> Path:
    tifffile.imwrite(
        path,
        slides.picture(300, 200),
        tile=(64, 64),
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
        iccprofile=profile,
        metadata=None,
    )
    return path


@pytest.fixture(scope="module")
def tiff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff(tmp_path_factory.mktemp("icc") / "profiled.tiff", PROFILE)


@pytest.mark.parametrize("form", ["JPEG", "JPEG with JFIF", "PNG"])
def test_a_browser_finds_the_profile_and_the_same_pixels(form: str) -> None:
    picture = slides.picture(64, 48)
    if form == "PNG":
        plain = encode_png(picture)
    elif form == "JPEG":
        plain = encode_jpeg(picture)
    else:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG")
        plain = buffer.getvalue()
        assert plain[2:4] == b"\xff\xe0"
    seen = icc.embedded(plain, PROFILE)
    assert Image.open(io.BytesIO(seen)).info["icc_profile"] == PROFILE
    assert np.array_equal(decoded(seen), decoded(plain))


@pytest.mark.parametrize("more", [0, 1, icc.SEGMENT_BYTES, 5 * icc.SEGMENT_BYTES + 7])
def test_a_profile_too_long_for_one_segment_takes_several(more: int) -> None:
    profile = longer(PROFILE, icc.SEGMENT_BYTES + more)
    plain = encode_jpeg(slides.picture(32, 32))
    seen = icc.embedded(plain, profile)
    assert seen.count(b"ICC_PROFILE\0") == -(-len(profile) // icc.SEGMENT_BYTES)
    assert Image.open(io.BytesIO(seen)).info["icc_profile"] == profile
    assert np.array_equal(decoded(seen), decoded(plain))


def test_what_is_no_profile_of_rgb_is_none() -> None:
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    for wrong in (None, b"", PROFILE[:100], bytes(500), PROFILE[:-1], grey):
        assert icc.profile_of(wrong) is None
    assert icc.profile_of(PROFILE + b"\0") == PROFILE


def test_a_profile_has_the_name_that_others_read() -> None:
    told = icc.describe(PROFILE)
    assert told is not None
    assert told["description"] == "sRGB built-in"
    assert told["bytes"] == len(PROFILE)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_in_a_profile_are_harmless(noise: bytes, at: int) -> None:
    body = (PROFILE[:132] + noise)[:at] + PROFILE[at:]
    profile = icc.profile_of(body)
    assert icc.describe(profile) is None or profile is not None


def test_the_view_tells_of_the_profile(server: Server, tiff: Path) -> None:
    view = server.get(server.seal(tiff), "view.json").json()
    assert view["icc"]["description"] == "sRGB built-in"


def test_the_profile_has_an_address(
    server: Server, tiff: Path, made_slides: dict[str, Path]
) -> None:
    answer = server.get(server.seal(tiff), "icc")
    assert answer.headers["Content-Type"] == "application/vnd.iccprofile"
    assert ImageCms.ImageCmsProfile(io.BytesIO(answer.content))
    assert server.get(server.seal(made_slides["ycbcr"]), "icc").status_code == 404


def test_a_tile_carries_the_profile_only_where_it_is_asked_for(
    server: Server, tiff: Path
) -> None:
    token = server.seal(tiff)
    for tile in ("3/1/1", "3/4/3", "2/0/0"):  # stored, at the edge, composed
        plain = server.get(token, tile)
        profiled = server.get(token, f"{tile}?icc=1")
        assert "icc_profile" not in Image.open(io.BytesIO(plain.content)).info
        assert "icc_profile" in Image.open(io.BytesIO(profiled.content)).info
        assert np.array_equal(decoded(plain.content), decoded(profiled.content))
        assert plain.headers["ETag"] != profiled.headers["ETag"]
        assert server.get(token, f"{tile}?icc=0").content == plain.content
        again = server.get(
            token, f"{tile}?icc=1", **{"If-None-Match": profiled.headers["ETag"]}
        )
        assert again.status_code == 304
    assert server.get(token, "3/1/1?icc=2").status_code == 400


def test_a_slide_without_profile_has_plain_tiles(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["ycbcr"])
    view = server.get(token, "view.json").json()
    assert view["icc"] is None
    tile = f"{view['levels'][0]['z']}/1/1"
    plain, asked = server.get(token, tile), server.get(token, f"{tile}?icc=1")
    assert plain.content == asked.content
    assert plain.headers["ETag"] == asked.headers["ETag"]


def test_regions_hold_the_numbers_of_the_file(server: Server, tiff: Path) -> None:
    region = "region?x=10&y=20&width=64&height=32&icc=1"
    with open_slide(tiff) as reader:
        wanted = reader.read(0, 10, 20, (64, 32))
    seen = np.load(io.BytesIO(server.get(server.seal(tiff), region).content))
    assert np.array_equal(seen, wanted)


def test_the_profile_of_a_dicom_slide_is_that_of_its_optical_path(
    tmp_path: Path,
) -> None:
    odd = longer(PROFILE, len(PROFILE) + 1 - len(PROFILE) % 2)
    path = write_dicom_slide(tmp_path, DicomSpec(profile=odd, downsamples=(1,)))
    with open_slide(path) as reader:
        assert reader.facts.profile == odd


def test_a_damaged_profile_is_none(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "odd.tiff", b"not a profile" * 40)
    with open_slide(path) as reader:
        assert reader.facts.profile is None
