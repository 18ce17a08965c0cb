"""A file that harms its reader ends a worker process, and nothing else."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import xarray as xr
from theatrum.catalog.formats import Damaged
from theatrum.catalog.formats.volumes import SIDECAR_BYTES
from theatrum.catalog.ingest import Workers, archives
from theatrum.catalog.ingest.errors import HostileArchive
from theatrum.catalog.ingest.look import Limits, Looker
from theatrum.catalog.zarr_store import write

from tests import stacks
from tests.extensions.catalog.ingest.conftest import TakeIn


def test_a_worker_that_ends_is_replaced_and_the_file_refused(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    with Looker() as looker:
        looker.describe([path], "nifti", planes=tmp_path)
        worker = looker._worker
        assert worker is not None
        worker.end()
        # Nobody notices: the next question goes to a fresh one.
        (scene,) = looker.describe([path], "nifti", planes=tmp_path)
        assert scene["image"]["n_z"] == 5


def test_a_file_that_takes_for_ever_is_refused_in_time(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    with Looker(Limits(seconds=1e-6)) as looker, pytest.raises(Damaged, match="after"):
        looker.describe([path], "nifti", planes=tmp_path)


def _long_header(path: Path) -> Path:
    """A tar whose first header says that a text of 64 GiB follows."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 64 * 2**30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(65 * 2**30)  # sparse: it takes nothing on the disk
    return path


def test_an_archive_that_takes_all_memory_is_refused_and_the_rest_goes_on(
    tmp_path: Path, take_in: TakeIn
) -> None:
    bomb = _long_header(tmp_path / "a.tar")
    good = stacks.write_nifti(tmp_path / "b.nii", stacks.VOLUME)
    report = take_in(bomb, good)
    assert report.counts == {"taken": 1, "known": 0, "waiting": 0, "refused": 1}
    (refused,) = [one for one in report.entries if one.status == "refused"]
    assert "too much memory" in refused.reason


def test_an_archive_is_unpacked_by_another_process_within_its_limits(
    tmp_path: Path, workers: Workers
) -> None:
    image = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    packed = tmp_path / "a.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(image, "below/a.nii")
    folders = [tmp_path / name for name in ("slow", "small", "good")]
    slow, small, good = folders
    for folder in folders:
        folder.mkdir()
    with Looker(Limits(copying_s=1e-6)) as looker:
        with pytest.raises(HostileArchive, match="after"):
            looker.unpack(packed, slow, archives.Limits())
        assert looker._worker is None
    with pytest.raises(HostileArchive, match="unpacks to more"):
        workers.looker.unpack(packed, small, archives.Limits(bytes=256))
    workers.looker.unpack(packed, good, archives.Limits())
    assert (good / "below" / "a.nii").read_bytes() == image.read_bytes()


def test_what_files_begin_as_is_looked_at_by_another_process(
    tmp_path: Path, workers: Workers
) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    other = tmp_path / "b.txt"
    other.write_text("nothing")
    assert workers.looker.kinds([path, other]) == ["nifti", ""]


def _bomb(path: Path) -> Path:
    """A deflated DICOM file of some kilobytes that unpacks to 100 MB."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    held = io.BytesIO(bytes(128) + b"DICM")
    held.seek(0, io.SEEK_END)
    pydicom.filewriter.write_file_meta_info(held, meta, enforce_standard=False)
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    for _ in range(100):
        held.write(machine.compress(bytes(10**6)))
    path.write_bytes(held.getvalue() + machine.flush())
    return path


def test_headers_that_mean_harm_are_refused_at_once(
    tmp_path: Path, workers: Workers
) -> None:
    looker = workers.looker
    (found,) = looker.identify([_bomb(tmp_path / "a.dcm")])
    assert "unpacks to more" in found.refusal
    long = tmp_path / "a.nrrd"
    long.write_bytes(b"NRRD0005\ntype: " + b"a" * 2**21)
    with pytest.raises(Damaged, match="header"):
        looker.describe([long], "nrrd", planes=tmp_path)
    image = stacks.write_nifti(tmp_path / "b.nii", stacks.VOLUME)
    sidecar = tmp_path / "b.json"
    sidecar.write_text(f'{{"FlipAngle": {"9" * 4000}, "EchoTime": 1e999}}')
    assert looker.describe([image], "nifti", planes=tmp_path)
    other = stacks.write_nifti(tmp_path / "c.nii", stacks.VOLUME)
    other.with_suffix(".json").write_text(json.dumps({"a": "x" * SIDECAR_BYTES}))
    with pytest.raises(Damaged, match="too long for a sidecar"):
        looker.describe([other], "nifti", planes=tmp_path)


def test_an_image_of_more_chunks_than_files_is_refused(
    tmp_path: Path, workers: Workers
) -> None:
    path = tmp_path / "a.ome.zarr"
    write(xr.DataArray(np.zeros((4, 5), np.uint8), dims=["y", "x"]), path)
    document = path / "scale0" / "image" / "zarr.json"
    said = json.loads(document.read_text())
    said["shape"] = [2**20, 2**20]
    said["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1]
    said["codecs"] = [{"name": "bytes"}]
    document.write_text(json.dumps(said))
    with pytest.raises(Damaged, match="store it in larger ones"):
        workers.looker.describe([path], "ome-zarr", planes=tmp_path)
