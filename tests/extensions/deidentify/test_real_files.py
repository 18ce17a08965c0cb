"""Every real file of the shared data: given out whole and valid, or with a reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections import Counter
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from theatrum import deidentify

from tests.extensions.deidentify.running import KEY, image, package, put

FOLDERS = ("ct_rtstruct", "deid", "malformed", "mri")
STAYS = {
    "GREYSCALE_IMAGE.dcm": "burned_in",
    "ctbrain1.dcm": "burned_in",
    "image6.dcm": "burned_in",
    "empty.dcm": "not_dicom",
    "png_named.dcm": "not_dicom",
    "text_named.dcm": "not_dicom",
    "no_preamble.dcm": "incomplete",
    "truncated_pixels.dcm": "damaged",
}

Pair = tuple[Path, Path]


@pytest.fixture(scope="module", params=["basic", "autosegmentation"])
def run(
    request: pytest.FixtureRequest,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Pair], dict[str, str]]:
    """Pairs of input and output, and the reasons for what stayed."""
    worker = deidentify.Deidentifier(deidentify.load_profile(request.param), KEY)
    pairs: list[Pair] = []
    stayed: dict[str, str] = {}
    # Two folders hold the same slices, compressed in two ways: a package for each.
    for folder in sorted(
        {
            file.parent
            for name in FOLDERS
            for file in (shared_data / name).rglob("*.dcm")
        }
    ):
        files = sorted(folder.glob("*.dcm"))
        target = tmp_path_factory.mktemp(request.param) / "out"
        done = worker.package(files, target, root=shared_data)
        pairs += [(files[at - 1], target / name) for at, name in done.names.items()]
        for entry in [*done.report.held, *done.report.refused]:
            stayed[files[entry.number - 1].name] = entry.reason
    return pairs, stayed


def quietly(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path)


def test_only_what_has_a_reason_stays_inside(
    run: tuple[list[Pair], dict[str, str]],
) -> None:
    _, stayed = run
    assert stayed == STAYS


def test_geometry_and_pixels_are_the_same(
    run: tuple[list[Pair], dict[str, str]],
) -> None:
    for before, after in run[0]:
        one, other = quietly(before), quietly(after)
        for keyword in (
            "SOPClassUID", "Modality", "ImagePositionPatient", "Rows", "PixelSpacing",
            "ImageOrientationPatient", "RescaleSlope", "SliceThickness", "PixelData",
            "SharedFunctionalGroupsSequence", "Manufacturer",
        ):  # fmt: skip
            if keyword == "SharedFunctionalGroupsSequence":
                assert (keyword in one) == (keyword in other)
            else:
                assert one.get(keyword) == other.get(keyword), (before.name, keyword)


def test_contours_are_the_same(run: tuple[list[Pair], dict[str, str]]) -> None:
    structure_sets = [pair for pair in run[0] if "R" in pair[0].name[:1]]
    for before, after in structure_sets:
        one, other = quietly(before), quietly(after)
        for rois in zip(one.ROIContourSequence, other.ROIContourSequence, strict=True):
            first, second = (roi.get("ContourSequence", []) for roi in rois)
            assert [c.ContourData for c in first] == [c.ContourData for c in second]


def test_no_identifier_of_the_input_is_in_the_output(
    run: tuple[list[Pair], dict[str, str]],
) -> None:
    for before, after in run[0]:
        one, content = quietly(before), after.read_bytes()
        for keyword in ("PatientName", "SOPInstanceUID", "StudyInstanceUID"):
            value = str(one.get(keyword, ""))
            if len(value) > 4:
                assert value.encode() not in content, (before.name, keyword)
        assert quietly(after).PatientIdentityRemoved == "YES"


def faults(path: Path) -> Counter[str]:
    """The errors that dciodvfy has of a file, without the values in them."""
    done = subprocess.run(
        ["dciodvfy", str(path)], capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    lines = (done.stderr + done.stdout).splitlines()
    return Counter(
        re.sub(r"<[^>]*>", "<>", line) for line in lines if line.startswith("Error")
    )


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools)")
def test_dciodvfy_has_no_error_that_the_input_had_not(
    run: tuple[list[Pair], dict[str, str]],
) -> None:
    for before, after in run[0]:
        assert not faults(after) - faults(before), before.name


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools)")
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_dciodvfy_has_no_new_error_of_a_made_image(
    tmp_path: Path, modality: str
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    before = put(image(modality), source / "one.dcm")
    done = package(source, tmp_path / "out")
    assert not faults(tmp_path / "out" / done.names[1]) - faults(before)
