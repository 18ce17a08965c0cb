"""DICOMweb of `serve DIR`: by the list's addresses, and by the names of files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient

from tests import slides
from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.tile_server.dicom_web_service import place_of


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `serve DIR` answers for a folder of two slides."""
    folder = tmp_path_factory.mktemp("served")
    slides.write_slide(folder / "liver 1.tiff", slides.YCBCR)
    write_dicom_slide(folder / "dicom", DicomSpec())
    command = [sys.executable, "-m", "tile_server", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if "TILE" not in name},
    ) as process:
        assert process.stdout
        ready = next(line for line in process.stdout if line.startswith("ready"))
        yield ready.split()[1].rstrip("/")
        process.terminate()


def test_the_list_names_the_address_of_each_slide(address: str) -> None:
    listed = httpx.get(f"{address}/images.json", trust_env=False).json()["images"]
    counts = {}
    for image in listed:
        client = DICOMwebClient(address + image["dicomweb"])
        found = client.search_for_instances()
        counts[image["name"]] = len(found)
        for one in found:
            (frame,) = client.retrieve_instance_frames(*place_of(one), [1])
            assert frame
    # Whoever serves a folder may see its labels.
    assert counts == {"dicom/level0_0.dcm": 3, "liver 1.tiff": 8}


def test_a_files_name_leads_to_its_slide_without_the_label(address: str) -> None:
    client = DICOMwebClient(f"{address}/dicomweb/liver%201")
    assert len(client.search_for_instances()) == 6
    answer = httpx.get(f"{address}/dicomweb/liver%201/instances", trust_env=False)
    assert "/dicomweb/liver%201/studies/" in answer.text


def test_names_are_for_those_on_this_machine(address: str) -> None:
    here = f"{address}/dicomweb/liver%201/studies"
    assert httpx.get(here, trust_env=False).status_code == 200
    elsewhere = {"Host": "evil.test"}
    answer = httpx.get(here, headers=elsewhere, trust_env=False)
    assert answer.status_code == 403
    absent = httpx.get(f"{address}/dicomweb/kidney/studies", trust_env=False)
    assert absent.status_code == 403
    assert absent.json() == answer.json()
