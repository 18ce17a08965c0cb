"""A real PACS: Orthanc (Debian: orthanc), with its own folder and free ports."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.dcmtk import free_port, until

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc; `http` is its REST interface."""

    dicom_port: int
    http: httpx.Client

    @property
    def dicomweb(self):
        return str(self.http.base_url).rstrip("/") + "/dicom-web"

    def upload(self, files):
        for file in files:
            self.http.post("/instances", content=file.read_bytes()).raise_for_status()

    def instances(self):
        """SOP Instance UIDs of everything in it."""
        listed = self.http.get("/instances", params={"expand": ""}).json()
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in listed)

    def send(self, node, resources):
        """Let it send by C-STORE; returns its answer."""
        return self.http.post(f"/modalities/{node}/store", json=resources)


@contextlib.contextmanager
def orthanc(modalities=None, dicomweb=False):
    """Run one; `modalities` are whom it knows: name to [title, host, port]."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    if dicomweb and not PLUGIN.exists():
        pytest.skip("Orthanc's DICOMweb is not installed (Debian: orthanc-dicomweb)")
    with tempfile.TemporaryDirectory() as folder:
        http, dicom = free_port(), free_port()
        settings = {
            "Name": "ARCHIVE",
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "HttpPort": http,
            "HttpServerEnabled": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": dicom,
            "DicomAet": "ARCHIVE",
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomModalities": modalities or {},
            "Plugins": [str(PLUGIN)] if dicomweb else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        file = Path(folder) / "orthanc.json"
        file.write_text(json.dumps(settings))
        process = subprocess.Popen(
            [program, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with httpx.Client(
            base_url=f"http://127.0.0.1:{http}", trust_env=False, timeout=60
        ) as client:
            try:
                until(lambda: _answers(client))
                yield Orthanc(dicom, client)
            finally:
                process.terminate()
                process.wait()


def _answers(client):
    try:
        return client.get("/system").is_success
    except httpx.TransportError:
        return False
