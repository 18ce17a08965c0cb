"""CT series made in code, in any orientation."""

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)


def ct_series(
    slices=6,
    rows=40,
    columns=50,
    spacing=(0.9, 1.1),
    step=2.5,
    cosines=AXIAL,
    origin=(-20.0, 30.0, -100.0),
    pixels=None,
):
    """Headers (and pixels) of a series; `spacing` is (down, right) in millimetres."""
    study, series, frame = (generate_uid() for _ in range(3))
    normal = np.cross(cosines[:3], cosines[3:])
    images = []
    for z in range(slices):
        image = Dataset()
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = generate_uid()
        image.StudyInstanceUID = study
        image.SeriesInstanceUID = series
        image.FrameOfReferenceUID = frame
        image.Modality = "CT"
        image.PatientName = "Phantom^Test"
        image.PatientID = "P-1"
        image.Rows, image.Columns = rows, columns
        image.PixelSpacing = list(spacing)
        image.SliceThickness = step
        image.ImageOrientationPatient = list(cosines)
        image.ImagePositionPatient = [
            round(float(part), 6) for part in np.array(origin) + normal * step * z
        ]
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelRepresentation = 0
        values = np.full((rows, columns), z) if pixels is None else pixels[z] + 1024
        image.PixelData = values.astype("<u2").tobytes()
        image.file_meta = _meta()
        images.append(image)
    return images


def _meta():
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def enhanced(images, sop_class="1.2.840.10008.5.1.4.1.1.2.1", backwards=False):
    """The same series as one multi-frame object (Enhanced CT by default).

    Orientation and spacing are shared, positions are each frame's own, and the rescale
    stands in its functional group, as PS3.3 A.38 wants. `backwards` stores the frames
    against their order in space.
    """
    from pydicom.sequence import Sequence

    def group(target, source, keyword, *names):
        item = Dataset()
        for name in names:
            setattr(item, name, getattr(source, name))
        setattr(target, keyword, Sequence([item]))

    stored = images[::-1] if backwards else images
    whole = Dataset()
    first = images[0]
    for name in (
        *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
        *("PatientName", "PatientID", "Rows", "Columns", "SamplesPerPixel"),
        *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
        "PixelRepresentation",
    ):
        setattr(whole, name, getattr(first, name))
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        if name in first:
            setattr(whole, name, getattr(first, name))
    whole.SOPClassUID, whole.SOPInstanceUID = sop_class, generate_uid()
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    whole.NumberOfFrames = len(images)
    shared = Dataset()
    group(shared, first, "PixelMeasuresSequence", "PixelSpacing", "SliceThickness")
    group(shared, first, "PlaneOrientationSequence", "ImageOrientationPatient")
    rescale = ("RescaleSlope", "RescaleIntercept")
    group(shared, first, "PixelValueTransformationSequence", *rescale)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    per_frame = []
    for image in stored:
        own = Dataset()
        group(own, image, "PlanePositionSequence", "ImagePositionPatient")
        per_frame.append(own)
    whole.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
    whole.PixelData = b"".join(one.PixelData for one in stored)
    whole.file_meta = _meta()
    return whole
