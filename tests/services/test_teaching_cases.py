"""A de-identified case goes into a teaching collection by one call, or not at all."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sqlalchemy.orm import Session
from theatrum import deidentify
from theatrum.errors import ImageError, NoSuchImage
from theatrum.hub_images import Catalog, images
from theatrum.series import open_series
from theatrum.session import current_session
from theatrum.structures import Drawn, series_geometry, structure_set

from hub.home import Home
from services.catalog import cases, store
from services.catalog.errors import BadCaseError
from tests.extensions.structures.series import ct_series
from tests.services.catalog.running import catalogue
from tests.tile_server.test_dicom_series import written

PROFILE = (
    Path(__file__).resolve().parents[2]
    / "notebooks"
    / "examples"
    / "teaching_profile.yaml"
)
PEOPLE = {
    "teacher": ["formgrade-histo1"],
    "student": ["nbgrader-histo1"],
    "other": ["formgrade-other"],
    "histo1": None,
}
GRADER = "histo1"
"""The course's grading server: a service, not a person."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real catalogue on a socket, with a collection of a course."""
    home = tmp_path_factory.mktemp("home")
    Home(home).prepare()
    engine = store.open_store(Home(home))
    with Session(engine) as session:
        store.ensure_collection(
            session, "scans", ["formgrade-histo1", "nbgrader-histo1"]
        )
    engine.dispose()
    with catalogue(home, PEOPLE) as running:
        yield running.url


@pytest.fixture
def sign_in(site: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("THEATRUM_CATALOG_URL", site)
    return lambda name: monkeypatch.setenv("JUPYTERHUB_API_TOKEN", name)


def case(folder: Path, removed: str = "YES") -> Path:
    """A series in `CT` and a structure set on it, both de-identified."""
    series = ct_series(slices=5)
    for image in series:
        image.PatientIdentityRemoved = removed
    written(folder / "CT", series)
    area = np.zeros((5, 40, 50), bool)
    area[1:4, 10:20, 10:20] = True
    made = structure_set(
        [Drawn("Liver", area)],
        series,
        series_geometry(series),
        label="reference",
        series_description="reference",
        made_at=datetime(2026, 3, 17, tzinfo=UTC),
    )
    made.PatientIdentityRemoved = "YES"
    made.save_as(folder / "reference.dcm", enforce_file_format=True)
    return folder


def test_one_call_puts_a_case_into_the_collection_of_a_course(
    tmp_path: Path, sign_in: Callable[[str], None]
) -> None:
    folder = case(tmp_path)
    sign_in("teacher")
    scan = open_series(folder / "CT")
    image_id = scan.add_to_collection("scans", "case-1", folder / "reference.dcm")
    sign_in("student")
    (entry,) = [one for one in images.list("scans") if one.id == image_id]
    assert (entry.name, entry.width, entry.height) == ("case-1", 50, 40)
    view = Catalog(current_session()).view(image_id)
    assert view.scan is not None
    assert view.scan.slices == 5


def test_the_reference_never_reaches_a_student_unless_it_is_shared(
    tmp_path: Path, sign_in: Callable[[str], None]
) -> None:
    folder = case(tmp_path)
    sign_in("teacher")
    scan = open_series(folder / "CT")
    kept = scan.add_to_collection("scans", "kept", folder / "reference.dcm")
    open_to_all = scan.add_to_collection(
        "scans", "open", folder / "reference.dcm", shared=True
    )
    written_file = (folder / "reference.dcm").read_bytes()
    assert Catalog(current_session()).structures(kept) == written_file
    sign_in(GRADER)
    assert Catalog(current_session()).structures(kept) == written_file
    sign_in("student")
    assert Catalog(current_session()).structures(open_to_all) == written_file
    with pytest.raises(NoSuchImage):
        Catalog(current_session()).structures(kept)
    sign_in("other")
    with pytest.raises(NoSuchImage):
        Catalog(current_session()).structures(open_to_all)


@pytest.mark.parametrize("who", ["student", "other"])
def test_only_who_teaches_the_course_may_add(
    tmp_path: Path, sign_in: Callable[[str], None], who: str
) -> None:
    folder = case(tmp_path)
    sign_in(who)
    with pytest.raises(NoSuchImage):
        open_series(folder / "CT").add_to_collection("scans", "case-2")


def test_a_case_that_was_not_de_identified_is_refused(
    tmp_path: Path, sign_in: Callable[[str], None]
) -> None:
    folder = case(tmp_path, removed="NO")
    sign_in("teacher")
    before = len(images)
    with pytest.raises(ImageError, match="theatrum deidentify"):
        open_series(folder / "CT").add_to_collection("scans", "named")
    assert len(images) == before


def test_structures_of_other_images_are_refused(
    tmp_path: Path, sign_in: Callable[[str], None]
) -> None:
    folder, other = case(tmp_path / "a"), case(tmp_path / "b")
    sign_in("teacher")
    with pytest.raises(ImageError, match="other images"):
        open_series(folder / "CT").add_to_collection(
            "scans", "mixed", other / "reference.dcm"
        )


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"../x.dcm": b""}, "flat zip"),
        ({"a/1.dcm": b""}, "flat zip"),
        ({"/1.dcm": b""}, "flat zip"),
        ({"1.txt": b""}, "flat zip"),
        ({"1.dcm": b"no dicom"}, "no DICOM file"),
        ({}, "1 to"),
    ],
)
def test_a_package_that_is_no_case_leaves_nothing(
    tmp_path: Path, members: dict[str, bytes], word: str
) -> None:
    package = tmp_path / "case.zip"
    with zipfile.ZipFile(package, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    _refused(tmp_path, package, word)


def test_a_package_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "UNPACKED_BYTES", 1 << 20)
    package = tmp_path / "case.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", bytes(2 << 20))
    _refused(tmp_path, package, "too large")


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "case.zip"
    package.write_bytes(b"PK\x03\x04 not really")
    _refused(tmp_path, package, "no zip")


def _refused(tmp_path: Path, package: Path, word: str) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    engine = store.open_store(home)
    kept = tmp_path / "cases"
    with (
        contextlib.closing(Session(engine)) as session,
        store.open_prober(home) as prober,
    ):
        collection = store.ensure_collection(session, "scans")
        with pytest.raises(BadCaseError, match=word):
            cases.add_case(
                session,
                collection,
                package,
                cases.Wanted("scans", "case", shared=False),
                cases=kept,
                prober=prober,
            )
        assert collection.images == []
    engine.dispose()
    assert list(kept.iterdir()) == []


def test_a_case_is_de_identified_with_its_structures_and_goes_in(
    tmp_path: Path, sign_in: Callable[[str], None]
) -> None:
    folder = case(tmp_path, removed="NO")
    for path in [*(folder / "CT").iterdir(), folder / "reference.dcm"]:
        original = pydicom.dcmread(path)
        original.PatientName, original.PatientID = "Andersen^Berit", "MRN-004711"
        if original.Modality == "RTSTRUCT":
            del original.PatientIdentityRemoved
            original.StructureSetROISequence[0].ROIName = "Liver_R Andersen"
        original.save_as(path)
    worker = deidentify.Deidentifier(
        deidentify.load_profile(PROFILE), b"a key of the test's own making"
    )
    files = [*(folder / "CT").iterdir(), folder / "reference.dcm"]
    package = worker.package(files, folder / "out")
    assert package.report.given_out == 6
    drawn = [
        path
        for path in (folder / "out").glob("*.dcm")
        if pydicom.dcmread(path).Modality == "RTSTRUCT"
    ]
    scan = open_series(folder / "out")
    assert list(scan.structures(drawn[0])) == ["Liver_R"]
    sign_in("teacher")
    image_id = scan.add_to_collection("scans", "whole", drawn[0])
    content = Catalog(current_session()).structures(image_id)
    assert b"Andersen" not in content
    stored = scan.structures(pydicom.dcmread(io.BytesIO(content)))
    assert stored["Liver_R"].sum() == 300
