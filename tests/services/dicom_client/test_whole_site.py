"""Real processes and peers: DICOMweb in and out, SEG, two workers, time and room."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from tests.dcmtk import echoscu, free_port, listens, storescu
from tests.draw_server import DrawServer
from tests.extensions.structures.series import enhanced
from tests.orthanc import orthanc

from .client_site import CANARIES, Site, patient_series, running_site, wait, write
from .engines import ENGINES


def with_ring(images: list[Dataset]) -> list[Dataset]:
    """Give a series a dense core in the middle of nothing."""
    y, x = np.mgrid[: images[0].Rows, : images[0].Columns]
    core = np.hypot(y - 16, x - 16) < 8
    for image in images:
        image.PixelData = np.where(core, 1424, 24).astype("<u2").tobytes()
    return images


def all_of(site: Site, template: str) -> None:
    rule = {"tag": "Modality", "op": "eq", "value": "CT"}
    rules = [{"name": "CT", "template": template, "all_of": [rule]}]
    site.ask("PUT", "rules", json={"rules": rules})


def test_a_pacs_is_asked_and_gets_contours_and_a_segmentation_once_from_two_workers(
    tmp_path: Path,
) -> None:
    engine = tmp_path / "engines.py"
    engine.write_text(ENGINES)
    series = [with_ring(patient_series()) for _ in range(3)]
    files = [
        file
        for number, images in enumerate(series)
        for file in write(images, tmp_path / f"scan-{number}")
    ]
    with orthanc(dicomweb=True) as pacs, DrawServer() as server:
        pacs.upload(files)
        with Site(
            tmp_path,
            server,
            watch=[],
            deliver_folder=None,
            engines=[f"{engine}:ring"],
            jobs_per_worker=1,
            dicomweb={"url": pacs.dicomweb, "interval_s": 1.0},
            stow={"url": pacs.dicomweb},
        ) as site:
            site.serve()
            template = {
                "name": "Ring",
                "engine": f"{engine}:ring",
                "parameters": {"output": "both", "from_hu": 200},
            }
            site.ask("PUT", "templates", json=template)
            all_of(site, "Ring")
            for _ in range(2):
                site.worker()
            site.wait_state("done", len(series), timeout_s=120)
            found = [site.detail(one["id"]) for one in site.series()]
            # Two files each; what the other worker did is not done again.
            assert [len(one["deliveries"]) for one in found] == [2, 2, 2]
            for one in found:
                kinds = [entry["kind"] for entry in one["timeline"]]
                for state in ("deidentified", "downloaded", "exported", "done"):
                    assert kinds.count(state) == 1
            workers = {
                entry["actor"]
                for one in found
                for entry in one["timeline"]
                if entry["kind"] == "deidentified"
            }
            assert workers
            assert server.count("upload") == 0
        held = [
            pydicom.dcmread(_file(pacs, one), stop_before_pixels=False)
            for one in pacs.http.get("/instances").json()
        ]
    results = [one for one in held if one.Modality != "CT"]
    kinds = sorted(str(one.SOPClassUID) for one in results)
    assert kinds == sorted([RTStructureSetStorage, SegmentationStorage] * 3)
    for one in results:
        images = next(
            images
            for images in series
            if images[0].StudyInstanceUID == one.StudyInstanceUID
        )
        assert (one.PatientID, one.PatientBirthDate) == (CANARIES[1], CANARIES[3])
        if one.SOPClassUID == SegmentationStorage:
            _require_segmentation(one, images)


def _file(pacs: Any, instance: str) -> io.BytesIO:
    return io.BytesIO(pacs.http.get(f"/instances/{instance}/file").content)


def _require_segmentation(made: Dataset, images: list[Dataset]) -> None:
    """Ring and core, on the very slices and in the frame of reference of the images."""
    labels = [one.SegmentLabel for one in made.SegmentSequence]
    assert labels == ["Ring"], "there is no voxel of the core"
    assert made.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced <= {one.SOPInstanceUID for one in images}
    assert made.pixel_array.sum() == len(images) * int(
        (images[0].pixel_array == 1424).sum()
    )


def test_what_lies_beside_the_images_afterwards_starts_nothing_anew(
    tmp_path: Path,
) -> None:
    engine = tmp_path / "engines.py"
    engine.write_text(ENGINES)
    with running_site(tmp_path, engines=[f"{engine}:ring"]) as site:
        template = {
            "name": "Ring",
            "engine": f"{engine}:ring",
            "parameters": {"output": "both"},
        }
        site.ask("PUT", "templates", json=template)
        all_of(site, "Ring")
        site.drop(with_ring(patient_series()), "first")
        site.wait_state("done")
        beside = sorted(pydicom.dcmread(one).Modality for one in site.beside())
        assert beside == ["RTSTRUCT", "SEG"]
        # What is dropped after them was looked at after them.
        site.drop(patient_series(SeriesDescription="Topogram"), "second")
        site.wait_state("ignored")
        assert site.states() == ["done", "ignored"]


def test_an_enhanced_ct_comes_back_as_contours_on_its_frames(tmp_path: Path) -> None:
    engine = tmp_path / "engines.py"
    engine.write_text(ENGINES)
    whole = enhanced(with_ring(patient_series()), backwards=True)
    whole.StudyID = whole.AccessionNumber = ""
    with running_site(tmp_path, engines=[f"{engine}:ring"]) as site:
        template = {
            "name": "Ring",
            "engine": f"{engine}:ring",
            "parameters": {"output": "both"},
        }
        site.ask("PUT", "templates", json=template)
        all_of(site, "Ring")
        site.drop([whole], "enhanced")
        done = site.wait_state("done")
        told = [one["text"] for one in site.detail(done["id"])["findings"]]
        assert "the images are multi-frame: contours only" in told
        (file,) = site.results()
        result = pydicom.dcmread(file)
    assert result.PatientID == CANARIES[1]
    contours = result.ROIContourSequence[0].ContourSequence
    images = [one.ContourImageSequence[0] for one in contours]
    assert {one.ReferencedSOPInstanceUID for one in images} == {whole.SOPInstanceUID}
    assert sorted(one.ReferencedFrameNumber for one in images) == list(range(1, 13))
    for contour, image in zip(contours, images, strict=True):
        group = whole.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert float(contour.ContourData[2]) == pytest.approx(float(place[2]), abs=1e-3)


def test_what_is_past_its_time_goes_and_other_peoples_images_stay(
    tmp_path: Path,
) -> None:
    scp_port = free_port()
    with running_site(tmp_path, workers=0, scp={"bind": "127.0.0.1"}) as site:
        site.server.script(polls=0)
        watched = site.drop(patient_series(), "watched")
        first = site.worker()
        site.wait_state("done")
        site.kill(first)
        jobs = site.home / "phi" / "dicom_client" / "jobs"
        assert list(jobs.rglob("mapping"))
        finished = list(jobs.rglob("finished/*.dcm"))
        assert finished
        # Kept for 90 days by default: a worker that starts removes none of it.
        second = site.worker()
        site.drop(patient_series(), "another")
        site.wait_state("done", 2)
        assert finished[0].exists()
        site.kill(second)

        now = {"retention_days": 0, "received_days": 0}
        site.ask("PATCH", "settings", json=now)
        site.worker()
        wait(lambda: not site.series(), "the jobs are forgotten")
        wait(lambda: not list(jobs.iterdir()), "their folders are removed")
        assert all(path.exists() for path in watched), "these are not ours"
        assert len(site.results()) == 2, "what was delivered is not ours any more"
        assert site.ask("GET", "audit/check")["whole"]
        assert site.ask("GET", "audit"), "the audit log has its own time"
    assert not listens(scp_port)


def test_a_full_quota_refuses_senders_and_room_lets_them_in_again(
    tmp_path: Path,
) -> None:
    scp_port = free_port()
    files = write(patient_series(), tmp_path / "scan")
    size = sum(file.stat().st_size for file in files)
    quota = {"bind": "127.0.0.1", "quota_bytes": size // 2}
    with running_site(tmp_path, workers=0, scp=quota) as site:
        site.kill(site._processes[0])
        site.serve("--scp-port", str(scp_port))
        wait(lambda: listens(scp_port), "images are received")
        refused = storescu(scp_port, "-v", files=files)
        assert refused.returncode != 0
        assert "OutOfResources" in refused.stderr + refused.stdout
        incoming = site.home / "phi" / "dicom_client" / "incoming"
        kept = sum(path.stat().st_size for path in incoming.rglob("*.dcm"))
        assert 0 < kept <= size // 2 + 1024, "but for a file's first bytes"
        assert echoscu(scp_port).returncode == 0, "the receiver goes on"

        site.kill(site._processes[-1])
        site.configure(scp={"bind": "127.0.0.1", "quota_bytes": size * 4})
        site.serve("--scp-port", str(scp_port))
        wait(lambda: listens(scp_port), "images are received again")
        assert storescu(scp_port, files=files).returncode == 0
        site.server.script(polls=0)
        site.worker()
        done = site.wait_state("done")
        assert done["instances"] == len(files)
