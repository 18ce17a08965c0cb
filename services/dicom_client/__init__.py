"""The DICOM segmentation client: from scanner to contoured, re-identified RTSTRUCT."""
