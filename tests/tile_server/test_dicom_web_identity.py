"""Nothing of a patient leaves by DICOMweb, wherever the file has put it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.tile_server.dicom_web_service import Service, place_of, services, way
from tile_server.protocols.dicom_web_kept import EMPTIED, KEPT, REPLACED

SECRET = "Oidipous"
_TEXTS = {
    "PatientName": f"{SECRET}^Rex",
    "PatientID": SECRET,
    "OtherPatientNames": f"{SECRET}^Other",
    "PatientAddress": SECRET,
    "PatientComments": SECRET,
    "AccessionNumber": SECRET,
    "StudyID": SECRET,
    "StudyDescription": SECRET,
    "SeriesDescription": SECRET,
    "ImageComments": SECRET,
    "DerivationDescription": SECRET,
    "InstitutionName": SECRET,
    "ReferringPhysicianName": SECRET,
    "OperatorsName": SECRET,
    "StationName": SECRET,
    "DeviceSerialNumber": SECRET,
    "ContainerIdentifier": SECRET,
    "LabelText": SECRET,
    "BarcodeValue": SECRET,
    "ProtocolName": SECRET,
}


def content(kind: str) -> Dataset:
    """A step of a specimen's preparation, told in a kind of value."""
    item = Dataset()
    item.ValueType = kind
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator = "121041", "DCM"
    name.CodeMeaning = "Specimen Identifier"
    item.ConceptNameCodeSequence = Sequence([name])
    if kind == "CODE":
        item.ConceptCodeSequence = Sequence([name])
    elif kind == "PNAME":
        item.PersonName = SECRET
    else:
        item.TextValue = SECRET
    return item


def write_with_identity(folder: Path) -> Path:
    """A slide whose files name a patient in every place they can."""
    path = write_dicom_slide(folder, DicomSpec(downsamples=(1,), parts=2))
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        for keyword, text in _TEXTS.items():
            setattr(dataset, keyword, text)
        dataset.PatientBirthDate = "18560506"
        dataset.StudyDate = "18560507"
        dataset.AcquisitionDateTime = "18560508120000"
        dataset.private_block(0x0011, SECRET, create=True).add_new(1, "LO", SECRET)
        specimen = Dataset()
        specimen.SpecimenIdentifier = SECRET
        specimen.SpecimenUID = "1.2.3"
        specimen.SpecimenDetailedDescription = SECRET
        step = Dataset()
        step.SpecimenPreparationStepContentItemSequence = Sequence(
            [content("TEXT"), content("CODE"), content("PNAME")]
        )
        specimen.SpecimenPreparationSequence = Sequence([step])
        dataset.SpecimenDescriptionSequence = Sequence([specimen])
        # A name where a code belongs, and one inside a sequence that stays.
        dataset.OpticalPathSequence[0].PatientName = SECRET
        dataset.OpticalPathSequence[0].add_new(0x00130010, "LO", SECRET)
        dataset.SharedFunctionalGroupsSequence[0].PatientID = SECRET
        dataset.save_as(file)
    return path


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    yield from services(lane=False)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_identity(tmp_path_factory.mktemp("named"))


def without_secrets(answer: httpx.Response) -> bytes:
    assert answer.status_code == 200
    seen = answer.content
    for secret in (SECRET, SECRET.upper(), "18560506", "18560507", "18560508"):
        assert secret.encode() not in seen
    return seen


def test_the_files_do_name_the_patient(slide: Path) -> None:
    assert slide.read_bytes().count(SECRET.encode()) > 20


def test_no_answer_names_the_patient(service: Service, slide: Path) -> None:
    base = service.address(slide, label=True)
    instances = service.client(slide, label=True).search_for_instances()
    assert len(instances) == 3
    study, series, _ = place_of(instances[0])
    for rest in (
        "/studies?includefield=all",
        "/series?includefield=PatientName,PatientID,OtherPatientNames,00110010",
        "/instances?includefield=all",
        f"/studies/{study}/metadata",
        f"/studies/{study}",
        f"/studies/{study}/series/{series}",
        *(way(one) + "/metadata" for one in instances),
        *(way(one) for one in instances),
    ):
        without_secrets(service.get(base + rest))
    for rest in ("PatientName", "PatientID", "AccessionNumber", "OtherPatientNames"):
        answer = service.get(f"{base}/instances?{rest}={SECRET}*")
        assert answer.status_code == 204


def test_identifiers_stay_and_what_the_standard_demands_is_there(
    service: Service, slide: Path
) -> None:
    client = service.client(slide)
    for one in client.search_for_instances():
        dataset = client.retrieve_instance(*place_of(one))
        (file,) = (
            read
            for path in slide.parent.glob("*.dcm")
            if (read := pydicom.dcmread(path)).SOPInstanceUID == place_of(one)[2]
        )
        assert dataset.SeriesInstanceUID == file.SeriesInstanceUID
        assert dataset.ConcatenationUID == file.ConcatenationUID
        assert dataset.PatientIdentityRemoved == "YES"
        assert all(dataset[keyword].value in ("", None) for keyword in EMPTIED)
        assert all(str(dataset[name].value) == told for name, told in REPLACED.items())
        assert dataset.ContainerIdentifier.startswith("SLIDE-")
        (specimen,) = dataset.SpecimenDescriptionSequence
        assert specimen.SpecimenIdentifier == dataset.ContainerIdentifier
        assert specimen.SpecimenUID == "1.2.3"
        (step,) = specimen.SpecimenPreparationSequence
        (told,) = step.SpecimenPreparationStepContentItemSequence
        assert told.ValueType == "CODE"


def test_no_attribute_of_people_or_times_is_on_the_list() -> None:
    for keyword in KEPT:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        assert pydicom.datadict.dictionary_VR(tag) not in ("PN", "DA", "TM", "DT")
        assert tag >> 16 not in (0x0010, 0x0032, 0x0038)


def test_no_line_of_the_service_quotes_a_header(tmp_path: Path) -> None:
    # pydicom warns of odd values, and quotes them.
    path = write_dicom_slide(tmp_path / "one", DicomSpec(downsamples=(1,)))
    dataset = pydicom.dcmread(path)
    with pytest.warns(UserWarning, match=SECRET):
        dataset.FrameOfReferenceUID = SECRET
    dataset.save_as(path)
    command = [sys.executable, "-m", "tile_server", "serve", tmp_path, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        ready = next(line for line in process.stdout if line.startswith("ready"))
        address = ready.split()[1].rstrip("/")
        listed = httpx.get(f"{address}/images.json", trust_env=False).json()
        place = address + listed["images"][0]["dicomweb"]
        (one, *_) = httpx.get(f"{place}/instances", trust_env=False).json()
        answer = httpx.get(f"{place}{way(one)}/metadata", trust_env=False)
        process.terminate()
        said = process.stderr.read()
    assert SECRET.encode() not in without_secrets(answer)
    assert SECRET not in said
