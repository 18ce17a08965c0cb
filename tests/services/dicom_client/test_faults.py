"""Each switch of the double leads to the right state, and to one deed of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .client_site import Site, patient_series, running_site, wait

ONCE: list[dict[str, Any]] = [
    {"health_503_n": 2, "upload_500_n": 2, "token_name": "task_id"},
    {"status_500_n": 2, "ready_status": "segmentation complete"},
    {"download_500_n": 2, "ready_status": " Segmentation_Retrieved "},
    {"download_bad_checksum_n": 1, "download_upper_checksum": True},
    {"download_truncated_n": 1, "confirm_other_text_n": 2},
    {"download_no_checksum": True, "confirm_500_n": 2},
    {"rt_extra_roi": True, "rt_missing_roi": True, "rt_empty_roi": True},
    {"slow_ms": 50},
    {"rate_limit_429_after": 3},
    {"token_expired": True, "refresh_way": "v1"},
    {"token_expired": True, "refresh_way": "v2", "refresh_rotates": True},
]
QUICK: dict[str, Any] = {
    "watch_interval_s": 0.1,
    "stable_s": 0.2,
    "poll_s": [0.1],
    "jobs_per_worker": 1,
}
REJECTED = [
    "rt_wrong_series",
    "rt_foreign_sop",
    "rt_wrong_for",
    "rt_no_ref",
    "rt_not_rtstruct",
    "rt_duplicate_numbers",
    "rt_odd_points",
    "rt_outside",
    "download_html",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all switches: each test drops a series of its own."""
    with running_site(tmp_path_factory.mktemp("faults"), **QUICK) as made:
        yield made


@pytest.fixture(autouse=True)
def calm(site: Site) -> Iterator[None]:
    """What a test switched is switched back."""
    site.server.script(polls=1)
    before = site.server.scenario
    yield
    site.server.scenario = before
    site.server._expired = False


def _task(site: Site, job: dict[str, Any]) -> Any:
    sha256 = site.detail(job["id"])["package_sha256"]
    (task,) = [one for one in site.server.tasks.values() if one.sha256 == sha256]
    return task


def _dropped(site: Site, name: str) -> str:
    """Drop a series and return its id, once it is known."""
    before = {one["id"] for one in site.series()}
    site.drop(patient_series(), name)
    new: list[str] = []

    def seen() -> bool:
        new[:] = [one["id"] for one in site.series() if one["id"] not in before]
        return bool(new)

    wait(seen, "the series is seen")
    return new[0]


def _wait(site: Site, job_id: str, wanted: str) -> dict[str, Any]:
    def said() -> tuple[str, str | None]:
        found = site.detail(job_id)
        return found["state"], found["stopped"]

    wait(
        lambda: wanted in said(),
        f"the series is {wanted} (it is {site.detail(job_id)})",
    )
    return site.detail(job_id)


@pytest.mark.long
@pytest.mark.parametrize(
    "switches", ONCE, ids=lambda one: " ".join(f"{k}={v}" for k, v in one.items())
)
def test_a_fault_that_passes_leads_to_one_upload_one_delivery_one_confirmation(
    site: Site, switches: dict[str, Any]
) -> None:
    delivered = len(site.results())
    site.server.script(**switches)
    job = _wait(site, _dropped(site, "-".join(switches)), "done")
    task = _task(site, job)
    assert (task.uploads, task.confirmed) == (1, 1)
    assert len(site.results()) == delivered + 1
    assert [one["code"] for one in job["deliveries"]] == ["delivered", "delivered"]


@pytest.mark.long
@pytest.mark.parametrize("switch", REJECTED)
def test_a_structure_set_that_fails_a_check_is_kept_and_not_confirmed(
    site: Site, switch: str
) -> None:
    delivered = len(site.results())
    site.server.script(**{switch: True})
    job = _wait(site, _dropped(site, switch), "rejected")
    assert any(one["severity"] == "reject" for one in job["findings"])
    assert _task(site, job).confirmed == 0
    assert len(site.results()) == delivered
    jobs = site.home / "phi" / "dicom_client" / "jobs" / job["id"]
    assert list(jobs.rglob("quarantine/*"))


def test_a_rejected_structure_set_is_asked_for_again_when_a_person_says_so(
    site: Site,
) -> None:
    site.server.script(rt_outside=True)
    job = _wait(site, _dropped(site, "again"), "rejected")
    site.server.script(rt_outside=False)
    _task(site, job).result = None
    site.ask("POST", f"series/{job['id']}/retry")
    job = _wait(site, job["id"], "done")
    assert (_task(site, job).uploads, _task(site, job).confirmed) == (1, 1)
    # What was wrong with the first one is over, and no file of it is kept.
    jobs = site.home / "phi" / "dicom_client" / "jobs" / job["id"]
    assert not list(jobs.rglob("quarantine"))


def test_a_result_that_names_the_patient_raises_an_alarm(site: Site) -> None:
    site.server.script(rt_phi_injected="MRN-7731942")
    job = _wait(site, _dropped(site, "alarm"), "rejected")
    assert [one["severity"] for one in job["findings"]].count("alarm") == 1


def test_a_failure_at_the_server_ends_the_job_until_it_is_sent_again(
    site: Site,
) -> None:
    site.server.script(status_stuck=True, upload_dup_token=False)
    job = _wait(site, _dropped(site, "stale"), "processing")
    # As a worker leaves it whose upload was answered after its lease: no later package
    # may be taken for this one.
    stale = site.home / "phi" / "dicom_client" / "jobs" / job["id"] / "task"
    stale.write_bytes(b"the token of the first task, sealed")
    wait(lambda: not stale.exists(), "the next question to the server removes it")
    site.server.script(status_stuck=False, status_failed=True)
    _wait(site, job["id"], "server_failed")
    site.server.script(status_failed=False)
    site.ask("POST", f"series/{job['id']}/retry")
    job = _wait(site, job["id"], "done")
    sha256 = job["package_sha256"]
    tasks = [one for one in site.server.tasks.values() if one.sha256 == sha256]
    assert [(one.uploads, one.confirmed) for one in tasks] == [(1, 0), (1, 1)]


def test_a_task_that_the_server_does_not_know_is_lost(site: Site) -> None:
    site.server.script(status_404=True)
    _wait(site, _dropped(site, "lost"), "lost")


@pytest.mark.parametrize(
    "switch", ["upload_reset_n", "upload_drop_n", "upload_html_n", "upload_504_n"]
)
def test_after_an_upload_of_unknown_outcome_a_person_is_asked(
    site: Site, switch: str
) -> None:
    uploads = site.server.count("upload")
    site.server.script(**{switch: 1})
    job = _wait(site, _dropped(site, switch), "upload-unknown")
    assert job["state"] == "packed"
    assert site.server.count("upload") == uploads + 1
    refused = site.call("POST", f"series/{job['id']}/retry")
    assert refused.status_code == 409
    sha256 = job["package_sha256"]
    known = [one for one in site.server.tasks.values() if one.sha256 == sha256]
    assert len(known) == (switch != "upload_reset_n")
    token = known[0].token if known else None
    site.ask("POST", f"series/{job['id']}/upload", json={"token": token})
    job = _wait(site, job["id"], "done")
    assert (_task(site, job).uploads, _task(site, job).confirmed) == (1, 1)


def test_a_package_that_the_server_refuses_stops_for_a_person(site: Site) -> None:
    site.server.script(upload_limit_bytes=100)
    job = _wait(site, _dropped(site, "large"), "refused")
    assert job["state"] == "packed"
    site.server.script(upload_limit_bytes=64 << 20)
    site.ask("POST", f"series/{job['id']}/retry")
    _wait(site, job["id"], "done")


def test_a_token_that_is_refused_stops_jobs_until_a_new_one_is_pasted(
    site: Site,
) -> None:
    site.server.script(token_expired=True, refresh_fails=True)
    job = _wait(site, _dropped(site, "token"), "token")
    assert job["state"] == "packed"
    site.server.script(token_expired=False, refresh_fails=False)
    tokens = {"access": site.server.access_token, "refresh": site.server.refresh_token}
    site.ask("PUT", "tokens", json=tokens)
    _wait(site, job["id"], "done")


def test_a_job_that_never_ends_at_the_server_can_be_cancelled(site: Site) -> None:
    site.server.script(status_stuck=True)
    job = _wait(site, _dropped(site, "stuck"), "processing")
    site.ask("POST", f"series/{job['id']}/pause")
    assert site.detail(job["id"])["paused"]
    site.ask("POST", f"series/{job['id']}/resume")
    site.ask("POST", f"series/{job['id']}/cancel")
    cancelled = _wait(site, job["id"], "cancelled")
    assert site.results() == site.results()
    assert "retry" in cancelled["actions"]


def test_a_server_that_is_down_stops_nothing_and_is_left_alone(tmp_path: Path) -> None:
    with running_site(tmp_path, breaker_failures=2, breaker_s=1.0) as site:
        site.server.script(status_500_n=4)
        site.drop(patient_series())
        done = site.wait_state("done")
        assert done["stopped"] is None


def test_an_unknown_upload_is_sent_again_where_the_setting_says_so(
    tmp_path: Path,
) -> None:
    with running_site(tmp_path, on_unknown_upload="again") as site:
        site.server.script(upload_drop_n=1)
        site.drop(patient_series())
        job = site.wait_state("done")
        assert _task(site, job).uploads == 2
        assert len(site.server.tasks) == 1


def test_a_late_result_is_fetched_when_a_person_retries(tmp_path: Path) -> None:
    with running_site(tmp_path, job_deadline_s=1.0) as site:
        site.server.script(status_stuck=True)
        job = _wait(site, _dropped(site, "late"), "deadline")
        site.server.script(status_stuck=False, polls=0)
        site.ask("POST", f"series/{job['id']}/retry")
        _wait(site, job["id"], "done")
