"""An RTSTRUCT comes back: the original identity, or a refusal."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from theatrum import deidentify

from tests.extensions.deidentify.running import MODIFIED, image, package, profile, put


@pytest.fixture
def job(tmp_path: Path) -> tuple[list[Dataset], list[Dataset], deidentify.Mapping]:
    """Original slices, the ones given out, and the mapping between them."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    originals = []
    for at in range(3):
        one = image()
        one.SOPInstanceUID += f".{at}"
        put(one, source / f"{at}.dcm")
        originals.append(one)
    done = package(source, target, profile(MODIFIED))
    given = [dcmread(target / done.names[number]) for number in (1, 2, 3)]
    return originals, given, done.mapping


def contoured(given: list[Dataset]) -> Dataset:
    """A structure set as the server's builder makes it from slices."""
    first = given[0]
    made = Dataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    made.SOPInstanceUID, made.SeriesInstanceUID = "2.25.11", "2.25.12"
    made.Modality, made.Manufacturer = "RTSTRUCT", "Qurit"
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
        "StudyTime", "StudyID", "StudyInstanceUID", "AccessionNumber",
        "PatientIdentityRemoved", "DeidentificationMethodCodeSequence",
    ):  # fmt: skip
        if keyword in first:
            setattr(made, keyword, first[keyword].value)
    made.StructureSetLabel, made.StructureSetDate = "RTstruct", "20260801"
    frame, study, series = Dataset(), Dataset(), Dataset()
    images = []
    for each in given:
        item = Dataset()
        item.ReferencedSOPClassUID = each.SOPClassUID
        item.ReferencedSOPInstanceUID = each.SOPInstanceUID
        images.append(item)
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = Sequence(images)
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = Sequence([study])
    made.ReferencedFrameOfReferenceSequence = Sequence([frame])
    roi = Dataset()
    roi.ROINumber, roi.ROIName = 1, "Lung_L"
    roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
    made.StructureSetROISequence = Sequence([roi])
    return made


Job = tuple[list[Dataset], list[Dataset], deidentify.Mapping]


def test_every_uid_name_and_date_is_the_original(job: Job) -> None:
    originals, given, mapping = job
    back = deidentify.reidentify(contoured(given), mapping)
    first = originals[0]
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
        "StudyTime", "StudyID", "StudyInstanceUID", "AccessionNumber",
        "ReferringPhysicianName", "StudyDescription",
    ):  # fmt: skip
        assert back[keyword].value == first[keyword].value, keyword
    frame = back.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == first.FrameOfReferenceUID
    study = frame.RTReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == first.StudyInstanceUID
    series = study.RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence] == [
        one.SOPInstanceUID for one in originals
    ]
    roi = back.StructureSetROISequence[0]
    assert roi.ReferencedFrameOfReferenceUID == first.FrameOfReferenceUID
    assert back.StructureSetDate == "20260801"
    assert "PatientIdentityRemoved" not in back


def test_no_pseudonym_is_left(job: Job) -> None:
    _, given, mapping = job
    back = deidentify.reidentify(contoured(given), mapping)
    text = str(back)
    assert str(given[0].PatientID) not in text
    assert not any(uid in text for uid in mapping.uids)


def test_its_own_uids_are_new_and_the_same_each_time(job: Job) -> None:
    _, given, mapping = job
    first = deidentify.reidentify(contoured(given), mapping)
    second = deidentify.reidentify(contoured(given), mapping)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.SOPInstanceUID not in ("2.25.11", first.SeriesInstanceUID)
    assert first.SeriesInstanceUID != "2.25.12"


def test_the_returned_data_set_stays_as_it_is(job: Job) -> None:
    _, given, mapping = job
    returned = contoured(given)
    before = copy.deepcopy(returned)
    deidentify.reidentify(returned, mapping)
    assert returned == before


def _foreign_instance(returned: Dataset) -> None:
    frame = returned.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.ContourImageSequence[1].ReferencedSOPInstanceUID = "1.2.3.999"


def _foreign_series(returned: Dataset) -> None:
    frame = returned.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.SeriesInstanceUID = "1.2.3.999"


def _foreign_frame(returned: Dataset) -> None:
    returned.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.999"


def _foreign_patient(returned: Dataset) -> None:
    returned.PatientID = "SOMEBODYELSE"


def _foreign_study(returned: Dataset) -> None:
    returned.StudyInstanceUID = "1.2.3.999"


def _no_structure_set(returned: Dataset) -> None:
    returned.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"


def _original_name(returned: Dataset) -> None:
    returned.StructureSetDescription = f"for {image().PatientName}"


def _original_uid(returned: Dataset) -> None:
    returned.StructureSetDescription = f"of {image().StudyInstanceUID}"


@pytest.mark.parametrize(
    "harm",
    [
        _foreign_instance,
        _foreign_series,
        _foreign_frame,
        _foreign_patient,
        _foreign_study,
        _no_structure_set,
        _original_name,
        _original_uid,
    ],
)
def test_what_is_not_of_the_job_is_refused(job: Job, harm: object) -> None:
    _, given, mapping = job
    returned = contoured(given)
    assert callable(harm)
    harm(returned)
    with pytest.raises(deidentify.ReidentificationError) as refused:
        deidentify.reidentify(returned, mapping)
    assert str(image().PatientName) not in str(refused.value)


def test_the_structure_set_of_the_phantom_loads_on_its_original_ct(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "ct_rtstruct" / "alderson_lungs"
    files = [*sorted((folder / "CT").glob("*.dcm")), folder / "RS_matched.dcm"]
    worker = deidentify.Deidentifier(
        deidentify.load_profile("autosegmentation"), b"sixteen bytes or more"
    )
    done = worker.package(files, tmp_path / "out")
    assert done.report.given_out == len(files), done.report.as_json()
    number = sorted(files).index(folder / "RS_matched.dcm") + 1
    given = dcmread(tmp_path / "out" / done.names[number])
    back = deidentify.reidentify(given, done.mapping)
    before = dcmread(folder / "RS_matched.dcm")

    def references(one: Dataset) -> list[str]:
        return [
            str(element.value)
            for part in (
                *one.ReferencedFrameOfReferenceSequence,
                *one.ROIContourSequence,
            )
            for element in part.iterall()
            if element.keyword in ("ReferencedSOPInstanceUID", "FrameOfReferenceUID")
        ]

    assert references(back) == references(before)
    assert back.PatientID == before.PatientID
    assert back.StudyInstanceUID == before.StudyInstanceUID
