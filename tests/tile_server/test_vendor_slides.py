"""Scanners' own formats, each made in code, through openslide and the service."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests import vendor_slides
from tests.tile_server.conftest import Server, decoded
from tile_server.errors import UnreadableSlide
from tile_server.readers import open_slide
from tile_server.versions import file_version

VENDORS = {
    "zeiss": ("zeiss", 20.0, ()),
    "philips": ("philips", None, ("label", "macro")),
    "leica": ("leica", 20.0, ()),
    "ventana": ("ventana", 20.0, ("macro",)),
    "mirax": ("mirax", 20.0, ()),
    "hamamatsu ndpi": ("hamamatsu", 20.0, ("macro",)),
    "hamamatsu vms": ("hamamatsu", 20.0, ("macro",)),
}


def test_every_made_format_is_in_the_table() -> None:
    assert set(VENDORS) == set(vendor_slides.WRITERS)


def test_openslide_is_new_enough_for_hostile_files() -> None:
    # 4.0.1 mended CVE-2026-48977 and CVE-2026-54604, and brought CZI.
    assert tuple(map(int, openslide.__library_version__.split(".")[:3])) >= (4, 0, 1)


@pytest.mark.parametrize("name", VENDORS)
def test_format_optics_and_associated_images_are_those_of_the_file(
    tmp_path: Path, name: str
) -> None:
    path, _ = vendor_slides.WRITERS[name](tmp_path)
    vendor, objective, associated = VENDORS[name]
    with open_slide(path) as reader:
        assert reader.facts.format.split(",")[0] == vendor
        assert reader.facts.mpp_x == pytest.approx(0.5)
        assert reader.facts.mpp_y == pytest.approx(0.5)
        assert reader.facts.objective == objective
        assert reader.facts.associated == associated
        for image in associated:
            assert reader.associated_image(image).shape[2] == 3


@pytest.mark.parametrize("name", VENDORS)
def test_the_service_shows_it_and_keeps_its_label_back(
    server: Server, tmp_path: Path, name: str
) -> None:
    path, levels = vendor_slides.WRITERS[name](tmp_path)
    token = server.seal(path)
    view = server.get(token, "view.json").json()
    assert view["width"] >= levels[0].shape[1]
    assert {"label", "macro"}.isdisjoint(view["associated"])
    tile = server.get(token, f"{view['levels'][0]['z']}/0/0")
    assert tile.status_code == 200
    pixels = decoded(tile.content).astype(int)
    height, width = np.minimum(pixels.shape, levels[0].shape)[:2]
    error = np.abs(pixels[:height, :width] - levels[0][:height, :width])
    assert error.mean() < 3
    for image in VENDORS[name][2]:
        assert server.get(token, f"associated/{image}").status_code == 404


@pytest.mark.parametrize("codec", ["plain", "zstd"])
def test_both_codecs_of_a_czi_are_read_without_loss(tmp_path: Path, codec: str) -> None:
    path, levels = vendor_slides.write_czi(tmp_path, codec=codec)
    with open_slide(path) as reader:
        for number, wanted in enumerate(levels):
            height, width = wanted.shape[:2]
            assert np.array_equal(reader.read(number, 0, 0, (width, height)), wanted)


def test_a_czi_in_jpeg_xr_is_refused_with_the_reason(tmp_path: Path) -> None:
    path, _ = vendor_slides.write_czi(tmp_path, codec="jpeg xr")
    with pytest.raises(UnreadableSlide, match=r"^slide\.czi .*JPEG XR"):
        open_slide(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
@pytest.mark.parametrize("name", sorted({*VENDORS} - {"mirax", "hamamatsu vms"}))
def test_a_file_cut_off_is_refused_by_name(
    tmp_path: Path, name: str, share: float
) -> None:
    path, _ = vendor_slides.WRITERS[name](tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableSlide, match=rf"^{path.name} ") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)


def test_a_mirax_file_is_no_plain_picture(tmp_path: Path) -> None:
    path, _ = vendor_slides.write_mrxs(tmp_path)
    (tmp_path / "slide" / "Slidedat.ini").unlink()
    with pytest.raises(UnreadableSlide, match=r"^slide\.mrxs "):
        open_slide(path)


SEVERAL = {
    "mirax": ("slide/Slidedat.ini", "Data0000.dat"),
    "hamamatsu vms": ("slide.vms", "slide(1,0).jpg"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_the_version_changes_with_every_file_of_the_slide(
    tmp_path: Path, name: str
) -> None:
    path, _ = vendor_slides.WRITERS[name](tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 4
    for file in files:
        before = file_version(path)
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))
        assert file_version(path) != before


@pytest.mark.parametrize("place", ["../{}", "{folder}/{}", "sub/{}", "link"])
@pytest.mark.parametrize("name", SEVERAL)
def test_no_file_outside_of_the_slides_folder_is_opened(
    tmp_path: Path, name: str, place: str
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    path, _ = vendor_slides.WRITERS[name](folder)
    index, old = SEVERAL[name]
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    ((folder / index).parent / "link").symlink_to(secret)
    text = (folder / index).read_text()
    assert old in text
    (folder / index).write_text(
        text.replace(old, place.format("secret", folder=tmp_path))
    )
    with pytest.raises(UnreadableSlide, match="outside of its own folder") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)
