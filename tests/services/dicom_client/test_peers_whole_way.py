"""From dcmtk to dcmtk: received by C-STORE, segmented here, delivered by C-STORE."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from theatrum.structures import dice, mask, read, series_geometry

from tests.dcmtk import free_port, listens, storescp, storescu
from tests.draw_server import DrawServer
from tests.extensions.structures.series import ct_series

from .client_site import CANARIES, Site, patient_series, wait, write

LUNGS = {"Left lung": "Lung_L", "Right lung": "Lung_R"}
"""What the engine calls them, and what the reference does."""
CHEST = {"name": "Chest", "engine": "theatrum.nodes:ct_body_lungs_bone"}
RULES = [
    {
        "name": name,
        "template": chosen,
        "all_of": [{"tag": "Modality", "op": "eq", "value": modality}],
    }
    for name, chosen, modality in (("CT", "Chest", "CT"), ("MR", "Pelvis", "MR"))
]
SPACING_MM = 3.0


@dataclass(frozen=True)
class Scan:
    """Files of a CT series, and its lungs as masks [z, y, x] by the reference's names.

    The masks lie on the slices from the feet to the head.
    """

    files: Sequence[Path]
    lungs: dict[str, np.ndarray]

    @property
    def headers(self) -> list[Dataset]:
        return [pydicom.dcmread(one, stop_before_pixels=True) for one in self.files]


def drawn_chest(folder: Path) -> Scan:
    """A body with two lungs and a spine, of somebody; x runs to the patient's left."""
    slices, rows, columns = 12, 90, 130
    y, x = np.mgrid[:rows, :columns] * SPACING_MM

    def ellipse(at: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
        return ((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2 <= 1

    right, left = ellipse((120, 135), (50, 70)), ellipse((270, 135), (50, 70))
    hu = np.full((rows, columns), -1000)
    hu[ellipse((195, 135), (170, 110))] = 40
    hu[left | right] = -750
    hu[ellipse((195, 215), (15, 15))] = 500
    noise = np.random.default_rng(5).normal(0, 15, (slices, rows, columns))
    pixels = np.clip(hu[None] + noise, -1024, 3000).astype(int)
    images = ct_series(
        slices, rows, columns, (SPACING_MM, SPACING_MM), 4.0, pixels=pixels
    )
    for number, image in enumerate(images, start=1):
        image.PatientName, image.PatientID = f"{CANARIES[0]}^Resi", CANARIES[1]
        image.PatientBirthDate, image.PatientSex = CANARIES[3], "F"
        image.StudyDate, image.StudyTime = "20240229", "101112"
        image.StudyID, image.AccessionNumber = "", ""
        image.InstanceNumber = number
    lungs = {"Lung_L": left, "Lung_R": right}
    return Scan(
        write(images, folder),
        {name: np.repeat(one[None], slices, axis=0) for name, one in lungs.items()},
    )


def alderson(shared: Path) -> Scan:
    """The phantom's chest, and its lungs as a person contoured them."""
    folder = shared / "ct_rtstruct" / "alderson_lungs"
    files = sorted((folder / "CT").glob("*.dcm"))
    headers = [pydicom.dcmread(one, stop_before_pixels=True) for one in files]
    geometry = series_geometry(headers)
    reference = read(pydicom.dcmread(folder / "RS_matched.dcm"))
    lungs = {one: mask(reference.roi(one), geometry) for one in LUNGS.values()}
    return Scan(files, lungs)


@pytest.fixture(params=["drawn", "alderson"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Scan:
    if request.param == "drawn":
        return drawn_chest(tmp_path / "scan")
    return alderson(request.getfixturevalue("shared_data"))


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port at which nobody answers, and that nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_scan_by_c_store_comes_back_as_contours_by_c_store_once_though_a_node_is_down(
    scan: Scan, dead_port: int, tmp_path: Path
) -> None:
    scp_port = free_port()
    with (
        DrawServer(canaries=CANARIES) as server,
        # Each object gets a file of its own: one that came twice would be two files.
        storescp("--unique-filenames", title="TPS") as archive,
        Site(
            tmp_path,
            server,
            watch=[],
            deliver_folder=None,
            scp={"bind": "127.0.0.1"},
        ) as site,
    ):
        site.serve("--scp-port", str(scp_port))
        site.set_up(rules=[])
        site.ask("PUT", "templates", json=CHEST)
        site.ask("PUT", "rules", json={"rules": RULES})
        node = {"host": "127.0.0.1", "ae_title": "TPS", "target": "planning"}
        second = {**node, "name": "second", "port": archive.port, "priority": 1}
        first = {**node, "name": "first", "port": dead_port, "priority": 0}
        site.ask("PUT", "nodes", json=[second, first])
        site.worker()
        wait(lambda: listens(scp_port), "images are received")

        sent = storescu(scp_port, files=scan.files)
        assert sent.returncode == 0, sent.stderr
        done = site.wait_state("done", timeout_s=240)
        (delivery,) = site.detail(done["id"])["deliveries"]
        assert (delivery["target"], delivery["node"]) == ("planning", "second")
        assert len(archive.received()) == 1

        # The same images again are known: no job comes of them. What is sent after them
        # was looked at after them.
        assert storescu(scp_port, files=scan.files).returncode == 0
        later = write(patient_series(SeriesDescription="Topogram"), tmp_path / "later")
        assert storescu(scp_port, files=later).returncode == 0
        site.wait_state("ignored")
        assert site.states() == ["done", "ignored"]
        (received,) = archive.received()
        result = pydicom.dcmread(received)
        assert server.count("upload") == 0, "a local engine sends nothing away"

    headers = scan.headers
    for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID"):
        assert result.get(name) == headers[0].get(name), name
    geometry = series_geometry(headers)
    found = read(result)
    assert found.series_instance_uids == (headers[0].SeriesInstanceUID,)
    assert found.frame_of_reference_uids == (geometry.frame_of_reference_uid,)
    images = {one.SOPInstanceUID for one in headers}
    assert {
        image.ReferencedSOPInstanceUID
        for roi in result.ROIContourSequence
        for contour in roi.get("ContourSequence", [])
        for image in contour.ContourImageSequence
    } <= images
    for ours, theirs in LUNGS.items():
        assert dice(mask(found.roi(ours), geometry), scan.lungs[theirs]) >= 0.95, ours
