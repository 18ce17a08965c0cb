"""Series with planted identifiers, and the list of what must become of each.

Twenty-four series of CT, MR and PET of eight people, and four whose pixels show who
they are of. Everything is made up, the same every time. An `Answer` is one line of the
answer key, with one of the ten actions by which MIDI-B (MICCAI 2024) scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

Action = Literal[
    "tag_retained",
    "text_notnull",
    "text_retained",
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_hidden",
    "pixels_retained",
]
ACTIONS: tuple[Action, ...] = Action.__args__  # type: ignore[attr-defined]
Kind = Literal[
    "text", "name", "uid", "date", "private", "unknown_vr", "file_meta", "overlay",
    "burnt_in", "keep",
]  # fmt: skip

SLICES = 3
SIZE = 64
ROOT = "1.2.826.0.1.3680043.8.498."
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
SURNAMES = "Quastelbrook Vandermeyden Okonjwari Bjarnholt Szczepkowa Thistlewick"
GIVEN = "Marguerita Ferdinando Adaezeline Torvaldine Wojciechina Philippinax"


@dataclass(frozen=True)
class Answer:
    """What must hold of a file: `path` leads to an element, `value` is what was there.

    An empty path means the whole file: every byte of it.
    """

    file: str
    action: Action
    kind: Kind
    path: tuple[int | str, ...] = ()
    value: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist."""

    name: str
    patient_id: str
    birth: str
    address: str
    phone: str
    physician: str
    accession: str


def people(count: int) -> list[Person]:
    """Made-up people; their names are in no dictionary."""
    surnames, given = SURNAMES.split(), GIVEN.split()
    return [
        Person(
            f"{surnames[i % 6]}{chr(97 + i)}^{given[(i * 5 + 1) % 6]}",
            f"HN{7351904 + 13577 * i}X",
            f"19{30 + i * 3}{1 + i % 9:02}{11 + i}",
            f"{17 + i} Elmstreetvale, Oldtownhaven",
            f"+31 20 555{4017 + 331 * i}",
            f"{surnames[(i + 3) % 6]}q^Docteria",
            f"ACC{60417733 + 104729 * i}",
        )
        for i in range(count)
    ]


def build(folder: Path, series: int = 24) -> list[Answer]:
    """Write the corpus below `folder`; the answer key."""
    answers: list[Answer] = []
    persons = people(8)
    for number in range(series):
        modality = ("CT", "MR", "PT")[number % 3]
        person = persons[number // 3 % len(persons)]
        for at in range(SLICES):
            name = f"{number:02}_{at}.dcm"
            image = base(modality, person, number, at)
            answers += plant(image, name, person, number)
            write(image, folder / name, implicit=number % 4 == 1, person=person)
            answers += meta_answers(name, person)
    for number, (name, image, shown) in enumerate(burnt(persons)):
        write(image, folder / name, implicit=False, person=persons[number])
        answers.append(Answer(name, "pixels_hidden", "burnt_in", (), shown))
    return answers


def base(modality: str, person: Person, series: int, at: int) -> Dataset:
    """A plain, valid slice."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = CLASSES[modality]
    image.SOPInstanceUID = f"{ROOT}7.{series}.{at + 1}.20190311"
    image.StudyDate = f"2019{1 + series % 12:02}11"
    image.SeriesDate = image.AcquisitionDate = image.ContentDate = image.StudyDate
    image.StudyTime = image.SeriesTime = image.ContentTime = "101500"
    image.AcquisitionTime = "101530"
    image.AccessionNumber = person.accession
    image.Modality = modality
    image.Manufacturer = "SIEMENS"
    image.ManufacturerModelName = "Somascope 64"
    image.InstitutionName = "Saint Zyprianus Infirmary"
    image.ReferringPhysicianName = person.physician
    image.StudyDescription = f"CT chest of {person.name.split('^')[0]}"
    image.SeriesDescription = "Thorax routine"
    image.PatientName = person.name
    image.PatientID = person.patient_id
    image.PatientBirthDate = person.birth
    image.PatientSex = "F"
    image.BodyPartExamined = "CHEST"
    image.SliceThickness = "3.0"
    image.SoftwareVersions = "VB42C"
    image.ProtocolName = "Chest routine"
    image.PatientPosition = "HFS"
    image.StudyInstanceUID = f"{ROOT}3.{series // 3}.99421"
    image.SeriesInstanceUID = f"{ROOT}5.{series}.99422"
    image.StudyID = f"ST{series:04}Z"
    image.SeriesNumber = series + 1
    image.InstanceNumber = at + 1
    image.FrameOfReferenceUID = f"{ROOT}9.{series // 3}.99423"
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient = [-50.0, -50.0, 3.0 * at]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = SIZE
    image.PixelSpacing = [1.5, 1.5]
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    if modality == "CT":
        image.KVP = "120"
        image.ConvolutionKernel = "B30f"
        image.RescaleIntercept, image.RescaleSlope = "-1024", "1"
    if modality == "MR":
        image.ScanningSequence, image.SequenceVariant = "GR", "SP"
        image.ScanOptions, image.MRAcquisitionType = "", "2D"
        image.RepetitionTime, image.EchoTime = "500", "12"
        image.SequenceName = "fl2d1"
    if modality == "PT":
        image.Units, image.DecayCorrection = "BQML", "START"
        image.RescaleIntercept, image.RescaleSlope = "0", "1.5"
        isotope = Dataset()
        isotope.Radiopharmaceutical = "FDG"
        isotope.RadiopharmaceuticalStartTime = "091000"
        isotope.RadionuclideTotalDose = "350000000"
        image.RadiopharmaceuticalInformationSequence = Sequence([isotope])
    rows, columns = np.mgrid[:SIZE, :SIZE]
    pixels = (rows * 7 + columns * 11 + series * 13 + at) % 3000 + 200
    image.PixelData = pixels.astype("<u2").tobytes()
    return image


def plant(image: Dataset, name: str, person: Person, series: int) -> list[Answer]:
    """Put identifiers in, and say what must become of them."""
    surname, given = person.name.split("^")
    answers: list[Answer] = []

    def removed(kind: Kind, value: str, depth: int = 0) -> None:
        answers.append(Answer(name, "text_removed", kind, (), value, depth))

    for text in (surname, given):
        removed("name", text)
    removed("name", person.physician.split("^")[0])
    for text in (person.patient_id, person.accession, "Zyprianus"):
        removed("text", text)
    image.PatientAddress, image.PatientTelephoneNumbers = person.address, person.phone
    removed("text", "Elmstreetvale")
    removed("text", person.phone.split()[-1])
    image.SoftwareVersions = f"VB42C {surname}"  # kept text, with a name in it
    answers.append(
        Answer(name, "text_retained", "keep", ("SoftwareVersions",), "VB42C")
    )
    image.ImageComments = f"seen by {person.physician} on {person.birth}"
    removed("date", person.birth)

    nest(image, person, series, answers, name)
    private(image, person, removed)
    unknown(image, person, removed)
    overlay(image, person, removed)

    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        value = str(getattr(image, keyword))
        answers.append(Answer(name, "date_shifted", "date", (keyword,), value))
    for keyword in (
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
    ):
        value = str(getattr(image, keyword))
        for action in ("uid_changed", "uid_consistent"):
            answers.append(Answer(name, action, "uid", (keyword,), value))  # type: ignore[arg-type]
    answers.append(
        Answer(name, "patid_consistent", "text", ("PatientID",), person.patient_id)
    )
    answers += kept(image, name)
    return answers


def nest(
    image: Dataset, person: Person, series: int, answers: list[Answer], name: str
) -> None:
    """Identifiers at depth 1 to 3, in sequences that no rule removes as a whole."""
    surname, given = person.name.split("^")
    deep = Dataset()
    deep.CodeValue, deep.CodingSchemeDesignator = "121311", "DCM"
    deep.CodeMeaning = f"Localizer {given}"
    deep.PersonName = person.name
    deep.add_new(0x00290010, "LO", "DEEP CREATOR")
    deep.add_new(0x00291001, "LO", f"private {surname}")
    middle = Dataset()
    middle.ReferencedSOPClassUID = CLASSES["CT"]
    middle.ReferencedSOPInstanceUID = f"{ROOT}7.{series}.1.20190311"
    middle.OperatorsName = f"{surname}^Operatrix"
    middle.PurposeOfReferenceCodeSequence = Sequence([deep])
    outer = Dataset()
    outer.SeriesInstanceUID = f"{ROOT}5.{series}.99422"
    outer.InstitutionName = "Zyprianus annex"
    outer.ContentDate = "20190412"
    outer.ReferencedInstanceSequence = Sequence([middle])
    image.ReferencedSeriesSequence = Sequence([outer])
    at_2 = ("ReferencedSeriesSequence", 0, "ReferencedInstanceSequence", 0)
    at_3 = (*at_2, "PurposeOfReferenceCodeSequence", 0)
    instance = (*at_2, "ReferencedSOPInstanceUID")
    value = str(middle.ReferencedSOPInstanceUID)
    answers += [
        Answer(name, "text_removed", "text", (), "annex", 1),
        Answer(name, "date_shifted", "date", (*at_2[:2], "ContentDate"), "20190412", 1),
        Answer(name, "uid_changed", "uid", instance, value, 2),
        Answer(name, "uid_consistent", "uid", instance, value, 2),
        Answer(name, "text_removed", "name", (), "Operatrix", 2),
        Answer(name, "text_removed", "name", (), given, 3),
        Answer(name, "text_removed", "private", (), f"private {surname}", 3),
        Answer(name, "text_retained", "keep", (*at_3, "CodeMeaning"), "Localizer", 3),
    ]


def private(image: Dataset, person: Person, removed: Remove) -> None:
    """Private elements: a name, a sequence, and damage that must hurt nobody."""
    image.add_new(0x00090010, "LO", "HOUSE PRIVATE")
    image.add_new(0x00091001, "PN", f"Privatissima^{person.name.split('^')[1]}")
    inner = Dataset()
    inner.add_new(0x00090010, "LO", "HOUSE PRIVATE")
    inner.add_new(0x00091002, "LT", "note about Privatissima")
    image.add_new(0x00091003, "SQ", Sequence([inner]))
    image.add_new(0x00091004, "UN", b"\xff\xfe\x00\xe0 not a sequence at all")
    removed("private", "Privatissima")
    removed("private", "note about", 1)


def unknown(image: Dataset, person: Person, removed: Remove) -> None:
    """Elements that the dictionary does not know, and a known one with VR UN."""
    image.add_new(0x004400EE, "UN", b"Unknownia " + person.patient_id.encode())
    image.add_new(0x00101060, "UN", b"Motherbirth^Unknownia")
    removed("unknown_vr", "Unknownia")
    removed("unknown_vr", "Motherbirth")


def overlay(image: Dataset, person: Person, removed: Remove) -> None:
    """An overlay with a comment, and graphics in the unused bits of the pixels."""
    image.add_new(0x60000010, "US", SIZE)
    image.add_new(0x60000011, "US", SIZE)
    image.add_new(0x60000040, "CS", "G")
    image.add_new(0x60000050, "SS", [1, 1])
    image.add_new(0x60000100, "US", 1)
    image.add_new(0x60000102, "US", 0)
    bits = b"OVERLAYSECRET ".ljust(SIZE * SIZE // 8, b"\x55")
    image.add_new(0x60003000, "OW", bits)
    image.add_new(0x60004000, "LT", f"drawn by {person.physician} Overlaynote")
    image.add_new(0x50003000, "OW", b"CURVESECRET ".ljust(16))
    removed("overlay", "OVERLAYSECRET")
    removed("overlay", "Overlaynote")
    removed("overlay", "CURVESECRET")


def kept(image: Dataset, name: str) -> Iterator[Answer]:
    """What a de-identification must leave, or the image is worth nothing."""
    present = (
        "ImageType SOPClassUID Modality Manufacturer ManufacturerModelName "
        "BodyPartExamined SliceThickness PatientPosition SeriesNumber InstanceNumber "
        "ImagePositionPatient ImageOrientationPatient Rows Columns PixelSpacing "
        "BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel "
        "PhotometricInterpretation KVP ConvolutionKernel RescaleIntercept "
        "RescaleSlope ScanningSequence SequenceVariant RepetitionTime EchoTime "
        "SequenceName Units DecayCorrection RadiopharmaceuticalInformationSequence"
    )
    for keyword in present.split():
        if keyword in image:
            yield Answer(name, "tag_retained", "keep", (keyword,))
    for keyword in [
        "PatientName",
        "PatientID",
        "StudyDate",
        "StudyInstanceUID",
        "Modality",
    ]:
        yield Answer(name, "text_notnull", "keep", (keyword,))
    for keyword in [
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyTime",
    ]:
        yield Answer(name, "tag_retained", "keep", (keyword,))
    for keyword in ["Manufacturer", "ManufacturerModelName", "BodyPartExamined"]:
        value = str(getattr(image, keyword))
        yield Answer(name, "text_retained", "keep", (keyword,), value)
    yield Answer(name, "pixels_retained", "keep")


def meta_answers(name: str, person: Person) -> Iterator[Answer]:
    """What stands before the data set."""
    surname = person.name.split("^")[0]
    for value in (f"PREAMBLE{surname}", "SRCAETITLE", "METAPRIVATE"):
        yield Answer(name, "text_removed", "file_meta", (), value)


def burnt(persons: list[Person]) -> Iterator[tuple[str, Dataset, str]]:
    """Images whose pixels show a name, each recognisable in another way."""
    declared = base("CT", persons[0], 90, 0)
    declared.BurnedInAnnotation = "YES"
    capture = base("OT", persons[1], 91, 0)
    capture.ConversionType = "WSD"
    screen = base("CT", persons[2], 92, 0)
    screen.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    banner = base("US", persons[3], 93, 0)
    banner.Manufacturer = "GE Healthcare"
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 16
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = SIZE - 1, SIZE - 1
    banner.SequenceOfUltrasoundRegions = Sequence([region])
    for name, image in (
        ("90_declared.dcm", declared),
        ("91_capture.dcm", capture),
        ("92_screen.dcm", screen),
        ("93_banner.dcm", banner),
    ):
        pixels = np.frombuffer(image.PixelData, "<u2").reshape(SIZE, SIZE).copy()
        pixels[2:12:2, 4:60:3] = 4095  # strokes where scanners write the name
        image.PixelData = pixels.tobytes()
        yield name, image, "0,0,64,16"


class Remove:
    """The type of the function that notes a removal."""

    def __call__(self, kind: Kind, value: str, depth: int = 0) -> None: ...


def write(image: Dataset, path: Path, *, implicit: bool, person: Person) -> None:
    """Write a file whose preamble and meta information tell who it is of."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    )
    meta.SourceApplicationEntityTitle = "SRCAETITLE"
    meta.PrivateInformationCreatorUID = f"{ROOT}1.99424"
    meta.PrivateInformation = b"METAPRIVATE "
    image.file_meta = meta
    surname = person.name.split("^")[0]
    image.preamble = f"PREAMBLE{surname}".encode().ljust(128, b"\0")
    image.save_as(path, enforce_file_format=True)
    if path.name == "03_1.dcm":
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(path, enforce_file_format=True)
