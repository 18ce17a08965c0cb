"""Nodes as engines: structure sets of their labels, in a process of their own."""

import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import psutil
import pydicom
import pytest
from theatrum.structures import mask, read, series_geometry

from services.dicom_client import local_engine
from services.dicom_client.errors import LocalEngineFailed
from services.dicom_client.local_engine import Limits, check_engine, output_of
from services.dicom_client.templates import BadTemplate, Model, Structure, Template
from tests.extensions.structures.series import ct_series
from tests.services.dicom_client.engines import ENGINES
from tests.services.dicom_client.test_packaging import put

AT = datetime(2026, 3, 17, 10, 30, tzinfo=UTC)
TILTED = (0.8, 0.6, 0, -0.6, 0.8, 0)


@pytest.fixture
def engines(tmp_path):
    file = tmp_path / "engines.py"
    file.write_text(ENGINES)
    return file


def phantom():
    """Air with a dense ring around a core of metal; HU, [z, y, x]."""
    y, x = np.mgrid[:40, :50]
    away = np.hypot(y - 20, x - 25)
    hu = np.full((6, 40, 50), -1000)
    hu[1:5, away < 14] = 400
    hu[1:5, away < 5] = 1500
    return hu


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    series = ct_series(pixels=phantom(), cosines=TILTED)
    return [put(one, folder / f"{at}.dcm") for at, one in enumerate(series)]


def ran(images, engines, name, folder, **more):
    given = {"template": Template("Test", engine=f"{engines}:{name}")} | more
    return local_engine.run(
        images,
        given.pop("template"),
        folder=folder,
        job="job-1",
        made_at=AT,
        **given,
    )


def test_labels_become_contours_with_holes_on_the_series(images, engines, tmp_path):
    told = []
    result = ran(images, engines, "ring", tmp_path, progress=told.append)
    headers = [pydicom.dcmread(path) for path in images]
    geometry = series_geometry(headers)
    made = pydicom.dcmread(result)
    structures = read(made)
    assert structures.frame_of_reference_uids == (geometry.frame_of_reference_uid,)
    assert structures.series_instance_uids == (headers[0].SeriesInstanceUID,)
    hu = phantom()
    ring, core = structures.roi("Ring"), structures.roi("Core")
    assert (mask(ring, geometry) == ((hu >= 100) & (hu < 1000))).all()
    assert (mask(core, geometry) == (hu >= 1000)).all()
    # A hole belongs to its ring by a keyhole: one contour on each slice.
    assert len(ring.contours) == 4
    assert ring.colour == (255, 128, 0)
    assert told == sorted(told)
    assert 0.4 < told[-1] <= 1
    assert (made.ApprovalStatus, made.Modality) == ("UNAPPROVED", "RTSTRUCT")


def test_the_same_step_makes_the_same_file(images, engines, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    one = ran(images, engines, "ring", first)
    other = ran(images[::-1], engines, "ring", second)
    assert one.read_bytes() == other.read_bytes()


def test_parameters_reach_the_node_and_other_ones_make_another_file(
    images, engines, tmp_path
):
    engine = f"{engines}:ring"
    usual = Template("Test", engine=engine)
    dense = Template("Test", engine=engine, parameters={"from_hu": 500})
    uids = set()
    for template, wanted in ((usual, True), (dense, False)):
        result = ran(images, engines, "ring", tmp_path, template=template)
        made = pydicom.dcmread(result)
        uids.add(made.SOPInstanceUID)
        assert bool(read(made).roi("Ring").contours) is wanted
    assert len(uids) == 2


def test_only_what_the_template_names_is_drawn(images, engines, tmp_path):
    chosen = Template(
        "Test",
        (Model(11, "ring", "-", "-", None, (Structure(2, "core"),)),),
        engine=f"{engines}:ring",
    )
    made = pydicom.dcmread(ran(images, engines, "ring", tmp_path, template=chosen))
    assert [one.name for one in read(made).rois] == ["Core"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dying", "crash"),
        ("failing", "engine"),
        ("greedy", "memory"),
        ("deaf", "time-limit"),
        ("other_grid", "node"),
        ("no_engine", "node"),
    ],
)
def test_an_engine_that_fails_is_told_by_its_code(
    images, engines, tmp_path, monkeypatch, name, code
):
    monkeypatch.setattr(local_engine, "PATIENCE_S", 0.1)
    seconds = 6.0 if name == "deaf" else 60.0
    with pytest.raises(LocalEngineFailed) as caught:
        ran(images, engines, name, tmp_path, limits=Limits(seconds, 1 << 30))
    assert caught.value.code == code
    assert "Andersen" not in str(caught.value)
    assert not list(tmp_path.glob("*.dcm*"))
    assert _children() == []


def _children():
    return [
        one
        for one in psutil.Process().children()
        if "services.dicom_client.engine_process" in " ".join(one.cmdline())
    ]


class _Unwanted(Exception):
    pass


def test_a_cancel_stops_the_engine_at_once(images, engines, tmp_path):
    seen = []

    def check():
        if seen:
            raise _Unwanted

    begun = time.monotonic()
    with pytest.raises(_Unwanted):
        ran(images, engines, "endless", tmp_path, progress=seen.append, check=check)
    assert time.monotonic() - begun < 30
    assert _children() == []
    assert not (tmp_path / local_engine.RESULT).exists()


def test_an_engine_ends_with_its_worker(images, engines, tmp_path):
    script = (
        "import sys; from pathlib import Path; from datetime import datetime\n"
        "from services.dicom_client import local_engine\n"
        "from services.dicom_client.templates import Template\n"
        f"files = {[str(one) for one in images]!r}\n"
        "local_engine.run([Path(one) for one in files],"
        f" Template('Test', engine='{engines}:endless'), folder=Path('{tmp_path}'),"
        " job='j', made_at=datetime(2026, 1, 1),"
        " progress=lambda share: print(share, flush=True))\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    (engine,) = psutil.Process(worker.pid).children()
    worker.kill()
    worker.wait()
    worker.stdout.close()
    engine.wait(20)


def test_images_that_form_no_volume_are_told(images, engines, tmp_path):
    with pytest.raises(LocalEngineFailed, match="gap") as caught:
        ran([*images[:2], *images[3:]], engines, "ring", tmp_path)
    assert caught.value.code == "geometry"


@pytest.mark.parametrize(
    ("engine", "parameters", "word"),
    [
        ("theatrum.nodes:tissue_area", {}, "is no engine"),
        ("theatrum.nodes:nothing", {}, "has no 'nothing'"),
        ("no.module:x", {}, "no module"),
        ("theatrum.nodes:ct_body_lungs_bone", {"output": "png"}, "none of rtstruct"),
        ("theatrum.nodes:ct_body_lungs_bone", {"bone_from_hu": 5}, "bone_from_hu"),
    ],
)
def test_a_template_with_a_bad_engine_says_what_is_wrong(engine, parameters, word):
    with pytest.raises(BadTemplate, match=word):
        check_engine(Template("Test", engine=engine, parameters=parameters), [engine])


def test_a_node_that_the_settings_do_not_name_is_never_loaded(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BadTemplate, match="an administrator adds"):
        check_engine(Template("Test", engine=f"{file}:node"))
    assert not (tmp_path / "ran").exists()


def test_the_shipped_engine_is_one():
    template = Template("Test", engine="theatrum.nodes:ct_body_lungs_bone")
    assert check_engine(template).name == "ct-body-lungs-bone"
    assert output_of(template) == "rtstruct"
