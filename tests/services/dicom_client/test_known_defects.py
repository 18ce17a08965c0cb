"""What the clients before ours did wrong, and what any has to do: where it is tested.

That is 37 defects, 18 behaviours and 13 checks of a structure set, each with the tests
that fail where the defect comes back or the behaviour is lost.

`COVERED` names tests of other files; what is missing there stands below, under the
number of the defect. The first tests see to it that the table names what there is.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from fastapi.testclient import TestClient
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from theatrum.deidentify import load_mapping

from hub.durable.liveness import own_columns
from hub.durable.sealing import SealedElsewhere, Sealer
from services.dicom_client import local_sign_in, packaging, retention
from services.dicom_client.app import make_app
from services.dicom_client.draw_server import Progress, progress_of
from services.dicom_client.errors import NotPackable
from services.dicom_client.leases import Leases
from services.dicom_client.models import Duty, Job, Worker
from services.dicom_client.opening import Service, open_service
from services.dicom_client.rules import rules_from_json
from services.dicom_client.settings import read
from services.dicom_client.storage import STORAGE
from services.dicom_client.templates import template_from_json
from services.dicom_client.transitions import Lost

from .client_site import patient_series, routes_of, template
from .test_finishing import Job as SentJob
from .test_packaging import KEY, packed, put
from .test_whose_series import Looks

ROOT = Path(__file__).resolve().parents[3]
HERE = "services/dicom_client/test_"
DEIDENTIFY = "extensions/deidentify/test_"

COVERED: dict[str, list[str]] = {
    # Section 9.1 of the description: defects.
    "defect 1": [
        "store_scp.py::test_success_is_told_only_after_the_instance_was_noted",
        "recovery.py::test_a_worker_killed_at_every_edge_sends_delivers_and_confirms_once",
    ],
    "defect 2": [
        "watch_folder.py::test_a_file_is_taken_after_several_like_looks_and_once",
        "watch_folder.py::test_a_file_that_grows_waits_until_it_rests",
    ],
    "defect 3": [
        "watch_folder.py::test_writing_beside_the_images_offers_them_not_again",
        "whole_site.py::test_what_lies_beside_the_images_afterwards_starts_nothing_anew",
    ],
    "defect 4": ["packaging.py::test_one_image_that_stays_inside_keeps_all_inside"],
    "defect 5": ["known_defects.py::test_defect_5_two_studies_never_share_a_pseudonym"],
    "defect 6": ["known_defects.py::test_defect_6_dates_move_alike_in_every_job"],
    "defect 7": ["known_defects.py::test_defect_7_several_rules_wait_for_a_person"],
    "defect 8": ["known_defects.py::test_defect_8_each_template_is_a_job_of_its_own"],
    "defect 9": ["known_defects.py::test_defect_9_a_listed_sequence_drops_no_slice"],
    "defect 10": [
        "known_defects.py::test_defect_10_dates_move_and_the_birth_date_comes_back"
    ],
    "defect 11": ["packaging.py::test_a_job_keeps_its_mapping_whatever_comes_later"],
    "defect 12": [
        "unknown_delivery.py::test_a_person_marks_a_delivery_as_done_and_nothing_is_sent_twice",
        "faults.py::test_a_structure_set_that_fails_a_check_is_kept_and_not_confirmed",
    ],
    "defect 13": [
        "recovery.py::test_a_worker_killed_at_every_edge_sends_delivers_and_confirms_once"
    ],
    "defect 14": ["known_defects.py::test_defect_14_a_job_is_one_workers_at_a_time"],
    "defect 15": ["known_defects.py::test_defect_15_cleaning_up_drops_no_lock"],
    "defect 16": [
        "pipeline.py::test_a_slice_that_comes_late_is_offered_anew_and_never_left_out"
    ],
    "defect 17": [
        "watch_folder.py::test_a_rejected_file_is_not_opened_again_until_it_changes"
    ],
    "defect 18": [
        "store_scp.py::test_parallel_senders_of_several_series_lose_and_mix_nothing"
    ],
    "defect 19": ["known_defects.py::test_defect_19_waits_grow_and_end_with_a_reason"],
    "defect 20": ["known_defects.py::test_defect_20_no_public_address_is_asked"],
    "defect 21": ["known_defects.py::test_defect_21_a_secret_fails_closed"],
    "defect 22": ["known_defects.py::test_defect_22_no_route_is_open"],
    "defect 23": [
        "known_defects.py::test_defect_23_nobody_signs_up",
        "pages.py::test_a_role_opens_its_pages_and_no_others",
        "pages.py::test_a_form_without_the_pages_token_changes_nothing",
    ],
    "defect 24": [
        "uploads.py::test_a_hostile_or_useless_archive_is_refused_with_the_reason"
    ],
    "defect 25": ["watch_folder.py::test_links_are_not_followed_out_of_the_root"],
    "defect 26": [
        "delivery.py::test_a_crash_before_the_name_goes_on_with_the_copy",
        "delivery.py::test_half_a_copy_of_a_crash_is_removed",
    ],
    "defect 27": [
        "faults.py::test_a_structure_set_that_fails_a_check_is_kept_and_not_confirmed"
    ],
    "defect 28": [
        "result_checks.py::test_a_result_that_does_not_fit_the_job_is_rejected"
    ],
    "defect 29": ["delivery.py::test_a_folder_gets_the_whole_file_and_then_its_mark"],
    "defect 30": ["known_defects.py::test_defect_30_no_accession_number_is_made_up"],
    "defect 31": [
        "packaging.py::test_the_zip_is_flat_and_numbered_along_the_normal",
        "packaging.py::test_the_server_takes_the_package_and_finds_nothing_in_it",
    ],
    "defect 32": [
        "acceptance.py::test_what_a_person_has_to_look_at_is_held",
        DEIDENTIFY
        + "engine.py::test_overlays_and_curves_go_and_their_descriptions_with_them",
    ],
    "defect 33": [
        "known_defects.py::test_defect_33_pet_is_received",
        "store_scp.py::test_dcmtk_sends_over_tls_and_plain_senders_are_turned_away",
    ],
    "defect 34": [
        "whole_site.py::test_what_is_past_its_time_goes_and_other_peoples_images_stay"
    ],
    "defect 35": ["known_defects.py::test_defect_35_hours_are_those_of_the_time_zone"],
    "defect 36": ["known_defects.py::test_defect_36_a_status_is_read_however_written"],
    "defect 37": [
        "draw_server.py::test_images_never_go_to_an_address_without_encryption",
        "settings.py::test_a_setting_that_cannot_work_stops_the_start",
    ],
    # Section 11: behaviours.
    "parity 1": [
        "pipeline.py::test_a_series_in_a_folder_is_uploaded_once_and_its_contours_lie_beside_it"
    ],
    "parity 2": [
        "pipeline.py::test_two_series_in_one_folder_and_one_in_two_are_three_series"
    ],
    "parity 3": [
        "acceptance.py::test_a_whole_scan_is_taken",
        "acceptance.py::test_another_kind_of_object_is_ignored",
        "pipeline.py::test_localizers_and_other_objects_are_ignored_with_a_reason",
    ],
    "parity 4": [
        "acceptance.py::test_a_localizer_is_ignored_by_its_type_and_by_its_name"
    ],
    "parity 5": [
        "pipeline.py::test_a_slice_that_comes_late_is_offered_anew_and_never_left_out"
    ],
    "parity 6": [
        "pipeline.py::test_the_same_images_again_are_a_duplicate_that_is_not_sent"
    ],
    "parity 7": [
        "pipeline.py::test_a_series_without_a_rule_waits_until_a_template_is_chosen",
        "known_defects.py::test_defect_7_several_rules_wait_for_a_person",
    ],
    "parity 8": [
        "rules.py::test_rules_of_the_second_client_fold_from_left_to_right",
        "rules.py::test_a_missing_element_failed_every_operator_of_the_second_client",
    ],
    "parity 9": [
        "templates.py::test_the_document_has_exactly_the_keys_that_the_server_takes",
        "templates.py::test_a_document_that_the_server_would_refuse_is_refused_here",
    ],
    "parity 10": [
        "faults.py::test_a_fault_that_passes_leads_to_one_upload_one_delivery_one_confirmation",
        "faults.py::test_after_an_upload_of_unknown_outcome_a_person_is_asked",
    ],
    "parity 11": [
        "recovery.py::test_a_worker_killed_at_every_edge_sends_delivers_and_confirms_once"
    ],
    "parity 12": [
        "finishing.py::test_a_result_becomes_the_patients_and_lies_on_the_original_images"
    ],
    "parity 13": [
        "finishing.py::test_names_fit_a_planning_system_and_keep_their_side",
        "templates.py::test_a_short_label_fits_and_keeps_its_side",
    ],
    "parity 14": [
        "uploads.py::test_a_hostile_or_useless_archive_is_refused_with_the_reason"
    ],
    "parity 15": [
        "pipeline.py::test_nothing_of_a_patient_stands_in_packages_logs_names_or_the_database"
    ],
    "parity 16": [
        "pages.py::test_a_viewer_cannot_start_and_is_offered_nothing",
        "known_defects.py::test_parity_16_nobody_reads_a_mapping",
    ],
    "parity 17": [
        "peers_whole_way.py::"
        "test_a_scan_by_c_store_comes_back_as_contours_by_c_store_once_though_a_node_is_down"
    ],
    "parity 18": [
        "faults.py::test_a_fault_that_passes_leads_to_one_upload_one_delivery_one_confirmation",
        "unknown_delivery.py::test_a_person_marks_a_delivery_as_done_and_nothing_is_sent_twice",
    ],
    # Section 9.3: checks of a structure set.
    "check 1": [
        "result_checks.py::test_what_is_no_structure_set_is_rejected_before_all_else",
        "draw_server.py::test_a_result_that_never_ends_is_given_up",
    ],
    "check 2": [
        "draw_server.py::test_a_wrong_checksum_leaves_no_file",
        "result_checks.py::test_a_result_without_checksum_goes_on_with_a_note",
    ],
    "check 3": [
        "result_checks.py::test_a_result_that_does_not_fit_the_job_is_rejected"
    ],
    "check 4": [
        "result_checks.py::test_a_result_that_does_not_fit_the_job_is_rejected"
    ],
    "check 5": [
        "result_checks.py::test_a_result_that_does_not_fit_the_job_is_rejected"
    ],
    "check 6": [
        "result_checks.py::test_a_result_that_does_not_fit_the_job_is_rejected"
    ],
    "check 7": [
        "result_checks.py::test_other_structures_than_asked_for_are_told_and_go_on"
    ],
    "check 8": [
        "result_checks.py::test_a_contour_that_is_none_is_rejected",
        "result_checks.py::test_a_contour_between_two_images_is_told",
    ],
    "check 9": [
        "result_checks.py::test_a_server_that_knows_the_patient_raises_an_alarm"
    ],
    "check 10": [
        "result_checks.py::test_a_finished_file_that_is_not_the_patients_is_rejected",
        "result_checks.py::test_a_pseudonym_that_is_left_is_found_at_any_depth",
    ],
    "check 11": [
        "finishing.py::test_names_fit_a_planning_system_and_keep_their_side",
        DEIDENTIFY + "returning.py::test_its_own_uids_are_new_and_the_same_each_time",
    ],
    "check 12": ["finishing.py::test_what_is_delivered_is_what_the_standard_wants"],
    "check 13": [
        "finishing.py::test_it_says_that_software_drew_it_and_nobody_approved_it"
    ],
}


def test_every_defect_behaviour_and_check_has_its_tests() -> None:
    wanted = {
        *(f"defect {number}" for number in range(1, 38)),
        *(f"parity {number}" for number in range(1, 19)),
        *(f"check {number}" for number in range(1, 14)),
    }
    assert wanted == COVERED.keys()


@pytest.mark.parametrize("what", COVERED)
def test_the_tests_that_are_named_are_there(what: str) -> None:
    for named in COVERED[what]:
        place, _, test = named.partition("::")
        path = place if "/" in place else HERE + place
        content = ast.parse((ROOT / "tests" / path).read_text())
        names = {one.name for one in content.body if isinstance(one, ast.FunctionDef)}
        assert test in names, f"{what}: {path} has no {test}"


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[Looks]:
    made = Looks(tmp_path)
    yield made
    made.service.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = open_service(tmp_path / "home", read({"lease_s": 5.0, "attempts": 3}))
    yield made
    made.close()


def dated(images: list[Dataset], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for image in images:
        image.SeriesDate = image.AcquisitionDate = image.ContentDate = image.StudyDate
    return [put(image, folder / f"{at}.dcm") for at, image in enumerate(images)]


def unpacked(files: list[Path], folder: Path, job: str) -> list[Dataset]:
    """The images of a package, as the server would see them."""
    made = packed(files, folder, job=job)
    return [pydicom.dcmread(path) for path in sorted(made.images.glob("*.dcm"))]


def test_defect_5_two_studies_never_share_a_pseudonym(tmp_path: Path) -> None:
    """A counter that began anew gave two studies of one patient one UID."""
    studies, patients = set(), set()
    for number in range(3):
        images = patient_series(slices=4, StudyID=str(number))
        files = dated(images, tmp_path / f"in-{number}")
        out = unpacked(files, tmp_path / f"job-{number}", f"job-{number}")
        studies |= {one.StudyInstanceUID for one in out}
        patients |= {one.PatientID for one in out}
    assert (len(studies), len(patients)) == (3, 1)


def test_defect_6_dates_move_alike_in_every_job(tmp_path: Path) -> None:
    """A resend moved the dates of one series by several offsets."""
    files = dated(patient_series(slices=4), tmp_path / "in")
    names = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
    moved = set()
    for job in ("first", "again"):
        for one in unpacked(files, tmp_path / job, job):
            moved |= {(name, one.get(name)) for name in names}
    assert len(moved) == 4, "one value each"
    assert len({value for _, value in moved}) == 1, "by the same number of days"
    assert "20240229" not in {value for _, value in moved}


def test_defect_7_several_rules_wait_for_a_person(looks: Looks) -> None:
    """The message about several matches failed, and the batch with it."""
    keeper = looks.service.keeper
    keeper.put_template(template_from_json(template("Second")), "test")
    said = {"tag": "Modality", "op": "eq", "value": "CT"}
    rules = [
        {"name": f"{at} of 2", "template": name, "all_of": [said]}
        for at, name in enumerate(("Pelvis", "Second"), start=1)
    ]
    keeper.put_rules(rules_from_json(json.dumps({"rules": rules})), "test")
    looks.drop(patient_series(slices=6), "both")
    looks.drop(patient_series(slices=6, Modality="MR"), "neither")
    assert sorted(looks.states()) == ["ambiguous", "unmatched"]
    both = next(one for one in looks.jobs() if one.state == "ambiguous")
    assert [one["text"] for one in both.reasons] == ["1 of 2", "2 of 2"]
    looks.actions.choose_template(both.job_id, "Second", "planner")
    assert sorted(looks.states()) == ["matched", "unmatched"]


def test_defect_8_each_template_is_a_job_of_its_own(looks: Looks) -> None:
    """Two templates of a series shared one row, and the first task was lost."""
    looks.service.keeper.put_template(template_from_json(template("Second")), "test")
    looks.drop(patient_series(slices=6), "one")
    (first,) = looks.jobs()
    second = looks.actions.choose_template(first.job_id, "Second", "planner")
    assert second.job_id != first.job_id
    assert looks.states() == ["matched", "matched"]
    assert len({one.template_digest for one in looks.jobs()}) == 2
    assert len({one.content_hash for one in looks.jobs()}) == 1
    with pytest.raises(Exception, match="retry that"):
        looks.actions.choose_template(first.job_id, "Second", "planner")


def test_defect_9_a_listed_sequence_drops_no_slice(tmp_path: Path) -> None:
    """A sequence among what is masked raised, and its slice was left out unsaid."""
    images = patient_series(slices=4)
    item = Dataset()
    item.PatientID = "MRN-7731942"
    for keyword in ("OtherPatientIDsSequence", "InstitutionCodeSequence"):
        setattr(images[2], keyword, Sequence([item]))
    images[3].OperatorIdentificationSequence = Sequence([])
    out = unpacked(dated(images, tmp_path / "in"), tmp_path / "job", "job")
    assert len(out) == 4
    assert not any("MRN-7731942" in str(one) for one in out)
    # And where an image really cannot leave, none does.
    images[1].BurnedInAnnotation = "YES"
    with pytest.raises(NotPackable):
        unpacked(dated(images, tmp_path / "in"), tmp_path / "other", "other")


def test_defect_10_dates_move_and_the_birth_date_comes_back(tmp_path: Path) -> None:
    """No date was changed, and a false birth date took the original's place."""
    images = patient_series(slices=4)
    files = dated(images, tmp_path / "in")
    out = unpacked(files, tmp_path / "job", "job")
    assert {one.StudyDate for one in out} != {"20240229"}
    assert {one.PatientBirthDate for one in out} == {""}
    mapping = load_mapping(tmp_path / "job" / packaging.MAPPING, "job", KEY)
    (patient,) = mapping.patients.values()
    assert patient.attributes["PatientBirthDate"] == "19471103"


def test_defect_14_a_job_is_one_workers_at_a_time(looks: Looks) -> None:
    """The lock was released as soon as the work was handed over."""
    looks.drop(patient_series(slices=6), "one")
    (job,) = looks.jobs()
    leases = Leases(looks.service.database, looks.service.settings)
    leases.claim(job.job_id, job.run, "first")
    with pytest.raises(Lost):
        leases.claim(job.job_id, job.run, "second")
    with pytest.raises(Lost):
        leases.step(job.job_id, "second", "deidentified")
    assert leases.is_held(job.job_id, "first")
    assert leases.due() == []


def test_defect_15_cleaning_up_drops_no_lock(looks: Looks) -> None:
    """The nightly clean-up emptied the cache that held locks and sessions."""
    looks.drop(patient_series(slices=6), "one")
    (job,) = looks.jobs()
    leases = Leases(looks.service.database, looks.service.settings)
    leases.renew(Worker(**{**own_columns(), "worker_id": "first"}))
    assert leases.has_duty("intake", "first", set())
    leases.claim(job.job_id, job.run, "first")
    app = make_app(looks.service, "/")
    local_sign_in.install(app, looks.service)
    token = (looks.service.home / "dicom_client" / "access-token").read_text()
    with TestClient(app) as client:
        client.post("/login", data={"token": token})
        retention.sweep(looks.service, read({"retention_days": 0, "received_days": 0}))
        assert leases.is_held(job.job_id, "first")
        with looks.service.database.reading() as session:
            duty = session.get(Duty, "intake")
            assert duty is not None
            assert duty.owner == "first"
        page = client.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "Sign in" not in page.text


def test_defect_19_waits_grow_and_end_with_a_reason(looks: Looks) -> None:
    """Three tries at once, or none, and no word of why."""
    leases = Leases(looks.service.database, lambda: read({"attempts": 3}))
    waits = [[leases.backoff_s(attempt) for _ in range(20)] for attempt in range(1, 12)]
    assert all(1.0 <= one <= 2.0 for one in waits[0])
    assert max(waits[3]) > 2 * max(waits[1])
    assert all(one <= 600.0 for one in waits[-1])
    assert len({round(one, 6) for one in waits[0]}) > 1, "not all at one moment"
    looks.drop(patient_series(slices=6), "one")
    for attempt in range(1, 4):
        (job,) = looks.jobs()
        leases.claim(job.job_id, job.run, "first")
        stopped = leases.failed(job.job_id, "first", "unreachable")
        assert stopped is (attempt == 3)
    (job,) = looks.jobs()
    assert (job.state, job.last_error_code, job.attempt) == ("failed", "unreachable", 3)


def test_defect_20_no_public_address_is_asked() -> None:
    """A search site was asked whether there is a connection."""
    address = re.compile(r"https?://(?!\.\.\.|127\.0\.0\.1|localhost)[^\s\"'`)]+")
    found = [
        f"{file.name}: {hit}"
        for file in (ROOT / "services" / "dicom_client").rglob("*.py")
        for hit in address.findall(file.read_text())
        # An example in the words of a setting.
        if not hit.startswith("https://pacs.hospital/")
    ]
    assert found == []


def test_defect_21_a_secret_fails_closed(tmp_path: Path) -> None:
    """What could not be opened was taken as the token itself."""
    sealed = Sealer(tmp_path / "one.key").seal("the token")
    assert b"the token" not in sealed
    with pytest.raises(SealedElsewhere):
        Sealer(tmp_path / "another.key").open(sealed)
    with pytest.raises(SealedElsewhere):
        Sealer(tmp_path / "one.key").open(b"the token")


def _routes(service: Service) -> list[tuple[str, str]]:
    return routes_of(make_app(service, "/"))


OPEN = {"/health", "/login", "/static/{name}"}
"""The only addresses that tell anything to anybody: nothing of a patient."""


def test_defect_22_no_route_is_open(service: Service) -> None:
    """The list of patients was shown to anybody."""
    app = make_app(service, "/")
    local_sign_in.install(app, service)
    with TestClient(app, follow_redirects=False) as client:
        for method, path in _routes(service):
            if path in OPEN:
                continue
            filled = re.sub(r"\{[^}]*\}", "0123456789abcdef", path)
            filled = filled.replace("preview/0123456789abcdef.png", "preview/axial.png")
            answer = client.request(method, filled)
            refused = answer.status_code in {401, 403, 405}
            to_sign_in = answer.headers.get("Location", "").endswith("login")
            assert refused or to_sign_in, (method, path, answer.status_code)


def test_defect_23_nobody_signs_up(service: Service) -> None:
    """Anybody could make an account."""
    words = re.compile(r"sign-?up|register|accounts?/", re.IGNORECASE)
    assert not [path for _, path in _routes(service) if words.search(path)]


def test_defect_30_no_accession_number_is_made_up(tmp_path: Path) -> None:
    """Every structure set had the same accession number."""
    for number in ("ACC-7", ""):
        folder = tmp_path / (number or "none")
        folder.mkdir()
        done = SentJob(folder, accession=number).answered().finished()
        assert done.path is not None
        result = pydicom.dcmread(done.path)
        assert str(result.get("AccessionNumber") or "") == number


def test_defect_33_pet_is_received() -> None:
    """The receiver had no switch for PET."""
    assert PositronEmissionTomographyImageStorage in STORAGE["pet"]
    assert "pet" in read({}).scp.storage
    assert MRImageStorage in STORAGE["mr"]


@pytest.mark.parametrize(
    ("zone", "hour", "may"),
    [("Asia/Kolkata", 18, True), ("Europe/Berlin", 18, False), ("UTC", 18, False)],
)
def test_defect_35_hours_are_those_of_the_time_zone(
    zone: str, hour: int, *, may: bool
) -> None:
    """One time zone stood in the program."""
    settings = read({"send_hours": "20:00-06:00", "time_zone": zone})
    at = datetime(2026, 1, 15, hour, 30, tzinfo=UTC)
    assert settings.may_send(at) is may


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("SEGMENTATION COMPLETED", Progress.READY),
        (" segmentation complete ", Progress.READY),
        ("Segmentation_Retrieved", Progress.READY),
        ("FAILED", Progress.FAILED),
        ("Segmentation failed: no GPU", Progress.FAILED),
        ("INTERNAL ERROR", Progress.FAILED),
        ("Delivered to Client", Progress.GONE),
        ("Transfer Completed", Progress.GONE),
        ("something new", Progress.WORKING),
    ],
)
def test_defect_36_a_status_is_read_however_written(said: str, meant: Progress) -> None:
    """One spelling counted, and a failure was asked about for ever."""
    assert progress_of(said) is meant
    assert read({}).job_deadline_s < 7 * 86_400


def test_parity_16_nobody_reads_a_mapping(service: Service) -> None:
    """A mapping tells who is behind a pseudonym: no route leads to one."""
    app = make_app(service, "/")
    local_sign_in.install(app, service)
    token = (service.home / "dicom_client" / "access-token").read_text()
    assert not [path for _, path in _routes(service) if "mapping" in path]
    job_id = "0123456789abcdef"
    with service.database.writing() as session:
        session.add(Job(job_id=job_id, series_key="k", state="ignored"))
    folder = service.folders.of(job_id)
    (folder.path / "package").mkdir(parents=True)
    (folder.path / "package" / "mapping").write_bytes(b"the mapping")
    headers = {"Authorization": f"token {token}"}
    with TestClient(app, headers=headers, follow_redirects=False) as client:
        assert client.get(f"/api/series/{job_id}").status_code == 200
        for path in ("mapping", "package/mapping", "..%2F..%2Fmapping"):
            answer = client.get(f"/api/series/{job_id}/{path}")
            assert answer.status_code in {404, 405}
            assert b"the mapping" not in answer.content
