"""The header of a slide that is no DICOM file: VL Whole Slide Microscopy Image.

It follows PS3.3 A.32.8. What the slide does not say is empty where the standard lets it
be, and left out where nothing true could stand there: the spacing of a photograph of
the label, the ICC profile of a slide without one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import DSfloat

from tile_server.protocols.dicom_web_kept import EMPTIED, REPLACED
from tile_server.protocols.dicom_web_naming import WHOLE_SLIDE, pseudonym, uid
from tile_server.readers.protocol import SlideFacts

# Nobody says how thick a section is; others write a micrometre.
_THICKNESS_MM = 0.001
_RGB, _YCBCR, _GREY = "RGB", "YBR_FULL_422", "MONOCHROME2"


@dataclass(frozen=True)
class Shape:
    """What is particular to one instance.

    Attributes
    ----------
    kind
        The third value of ImageType: VOLUME, LABEL, OVERVIEW, THUMBNAIL.
    number
        From 1, in the order of the series.
    original
        True where the pixels are the scanner's own, not made smaller.
    width, height
        Of the total pixel matrix.
    tile_width, tile_height
        Of a frame.
    frames
        How many.
    photometric
        What the JPEG frames hold: RGB, YBR_FULL_422 or MONOCHROME2.
    ratio
        By how much they are compressed.
    spacing_mm
        Millimetres per pixel, across and down, or None.
    """

    kind: str
    number: int
    original: bool
    width: int
    height: int
    tile_width: int
    tile_height: int
    frames: int
    photometric: str
    ratio: float
    spacing_mm: tuple[float, float] | None


def header(
    version: str, facts: SlideFacts, shape: Shape, *, fluorescence: bool
) -> Dataset:
    """The attributes of one instance of a slide, without pixels."""
    dataset = Dataset()
    _identity(dataset, version, shape)
    _pixels(dataset, shape)
    _matrix(dataset, version, shape)
    dataset.OpticalPathSequence = Sequence(
        [_optical_path(facts, shape, fluorescence=fluorescence)]
    )
    dataset.NumberOfOpticalPaths = 1
    dataset.TotalPixelMatrixFocalPlanes = 1
    return dataset


def _identity(dataset: Dataset, version: str, shape: Shape) -> None:
    """Who is who: the modules from Patient to Specimen."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in EMPTIED:
        setattr(dataset, keyword, "")
    for keyword, value in REPLACED.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = WHOLE_SLIDE
    dataset.SOPInstanceUID = uid(version, shape.kind, str(shape.number))
    dataset.StudyInstanceUID = uid(version, "study")
    dataset.SeriesInstanceUID = uid(version, "series")
    dataset.FrameOfReferenceUID = uid(version, "frame of reference")
    if shape.kind in ("VOLUME", "THUMBNAIL"):
        dataset.PyramidUID = uid(version, "pyramid")
    dataset.Modality = "SM"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = shape.number
    dataset.PositionReferenceIndicator = "SLIDE_CORNER"
    dataset.Manufacturer = "Unknown"
    dataset.ManufacturerModelName = "Unknown"
    dataset.SoftwareVersions = "Theatrum"
    dataset.AcquisitionContextSequence = Sequence()
    name = pseudonym(str(dataset.SeriesInstanceUID))
    dataset.ContainerIdentifier = name
    dataset.IssuerOfTheContainerIdentifierSequence = Sequence()
    dataset.ContainerTypeCodeSequence = Sequence(
        [_code("433466003", "SCT", "Microscope slide")]
    )
    specimen = Dataset()
    specimen.SpecimenIdentifier = name
    specimen.SpecimenUID = uid(version, "specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence()
    specimen.SpecimenPreparationSequence = Sequence()
    dataset.SpecimenDescriptionSequence = Sequence([specimen])


def _pixels(dataset: Dataset, shape: Shape) -> None:
    grey = shape.photometric == _GREY
    dataset.ImageType = _image_type(shape)
    dataset.VolumetricProperties = "VOLUME"
    dataset.SamplesPerPixel = 1 if grey else 3
    dataset.PhotometricInterpretation = shape.photometric
    if grey:
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    else:
        dataset.PlanarConfiguration = 0
    dataset.NumberOfFrames = shape.frames
    dataset.Rows, dataset.Columns = shape.tile_height, shape.tile_width
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "YES" if _shows_label(shape) else "NO"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = DSfloat(round(shape.ratio, 2))
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _matrix(dataset: Dataset, version: str, shape: Shape) -> None:
    """Where the frames lie in the picture, and the picture on the glass."""
    dataset.TotalPixelMatrixColumns = shape.width
    dataset.TotalPixelMatrixRows = shape.height
    origin = Dataset()
    measures = Dataset()
    width_mm = height_mm = 0.0
    if shape.spacing_mm is not None:
        across, down = shape.spacing_mm
        width_mm, height_mm = shape.width * across, shape.height * down
        dataset.ImagedVolumeWidth = width_mm
        dataset.ImagedVolumeHeight = height_mm
        dataset.ImagedVolumeDepth = _THICKNESS_MM
        # Rows come first: the distance between them goes down.
        measures.PixelSpacing = [_decimal(down), _decimal(across)]
        measures.SliceThickness = _decimal(_THICKNESS_MM)
    # Rows of pixels run along the slide's short side, as it lies under a microscope
    # (PS3.3 C.8.12.2.1); so the first pixel is the one farthest from the corner.
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin.XOffsetInSlideCoordinateSystem = _decimal(height_mm)
    origin.YOffsetInSlideCoordinateSystem = _decimal(width_mm)
    dataset.TotalPixelMatrixOriginSequence = Sequence([origin])
    dataset.SpecimenLabelInImage = "YES" if _shows_label(shape) else "NO"
    dataset.FocusMethod = "AUTO"
    dataset.ExtendedDepthOfField = "NO"
    organization = Dataset()
    organization.DimensionOrganizationUID = uid(version, "dimensions")
    dataset.DimensionOrganizationSequence = Sequence([organization])
    dataset.DimensionOrganizationType = "TILED_FULL"
    if shape.kind == "LABEL":
        dataset.LabelText = dataset.BarcodeValue = ""
    frame_type = Dataset()
    frame_type.FrameType = _image_type(shape)
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.WholeSlideMicroscopyImageFrameTypeSequence = Sequence([frame_type])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])


def _optical_path(facts: SlideFacts, shape: Shape, *, fluorescence: bool) -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    way = ("111743", "DCM", "Epifluorescence illumination")
    if not fluorescence:
        way = ("111744", "DCM", "Brightfield illumination")
    path.IlluminationTypeCodeSequence = Sequence([_code(*way)])
    path.IlluminationColorCodeSequence = Sequence(
        [_code("414298005", "SCT", "Full Spectrum")]
    )
    if facts.objective is not None and shape.kind == "VOLUME":
        path.ObjectiveLensPower = _decimal(facts.objective)
    # The profile is the scanner's; photographs of the label come from elsewhere.
    colour = shape.photometric != _GREY
    if facts.profile is not None and colour and not _shows_label(shape):
        path.ICCProfile = facts.profile + b"\0" * (len(facts.profile) % 2)
    return path


def _shows_label(shape: Shape) -> bool:
    return shape.kind in ("LABEL", "OVERVIEW")


def _image_type(shape: Shape) -> list[str]:
    if shape.original:
        return ["ORIGINAL", "PRIMARY", shape.kind, "NONE"]
    return ["DERIVED", "PRIMARY", shape.kind, "RESAMPLED"]


def _decimal(number: float) -> DSfloat:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return DSfloat(number, auto_format=True)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code
