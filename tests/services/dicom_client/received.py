"""What the tests of sources and deliveries share: files of a series, a running SCP."""

import contextlib
import threading

from pydicom.uid import RTStructureSetStorage

from services.dicom_client.staging import Quota, Staging
from services.dicom_client.store_scp import ScpSettings, StoreScp
from tests.extensions.structures.series import ct_series


def write_series(folder, **how):
    """Save a made CT series as files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(ct_series(**how)):
        path = folder / f"{number:04}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_structure_set(path):
    """A small RT structure set, enough to be stored anywhere."""
    image = ct_series(slices=1, rows=4, columns=4)[0]
    image.SOPClassUID = RTStructureSetStorage
    image.Modality = "RTSTRUCT"
    image.StructureSetLabel = "AUTO"
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored"):
        delattr(image, keyword)
    image.save_as(path, enforce_file_format=True)
    return image


class Notes:
    """Takes note of what an SCP receives."""

    def __init__(self, status=0):
        self.status = status
        self.arrivals, self.ended = [], []
        self._lock = threading.Lock()

    def instance(self, arrival, facts):
        with self._lock:
            self.arrivals.append((arrival, facts))
        return self.status

    def end(self, facts):
        with self._lock:
            self.ended.append(facts)

    def instances(self):
        return {one.header.sop_instance for one, _ in self.arrivals}


@contextlib.contextmanager
def receiving(folder, notes=None, quota=None, **settings):
    """A storage service on a free port, with what it noted as `notes`."""
    notes = notes or Notes()
    scp = StoreScp(
        ScpSettings(port=0, **settings),
        Staging(folder, quota or Quota()),
        notes.instance,
        notes.end,
    )
    scp.notes = notes
    scp.start()
    try:
        yield scp
    finally:
        scp.stop(grace_s=0)
