"""The checks, against results of the double made right and wrong."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from theatrum.deidentify import Mapping, PatientMapping
from theatrum.structures import series_geometry

from services.dicom_client.result_checks import (
    Severity,
    after_reidentification,
    before_reidentification,
    iod_findings,
    opened,
    stops,
)
from tests.draw_server import Scenario
from tests.draw_server.drawing import structure_set
from tests.draw_server.packages import Package
from tests.extensions.structures.series import ct_series

WANTED = ["Bladder", "Femur_Head_L"]
TEMPLATE = {"models": {720: {"map": dict(enumerate(WANTED, start=1))}}}


def sent():
    """De-identified images, and the mapping that belongs to them."""
    images = ct_series(slices=4)
    for image in images:
        image.PatientName, image.PatientID = "DRAW^X7", "X7"
        image.PatientBirthDate = ""
    names = {str(one.SOPInstanceUID) for one in images}
    first = images[0]
    names |= {
        str(first.StudyInstanceUID),
        str(first.SeriesInstanceUID),
        str(first.FrameOfReferenceUID),
    }
    originals = {
        "PatientName": "Andersen^Berit",
        "PatientID": "MRN-004711",
        "PatientBirthDate": "19551122",
    }
    mapping = Mapping(
        "job-1",
        "profile",
        {name: generate_uid() for name in names},
        {"X7": PatientMapping(originals, {})},
        {str(first.StudyInstanceUID): {}},
    )
    return images, mapping


def checked(scenario, change=lambda _dataset: None, **more):
    images, mapping = sent()
    package = Package(tuple(images), TEMPLATE, ())
    dataset = pydicom.dcmread(io.BytesIO(structure_set(package, scenario)))
    change(dataset)
    return before_reidentification(
        dataset,
        mapping,
        series_geometry(images),
        series_instance_uid=str(images[0].SeriesInstanceUID),
        wanted=WANTED,
        **({"verified": True} | more),
    )


def test_a_result_that_is_right_has_no_finding():
    assert checked(Scenario()) == []


@pytest.mark.parametrize(
    ("scenario", "check"),
    [
        (Scenario(rt_wrong_series=True), 3),
        (Scenario(rt_no_ref=True), 3),
        (Scenario(rt_foreign_sop=True), 4),
        (Scenario(rt_wrong_for=True), 5),
        (Scenario(rt_duplicate_numbers=True), 6),
        (Scenario(rt_odd_points=True), 8),
        (Scenario(rt_outside=True), 8),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_a_result_that_does_not_fit_the_job_is_rejected(scenario, check):
    findings = checked(scenario)
    assert check in {one.check for one in findings}
    assert stops(findings)


@pytest.mark.parametrize(
    ("scenario", "word"),
    [
        (Scenario(rt_extra_roi=True), "Not_Asked_For was not asked for"),
        (Scenario(rt_missing_roi=True), "Bladder is missing"),
        (Scenario(rt_empty_roi=True), "Bladder is empty"),
    ],
)
def test_other_structures_than_asked_for_are_told_and_go_on(scenario, word):
    findings = checked(scenario)
    assert [one.text for one in findings] == [word]
    assert not stops(findings)


def test_a_result_without_checksum_goes_on_with_a_note():
    (finding,) = checked(Scenario(), verified=False)
    assert (finding.check, finding.severity) == (2, Severity.WARNING)


@pytest.mark.parametrize(
    "text", ["Berit", "for ANDERSEN", "mrn-004711", "born 19551122"]
)
def test_a_server_that_knows_the_patient_raises_an_alarm(text):
    findings = checked(Scenario(rt_phi_injected=text))
    assert [(one.check, one.severity) for one in findings] == [(9, Severity.ALARM)]
    assert text.casefold() not in findings[0].text.casefold()
    assert stops(findings)


@pytest.mark.parametrize(
    "value",
    [["1", "2"], ["1", "2", "3"] * 2, [float("nan")] * 12],
    ids=["no triple", "two points", "no number"],
)
def test_a_contour_that_is_none_is_rejected(value):
    def change(dataset):
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        contour.ContourData = [float(one) for one in value]
        contour.NumberOfContourPoints = len(value) // 3

    findings = checked(Scenario(), change)
    assert {one.check for one in findings} == {8}
    assert stops(findings)


@pytest.mark.parametrize("kind", ["OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_a_contour_that_is_not_closed_is_told_and_goes_on(kind):
    def change(dataset):
        dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = kind

    findings = checked(Scenario(), change)
    assert [(one.check, one.severity, one.text) for one in findings] == [
        (8, Severity.WARNING, "Bladder: a contour is not closed")
    ]
    assert not stops(findings)


def moved(change, *, named=True):
    """A change of all contours' points, whose references stay or go."""

    def over(dataset):
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            contour.ContourData = [float(one) for one in change(points).ravel()]
            if not named:
                del contour.ContourImageSequence

    return over


def test_a_contour_between_two_images_is_told():
    def inwards(points):
        return np.add(points, [0, 0, 1.0 if points[0, 2] < -96 else -1.0])

    findings = checked(Scenario(), moved(inwards, named=False))
    assert [(one.severity, one.text) for one in findings] == [
        (Severity.WARNING, "Bladder: a contour lies between two images")
    ]


def turned_over(points):
    """Upside down within the four images, which lie 2.5 mm apart from -100 mm on."""
    return points * [1, 1, -1] + [0, 0, -192.5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (turned_over, "a contour lies on another image than it names"),
        (
            lambda p: np.add(p, [0, 0, -2.5]),
            "a contour lies on another image than it names",
        ),
        (
            lambda p: np.add(p, [0, 0, -1.0]),
            "a contour lies on another image than it names",
        ),
        (
            lambda p: p + np.outer(np.arange(len(p)) % 2, [0, 0, 2.5]),
            "a contour does not lie in a plane of the images",
        ),
        (lambda p: np.add(p, [500, 0, 0]), "a contour lies beside the images"),
    ],
    ids=["upside down", "a slice lower", "between", "not flat", "beside"],
)
def test_a_contour_that_lies_elsewhere_than_it_says_is_rejected(change, text):
    findings = checked(Scenario(), moved(change))
    assert f"Bladder: {text}" in {one.text for one in findings}
    assert stops(findings)


def test_a_contour_that_names_no_image_may_not_lie_above_them():
    findings = checked(Scenario(), moved(lambda p: np.add(p, [0, 0, 50]), named=False))
    assert stops(findings)


def test_the_result_of_another_template_is_rejected():
    def rename(dataset):
        for number, roi in enumerate(dataset.StructureSetROISequence):
            roi.ROIName = f"Other_{number}"

    findings = checked(Scenario(), rename)
    assert {one.check for one in findings if one.severity is Severity.REJECT} == {7}


def test_a_result_that_was_cut_off_before_its_structures_is_rejected():
    def cut(dataset):
        del dataset.StructureSetROISequence
        del dataset.ROIContourSequence
        del dataset.RTROIObservationsSequence

    assert stops(checked(Scenario(), cut, verified=False))


def test_a_structure_that_is_drawn_twice_is_rejected():
    def twice(dataset):
        dataset.ROIContourSequence.append(dataset.ROIContourSequence[0])

    assert {one.check for one in checked(Scenario(), twice)} == {6}


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\0" * 128 + b"DICM" + b"\xff" * 50]
)
def test_what_is_no_structure_set_is_rejected_before_all_else(tmp_path, content):
    file = tmp_path / "rt.dcm"
    file.write_bytes(content)
    finding = opened(file)
    assert (finding.check, finding.severity) == (1, Severity.REJECT)


def test_another_kind_of_object_is_rejected(tmp_path):
    images, _ = sent()
    file = tmp_path / "rt.dcm"
    package = Package(tuple(images), TEMPLATE, ())
    file.write_bytes(structure_set(package, Scenario(rt_not_rtstruct=True)))
    assert "no RT Structure Set" in opened(file).text
    file.write_bytes(structure_set(package, Scenario()))
    assert opened(file).Modality == "RTSTRUCT"
    assert all(one.check == 12 for one in iod_findings(file))


def finished(change=lambda _dataset: None):
    images, mapping = sent()
    package = Package(tuple(images), TEMPLATE, ())
    dataset = pydicom.dcmread(io.BytesIO(structure_set(package, Scenario())))
    for one in dataset.iterall():
        if one.VR == "UI" and str(one.value) in mapping.uids:
            one.value = mapping.uids[str(one.value)]
    header = pydicom.Dataset()
    for keyword, value in mapping.patients["X7"].attributes.items():
        setattr(header, keyword, value)
        setattr(dataset, keyword, value)
    header.StudyInstanceUID = dataset.StudyInstanceUID
    change(dataset)
    return after_reidentification(dataset, mapping, header), mapping


def test_a_finished_file_has_no_finding():
    assert finished()[0] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one, "PatientBirthDate", ""),
        lambda one: setattr(one, "PatientID", "X7"),
        lambda one: setattr(one, "StudyInstanceUID", "1.2.3"),
        lambda one: setattr(one, "StructureSetLabel", "x" * 17),
        lambda one: setattr(one.StructureSetROISequence[0], "ROIName", "x" * 65),
    ],
)
def test_a_finished_file_that_is_not_the_patients_is_rejected(change):
    assert stops(finished(change)[0])


def test_a_pseudonym_that_is_left_is_found_at_any_depth():
    images, mapping = sent()
    package = Package(tuple(images), TEMPLATE, ())
    dataset = pydicom.dcmread(io.BytesIO(structure_set(package, Scenario())))
    findings = after_reidentification(dataset, mapping, dataset)
    assert any("still pseudonyms" in one.text for one in findings)


def test_a_long_name_is_told_and_goes_on():
    def change(dataset):
        dataset.StructureSetROISequence[0].ROIName = "Glnd_Submandibular_L"

    findings, _ = finished(change)
    assert [one.severity for one in findings] == [Severity.WARNING]
