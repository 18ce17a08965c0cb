"""A series becomes a package: whole or not at all, and it tells of nobody."""

import io
import zipfile
from dataclasses import replace

import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from theatrum.deidentify import load_mapping, load_profile

from services.dicom_client import draw_server, packaging
from services.dicom_client.errors import NotPackable
from services.dicom_client.templates import Model, Structure, Template, to_yaml
from tests import draw_server as double
from tests.extensions.structures.series import ct_series

KEY = b"thirty-two bytes of a test's key"
TEMPLATE = Template(
    "Pelvis male",
    (
        Model(
            720,
            "PelvisMaleOAR",
            "3d_fullres",
            "nnUNetTrainer",
            None,
            (Structure(1, "Bladder"), Structure(4, "Femur_Head_L")),
        ),
    ),
)
PLANTED = {
    "PatientName": "Andersen^Berit",
    "PatientID": "MRN-004711",
    "PatientBirthDate": "19551122",
    "AccessionNumber": "ACC-99-314",
    "ReferringPhysicianName": "Quellenhof^Ute",
    "InstitutionName": "Klinikum Beispielstadt",
}
CANARIES = [
    *("Andersen", "Berit", "MRN-004711", "19551122", "ACC-99-314", "Quellenhof"),
    *("Beispielstadt", "20260317"),
]


def put(image, path):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = image.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta = meta
    image.save_as(path, enforce_file_format=True)
    return path


def deep(depth):
    """Items within items, with a name, an id, a date and a UID at the bottom."""
    item = Dataset()
    item.PersonName = item.PatientComments = "Andersen^Berit"
    item.PatientID = "MRN-004711"
    item.StudyDate = "20260317"
    item.ReferencedSOPInstanceUID = generate_uid()
    item.add_new(0x00110010, "LO", "MAKER")
    item.add_new(0x00111001, "UN", b"of Andersen, MRN-004711")
    for _ in range(depth):
        outer = Dataset()
        outer.RequestedProcedureDescription = "scan of Andersen"
        outer.ReferencedImageSequence = Sequence([item])
        outer.OtherPatientIDsSequence = Sequence([Dataset()])
        outer.OtherPatientIDsSequence[0].PatientID = "MRN-004711"
        item = outer
    return item


@pytest.fixture
def series(tmp_path):
    """Files of a series with a planted person, at every depth to 3."""
    folder = tmp_path / "Andersen Berit 19551122"
    folder.mkdir()
    images = ct_series(slices=5)
    for at, image in enumerate(images):
        for keyword, value in PLANTED.items():
            setattr(image, keyword, value)
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = "20260317"
        image.RequestAttributesSequence = Sequence([deep(at % 4)])
        image.SourceImageSequence = Sequence([deep(3)])
        image.add_new(0x00090010, "LO", "MAKER")
        image.add_new(0x00091001, "LO", "Andersen")
        put(image, folder / f"Andersen_{at}.dcm")
    return sorted(folder.iterdir())


def packed(files, folder, template=TEMPLATE, job="job-1", **more):
    folder.mkdir(exist_ok=True)
    return packaging.pack(
        files,
        template,
        profile=load_profile("autosegmentation"),
        key=KEY,
        folder=folder,
        job=job,
        **more,
    )


def test_the_server_takes_the_package_and_finds_nothing_in_it(series, tmp_path):
    uids = [
        str(element.value)
        for path in series
        for element in pydicom.dcmread(path).iterall()
        if element.VR == "UI" and "1.2.840.10008" not in str(element.value)
    ]
    made = packed(series, tmp_path / "job")
    with double.DrawServer(canaries=[*CANARIES, *uids]) as server:
        client = draw_server.DrawServer(
            draw_server.DrawSettings(server.url),
            draw_server.Tokens(server.access_token),
        )
        token = client.upload(made.zip, made.sha256)
        assert server.leaks == []
        package = server.tasks[token].package
    assert package.wanted == ["Bladder", "Femur_Head_L"]
    assert {str(one.SeriesInstanceUID) for one in package.images} == {
        made.deid_series_uid
    }


def test_the_zip_is_flat_and_numbered_along_the_normal(series, tmp_path):
    made = packed(list(reversed(series)), tmp_path / "job")
    with zipfile.ZipFile(made.zip) as archive:
        names = archive.namelist()
        assert names == [
            *("1.dcm", "2.dcm", "3.dcm", "4.dcm", "5.dcm"),
            "autosegmentation_template.yml",
        ]
        images = [pydicom.dcmread(io.BytesIO(archive.read(one))) for one in names[:5]]
        assert archive.read(names[5]).decode() == to_yaml(TEMPLATE)
    heights = [float(one.ImagePositionPatient[2]) for one in images]
    assert heights == sorted(heights)
    for image in images:
        for keyword in ("StudyDate", "StudyTime", "StudyID"):
            assert keyword in image


def test_the_same_series_gives_the_same_bytes_in_any_order(series, tmp_path):
    shuffled = [*series[3:], *series[:3][::-1]]
    first = packed(series, tmp_path / "one")
    second = packed(shuffled, tmp_path / "two", job="job-2")
    assert first.sha256 == second.sha256
    assert first.zip.read_bytes() == second.zip.read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("BurnedInAnnotation", "YES", "burned_in"),
        ("SeriesInstanceUID", "1.2.3.4.5.6.7.8.9", "mixed"),
        ("FrameOfReferenceUID", "1.2.3.4.5.6.7.8.9", "mixed"),
    ],
)
def test_one_image_that_stays_inside_keeps_all_inside(
    series, tmp_path, name, value, code
):
    image = pydicom.dcmread(series[2])
    setattr(image, name, value)
    put(image, series[2])
    with pytest.raises(NotPackable) as caught:
        packed(series, tmp_path / "job")
    assert caught.value.code == code
    assert "Andersen" not in str(caught.value)
    assert list((tmp_path / "job").iterdir()) == []


def test_a_file_that_is_cut_off_keeps_all_inside(series, tmp_path):
    series[1].write_bytes(series[1].read_bytes()[:900])
    with pytest.raises(NotPackable, match="stay inside"):
        packed(series, tmp_path / "job")
    assert not (tmp_path / "job" / packaging.PACKAGE).exists()


@pytest.mark.parametrize(
    "template",
    [
        replace(TEMPLATE, name="for Berit Andersen"),
        replace(TEMPLATE, name="case mrn-004711"),
        replace(TEMPLATE, name="seen 19551122"),
    ],
    ids=["name", "id", "birth date"],
)
def test_a_template_that_tells_the_patient_is_not_packed(series, tmp_path, template):
    with pytest.raises(NotPackable) as caught:
        packed(series, tmp_path / "job", template)
    assert caught.value.code == "canary"
    assert not list((tmp_path / "job").glob("*.zip*"))


def test_a_text_that_the_settings_name_is_not_packed(series, tmp_path):
    for path in series:
        image = pydicom.dcmread(path)
        image.Manufacturer = "Gamma Works of Beispielstadt"
        image.InstitutionName = ""
        put(image, path)
    packed(series, tmp_path / "without")
    with pytest.raises(NotPackable, match="an image"):
        packed(series, tmp_path / "with", canaries=["Beispielstadt"])


def test_a_step_that_is_done_again_changes_nothing(series, tmp_path):
    folder = tmp_path / "job"
    first = packed(series, folder)
    mapping = first.mapping.read_bytes()
    again = packed(series, folder)
    assert again == first
    assert again.mapping.read_bytes() == mapping
    # Cut off after the images, before the zip; and before all images were there.
    first.zip.unlink()
    assert packed(series, folder).sha256 == first.sha256
    next(first.images.glob("*.dcm")).unlink()
    assert packed(series, folder).sha256 == first.sha256
    assert first.mapping.read_bytes() == mapping


def test_a_job_keeps_its_mapping_whatever_comes_later(series, tmp_path):
    made = packed(series, tmp_path / "job")
    for path in made.images.iterdir():
        path.unlink()
    with pytest.raises(NotPackable) as caught:
        packed(series[:-1], tmp_path / "job")
    assert caught.value.code == "mapping"
    mapping = load_mapping(made.mapping, "job-1", KEY)
    (patient,) = mapping.patients.values()
    assert patient.attributes["PatientName"] == "Andersen^Berit"
    assert b"Andersen" not in made.mapping.read_bytes()
    assert made.mapping.stat().st_mode & 0o077 == 0


def test_a_cancel_stops_and_leaves_no_zip(series, tmp_path):
    class Stopped(Exception):
        pass

    calls = []

    def check():
        calls.append(1)
        if len(calls) > 12:
            raise Stopped

    with pytest.raises(Stopped):
        packed(series, tmp_path / "job", check=check)
    assert not list((tmp_path / "job").glob("*.zip*"))
