"""The whole way with real processes: a folder in, a structure set out."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import RTStructureSetStorage, generate_uid

from .client_site import CANARIES, Site, patient_series, running_site, wait, write

STATES = [
    *("discovered", "stable", "matched", "deidentified", "packed", "uploading"),
    *("submitted", "processing", "ready", "downloaded", "reidentified", "exported"),
    *("confirmed", "done"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site; each test drops series of its own."""
    with running_site(tmp_path_factory.mktemp("pipeline")) as made:
        made.server.script(polls=1)
        yield made


def new(site: Site, before: set[str], states: list[str]) -> list[dict[str, Any]]:
    """Wait until the new series are in just these states."""

    def added() -> list[dict[str, Any]]:
        return [one for one in site.series() if one["id"] not in before]

    wait(
        lambda: sorted(one["state"] for one in added()) == sorted(states),
        f"the new series are {states}",
    )
    return added()


@pytest.fixture
def before(site: Site) -> set[str]:
    """The ids of what was there before the test."""
    return {one["id"] for one in site.series()}


def test_a_series_in_a_folder_is_uploaded_once_and_its_contours_lie_beside_it(
    site: Site, before: set[str]
) -> None:
    images = patient_series()
    tasks = set(site.server.tasks)
    paths = site.drop(images, "one")
    (done,) = new(site, before, ["done"])

    detail = site.detail(done["id"])
    kinds = [entry["kind"] for entry in detail["timeline"]]
    assert [kind for kind in kinds if kind in STATES] == STATES
    (token,) = set(site.server.tasks) - tasks
    task = site.server.tasks[token]
    assert (task.uploads, task.downloads, task.confirmed) == (1, 1, 1)
    (beside,) = paths[0].parent.glob("RS.*.dcm")
    result = pydicom.dcmread(beside)
    assert (result.PatientID, result.PatientBirthDate) == (CANARIES[1], CANARIES[3])
    assert result.StudyInstanceUID == images[0].StudyInstanceUID
    frames = result.ReferencedFrameOfReferenceSequence
    assert frames[0].FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert detail["facts"]["PatientID"] == CANARIES[1]


def test_two_series_in_one_folder_and_one_in_two_are_three_series(
    site: Site, before: set[str]
) -> None:
    split = patient_series()
    write(split[:5], site.watched / "left")
    write(split[5:], site.watched / "right")
    site.drop(patient_series(), "shared")
    site.drop(patient_series(), "shared")
    found = new(site, before, ["done", "done", "done"])
    assert {one["instances"] for one in found} == {12}


def test_the_same_images_again_are_a_duplicate_that_is_not_sent(
    site: Site, before: set[str]
) -> None:
    images = patient_series()
    site.drop(images, "first")
    (first,) = new(site, before, ["done"])
    uploads = site.server.count("upload")
    site.drop(images, "second")
    found = new(site, before, ["done", "ignored"])
    again = next(one for one in found if one["state"] == "ignored")
    assert again["duplicate_of"] == first["id"]
    assert again["reasons"][0]["code"] == "duplicate"
    assert site.server.count("upload") == uploads


def test_a_slice_that_comes_late_is_offered_anew_and_never_left_out(
    site: Site, before: set[str]
) -> None:
    images = patient_series(slices=14)
    site.drop(images[:12], "late")
    new(site, before, ["done"])
    site.drop(images[12:], "late")
    found = new(site, before, ["done", "done"])
    assert {one["instances"] for one in found} == {12, 14}
    assert len({one["package_sha256"] for one in map(_detail(site), found)}) == 2


def _detail(site: Site) -> Any:
    return lambda one: site.detail(one["id"])


def test_localizers_and_other_objects_are_ignored_with_a_reason(
    site: Site, before: set[str]
) -> None:
    site.drop(patient_series(SeriesDescription="Topogram 0.6"), "localizer")
    site.drop(patient_series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "kind")
    structures = patient_series(slices=1)
    structures[0].SOPClassUID = RTStructureSetStorage
    structures[0].Modality = "RTSTRUCT"
    site.drop(structures, "rtstruct")
    found = new(site, before, ["ignored"] * 3)
    codes = sorted(one["reasons"][0]["code"] for one in found)
    assert codes == ["localizer", "localizer", "sop_class"]


def test_a_series_without_a_rule_waits_until_a_template_is_chosen(
    site: Site, before: set[str]
) -> None:
    site.drop(patient_series(Modality="MR"), "unmatched")
    (waiting,) = new(site, before, ["unmatched"])
    site.ask("POST", f"series/{waiting['id']}/template", json={"template": "Pelvis"})
    new(site, before, ["done"])


def test_a_held_series_goes_on_when_a_person_lets_it(
    site: Site, before: set[str]
) -> None:
    site.drop(patient_series(slices=6), "few")
    (held,) = new(site, before, ["held"])
    assert held["reasons"][0]["code"] == "few"
    site.ask("POST", f"series/{held['id']}/override")
    new(site, before, ["done"])


def test_nothing_of_a_patient_stands_in_packages_logs_names_or_the_database(
    site: Site,
) -> None:
    assert site.server.leaks == []
    logs = site.log_text()
    database = b"".join(
        path.read_bytes() for path in (site.home / "dicom_client").rglob("*.sqlite*")
    )
    for canary in CANARIES:
        assert canary not in logs
        assert canary.encode() not in database
        assert not list(site.home.rglob(f"*{canary}*"))
        assert not [one for one in site.server.log if canary in one.path]
    for path in (site.home / "phi").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, "others can read it"
        assert not zipfile.is_zipfile(path), "a package is left over"


def test_the_audit_log_is_a_whole_chain_and_can_be_exported(site: Site) -> None:
    assert site.ask("GET", "audit/check") == {"whole": True, "broken_at": None}
    lines = site.call("GET", "audit.csv").text.splitlines()
    assert lines[0].startswith("id,at,who,action")
    assert len(site.call("GET", "audit.json").text.splitlines()) == len(lines) - 1


def test_without_a_token_nothing_is_told_but_health(site: Site) -> None:
    import httpx

    assert httpx.get(f"{site.url}/health").json() == {"status": "healthy"}
    for path in ("series", "statistics", "feed", "audit", "settings", "templates"):
        assert httpx.get(f"{site.url}/api/{path}").status_code == 401, path
    answer = httpx.post(f"{site.url}/api/series/{generate_uid()[:8]}/retry")
    assert answer.status_code == 401


def test_secrets_are_written_and_never_shown(site: Site) -> None:
    told = site.call("GET", "settings").text
    assert site.server.access_token not in told
    assert site.server.refresh_token not in told
    for path in Path(site.home / "dicom_client").rglob("*.sqlite*"):
        assert site.server.access_token.encode() not in path.read_bytes()
