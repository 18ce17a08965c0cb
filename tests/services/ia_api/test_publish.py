"""What an app hands in to the catalogue: the pixels, the result, and no patient."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Image, Result

from hub.home import Home
from services.catalog import inbox, store
from services.ia_api import publish
from services.ia_api.apps import App, registered
from services.ia_api.errors import IaApiError
from services.ia_api.publish import NotPublished, Published
from services.ia_api.results import Answer, Item
from services.ia_api.settings import read
from services.ia_api.slide_info import SlideInfo
from tests.dicom_slides import DicomSpec, write_dicom_slide
from tests.identified_slides import Planted, write_identified_svs
from tests.vendor_slides import write_ndpi
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers import open_slide

SLIDE = SlideInfo(
    id="slide-Qx7731", size=(1000, 700), tile_size=(256, 256), um_per_pixel=0.5,
    streamable=True,
)  # fmt: skip
ANSWER = Answer(
    "Tissue 2 mm2",
    {"Free text": "Muster, Erika"},
    [Item(polygons=[[(1.0, 2.0), (30.0, 2.0), (30.0, 40.0)]])],
    {"phase": "done", "numbers": {"area": 2.0, "undefined": float("nan")}},
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = Home(tmp_path / "home")
    made.prepare()
    store.open_store(made).dispose()
    return made.root


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    opened = store.open_store(Home(home))
    yield opened
    opened.dispose()


@pytest.fixture
def app(tmp_path: Path) -> App:
    apps: dict[str, Any] = {
        "tissue": {"node": "theatrum.nodes:tissue_area", "publish": "cases"}
    }
    return registered(read({"apps": apps}), tmp_path)["tissue"]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    folder = tmp_path / "slide"
    folder.mkdir()
    return write_identified_svs(folder / "Muster_Erika.svs")


def _publish(
    home: Path, app: App, files: list[Path], *, slide: SlideInfo = SLIDE
) -> None:
    publish.publish(
        home,
        Published("job1", app, ANSWER, slide),
        files,
        home / "phi" / "published",
        processes=multiprocessing.get_context("forkserver"),
        check=lambda: None,
    )


def _take_in(engine: Engine, home: Path) -> None:
    with Prober(ProbeSettings(workers=1)) as prober:
        inbox.take_in(engine, Home(home), prober)


def _below(*folders: Path) -> bytes:
    """Every name and every byte below some folders."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            found.append(path.name.encode())
            if path.is_file():
                found.append(path.read_bytes())
    return b"\n".join(found)


def test_nothing_planted_stands_in_image_request_or_database(
    home: Path, engine: Engine, app: App, planted: Planted
) -> None:
    _publish(home, app, [planted.path])
    _below_inbox = _below(Home(home).inbox)
    _take_in(engine, home)
    everything = _below_inbox + _below(Home(home).images, Home(home).catalog)
    assert planted.found_in(everything) == []
    for word in (b"Muster", b"Erika", SLIDE.id.encode()):
        assert word not in everything


def test_image_and_result_are_in_the_collection(
    home: Path, engine: Engine, app: App, planted: Planted
) -> None:
    _publish(home, app, [planted.path])
    _take_in(engine, home)
    with Session(engine) as session:
        (image,) = session.scalars(select(Image)).all()
        (result,) = session.scalars(select(Result)).all()
        assert image.project.name == "cases"
        assert (image.geometry["width"], image.geometry["height"]) == (1000, 700)
        assert result.numbers == {"area": 2.0}
        (feature,) = result.marks["features"]
        assert feature["geometry"]["coordinates"][0][1] == [30.0, 2.0]
        assert result.node_digest == app.node.code_digest


def test_a_job_cut_off_between_copy_and_registration_makes_one_image(
    home: Path, engine: Engine, app: App, planted: Planted
) -> None:
    _publish(home, app, [planted.path])
    # Killed: the copy is there, the request is not.
    (Home(home).inbox / "job1.json").unlink()
    _publish(home, app, [planted.path])
    _take_in(engine, home)
    # Killed again, after the catalogue took it in.
    _publish(home, app, [planted.path])
    _take_in(engine, home)
    with Session(engine) as session:
        assert len(session.scalars(select(Image)).all()) == 1
        assert len(session.scalars(select(Result)).all()) == 1
    assert len(list((Home(home).images / publish.FOLDER).iterdir())) == 1


def test_a_dicom_slide_is_published_without_names_and_label(
    home: Path, engine: Engine, app: App, tmp_path: Path
) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_dicom_slide(folder, DicomSpec())
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "Quirrelmuster^Erika"
        dataset.PatientID = "PID-778812"
        dataset.AccessionNumber = "ACC-991233"
        dataset.ContainerIdentifier = "S26-00471-A1"
        dataset.DeviceSerialNumber = "SER-5523901"
        dataset.save_as(path)
    _publish(home, app, files, slide=replace(SLIDE, size=(700, 500)))
    _take_in(engine, home)
    everything = _below(Home(home).images, Home(home).catalog).lower()
    for word in (b"quirrelmuster", b"778812", b"991233", b"00471", b"5523901"):
        assert word not in everything
    (copied,) = (Home(home).images / publish.FOLDER).iterdir()
    for path in copied.iterdir():
        assert "VOLUME" in pydicom.dcmread(path, stop_before_pixels=True).ImageType
    with open_slide(folder) as before, open_slide(copied) as after:
        size = before.levels[0].width, before.levels[0].height
        same = before.read(0, 0, 0, size) == after.read(0, 0, 0, size)
        assert same.all()


def test_a_slide_that_cannot_be_copied_is_not_published(
    home: Path, app: App, tmp_path: Path
) -> None:
    slide, *_ = write_ndpi(tmp_path)
    with pytest.raises(NotPublished, match="hamamatsu"):
        _publish(home, app, [slide])
    assert not list(Home(home).images.rglob("*.tiff"))
    assert not Home(home).inbox.exists()


def test_a_copy_in_which_a_known_word_stands_is_not_published(
    home: Path, app: App, tmp_path: Path, planted: Planted
) -> None:
    # Where no rule looks: within the pixels of a file that is not compressed.
    raw = bytearray(planted.path.read_bytes())
    with open_slide(planted.path):
        pass
    target = tmp_path / "copy"
    target.write_bytes(bytes(raw) + b"slide-Qx7731")
    with pytest.raises(NotPublished, match="a word"):
        publish._search(target, {SLIDE.id})


def test_without_a_hub_there_is_nothing_to_publish_into(
    app: App, tmp_path: Path, planted: Planted
) -> None:
    with pytest.raises(NotPublished, match="beside a hub"):
        _publish(tmp_path / "alone", app, [planted.path])


def test_publishing_is_off_unless_an_app_names_a_collection(tmp_path: Path) -> None:
    apps = registered(read({}), tmp_path)
    assert apps
    assert all(one.settings.publish is None for one in apps.values())
    with pytest.raises(IaApiError, match="publish"):
        read({"apps": {"x": {"node": "a:b", "publish": "No Collection"}}})


def test_a_request_is_whole_json(home: Path, app: App, planted: Planted) -> None:
    _publish(home, app, [planted.path])
    (request,) = Home(home).inbox.iterdir()
    assert json.loads(request.read_text())["result"]["run"] == "job1"
