"""A series in a watched folder is decided about when all that lies there was read."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.dicom_client import watch_folder
from services.dicom_client.intake import Intake
from services.dicom_client.opening import Service, open_service
from services.dicom_client.settings import ServiceSettings
from tests.services.dicom_client.received import write_series


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    watched = tmp_path / "watched"
    watched.mkdir()
    settings = ServiceSettings(
        watch=(watched,), stable_s=0.0, stable_scans=1, min_free_bytes=0
    )
    made = open_service(tmp_path / "home", settings)
    yield made
    made.close()


def intake_of(service: Service) -> Intake:
    return Intake(service.jobs, service.keeper, service.folders, service.settings)


def only(service: Service) -> tuple[str, int]:
    (job,) = service.jobs.in_states(("discovered", "unmatched"))
    return job.state, job.instances


def test_a_series_of_which_a_look_read_only_a_part_waits_for_the_next_look(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = watch_folder.WatchSettings(scans=1, stable_s=0.0, batch=12)
    monkeypatch.setattr("services.dicom_client.intake._watching", lambda _: few)
    write_series(tmp_path / "watched", slices=20)
    intake = intake_of(service)
    intake.look()
    assert intake.complete() == 0
    assert only(service) == ("discovered", 12)
    intake.look()
    assert intake.complete() == 1
    assert only(service) == ("unmatched", 20)


def test_a_worker_that_has_not_looked_yet_decides_about_no_series(
    service: Service, tmp_path: Path
) -> None:
    write_series(tmp_path / "watched", slices=12)
    first = intake_of(service)
    first.look()
    second = intake_of(service)
    assert second.complete() == 0
    second.look()
    assert second.complete() == 1


def test_files_that_come_later_into_the_same_folder_hold_nothing_up(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = tmp_path / "watched"
    write_series(watched, slices=12)
    intake = intake_of(service)
    intake.look()
    slow = watch_folder.WatchSettings(scans=100, stable_s=0.0)
    monkeypatch.setattr("services.dicom_client.intake._watching", lambda _: slow)
    (watched / "next.dcm").write_bytes(b"another series begins")
    intake.look()
    assert intake.complete() == 1


def test_a_file_that_can_never_be_read_is_not_waited_for_without_end(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> None:
        raise PermissionError(path)

    watched = tmp_path / "watched"
    watched.mkdir(exist_ok=True)
    (watched / "locked.dcm").write_bytes(b"somebody else's")
    write_series(watched, slices=12)
    reads = watch_folder.read_header
    monkeypatch.setattr(
        "services.dicom_client.watch_folder.read_header",
        lambda path: (unreadable if path.name == "locked.dcm" else reads)(path),
    )
    intake = intake_of(service)
    intake.look()
    assert intake.complete() == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert intake.complete() == 1
