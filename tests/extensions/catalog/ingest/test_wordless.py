"""What is de-identified on its way in tells of nobody, whatever format it comes in."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tifffile
import xarray as xr
from theatrum.catalog.arrays import open_array
from theatrum.catalog.ingest.bare import TOLD
from theatrum.catalog.tables import Acquisition, Image, SourceFile
from theatrum.catalog.zarr_store import Description, write

from hub.durable.database import Database
from hub.home import Home
from tests import identified_slides
from tests.extensions.catalog.ingest.conftest import TakeIn

NAME = "Quasimodo"
"""Stands wherever a format has room for words, and in the file's own name."""
VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(6, 5, 4)
"""By x, y, z."""
AFFINE = np.diag([1.5, 2.0, 3.0, 1.0])


def _nifti(folder: Path) -> Path:
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = NAME[:10].encode()
    comment = nibabel.nifti1.Nifti1Extension("comment", f"of {NAME}".encode())
    image.header.extensions.append(comment)
    path = folder / f"{NAME}.nii.gz"
    # A gzip file tells what it was called before.
    with path.open("wb") as file, gzip.GzipFile(f"{NAME}.nii", "wb", 9, file) as packed:
        packed.write(image.to_bytes())
    sidecar = {"PatientName": NAME, "SeriesDescription": f"head of {NAME}"}
    sidecar |= {"EchoTime": 0.003, "MagneticFieldStrength": 3, "ProtocolName": NAME}
    sidecar |= {"Modality": "MR", "BodyPartExamined": NAME, "Manufacturer": NAME}
    (folder / f"{NAME}.json").write_text(json.dumps(sidecar))
    return path


def _analyze(folder: Path) -> Path:
    image = nibabel.AnalyzeImage(VALUES, AFFINE)
    for field in ("descrip", "aux_file", "patient_id", "scannum", "generated"):
        image.header[field] = NAME[:9].encode()
    path = folder / f"{NAME}.hdr"
    nibabel.save(image, path)
    return path


def _mgh(folder: Path) -> Path:
    path = folder / f"{NAME}.mgz"
    content = nibabel.MGHImage(VALUES.astype(np.int32), AFFINE).to_bytes()
    # A tag behind the numbers: a command line with a path in it.
    said = f"mri_convert /data/{NAME}".encode()
    tag = (3).to_bytes(4, "big") + len(said).to_bytes(8, "big") + said
    path.write_bytes(gzip.compress(content + tag))
    return path


def _nrrd(folder: Path) -> Path:
    path = folder / f"{NAME}.nrrd"
    head = (
        f"NRRD0005\n# of {NAME}\ntype: int16\ndimension: 3\nsizes: 6 5 4\n"
        f"content: {NAME}\nspace: left-posterior-superior\nencoding: raw\n"
        "endian: little\nspace directions: (1.5,0,0) (0,2,0) (0,0,3)\n"
        f"space origin: (0,0,0)\nPatientName:={NAME}\n\n"
    )
    path.write_bytes(head.encode() + VALUES.transpose(2, 1, 0).tobytes())
    return path


def _metaimage(folder: Path) -> Path:
    path = folder / f"{NAME}.mha"
    head = (
        f"ObjectType = Image\nNDims = 3\nComment = {NAME}\nName = {NAME}\n"
        "BinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 6 5 4\n"
        "ElementSpacing = 1.5 2 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(head.encode() + VALUES.transpose(2, 1, 0).tobytes())
    return path


def _ome_tiff(folder: Path) -> Path:
    path = folder / f"{NAME}.ome.tif"
    tifffile.imwrite(
        path,
        VALUES.transpose(2, 1, 0).astype(np.uint16)[:, None],
        metadata={
            "axes": "ZCYX",
            "Name": NAME,
            "Description": f"of {NAME}",
            "Channel": {"Name": [NAME], "Fluor": [NAME]},
        },
    )
    return path


def _slide(folder: Path) -> Path:
    path = folder / f"{NAME}.svs"
    identified_slides.write_identified_svs(path)
    return path


def _png(folder: Path) -> Path:
    path = folder / f"{NAME}.png"
    words = PIL.PngImagePlugin.PngInfo()
    words.add_text("Comment", f"of {NAME}")
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    PIL.Image.fromarray(values).save(path, pnginfo=words)
    return path


def _jpeg(folder: Path) -> Path:
    path = folder / f"{NAME}.jpg"
    exif = PIL.Image.Exif()
    exif[0x010E] = exif[0x013B] = NAME
    values = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    PIL.Image.fromarray(values).save(path, exif=exif, comment=NAME.encode())
    return path


def _zarr(folder: Path) -> Path:
    path = folder / f"{NAME}.ome.zarr"
    array = xr.DataArray(VALUES.transpose(2, 1, 0), dims=list("zyx"))
    write(array, path, Description(name=NAME, facts={"owner": NAME}))
    return path


KINDS = [
    _nifti, _analyze, _mgh, _nrrd, _metaimage, _ome_tiff, _slide, _png, _jpeg, _zarr,
]  # fmt: skip


def _words_in(folder: Path) -> list[str]:
    """Files below a folder in which a planted word stands, or after which one is
    called; looked for in what is packed, too."""
    planted = [NAME, NAME[:9], *identified_slides.PLANTED.values()]
    found = []
    for path in folder.rglob("*"):
        told = [one for one in planted if one.lower() in str(path).lower()]
        if path.is_file():
            content = path.read_bytes()
            if content.startswith(b"\x1f\x8b"):
                content += zlib.decompressobj(31).decompress(content)
            told += [one for one in planted if one.encode() in content]
            told += [one for one in planted if one.encode("utf-16-le") in content]
        if told:
            found.append(f"{path.name}: {told}")
    return found


@pytest.mark.parametrize("write_one", KINDS)
def test_no_word_of_the_file_comes_along(
    write_one: Callable[[Path], Path],
    tmp_path: Path,
    take_in: TakeIn,
    home: Home,
    catalogue: Database,
) -> None:
    source = tmp_path / f"of {NAME}"
    source.mkdir()
    path = write_one(source)
    before = open_array(path)
    assert _words_in(source)
    report = take_in(source, profile="basic")
    assert report.counts["taken"] == 1, report.entries
    assert NAME not in json.dumps(report.to_json())
    (told,) = [one for one in report.entries if one.status == "taken"]
    assert TOLD in told.warnings
    with catalogue.reading() as session:
        (image,) = session.query(Image)
        files = session.query(SourceFile).all()
    assert all(one.deidentified for one in files)
    # All that is kept: the database with its journal, files, copies, caches.
    catalogue.close()
    assert _words_in(home.root) == []
    after = open_array(image.path)
    assert np.array_equal(after.to_numpy().squeeze(), before.to_numpy().squeeze())
    assert image.modality == before.attrs["modality"]
    if "affine" in before.attrs:
        assert np.allclose(after.attrs["affine"], before.attrs["affine"])


def test_numbers_of_the_protocol_stay(
    tmp_path: Path, take_in: TakeIn, catalogue: Database
) -> None:
    take_in(_nifti(tmp_path).parent, profile="basic")
    with catalogue.reading() as session:
        (acquisition,) = session.query(Acquisition)
        assert acquisition.field_strength == 3
        assert acquisition.protocol["echo_time_ms"] == 3
        assert "protocol" not in acquisition.protocol
        assert acquisition.manufacturer is None


def test_what_is_taken_in_without_words_is_known_again(
    tmp_path: Path, take_in: TakeIn
) -> None:
    path = _metaimage(tmp_path)
    assert take_in(path, profile="basic").counts["taken"] == 1
    assert take_in(path, profile="basic").counts["known"] == 1


def test_an_archive_that_is_refused_is_not_named(
    tmp_path: Path, take_in: TakeIn
) -> None:
    path = tmp_path / f"{NAME}.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    report = take_in(path, profile="basic")
    assert report.counts["refused"] == 1
    assert NAME not in json.dumps(report.to_json())
