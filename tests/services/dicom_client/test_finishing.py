"""What came back becomes the patient's: named, completed, or kept in quarantine."""

import shutil
from datetime import UTC, datetime

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from theatrum.deidentify import load_mapping, load_profile
from theatrum.structures import dice, mask, read, series_geometry

from services.dicom_client import local_engine, packaging
from services.dicom_client.finishing import finish
from services.dicom_client.result_checks import Severity
from services.dicom_client.templates import (
    GeneratedRoi,
    Model,
    RoiProperties,
    Structure,
    Template,
)
from tests.draw_server import Scenario
from tests.draw_server.drawing import structure_set
from tests.draw_server.packages import opened
from tests.extensions.structures.series import ct_series
from tests.services.dicom_client.engines import ENGINES
from tests.services.dicom_client.test_packaging import KEY, put

AT = datetime(2026, 3, 17, 10, 30, tzinfo=UTC)
RED = (255, 0, 0)
MODEL = Model(
    301,
    "HeadNeckOAR",
    "3d_fullres",
    "nnUNetTrainer",
    None,
    (
        Structure(1, "Glnd_Submandibular_L"),
        Structure(2, "Glnd_Submandibular_R"),
        Structure(3, "Brainstem", RoiProperties("BS_AI", "ORGAN", RED)),
    ),
)
GENERATED = (
    GeneratedRoi("PTV_manual", RoiProperties(interpreted_type="PTV")),
    GeneratedRoi(
        "PRV_BS",
        RoiProperties(None, "AVOIDANCE", (0, 0, 255)),
        ({"type": "expand", "structures": ["BS_AI"], "parameters": {"margin_mm": 3}},),
    ),
    GeneratedRoi(
        "Ring",
        operations=({"type": "subtract", "structures": ["PRV_BS", "brainstem"]},),
    ),
)
TEMPLATE = Template("Head and neck, organs", (MODEL,), GENERATED)


class Job:
    """A series that was sent, and what the server answers."""

    def __init__(self, tmp_path, template=TEMPLATE, without=(), accession="ACC-99-314"):
        self.folder = tmp_path / "job"
        self.folder.mkdir()
        self.template = template
        self.originals = [
            one for at, one in enumerate(ct_series(slices=6)) if at not in without
        ]
        files = []
        for at, image in enumerate(self.originals):
            image.PatientName, image.PatientID = "Andersén^Berit", "MRN-004711"
            image.SpecificCharacterSet = "ISO_IR 100"
            image.PatientBirthDate, image.PatientSex = "19551122", "F"
            image.StudyDate, image.StudyTime = "20260315", "101500"
            image.StudyID, image.AccessionNumber = "7", accession
            image.ReferringPhysicianName = "Quellenhof^Ute"
            image.InstitutionName = "Klinikum Beispielstadt"
            files.append(put(image, tmp_path / f"{at}.dcm"))
        self.packed = packaging.pack(
            files,
            template,
            profile=load_profile("autosegmentation"),
            key=KEY,
            folder=self.folder,
            job="job-1",
        )
        self.mapping = load_mapping(self.packed.mapping, "job-1", KEY)
        self.headers = [pydicom.dcmread(one, stop_before_pixels=True) for one in files]
        self.geometry = None if without else series_geometry(self.headers)
        self.result = self.folder / "result.dcm"

    def answered(self, scenario=None, change=None):
        package = opened(self.packed.zip.read_bytes())
        self.result.write_bytes(structure_set(package, scenario or Scenario()))
        if change is not None:
            dataset = pydicom.dcmread(self.result)
            change(dataset)
            dataset.save_as(self.result)
        return self

    def finished(self, **more):
        return finish(
            self.result,
            self.mapping,
            self.headers,
            self.template,
            folder=self.folder,
            made_at=AT,
            **more,
        )


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_a_result_becomes_the_patients_and_lies_on_the_original_images(job):
    done = job.answered().finished()
    assert not done.rejected
    assert not done.alarm
    made = pydicom.dcmread(done.path)
    first = job.headers[0]
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName", "InstitutionName"),
    ):
        assert made[keyword].value == first[keyword].value, keyword
    structures = read(made)
    assert structures.frame_of_reference_uids == (first.FrameOfReferenceUID,)
    assert structures.series_instance_uids == (first.SeriesInstanceUID,)
    instances = {str(one.SOPInstanceUID) for one in job.headers}
    for roi in structures.rois:
        assert {one.sop_instance_uid for one in roi.contours} <= instances
        assert mask(roi, job.geometry).any() or not roi.contours
    content = done.path.read_bytes()
    for uid in job.mapping.uids:
        assert uid.encode() not in content


def test_it_says_that_software_drew_it_and_nobody_approved_it(job):
    def approve(dataset):
        dataset.ApprovalStatus = "APPROVED"
        dataset.ReviewerName, dataset.ReviewDate = "Server", "20260101"

    made = pydicom.dcmread(job.answered(change=approve).finished().path)
    assert made.ApprovalStatus == "UNAPPROVED"
    assert "ReviewerName" not in made
    assert made.SeriesDescription == "AI generated: Head and neck, organs"
    assert made.OperatorsName == "AI generated"
    assert made.StructureSetLabel == "Head and neck, o"
    assert (made.StructureSetDate, made.StructureSetTime) == ("20260317", "103000")


def test_names_fit_a_planning_system_and_keep_their_side(job):
    structures = read(pydicom.dcmread(job.answered().finished().path))
    assert [one.name for one in structures.rois] == [
        *("Glnd_Submandib_L", "Glnd_Submandib_R", "BS_AI"),
        *("PTV_manual", "PRV_BS", "Ring"),
    ]
    stem = structures.roi("BS_AI")
    assert (stem.colour, stem.interpreted_type) == (RED, "ORGAN")


def test_two_structures_never_get_one_name(tmp_path):
    model = Model(
        301,
        *("HeadNeck", "3d_fullres", "nnUNetTrainer", None),
        (
            Structure(1, "Lymph_node_level_one_L"),
            Structure(2, "Lymph_node_level_two_L"),
            Structure(3, "LYMPH_NODE_LEVEL_six_L"),
        ),
    )
    template = Template("Nodes", (model,), (GeneratedRoi("Lymph_node_le_L"),))
    job = Job(tmp_path, template)
    names = [
        one.name for one in read(pydicom.dcmread(job.answered().finished().path)).rois
    ]
    assert len({one.casefold() for one in names}) == len(names) == 4
    assert all(len(one) <= 16 and one.endswith("_L") for one in names)


def test_models_that_share_a_name_are_told_apart_by_their_order(tmp_path):
    def model(number, label):
        structures = (Structure(1, "Heart", RoiProperties(label)),)
        return Model(number, f"M{number}", "3d_fullres", "T", None, structures)

    job = Job(tmp_path, Template("Two", (model(650, "Heart_A"), model(651, "Heart_B"))))
    names = [
        one.name for one in read(pydicom.dcmread(job.answered().finished().path)).rois
    ]
    assert names == ["Heart_A", "Heart_B"]


def test_structures_are_made_from_others_in_millimetres(job):
    structures = read(pydicom.dcmread(job.answered().finished().path))
    numbers = [one.number for one in structures.rois]
    assert len(set(numbers)) == len(numbers)
    stem, margin, ring = (
        mask(structures.roi(name), job.geometry) for name in ("BS_AI", "PRV_BS", "Ring")
    )
    assert structures.roi("PTV_manual").contours == ()
    assert structures.roi("PTV_manual").interpreted_type == "PTV"
    assert structures.roi("PRV_BS").colour == (0, 0, 255)
    assert (margin & stem).sum() == stem.sum()
    assert (ring == (margin & ~stem)).all()
    (low, high) = np.flatnonzero(stem[2].any(axis=1))[[0, -1]]
    wide = np.flatnonzero(margin[2].any(axis=1))[[0, -1]]
    # 3 mm are three rows of 0.9 mm.
    assert list(wide) == [low - 3, high + 3]


@pytest.mark.parametrize(
    "operations",
    [
        ({"type": "expand", "structures": ["Nobody"], "parameters": {"margin_mm": 3}},),
        ({"type": "expand", "structures": ["Brainstem"]},),
        ({"type": "melt", "structures": ["Brainstem"]},),
    ],
)
def test_a_structure_that_cannot_be_made_stays_empty_and_is_told(tmp_path, operations):
    made = GeneratedRoi("PRV", operations=operations)
    job = Job(tmp_path, Template("Head", (MODEL,), (made,)))
    done = job.answered().finished()
    assert not done.rejected
    assert [one.severity for one in done.findings if "PRV" in one.text] == [
        Severity.WARNING
    ]
    assert read(pydicom.dcmread(done.path)).roi("PRV").contours == ()


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(rt_wrong_series=True),
        Scenario(rt_foreign_sop=True),
        Scenario(rt_wrong_for=True),
        Scenario(rt_no_ref=True),
        Scenario(rt_not_rtstruct=True),
        Scenario(rt_odd_points=True),
        Scenario(rt_outside=True),
        Scenario(rt_duplicate_numbers=True),
    ],
    ids=lambda one: "".join(
        name for name, value in vars(one).items() if value is True and "rt_" in name
    ),
)
def test_a_result_that_fails_a_check_is_kept_in_quarantine(job, scenario):
    content = job.answered(scenario).result.read_bytes()
    done = job.finished()
    assert done.rejected
    assert not done.alarm
    assert done.files == ()
    assert done.quarantine.read_bytes() == content
    assert not job.result.exists()
    assert not list(job.folder.glob("*RS_*"))
    # Cut off and done again: the same answer.
    assert job.finished() == done


def _odd_number(dataset):
    dataset.StructureSetROISequence[0].ROINumber = None
    dataset.StructureSetROISequence[0].add_new(0x30060022, "LO", "one")
    dataset.ROIContourSequence[0].add_new(0x30060084, "LO", "one")
    dataset.RTROIObservationsSequence[0].add_new(0x30060084, "LO", "one")


def _odd_colour(dataset):
    dataset.ROIContourSequence[0].add_new(0x3006002A, "LO", ["red", "0", "0"])


@pytest.mark.parametrize("change", [_odd_number, _odd_colour])
def test_values_that_are_none_never_stop_the_worker(job, change):
    done = job.answered(change=change).finished()
    assert done.rejected or done.path.is_file()
    if done.rejected:
        assert done.quarantine.is_file()
        assert not list(job.folder.glob("RS_*.dcm"))


def test_a_truncated_result_without_a_checksum_is_never_half_delivered(job):
    content = job.answered().result.read_bytes()
    for cut in range(132, len(content) - 200, 97):
        job.result.write_bytes(content[:cut])
        assert job.finished(verified=False).rejected, cut


def test_nothing_private_of_a_server_goes_into_the_record(job):
    def hide(dataset):
        dataset.add_new(0x00090010, "LO", "SOMEBODY")
        dataset.add_new(0x00091001, "LO", "what nobody looks at")
        dataset.StructureSetROISequence[0].add_new(0x00090010, "LO", "SOMEBODY")

    done = job.answered(change=hide).finished()
    assert b"SOMEBODY" not in done.path.read_bytes()


def test_a_server_that_knows_the_patient_raises_the_alarm(job):
    done = job.answered(Scenario(rt_phi_injected="Berit Andersén")).finished()
    assert done.rejected
    assert done.alarm
    assert "Berit" not in str(done.findings)


def test_a_structure_set_of_another_job_is_never_the_patients(job, tmp_path):
    (tmp_path / "other").mkdir()
    other = Job(tmp_path / "other").answered()
    job.result.write_bytes(other.result.read_bytes())
    assert job.finished().rejected


def test_a_step_that_is_done_again_makes_the_same_file(job):
    first = job.answered().finished()
    content = first.path.read_bytes()
    assert job.finished() == first
    assert first.path.read_bytes() == content
    assert not list(job.folder.glob(".*"))


def test_no_name_or_id_stands_in_a_file_s_name(job):
    done = job.answered().finished()
    for word in ("Anders", "Berit", "004711", str(job.headers[0].SeriesInstanceUID)):
        assert word not in done.path.name
    assert done.path.name.startswith("RS_2.25.")


def test_a_name_that_the_images_character_set_lacks_loses_its_accents(tmp_path):
    structures = (Structure(1, "Bladder", RoiProperties("Żołądek")),)
    model = Model(720, "Pelvis", "3d_fullres", "T", None, structures)
    job = Job(tmp_path, Template("Brzuch", (model,)))
    made = pydicom.dcmread(job.answered().finished().path)
    assert made.PatientName == "Andersén^Berit"
    assert [one.name for one in read(made).rois] == ["Zoadek"]


@pytest.fixture
def local(tmp_path):
    file = tmp_path / "engines.py"
    file.write_text(ENGINES)

    def job(**parameters):
        parameters = {"from_hu": -1022.0} | parameters
        job = Job(
            tmp_path, Template("Ring", engine=f"{file}:ring", parameters=parameters)
        )
        local_engine.run(
            sorted(job.packed.images.glob("*.dcm")),
            job.template,
            folder=job.folder,
            job="job-1",
            made_at=AT,
        )
        return job

    return job


@pytest.mark.parametrize("output", ["seg", "both"])
def test_a_template_may_want_a_segmentation_object(local, output):
    job = local(output=output)
    done = job.finished()
    *contours, file = done.files
    assert [one.name[:3] for one in contours] == (["RS_"] if output == "both" else [])
    made = highdicom.seg.segread(file)
    first = job.headers[0]
    assert made.PatientName == first.PatientName
    assert made.StudyInstanceUID == first.StudyInstanceUID
    assert made.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert made.SegmentSequence[0].SegmentLabel == "Ring"
    pixels = made.get_pixels_by_source_instance(
        job.geometry.sop_instance_uids, assert_missing_frames_are_empty=True
    )
    # Slices hold their own number: from the third on they are denser than wanted.
    assert pixels[..., 0].all(axis=(1, 2)).tolist() == [False] * 2 + [True] * 4
    content = file.read_bytes()
    assert job.finished().files[-1].read_bytes() == content


def test_a_malformed_private_element_of_the_images_keeps_no_segmentation_back(local):
    job = local(output="both")
    for header in job.headers:
        # A double of six bytes: Philips consoles write decimals there.
        tag = Tag(0x01F1, 0x1026)
        raw = RawDataElement(tag, "FD", 6, b"0.688 ", 0, False, True)
        header[tag] = raw
    done = job.finished()
    assert [one.name.partition("_")[0] for one in done.files] == ["RS", "SEG"]


def test_a_local_engine_s_result_passes_the_checks_without_a_note(local):
    done = local().finished()
    noted = [one.text for one in done.findings if one.text != "Core is empty"]
    assert noted == []


def test_a_second_result_takes_the_place_of_the_first(job):
    first = job.answered().finished()
    second = job.answered().finished()
    assert second.path != first.path
    assert list(job.folder.glob("RS_*")) == [second.path]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not here")
@pytest.mark.parametrize("output", ["rtstruct", "both"])
def test_what_is_delivered_is_what_the_standard_wants(local, output):
    done = local(output=output).finished()
    assert [one for one in done.findings if one.check == 12] == []


def test_the_lungs_of_the_phantom_come_back_through_the_whole_way(
    shared_data, tmp_path
):
    folder = shared_data / "ct_rtstruct" / "alderson_lungs"
    files = sorted((folder / "CT").glob("*.dcm"))
    template = Template("Chest", engine="theatrum.nodes:ct_body_lungs_bone")
    made = packaging.deidentify(
        files,
        profile=load_profile("autosegmentation"),
        key=KEY,
        folder=tmp_path,
        job="job-1",
    )
    result = local_engine.run(
        made.files(), template, folder=tmp_path, job="job-1", made_at=AT
    )
    headers = [pydicom.dcmread(one, stop_before_pixels=True) for one in files]
    mapping = load_mapping(made.mapping, "job-1", KEY)
    done = finish(result, mapping, headers, template, folder=tmp_path, made_at=AT)
    assert done.findings == ()
    geometry = series_geometry(headers)
    found, reference = (
        read(pydicom.dcmread(path)) for path in (done.path, folder / "RS_matched.dcm")
    )
    assert found.series_instance_uids == reference.series_instance_uids
    assert found.frame_of_reference_uids == (geometry.frame_of_reference_uid,)
    for ours, theirs in (("Left lung", "Lung_L"), ("Right lung", "Lung_R")):
        one = mask(found.roi(ours), geometry)
        assert dice(one, mask(reference.roi(theirs), geometry)) >= 0.95
    assert found.roi("Body").interpreted_type == "EXTERNAL"


def test_a_series_with_a_gap_that_a_person_let_through_is_delivered(tmp_path):
    done = Job(tmp_path, without=[2]).answered().finished()
    assert not done.rejected
    assert [one.text for one in done.findings] == [
        "PRV_BS stays empty: images are missing",
        "Ring stays empty: images are missing",
    ]
    structures = read(pydicom.dcmread(done.path))
    assert len(structures.roi("BS_AI").contours) == 5
    assert structures.roi("Ring").contours == ()


def test_contours_beside_images_with_a_gap_are_rejected(tmp_path):
    job = Job(tmp_path, without=[2]).answered(Scenario(rt_outside=True))
    assert {one.check for one in job.finished().findings} == {8}


def test_images_at_the_same_place_carry_no_structures(tmp_path):
    job = Job(tmp_path)
    job.answered()
    job.headers[1].ImagePositionPatient = job.headers[0].ImagePositionPatient
    done = job.finished()
    assert done.rejected
    assert "same place" in done.findings[0].text
