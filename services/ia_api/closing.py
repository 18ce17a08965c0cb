"""The last word on jobs that ended, and the removal of all that is left of them.

Done by the janitor of any worker, because the worker that had the job may be dead. A
result cannot be deleted by an app: one whose job failed or was cancelled says so.
"""

from __future__ import annotations

import logging
import time

from services.ia_api import results
from services.ia_api.errors import (
    CallbackError,
    Conflict,
    Gone,
    IaApiError,
    Transient,
    Unauthorized,
)
from services.ia_api.models import Job
from services.ia_api.pathology_server import PathologyServer, find_own
from services.ia_api.results import Answer
from services.ia_api.slide_info import SlideInfo
from services.ia_api.steps import Bench
from services.ia_api.store import TOO_LATE
from services.ia_api.transitions import Lost

log = logging.getLogger("theatrum.ia_api")

_TRIES = 12


def close_ended(bench: Bench) -> int:
    """Close the jobs that wait for it; how many there were."""
    waiting = bench.leases.to_close()
    for job in waiting:
        if not bench.leases.begin_closing(job, bench.worker):
            continue
        try:
            _close(bench, job)
        except Lost:
            continue
        except IaApiError as err:
            _later(bench, job, err)
    return len(waiting)


def _close(bench: Bench, job: Job) -> None:
    bench.folders.of(job.job_id).remove()
    detail = ""
    if job.state in {"dead", "cancelled"} or job.error_code == TOO_LATE:
        detail = _last_word(bench, job)
    left_s = job.undo_until - time.time()
    if left_s > 0:
        # Its token is kept so long: whoever cancelled it may think again.
        bench.leases.close_later(job.job_id, bench.worker, left_s)
        return
    bench.leases.close(job.job_id, bench.worker, detail)


def _later(bench: Bench, job: Job, err: IaApiError) -> None:
    code = getattr(err, "code", type(err).__name__)
    tries = job.closing_attempts + 1
    # The next request for the app brings a token: a failure stays told as progress
    # until then, and no longer than a job waits for one.
    waits = isinstance(err, Unauthorized) and time.time() < (
        (job.ended or 0.0) + bench.here.settings.auth_deadline_s
    )
    if not isinstance(err, CallbackError) or (tries >= _TRIES and not waits):
        log.warning(
            "the last word could not be said",
            extra={"job": job.job_id, "app": job.app, "code": code},
        )
        bench.leases.close(job.job_id, bench.worker, f"not said: {code}")
        return
    wait_s = bench.leases.backoff_s(tries)
    bench.leases.close_later(job.job_id, bench.worker, wait_s)


def _last_word(bench: Bench, job: Job) -> str:
    """Say "failed" or "Cancelled" on the job's result, if it has one that is ours."""
    if job.result_id is None and job.error_code not in {"abandoned", "unreachable"}:
        return ""
    store = bench.here.store
    if job.result_id is not None and store.is_deleted(job):
        return "deleted by a person"
    token = store.token_of(job)
    server = bench.here.servers.at(job.callback_url, job.application_id, token)
    for _ in range(3):
        try:
            if _say(server, job):
                return "said"
            return "nothing to say it on"
        except Unauthorized as err:
            if store.has_other_token(job, token):
                raise Transient("another token is tried") from err
            raise
        except Gone:
            return "deleted by a person"
        except Conflict:
            # Read again: it may be final by now.
            continue
    raise Conflict("the result is changed by others all the time")


def _say(server: PathologyServer, job: Job) -> bool:
    stored = (
        server.result(job.result_id)
        if job.result_id is not None
        else find_own(server.results_of(job.slide_id), job.job_id)
    )
    if stored is None or results.is_final(stored) or not _is_ours(stored, job):
        return False
    slide = _slide(server, job)
    word = _word(job, slide)
    if stored.get("displayResult") == word.text:
        return True
    server.update_result(
        results.updated(
            stored,
            word,
            slide,
            job_id=job.job_id,
            version=server.api_version,
            application_version=job.application_version or "",
        )
    )
    return True


def _is_ours(stored: dict[str, object], job: Job) -> bool:
    """Whether no later job has taken the result over."""
    return find_own([stored], job.job_id) is not None


def _word(job: Job, slide: SlideInfo) -> Answer:
    if job.state in {"cancelled", "superseded"}:
        return results.cancelled(slide)
    return results.failed(slide, job.error_code or "failed")


def _slide(server: PathologyServer, job: Job) -> SlideInfo:
    if job.slide_size is None:
        return server.slide(job.slide_id)
    width, height = job.slide_size
    return SlideInfo(job.slide_id, (width, height), (256, 256), None, streamable=False)
