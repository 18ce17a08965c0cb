"""Archives that come in; hostile ones are refused whole."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from theatrum.catalog.ingest.archives import Limits, is_archive, unpack
from theatrum.catalog.ingest.errors import HostileArchive

from hub.home import Home
from tests import stacks
from tests.extensions.catalog.ingest.conftest import TakeIn


def _zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.xz"])
def test_the_images_of_an_archive_are_taken_in_and_kept(
    tmp_path: Path, take_in: TakeIn, home: Home, ending: str
) -> None:
    image = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    path = tmp_path / f"images.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(image, "below/a.nii")
    else:
        with tarfile.open(path, "w" if ending == "tar" else "w:gz") as tar:
            tar.add(image, "below/a.nii")
    report = take_in(path)
    assert report.counts["taken"] == 1, report.entries
    assert report.entries[0].files == ("below/a.nii",)
    kept = [one for one in (home.images / "originals").rglob("*") if one.is_file()]
    assert len(kept) == 1


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "a/../../out", "..\\out", "C:\\out", "a/" * 70 + "b"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "a.zip", {"good.txt": b"1", name: b"2"})
    target = tmp_path / "into"
    target.mkdir()
    with pytest.raises(HostileArchive, match="leads out"):
        unpack(path, target)
    assert list(target.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "into"
    target.mkdir()
    link = _zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode=0o120777)
    with pytest.raises(HostileArchive, match="link"):
        unpack(link, target)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        with pytest.raises(HostileArchive, match="link"):
            unpack(_tar(tmp_path / "a.tar.gz", (info, b"")), target)
    assert list(target.iterdir()) == []


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"zeros": bytes(40 * 2**20)})
    target = tmp_path / "into"
    target.mkdir()
    limits = Limits(ratio=50.0, honest_bytes=2**20)
    with pytest.raises(HostileArchive, match="unpacks to more"):
        unpack(path, target, limits)
    assert sum(one.stat().st_size for one in target.rglob("*")) <= 3 * 2**20


def test_too_many_files_or_two_of_one_name_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "into"
    target.mkdir()
    many = _zip(tmp_path / "a.zip", {f"{number}": b"" for number in range(12)})
    with pytest.raises(HostileArchive, match="more than 10"):
        unpack(many, target, Limits(files=10))
    twins = _zip(tmp_path / "b.zip", {"A.txt": b"1", "a.txt": b"2"})
    with pytest.raises(HostileArchive, match="one name"):
        unpack(twins, target)


def test_a_damaged_archive_is_a_line_in_the_report(
    tmp_path: Path, take_in: TakeIn
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    report = take_in(path)
    assert report.counts["refused"] == 1
    assert "Pack it again" in report.entries[0].reason


def test_a_zipped_ome_zarr_is_an_image_and_no_archive() -> None:
    assert not is_archive(Path("cells.ome.zarr.zip"))
    assert is_archive(Path("Series.TAR.GZ"))
