"""The header of a DICOM file, as far as it describes pixels, device and protocol.

Attributes of a person are not kept. Name and number are looked at for one purpose: a
description into which somebody typed them is left out.
"""

from __future__ import annotations

import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from theatrum.catalog.formats.errors import Damaged, NotAnImage
from theatrum.catalog.formats.scene import Acquisition, Modality
from theatrum.deidentify.pseudonyms import Pseudonyms

WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_META_BYTES: Final = 2**20
"""What a file may say before its data set."""
_RATIO: Final = 100
_HONEST_BYTES: Final = 64 * 2**20
_MOST_BYTES: Final = 2**31
"""Of a deflated file: bytes for each packed one, what is always honest, and at most."""
# What pydicom raises for damaged files, at opening or when a value is looked at.
DAMAGED: Final = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, NotImplementedError, OverflowError,
    RecursionError, struct.error, MemoryError,
)  # fmt: skip
_KINDS: Final = {
    "1.2.840.10008.1.3.10": (
        "a DICOMDIR, a table of contents: add the folder, and its images are found"
    ),
    "1.2.840.10008.5.1.4.1.1.481.3": (
        "an RT Structure Set, outlines without pixels: open it on its images with "
        "theatrum.series"
    ),
    "1.2.840.10008.5.1.4.1.1.481.5": "an RT Plan, which holds no pixels",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, which no viewer reads",
    "1.2.840.10008.5.1.4.1.1.66.4": (
        "a segmentation: it marks another image and is no image by itself"
    ),
    "1.2.840.10008.5.1.4.1.1.66.1": "a spatial registration, which holds no pixels",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF in DICOM, which holds no pixels",
}
_MODALITIES: Final = {
    "CT": "CT", "MR": "MR", "PT": "PT", "SM": "SM", "US": "US", "CR": "XR",
    "DX": "XR", "MG": "XR", "XA": "XR", "RF": "XR", "RG": "XR", "PX": "XR", "IO": "XR",
    "IVUS": "US", "NM": "PT",
}  # fmt: skip
_DEVICE: Final = {
    "Manufacturer": "maker",
    "ManufacturerModelName": "model",
    "SoftwareVersions": "software",
    "MagneticFieldStrength": "field_strength_t",
    "ReceiveCoilName": "coil",
}
_PROTOCOL: Final = {
    "ProtocolName": "protocol",
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "InversionTime": "inversion_time_ms",
    "FlipAngle": "flip_angle_deg",
    "ScanningSequence": "sequence",
    "SequenceVariant": "sequence_variant",
    "SequenceName": "sequence_name",
    "MRAcquisitionType": "acquisition_type",
    "PixelBandwidth": "pixel_bandwidth_hz",
    "EchoTrainLength": "echo_train_length",
    "DiffusionBValue": "b_value_s_mm2",
    "KVP": "tube_voltage_kv",
    "XRayTubeCurrent": "tube_current_ma",
    "ExposureTime": "exposure_time_ms",
    "Exposure": "exposure_mas",
    "ConvolutionKernel": "kernel",
    "SliceThickness": "slice_thickness_mm",
    "SpacingBetweenSlices": "slice_step_mm",
    "ContrastBolusAgent": "contrast",
    "PatientPosition": "patient_position",
    "InPlanePhaseEncodingDirection": "phase_encoding",
    "Units": "units",
    "DecayCorrection": "decay_correction",
    "ImageType": "image_type",
}
_PEOPLE: Final = (
    "PatientName", "PatientID", "IssuerOfPatientID",
    "OtherPatientIDs", "ReferringPhysicianName",
    "OperatorsName", "PerformingPhysicianName", "AccessionNumber", "PatientBirthDate",
)  # fmt: skip
# Philips' private creators and scale slopes, in whichever block they were put.
_PHILIPS: Final = [
    (0x2005, tag)
    for block in range(0x10, 0x20)
    for tag in (block, block << 8 | 0x0D, block << 8 | 0x0E)
]
# Any: pydicom takes a mixture, and says that it does not.
_TAGS: Final[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "Modality", "SeriesDescription", "BodyPartExamined", "Laterality",
    "FrameOfReferenceUID", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime",
    "SeriesDate", "SeriesTime", "StudyDate", "ContentTime", "InstanceNumber",
    "SeriesNumber", "AcquisitionNumber", "EchoNumbers", "TriggerTime",
    "TemporalPositionIdentifier", "DiffusionBValue", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PhotometricInterpretation", "PlanarConfiguration", "PixelPaddingValue",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "PatientIdentityRemoved", "BurnedInAnnotation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameTime",
    "FrameIncrementPointer", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "AcquisitionMatrix", "SequenceOfUltrasoundRegions", "LossyImageCompression",
    (0x0019, 0x0010), (0x0019, 0x100A), (0x0029, 0x0010), (0x0029, 0x1010),
    (0x0029, 0x0011), (0x0029, 0x1110), *_PHILIPS, *_DEVICE, *_PROTOCOL, *_PEOPLE,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Header:
    """One file's header, and where its pixel data element begins.

    Attributes
    ----------
    syntax
        The transfer syntax's UID.
    pixels_at
        Offset of the pixel data's tag in the file.
    """

    path: Path
    dataset: Dataset
    syntax: str
    pixels_at: int

    def text(self, keyword: str) -> str:
        """A value as text; "" where it is missing or of no use."""
        value = self.dataset.get(keyword)
        # PostgreSQL's text knows no NUL.
        return "" if value is None else str(value).replace("\0", "").strip()

    def number(self, keyword: str) -> float | None:
        """A value as a number, its first where it has several; None if it is none."""
        return number(self.dataset.get(keyword))

    def whole(self, keyword: str, default: int = 0) -> int:
        found = self.number(keyword)
        return default if found is None else int(found)

    @property
    def series(self) -> str:
        return self.text("SeriesInstanceUID")

    @property
    def instance(self) -> str:
        return self.text("SOPInstanceUID")

    @property
    def is_whole_slide(self) -> bool:
        return self.text("SOPClassUID") == WHOLE_SLIDE


def number(value: Any) -> float | None:
    """A finite number out of a value of a data set, or None."""
    if value is None or value == "":
        return None
    if isinstance(value, Sequence | pydicom.multival.MultiValue) and not isinstance(
        value, str
    ):
        if not len(value):
            return None
        value = value[0]
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if abs(found) < 1e300 else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers out of a value, or None."""
    if value is None or isinstance(value, str):
        return None
    try:
        found = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        return None
    if len(found) != count or any(abs(one) > 1e12 or one != one for one in found):
        return None
    return found


def read_header(path: Path) -> Header:
    """The header of a DICOM file.

    Raises NotAnImage where the file holds no pixels (a structure set, a report), and
    Damaged where it is no DICOM that can be read.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # pydicom's warnings quote values, which can be a patient's.
            warnings.simplefilter("ignore")
            _refuse_bomb(file)
            dataset = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=_TAGS, force=True
            )
            at = file.tell()
            kind = str(
                dataset.get("SOPClassUID")
                or dataset.file_meta.get("MediaStorageSOPClassUID", "")
            )
            if kind in _KINDS:
                raise NotAnImage(f"{path.name} is {_KINDS[kind]}.")
            syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
            if not kind and "Rows" not in dataset:
                raise NotAnImage(
                    f"{path.name} is no DICOM file: its content is something else."
                )
            if "Rows" not in dataset or "Columns" not in dataset:
                raise NotAnImage(
                    f"{path.name} is a DICOM file without pixels "
                    f"({_name_of(kind)}): there is no image to take in."
                )
            if not syntax:
                syntax = _guessed_syntax(dataset)
            return Header(path, dataset, syntax, at)
    except NotAnImage:
        raise
    except DAMAGED as error:
        kind = type(error).__name__
        raise Damaged(
            f"{path.name} is no DICOM file that can be read ({kind}). Copy it again."
        ) from error


def _refuse_bomb(file: IO[bytes]) -> None:
    """Raise Damaged for a deflated file that unpacks to more than it can honestly hold.

    pydicom unpacks such a file whole, whatever it is asked for.
    """
    if _syntax(file) == _DEFLATED:
        size = os.fstat(file.fileno()).st_size
        left = min(max(size * _RATIO, _HONEST_BYTES), _MOST_BYTES)
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        while piece := file.read(2**16):
            while piece:
                left -= len(machine.decompress(piece, 2**20))
                if left < 0:
                    raise Damaged(
                        "A deflated DICOM file unpacks to more than an image takes. "
                        "Store it in another transfer syntax."
                    )
                piece = machine.unconsumed_tail
            if machine.eof:
                break
    file.seek(0)


def _syntax(file: IO[bytes]) -> bytes:
    """The transfer syntax that a file's meta elements name; it is left behind them.

    Told by the elements themselves (PS3.10, 7.1), for their length can be a lie.
    """
    file.seek(132 if file.read(132)[128:] == b"DICM" else 0)
    syntax = b""
    while file.tell() < _META_BYTES:
        at = file.tell()
        start = file.read(12)
        if start[:2] != b"\x02\0" or len(start) < 12:
            file.seek(at)
            return syntax
        is_long = start[4:6] in (b"OB", b"OW", b"UN", b"UT", b"SQ")
        length = int.from_bytes(start[8:12] if is_long else start[6:8], "little")
        file.seek(at + (12 if is_long else 8))
        value = file.read(min(length, _META_BYTES))
        if start[2:4] == b"\x10\0":
            syntax = value.rstrip(b"\0 ")
    raise Damaged("A DICOM file begins with more about itself than any does.")


def _name_of(uid: str) -> str:
    name = pydicom.uid.UID(uid).name if uid else "of no known kind"
    return str(name)[:64]


def _guessed_syntax(dataset: Dataset) -> str:
    """How a file without the meta group was read: PS3.10 7.1 asks for one."""
    implicit, little = dataset.original_encoding
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def acquisition(header: Header, *, key: bytes = b"") -> Acquisition:
    """How the pixels came to be, in the words of the catalogue.

    `key` makes a pseudonym of the patient, the same that `theatrum.deidentify` makes.
    """
    dataset = header.dataset
    people = _people(dataset)
    device: dict[str, Any] = {}
    for keyword, ours in _DEVICE.items():
        value = _plain(dataset.get(keyword), people)
        if value not in (None, "", []):
            device[ours] = value
    protocol: dict[str, Any] = {}
    for keyword, ours in _PROTOCOL.items():
        value = _plain(dataset.get(keyword), people)
        if value not in (None, "", []):
            protocol[ours] = value
    for group in functional_groups(dataset):
        for sequence, keyword, ours in (
            ("MREchoSequence", "EffectiveEchoTime", "echo_time_ms"),
            ("MRTimingAndRelatedParametersSequence", "RepetitionTime",
             "repetition_time_ms"),
            ("MRTimingAndRelatedParametersSequence", "FlipAngle", "flip_angle_deg"),
        ):  # fmt: skip
            for item in group.get(sequence) or ():
                value = number(item.get(keyword))
                if value is not None:
                    protocol.setdefault(ours, value)
    if header.text("BurnedInAnnotation"):
        protocol["burned_in_annotation"] = header.text("BurnedInAnnotation")[:3]
    modality = _MODALITIES.get(header.text("Modality"), "OT")
    return Acquisition(
        modality=cast(Modality, modality),
        series_uid=header.series,
        study_uid=header.text("StudyInstanceUID"),
        description=_scrubbed(header.text("SeriesDescription"), people)[:200],
        body_part=_scrubbed(header.text("BodyPartExamined"), people)[:64],
        laterality=header.text("Laterality")[:1],
        acquired_at=_moment(header),
        frame_of_reference=header.text("FrameOfReferenceUID"),
        device=device,
        protocol=protocol,
        raw_meta=_raw(dataset),
        patient=_patient(header, key),
    )


_OF_TAKING = (0x0018, 0x0028)
"""Groups of how an image was taken, and of its pixels (PS3.6, 6)."""
_NUMBERS_AND_CODES = frozenset({"CS", "DS", "FD", "FL", "IS", "SL", "SS", "UL", "US"})


def _raw(dataset: Dataset) -> dict[str, Any]:
    """Numbers and codes by tag, as `raw_meta` keeps them; of no other group and kind,
    for a text may name anybody."""
    told: dict[str, Any] = {}
    for element in dataset:
        if element.tag.group in _OF_TAKING and element.VR in _NUMBERS_AND_CODES:
            value = _plain(element.value, ())
            if value not in (None, "", []):
                told[f"{element.tag.group:04X}{element.tag.element:04X}"] = value
    return told


def _patient(header: Header, key: bytes) -> str:
    """What stands for the patient: a number that is none of theirs, or ""."""
    number_of = header.text("PatientID")
    if not number_of:
        return ""
    if header.text("PatientIdentityRemoved") == "YES":
        return number_of[:64]
    if not key:
        return ""
    issuer = header.text("IssuerOfPatientID")
    return Pseudonyms(key).patient_code(issuer, number_of)


def functional_groups(dataset: Dataset) -> Iterator[Dataset]:
    """The macros that hold for all frames, then those of the first frame."""
    for keyword in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    ):
        yield from list(dataset.get(keyword) or ())[:1]


def _moment(header: Header) -> str:
    """When it was acquired, ISO 8601, as exactly as the header says."""
    whole = header.text("AcquisitionDateTime")
    if not whole:
        day = next(
            (
                found
                for name in ("AcquisitionDate", "SeriesDate", "StudyDate")
                if (found := header.text(name))
            ),
            "",
        )
        whole = day + (header.text("AcquisitionTime") or header.text("SeriesTime"))
    told = re.match(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?", whole)
    if told is None:
        return ""
    year, month, day, hour, minute, second = told.groups()
    date = f"{year}-{month}-{day}"
    return f"{date}T{hour}:{minute}:{second or '00'}" if hour else date


def _people(dataset: Dataset) -> tuple[str, ...]:
    words: set[str] = set()
    for keyword in _PEOPLE:
        for word in re.split(r"[\W_]+", str(dataset.get(keyword) or "")):
            if len(word) >= 3:
                words.add(word.casefold())
    return tuple(words)


def _scrubbed(text: str, people: Sequence[str]) -> str:
    """The text, or "" where a word of a person's name or number stands in it."""
    words = {one.casefold() for one in re.split(r"[\W_]+", text)}
    return "" if words & set(people) else text


def _plain(value: Any, people: Sequence[str]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        # pydicom's own kinds of numbers remember how they were written.
        plain = int(value) if isinstance(value, int) else float(value)
        # JSON has no word for what is no number.
        return plain if math.isfinite(plain) else None
    if isinstance(value, str):
        return _scrubbed(str(value).replace("\0", "").strip(), people)[:200]
    if isinstance(value, Sequence | pydicom.multival.MultiValue):
        return [_plain(one, people) for one in list(value)[:16]]
    return _plain(str(value), people)


def facts(header: Header) -> Mapping[str, Any]:
    """Short facts of the coding, for the catalogue."""
    return {
        "transfer_syntax": str(pydicom.uid.UID(header.syntax).name)[:64],
        "photometric": header.text("PhotometricInterpretation")[:16],
        "bits_stored": header.whole("BitsStored"),
        "identity_removed": header.text("PatientIdentityRemoved") == "YES",
        "lossy": header.text("LossyImageCompression") == "01",
    }
