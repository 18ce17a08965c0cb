"""A comparison goes on beside the request, tells how far it is, and can be ended."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.dicom_client import overlap
from services.dicom_client.app import make_app
from services.dicom_client.errors import BadRequest, WrongState
from services.dicom_client.measurements import SUFFIX, Measurements
from services.dicom_client.models import Job, Overlap
from services.dicom_client.opening import Service, open_service
from services.dicom_client.settings import read
from tests.services.dicom_client.test_pages import Groups

from .client_site import wait
from .test_previews import case

__all__ = ["case"]

JOB = "0123456789abcdef"
COMPARE = overlap.compare


class Gate:
    """Lets the measures of one structure through at a time."""

    def __init__(self) -> None:
        self.through = threading.Semaphore(0)

    def compare(self, *given: Any) -> Any:
        assert self.through.acquire(timeout=60)
        return COMPARE(*given)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = open_service(tmp_path / "home", read({}))
    with made.database.writing() as session:
        session.add(Job(job_id=JOB, series_key="k", state="done"))
    made.folders.of(JOB).make()
    yield made
    made.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(overlap, "compare", made.compare)
    return made


def reference(service: Service, manual: Path) -> Path:
    target = service.folders.of(JOB).path / f"a{SUFFIX}"
    shutil.copyfile(manual, target)
    return target


def kept(service: Service) -> list[Overlap]:
    with service.database.reading() as session:
        return list(session.query(Overlap))


def test_a_comparison_tells_how_far_it_is_and_is_kept_at_its_end(
    service: Service, gate: Gate, case: Any
) -> None:
    _, images, result, _ = case
    going = Measurements(service)
    file = reference(service, result)
    begun = going.begin(JOB, "ada", file, result, images)
    gate.through.release()
    wait(lambda: going.newest(JOB).percent == 50, "one of two is measured")  # type: ignore[union-attr]
    with pytest.raises(WrongState, match="wait, or cancel"):
        going.begin(JOB, "bob", file, result, images)
    assert kept(service) == []
    gate.through.release()
    begun.result(60)
    (row,) = kept(service)
    assert [one["structure"] for one in row.content] == ["Lung_L", "Heart"]
    assert not file.exists(), "the reference names a patient"
    assert going.newest(JOB).phase == "done"  # type: ignore[union-attr]
    going.close()


def test_a_comparison_that_is_cancelled_ends_and_keeps_nothing(
    service: Service, gate: Gate, case: Any
) -> None:
    _, images, result, _ = case
    going = Measurements(service)
    file = reference(service, result)
    begun = going.begin(JOB, "ada", file, result, images)
    going.cancel(JOB)
    gate.through.release()
    begun.result(60)
    assert kept(service) == []
    assert not file.exists()
    assert going.newest(JOB).phase == "cancelled"  # type: ignore[union-attr]
    with pytest.raises(WrongState):
        going.cancel(JOB)
    going.close()


def test_what_was_cancelled_does_not_go_on_in_the_name_of_the_next(
    service: Service, gate: Gate, case: Any
) -> None:
    _, images, result, _ = case
    going = Measurements(service)
    first = going.begin(JOB, "ada", reference(service, result), result, images)
    going.cancel(JOB)
    other = service.folders.of(JOB).path / f"b{SUFFIX}"
    shutil.copyfile(result, other)
    second = going.begin(JOB, "bob", other, result, images)
    for _ in range(4):
        gate.through.release()
    first.result(60)
    second.result(60)
    assert [one.who for one in kept(service)] == ["bob"]
    going.close()


def test_a_file_that_is_no_structure_set_is_told_and_removed(
    service: Service, case: Any
) -> None:
    _, images, result, _ = case
    going = Measurements(service)
    file = service.folders.of(JOB).path / f"b{SUFFIX}"
    file.write_bytes(b"no")
    with pytest.raises(BadRequest, match="no RT Structure Set"):
        going.begin(JOB, "ada", file, result, images).result(60)
    assert not file.exists()
    assert "no RT Structure Set" in going.newest(JOB).text  # type: ignore[union-attr]
    going.close()


def test_a_reference_that_a_crash_left_goes_with_the_next_start(
    service: Service, case: Any
) -> None:
    left = reference(service, case[3])
    Measurements(service).close()
    assert not left.exists()


def test_a_viewer_cannot_end_a_comparison(service: Service) -> None:
    app = make_app(service, "/")
    app.state.sign_in = Groups()
    with TestClient(app) as client:
        answer = client.post(
            f"/series/{JOB}/compare/cancel", headers={"X-Groups": "dicom-viewers"}
        )
        assert answer.status_code == 403
