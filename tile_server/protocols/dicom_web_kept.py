"""What of a DICOM file's header leaves: a list, and nothing that is not on it.

Who holds a slide's address may see its pixels, not whose they are. So the list names
what *stays* (PS3.3 A.32.8 without Patient, Visit and free text): an attribute that is
private, newer than this list or simply in the wrong place does not come out. What the
standard demands and the list does not keep is emptied or replaced (PS3.15 E.1: actions
Z and D). Identifiers (UIDs) stay as they are, so that annotations go on pointing at the
right instance.
"""

from __future__ import annotations

import struct

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from tile_server.protocols.dicom_web_naming import pseudonym, sound_uid

# What pydicom raises for damaged files, at opening or when a value is looked at.
DAMAGED = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, NotImplementedError, OverflowError,
    RecursionError, LookupError, struct.error,
)  # fmt: skip

PER_FRAME = "PerFrameFunctionalGroupsSequence"

KEPT = (
    # Instance, series, study and how they hang together.
    "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Modality", "PyramidUID",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ConcatenationUID",
    "SOPInstanceUIDOfConcatenationSource", "InConcatenationNumber",
    "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber",
    # The scanner, without its number.
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    # Pixels.
    "VolumetricProperties", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "RepresentativeFrameNumber", "PresentationLUTShape",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ColorSpace", "ICCProfile",
    # The slide's picture.
    "ImagedVolumeWidth", "ImagedVolumeHeight", "ImagedVolumeDepth",
    "TotalPixelMatrixColumns", "TotalPixelMatrixRows",
    "TotalPixelMatrixOriginSequence", "TotalPixelMatrixFocalPlanes",
    "XOffsetInSlideCoordinateSystem", "YOffsetInSlideCoordinateSystem",
    "ZOffsetInSlideCoordinateSystem", "SpecimenLabelInImage", "FocusMethod",
    "ExtendedDepthOfField", "NumberOfFocalPlanes", "DistanceBetweenFocalPlanes",
    "RecommendedAbsentPixelCIELabValue", "ImageOrientationSlide",
    # Ways of light.
    "OpticalPathSequence", "NumberOfOpticalPaths", "OpticalPathIdentifier",
    "OpticalPathDescription", "IlluminationTypeCodeSequence",
    "IlluminationWaveLength", "IlluminationColorCodeSequence",
    "IlluminatorTypeCodeSequence", "LensesCodeSequence", "ObjectiveLensPower",
    "ObjectiveLensNumericalAperture", "CondenserLensPower",
    "ChannelDescriptionCodeSequence", "LightPathFilterTypeStackCodeSequence",
    "ImagePathFilterTypeStackCodeSequence", "PaletteColorLookupTableSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    # Frames and their dimensions.
    "DimensionOrganizationSequence", "DimensionOrganizationUID",
    "DimensionOrganizationType", "DimensionIndexSequence", "DimensionIndexPointer",
    "FunctionalGroupPointer", "SharedFunctionalGroupsSequence", PER_FRAME,
    "PixelMeasuresSequence", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "WholeSlideMicroscopyImageFrameTypeSequence", "FrameType",
    "PlanePositionSlideSequence", "ColumnPositionInTotalImagePixelMatrix",
    "RowPositionInTotalImagePixelMatrix", "OpticalPathIdentificationSequence",
    "FrameContentSequence", "DimensionIndexValues", "SpecimenReferenceSequence",
    # The specimen, as far as it is told in codes.
    "ContainerTypeCodeSequence", "SpecimenDescriptionSequence", "SpecimenUID",
    "SpecimenTypeCodeSequence", "SpecimenPreparationSequence",
    "SpecimenPreparationStepContentItemSequence", "PrimaryAnatomicStructureSequence",
    "ValueType", "ConceptNameCodeSequence", "ConceptCodeSequence",
    "CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion",
    "CodeMeaning",
)  # fmt: skip
# What the standard wants to be there, and what is there instead of the file's value.
EMPTIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
REPLACED = {
    "AcquisitionDateTime": "19000101000000",
    "ContentDate": "19000101",
    "ContentTime": "000000",
    "DeviceSerialNumber": "0",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Theatrum: only listed attributes left the file",
}


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no attribute of DICOM.")
    return int(tag)


TAGS = {_tag(keyword): keyword for keyword in KEPT}
_OF_IDENTIFIERS = frozenset("0123456789.")
_CONTENT = _tag("SpecimenPreparationStepContentItemSequence")


def _is_sound(vr: str, value: object) -> bool:
    """False for identifiers that are none, and text with control characters in it.

    A wrong length makes a value run on into its neighbours, which can be names.
    """
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | MultiValue):
        return True
    texts = [one for one in values if isinstance(one, str)]
    if vr == "UI":
        return all(set(one) <= _OF_IDENTIFIERS for one in texts)
    return all(one.isprintable() for one in texts)


def kept(dataset: Dataset) -> Dataset:
    """The attributes on the list, in items of sequences too; shares the values.

    What cannot be understood is left out.
    """
    left = Dataset()
    for tag in sorted(dataset.keys()):
        if int(tag) not in TAGS:
            continue
        try:
            element = dataset[tag]
            if str(element.VR) not in dictionary_VR(tag).split(" or "):
                continue
            if not _is_sound(str(element.VR), element.value):
                continue
            if element.VR == "SQ":
                items = [kept(item) for item in element.value]
                if int(tag) == _CONTENT:
                    # Other kinds of value are names, dates and free text.
                    items = [one for one in items if one.get("ValueType") == "CODE"]
                left.add_new(tag, "SQ", Sequence(items))
            else:
                left.add(element)
        except DAMAGED:
            continue
    return left


def without_identity(dataset: Dataset, series: str) -> Dataset:
    """A file's header as it may leave: `kept`, and what has to be there besides.

    `series` stands for the series where the file does not name it soundly.
    """
    left = kept(dataset)
    left.SpecificCharacterSet = "ISO_IR 192"
    for keyword in EMPTIED:
        setattr(left, keyword, "")
    for keyword, value in REPLACED.items():
        setattr(left, keyword, value)
    told = str(left.get("SeriesInstanceUID") or "")
    left.SeriesInstanceUID = sound_uid(told, series, "series")
    study = str(left.get("StudyInstanceUID") or "")
    left.StudyInstanceUID = sound_uid(study, left.SeriesInstanceUID, "study")
    name = pseudonym(str(left.SeriesInstanceUID))
    left.ContainerIdentifier = name
    left.IssuerOfTheContainerIdentifierSequence = Sequence()
    left.AcquisitionContextSequence = Sequence()
    for specimen in left.get("SpecimenDescriptionSequence") or ():
        specimen.SpecimenIdentifier = name
        specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence()
    if "LABEL" in list(left.get("ImageType") or ()):
        left.LabelText = left.BarcodeValue = ""
    if not left.get("Modality"):
        left.Modality = "SM"
    return left
