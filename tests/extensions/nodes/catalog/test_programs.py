"""Notebooks and DICOM segmentations: what is outside of the process."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pydicom
import pytest
import xarray as xr
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from theatrum.node import BadInputs, BadValue, Context, File
from theatrum.nodes.catalog import run_notebook, to_dicom_seg

from tests.extensions.nodes.catalog.phantoms import head


def notebook(folder: Path, *cells: str) -> File:
    book = nbformat.v4.new_notebook()
    first = nbformat.v4.new_code_cell("word = 'none'\nimage = ''")
    first.metadata["tags"] = ["parameters"]
    book.cells = [first, *(nbformat.v4.new_code_cell(one) for one in cells)]
    path = folder / "note.ipynb"
    nbformat.write(book, path)
    return File(path, "application/x-ipynb+json")


def test_a_notebook_is_run_with_its_parameters_and_image(tmp_path: Path) -> None:
    source = notebook(
        tmp_path,
        "import nibabel\nprint(word, nibabel.load(image).shape)",
        "print(2 * number)",
    )
    done = run_notebook(
        source,
        head(),
        parameters={"word": "hello", "number": "21"},
        context=Context(folder=tmp_path / "out"),
    )
    text = done.notebook.path.read_text()
    assert "hello (28, 24, 20)" in text
    assert "42\\n" in text
    assert done.page is not None
    assert "hello" in done.page.path.read_text()


def test_a_notebook_that_fails_says_which_error(tmp_path: Path) -> None:
    source = notebook(tmp_path, "raise KeyError('lost')")
    with pytest.raises(BadValue, match=r"KeyError.*lost"):
        run_notebook(source, context=Context(folder=tmp_path / "out"))


def series(folder: Path) -> File:
    """Write eight axial slices, 2 by 3 mm, 5 mm apart, from above to below."""
    folder.mkdir()
    study, one, frame = generate_uid(), generate_uid(), generate_uid()
    for at in range(8):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = pydicom.Dataset()
        image.file_meta = meta
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study, one
        image.FrameOfReferenceUID = frame
        image.PatientID, image.PatientName = "1", "Phantom^"
        image.PatientBirthDate = image.PatientSex = image.StudyID = ""
        image.StudyDate = image.StudyTime = image.AccessionNumber = ""
        image.ReferringPhysicianName = image.Manufacturer = ""
        image.PositionReferenceIndicator = ""
        image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 1, at + 1
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [-10, -20, 100 - 5 * at]
        image.PixelSpacing, image.SliceThickness = [3, 2], 5
        image.Rows, image.Columns = 12, 16
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.PixelData = np.zeros((12, 16), np.int16).tobytes()
        image.save_as(folder / f"{at}.dcm", enforce_file_format=True)
    return File(folder, "application/dicom")


def test_a_segmentation_lies_on_the_slices_it_was_drawn_on(tmp_path: Path) -> None:
    import highdicom

    source = series(tmp_path / "ct")
    values = np.zeros((8, 12, 16), np.uint8)
    values[2, 3:6, 4:9] = 1
    values[5, 1:3, 2:4] = 2
    # RAS, slices counted from below: the lowest is at 65 mm.
    affine = [[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, 5, 65], [0, 0, 0, 1]]
    labels = xr.DataArray(values, dims=("z", "y", "x"), attrs={"affine": affine})
    file = to_dicom_seg(
        labels, source, names=("Lesion",), context=Context(folder=tmp_path / "out")
    )
    back = highdicom.seg.segread(file.path)
    assert [one.SegmentLabel for one in back.SegmentSequence] == [
        "Lesion",
        "Label 2",
    ]
    volume = back.get_volume(combine_segments=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ np.array(affine, dtype=float)
    for number in (1, 2):
        mine = {
            tuple(np.round(lps @ (x, y, z, 1), 3)[:3])
            for z, y, x in np.argwhere(values == number)
        }
        theirs = {
            tuple(np.round(volume.affine @ (*index, 1), 3)[:3])
            for index in np.argwhere(volume.array == number)
        }
        assert mine == theirs
    with pytest.raises(BadValue, match="empty"):
        to_dicom_seg(labels * 0, source)
    with pytest.raises(BadInputs, match="no DICOM"):
        to_dicom_seg(labels, File(tmp_path / "out", "application/dicom"))
