"""From files to jobs within one process: whose a series is, and what is never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from services.dicom_client.actions import Actions
from services.dicom_client.intake import Intake
from services.dicom_client.models import Job
from services.dicom_client.opening import Service, open_service
from services.dicom_client.rules import rules_from_json
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.templates import template_from_json

from .client_site import RULES, patient_series, template, write


class Looks:
    """An intake whose files are stable at once."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.watched = folder / "watched"
        self.watched.mkdir()
        chosen = ServiceSettings(
            watch=[self.watched],
            stable_s=0.0,
            stable_scans=1,
            min_instances=4,
            **settings,
        )
        self.service: Service = open_service(folder / "home", chosen)
        keeper = self.service.keeper
        keeper.put_template(template_from_json(template()), "test")
        keeper.put_rules(rules_from_json(json.dumps({"rules": RULES})), "test")
        self.actions = Actions(self.service.jobs, keeper)
        self.intake = Intake(
            self.service.jobs, keeper, self.service.folders, self.service.settings
        )

    def look(self) -> None:
        for _ in range(3):
            self.intake.look()
            self.intake.complete()

    def drop(self, images: list[Dataset], name: str) -> list[Path]:
        paths = write(images, self.watched / name)
        self.look()
        return paths

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        with self.service.database.reading() as session:
            return sorted(session.query(Job), key=lambda one: one.created)

    def states(self) -> list[str]:
        return [one.state for one in self.jobs()]


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[Looks]:
    made = Looks(tmp_path)
    yield made
    made.service.close()


def of_another(images: list[Dataset], **fields: Any) -> list[Dataset]:
    """The same UIDs with another name on them."""
    fields = {"PatientName": "Zweite^Person", "PatientID": "MRN-2", **fields}
    for image in images:
        for name, value in fields.items():
            setattr(image, name, value)
    return images


def test_the_same_images_again_are_a_duplicate(looks: Looks) -> None:
    images = patient_series()
    looks.drop(images, "one")
    looks.drop(images, "two")
    assert looks.states() == ["matched", "ignored"]
    assert looks.jobs()[1].duplicate_of == looks.jobs()[0].job_id


def test_another_patient_under_the_same_uids_is_held_and_no_duplicate(
    looks: Looks,
) -> None:
    images = patient_series()
    looks.drop(images, "one")
    looks.drop(of_another(images), "two")
    assert looks.states() == ["matched", "held"]
    second = looks.jobs()[1]
    assert "another-person" in {one["code"] for one in second.reasons}
    # A person may let it through, with the template that the first one has.
    looks.actions.choose_template(second.job_id, "Pelvis", "planner")
    assert looks.states() == ["matched", "matched"]


def test_another_patients_images_in_a_series_call_nobodys_job_off(
    looks: Looks,
) -> None:
    images = patient_series()
    looks.drop(images, "one")
    others = of_another(patient_series(slices=20))
    for image in others:
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    looks.drop(others, "two")
    assert looks.states() == ["matched", "held"]


def test_people_without_an_id_are_told_apart_by_name_and_birth_date(
    looks: Looks,
) -> None:
    images = patient_series(PatientID="")
    looks.drop(images, "one")
    looks.drop(of_another(images, PatientID=""), "two")
    assert looks.states() == ["matched", "held"]


def test_a_series_whose_share_is_away_waits_and_is_not_ignored(
    looks: Looks, tmp_path: Path
) -> None:
    write(patient_series(), looks.watched / "one")
    looks.intake.look()
    looks.intake.look()
    away = tmp_path / "away"
    looks.watched.rename(away)
    looks.intake.complete()
    assert looks.states() == ["discovered"]
    away.rename(looks.watched)
    looks.look()
    assert looks.states() == ["matched"]


def test_a_series_whose_files_are_gone_is_ignored_with_the_reason(
    looks: Looks,
) -> None:
    paths = write(patient_series(), looks.watched / "one")
    looks.intake.look()
    looks.intake.look()
    for path in paths:
        path.unlink()
    looks.look()
    (job,) = looks.jobs()
    assert (job.state, job.reasons[0]["code"]) == ("ignored", "files")


def test_a_series_that_grew_takes_the_place_of_what_was_not_sent(looks: Looks) -> None:
    images = patient_series(slices=14)
    looks.drop(images[:10], "one")
    looks.drop(images[10:], "one")
    assert looks.states() == ["cancelled", "matched"]


def test_images_of_two_studies_or_two_names_are_held(looks: Looks) -> None:
    two_names, two_studies = patient_series(), patient_series()
    two_names[3].PatientName = "Zweite^Person"
    two_studies[3].StudyInstanceUID = generate_uid()
    looks.drop(two_names, "one")
    looks.drop(two_studies, "two")
    assert [one.reasons[0]["code"] for one in looks.jobs()] == ["patient", "study"]
