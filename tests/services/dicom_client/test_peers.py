"""Orthanc and dcmtk on both sides of us, with a real scan where there is one."""

import socket

import pydicom
import pytest

from services.dicom_client.delivery import NodeTarget, deliver
from services.dicom_client.nodes import Node, echo
from tests.dcmtk import storescp, storescu, until
from tests.orthanc import orthanc
from tests.services.dicom_client.received import receiving, write_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(params=["made", "alderson"])
def scan(request, tmp_path):
    """Files of a CT series."""
    if request.param == "made":
        return write_series(tmp_path / "scan", slices=12)
    shared = request.getfixturevalue("shared_data")
    files = sorted((shared / "ct_rtstruct" / "alderson_lungs" / "CT").glob("*.dcm"))
    assert files
    return files


def uids(files):
    return {
        pydicom.dcmread(one, stop_before_pixels=True).SOPInstanceUID for one in files
    }


def raw(image):
    """Values as they are written: some of the real ones break their own rules."""
    # Group lengths are retired, and left out by whoever writes a data set anew.
    return {tag: image.get_item(tag).value for tag in image._dict if tag.element}


def test_a_scan_of_dcmtk_comes_in_whole_and_goes_out_to_dcmtk_the_same(scan, tmp_path):
    with receiving(tmp_path / "in") as scp:
        assert storescu(scp.port, files=scan).returncode == 0
    kept = [arrival.path for arrival, _ in scp.notes.arrivals]
    assert uids(kept) == uids(scan)
    with storescp() as archive:
        target = NodeTarget("a", (Node("a", "127.0.0.1", archive.port, "ARCHIVE"),))
        for path in kept[:3]:
            (outcome,) = deliver(path, [target])
            assert outcome.code == "delivered"
        sent = {pydicom.dcmread(path).SOPInstanceUID: path for path in kept[:3]}
        for path in archive.received():
            got = pydicom.dcmread(path)
            assert raw(got) == raw(pydicom.dcmread(sent[got.SOPInstanceUID]))


def test_orthanc_sends_a_series_to_us_and_gets_it_back(scan, tmp_path):
    with receiving(tmp_path / "in") as scp:
        here = {"us": ["THEATRUM", "127.0.0.1", scp.port]}
        with orthanc(modalities=here) as pacs:
            pacs.upload(scan)
            assert pacs.http.post("/modalities/us/echo", json={}).is_success
            (series,) = pacs.http.get("/series").json()
            assert pacs.send("us", [series]).is_success
            until(lambda: any(one.stored for one in scp.notes.ended))
            assert scp.notes.instances() == uids(scan)
            pacs.http.delete(f"/series/{series}").raise_for_status()
            node = Node("pacs", "127.0.0.1", pacs.dicom_port, "ARCHIVE", can_find=True)
            assert echo(node).ok
            target = NodeTarget("pacs", (node,))
            first = scp.notes.arrivals[0][0].path
            assert deliver(first, [target])[0].code == "delivered"
            assert deliver(first, [target])[0].code == "already_there"
            assert set(pacs.instances()) == uids([first])


def test_an_echo_to_a_host_that_swallows_everything_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        answer = echo(Node("n", "127.0.0.1", port, "X", connect_s=1, timeout_s=1))
    assert not answer.ok
    assert answer.took_s < 20
