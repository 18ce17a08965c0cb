"""DICOM images of radiology: series, multi-frame files and mosaics as volumes."""

from theatrum.catalog.formats.dicom.headers import Header, read_header
from theatrum.catalog.formats.dicom.series import open_series

__all__ = ["Header", "open_series", "read_header"]
