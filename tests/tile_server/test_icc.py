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


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide whose profile says that its red is green, its green blue, its blue red.

    So nobody takes a picture that was converted for one that was not.
    """
    profile = bytearray(PROFILE)
    tags = {}
    for number in range(int.from_bytes(profile[128:132])):
        at = 132 + 12 * number
        tags[bytes(profile[at : at + 4])] = at
    places = [tags[name] for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    colours = [bytes(profile[at + 4 : at + 12]) for at in places]
    for at, colour in zip(places, colours[1:] + colours[:1], strict=True):
        profile[at + 4 : at + 12] = colour
    folder = tmp_path_factory.mktemp("swapped")
    return write_tiff(folder / "swapped.tiff", bytes(profile))


def converted(pixels: slides.Pixels, path: Path) -> slides.Pixels:
    """The pixels in sRGB, as Pillow's own one-call conversion has them."""
    with open_slide(path) as reader:
        profile = reader.facts.profile
    assert profile is not None
    image = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.PERCEPTUAL,
    )
    assert image is not None
    return np.asarray(image)


def test_a_region_in_srgb_has_the_colours_that_the_profile_means(
    server: Server, swapped: Path
) -> None:
    token, rest = server.seal(swapped), "region.npy?x=10&y=20&width=64&height=32"
    plain = np.load(io.BytesIO(server.get(token, rest).content))
    seen = np.load(io.BytesIO(server.get(token, f"{rest}&icc=srgb").content))
    assert np.array_equal(seen, converted(plain, swapped))
    red, green, blue = (plain[:, :, part].astype(int) for part in range(3))
    rolled = np.stack([blue, red, green], axis=2)
    assert np.abs(seen - rolled).mean() < 3
    assert np.abs(seen.astype(int) - plain).mean() > 20


@pytest.mark.parametrize("tile", ["3/1/1", "3/4/3", "2/0/0", "0/0/0"])
def test_a_tile_in_srgb_is_the_converted_tile_and_is_kept(
    server: Server, swapped: Path, tile: str
) -> None:
    token = server.seal(swapped)
    plain, first = server.get(token, tile), server.get(token, f"{tile}?icc=srgb")
    assert first.status_code == 200
    assert first.headers["etag"] != plain.headers["etag"]
    assert "icc_profile" not in Image.open(io.BytesIO(first.content)).info
    seen, wanted = decoded(first.content), converted(decoded(plain.content), swapped)
    difference = np.abs(seen.astype(int) - wanted)
    assert difference.mean() < 6
    again = server.get(token, f"{tile}?icc=srgb")
    assert again.headers["server-timing"].startswith("cached")
    assert again.content == first.content


def test_every_protocol_converts_to_srgb(server: Server, swapped: Path) -> None:
    token = server.seal(swapped)
    base = server.settings.base
    for address in (
        f"{base}iiif/3/{token}/64,64,64,64/64,64/0/default.png",
        f"{base}s/{token}/dzi/slide_files/9/1_1.jpg",
        f"{base}s/{token}/3/1/1.png",
        f"{base}s/{token}/thumbnail.png",
    ):
        plain = decoded(server.client.get(address).content)
        seen = decoded(server.client.get(f"{address}?icc=srgb").content)
        wanted = converted(plain, swapped)
        assert np.abs(seen.astype(int) - wanted).mean() < 6, address
        assert np.abs(seen.astype(int) - plain).mean() > 20, address


def test_a_slide_without_profile_is_srgb_already(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["ycbcr"])
    plain, asked = server.get(token, "4/1/1"), server.get(token, "4/1/1?icc=srgb")
    assert plain.content == asked.content
    assert plain.headers["etag"] == asked.headers["etag"]
    assert asked.headers["server-timing"].startswith("stored")


def test_a_profile_that_converts_nothing_is_a_bad_request(
    server: Server, tmp_path: Path
) -> None:
    useless = PROFILE[:132] + bytes(len(PROFILE) - 132)
    path = write_tiff(tmp_path / "useless.tiff", useless)
    answer = server.get(server.seal(path), "3/1/1?icc=srgb")
    assert answer.status_code == 400
    assert "icc=srgb" in answer.json()["detail"]


def test_a_long_profile_leaves_in_every_kind_of_tile(
    server: Server, tmp_path: Path
) -> None:
    long = bytearray(longer(PROFILE, 3 * icc.SEGMENT_BYTES))
    # The last tag takes all of it, or it would be no part of the profile.
    places = range(132, 132 + 12 * int.from_bytes(long[128:132]), 12)
    last = max(places, key=lambda at: int.from_bytes(long[at + 4 : at + 8]))
    size = len(long) - int.from_bytes(long[last + 4 : last + 8])
    long[last + 8 : last + 12] = size.to_bytes(4)
    path = write_tiff(tmp_path / "long.tiff", bytes(long))
    with open_slide(path) as reader:
        profile = reader.facts.profile
    assert profile is not None
    assert len(profile) > 2 * icc.SEGMENT_BYTES
    token = server.seal(path)
    for tile in ("3/1/1", "3/4/3", "2/0/0", "3/1/1.png", "3/1/1.webp", "2/0/0.webp"):
        body = server.get(token, f"{tile}?icc=1").content
        assert Image.open(io.BytesIO(body)).info["icc_profile"] == profile, tile
