"""The whole way with real processes: a folder in, a structure set out."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from .client_site import CANARIES, patient_series, running_site


@pytest.fixture
def site(tmp_path: Path):  # type: ignore[no-untyped-def]
    with running_site(tmp_path) as made:
        yield made


def test_a_series_in_a_folder_is_uploaded_once_and_its_contours_lie_beside_it(site):
    images = patient_series()
    site.drop(images)
    done = site.wait_state("done")

    detail = site.detail(done["id"])
    assert [
        entry["kind"] for entry in detail["timeline"] if entry["kind"] in STATES
    ] == STATES
    assert len(site.server.tasks) == 1
    (task,) = site.server.tasks.values()
    assert (task.uploads, task.downloads, task.confirmed) == (1, 1, 1)
    assert site.server.leaks == []
    (beside,) = site.beside()
    (delivered,) = site.results()
    assert beside.read_bytes() == delivered.read_bytes()
    result = pydicom.dcmread(beside)
    assert result.PatientID == CANARIES[1]
    assert result.PatientBirthDate == CANARIES[3]
    assert result.StudyInstanceUID == images[0].StudyInstanceUID
    frames = result.ReferencedFrameOfReferenceSequence
    assert frames[0].FrameOfReferenceUID == images[0].FrameOfReferenceUID


STATES = [
    *("discovered", "stable", "matched", "deidentified", "packed", "uploading"),
    *("submitted", "processing", "ready", "downloaded", "reidentified", "exported"),
    *("confirmed", "done"),
]
