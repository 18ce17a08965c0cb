"""OME-TIFF images of several files: every file opens all, and none leads elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests import stacks
from tests.tile_server.conftest import Server
from tile_server.errors import UnreadableSlide
from tile_server.folder import SlideFolder
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers import open_slide
from tile_server.readers.planes import Plane
from tile_server.readers.rendering import plane_facts, planes_of
from tile_server.versions import file_version

SPEC = stacks.StackSpec(width=150, height=90, channels=2, depths=3, times=2)


@pytest.mark.parametrize("companion", [False, True])
def test_each_file_opens_the_whole_image(tmp_path: Path, companion: bool) -> None:
    first = stacks.write_ome_files(tmp_path, SPEC, companion=companion)
    truth = stacks.numbers(SPEC)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4 + companion
    assert first in files
    series = set()
    for file in files:
        with open_slide(file) as reader:
            facts = plane_facts(reader)
            assert (len(facts.channels), facts.depths, facts.times) == (2, 3, 2)
            assert [one.name for one in facts.channels] == ["dye 0", "dye 1"]
            assert (reader.facts.mpp_x, reader.facts.mpp_y) == (0.25, 0.5)
            series.add(reader.facts.series)
            planes = planes_of(reader)
            for t, c, z in np.ndindex(truth.shape[:3]):
                seen = planes.read_plane(0, 0, 0, (150, 90), plane=Plane(c, z, t))
                assert np.array_equal(seen, truth[t, c, z])
    assert len(series) == 1
    assert len({file_version(file) for file in files}) == 1


@pytest.mark.parametrize("companion", [False, True])
def test_the_version_changes_with_any_of_the_files(
    tmp_path: Path, companion: bool
) -> None:
    path = stacks.write_ome_files(tmp_path, SPEC, companion=companion)
    for file in tmp_path.iterdir():
        before = file_version(path)
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))
        assert file_version(path) != before


def test_a_folder_lists_the_image_once(tmp_path: Path) -> None:
    stacks.write_ome_files(tmp_path, SPEC)
    with Prober(ProbeSettings(workers=1)) as prober:
        assert len(SlideFolder(tmp_path, prober).images()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = stacks.write_ome_files(tmp_path, SPEC)
    (tmp_path / "t1_c0.ome.tif").unlink()
    with pytest.raises(UnreadableSlide, match=r"t1_c0\.ome\.tif is not there"):
        open_slide(path)
    # It may come later, without a change to the file that names it.
    shutil.copy(path, tmp_path / "t1_c0.ome.tif")
    open_slide(path).close()


def test_a_missing_companion_is_named(tmp_path: Path) -> None:
    stacks.write_ome_files(tmp_path, SPEC, companion=True).unlink()
    with pytest.raises(UnreadableSlide, match=r"all\.companion\.ome, which is not"):
        open_slide(tmp_path / "t0_c0.ome.tif")


@pytest.mark.parametrize(
    "name", ["../secret.ome.tif", "{secret}", "sub/t0_c1.ome.tif", "link.ome.tif", ".."]
)
@pytest.mark.parametrize("attribute", ["FileName", "MetadataFile"])
def test_no_file_outside_of_the_folder_is_opened(
    tmp_path: Path, name: str, attribute: str
) -> None:
    folder = tmp_path / "slides"
    (folder / "sub").mkdir(parents=True)
    companion = attribute == "MetadataFile"
    stacks.write_ome_files(folder, SPEC, companion=companion)
    path = folder / "t0_c0.ome.tif"
    secret = tmp_path / "secret.ome.tif"
    shutil.copy(folder / "t0_c1.ome.tif", secret)
    shutil.copy(secret, folder / "sub" / "t0_c1.ome.tif")
    (folder / "link.ome.tif").symlink_to(secret)
    old = "all.companion.ome" if companion else "t0_c1.ome.tif"
    _rename_in(path, old, name.format(secret=secret))
    with pytest.raises(UnreadableSlide, match="outside of its own folder") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)


def test_a_renamed_single_file_is_still_read(tmp_path: Path) -> None:
    spec = stacks.StackSpec(width=80, height=60, depths=2)
    path = stacks.write_ome_files(tmp_path, spec).rename(tmp_path / "new.ome.tif")
    with open_slide(path) as reader:
        assert plane_facts(reader).depths == 2


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    path = stacks.write_ome_files(tmp_path, SPEC)
    other = tmp_path / "t1_c1.ome.tif"
    with tifffile.TiffFile(other) as tiff:
        text = tiff.pages.first.description
    smaller = np.zeros((3, 40, 50), np.uint16)
    tifffile.imwrite(
        other,
        smaller,
        tile=(64, 64),
        photometric="minisblack",
        description=text.encode(),
        metadata=None,
    )
    with pytest.raises(UnreadableSlide, match=r"^t0_c0\.ome\.tif "):
        open_slide(path)


def test_the_service_shows_an_image_of_several_files(
    server: Server, tmp_path: Path
) -> None:
    token = server.seal(stacks.write_ome_files(tmp_path, SPEC, companion=True))
    view = server.get(token, "view.json").json()
    assert (view["z"], view["t"], len(view["channels"])) == (3, 2, 2)
    assert server.get(token, "0/0/0").status_code == 200


def _rename_in(path: Path, old: str, new: str) -> None:
    """Write another file name into the description of a TIFF."""
    with tifffile.TiffFile(path, mode="r+", _multifile=False) as tiff:
        tag = tiff.pages.first.tags["ImageDescription"]
        text = tag.value.replace(old, new)
        tag.overwrite(text)
