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
