"""From folders and receivers to jobs: looks, waits until a series is whole, decides.

One worker at a time does this for all (the duty `intake`). What is whole is looked at
by its headers alone: ignored, held, or given the template that the rules choose. When
the rules change, what waited for a template is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from services.dicom_client import watch_folder
from services.dicom_client.acceptance import Decision, Reason, Verdict, decide
from services.dicom_client.actions import Actions
from services.dicom_client.arrivals import (
    Complete,
    CompletenessSettings,
    SeriesSoFar,
    completeness,
)
from services.dicom_client.errors import DicomClientError, NoSuchThing
from services.dicom_client.folders import Folders
from services.dicom_client.jobs import Jobs
from services.dicom_client.keeping import Keeper, TemplateVersion
from services.dicom_client.models import Job
from services.dicom_client.rules import Choice, Rule, choose
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.watch_folder import Snapshot, WatchSettings

log = logging.getLogger("theatrum.dicom_client")

FOLDER = "folder"
"""The source of what lies in a watched folder."""


class Intake:
    """The duty of one worker; not for several threads at once."""

    def __init__(
        self,
        jobs: Jobs,
        keeper: Keeper,
        folders: Folders,
        settings: Callable[[], ServiceSettings],
    ) -> None:
        self._jobs = jobs
        self._keeper = keeper
        self._folders = folders
        self._settings = settings
        self._actions = Actions(jobs, keeper)
        self._snapshots: dict[Path, Snapshot] | None = None
        self._unread: dict[Path, float] | None = None
        """As `Scan.unread` of the last look; None before the first one."""
        self._rules_version = 0

    def forget(self) -> None:
        """Another worker may have looked meanwhile: begin with what is stored."""
        self._snapshots = self._unread = None

    def look(self) -> int:
        """Look at the watched folders once; how many new instances there are."""
        settings = self._settings()
        if not settings.watch or self.is_disk_full():
            return 0
        if self._snapshots is None:
            self._snapshots = self._jobs.snapshots(FOLDER)
        scan = watch_folder.scan(
            settings.watch, self._snapshots, time.time(), _watching(settings)
        )
        self._jobs.note_scan(FOLDER, scan)
        self._unread = scan.unread
        self._snapshots.update(scan.snapshots)
        for path in scan.gone:
            self._snapshots.pop(path, None)
        return len(scan.stable)

    def is_disk_full(self) -> bool:
        """Whether less is free than has to stay so."""
        return self._folders.free_bytes() < self._settings().min_free_bytes

    def complete(self) -> int:
        """Decide about every series that is whole; how many there were."""
        settings = self._settings()
        version, rules = self._keeper.rules()
        count = 0
        for job in self._jobs.awaited():
            how = self._completeness(job, settings)
            if how is Complete.WAITING or self._has_unread(job, settings):
                continue
            self._decide(job, rules, settings, short=how is Complete.SHORT)
            count += 1
        if version != self._rules_version:
            self._rules_version = version
            self._try_again(rules)
        return count

    def _completeness(self, job: Job, settings: ServiceSettings) -> Complete:
        instances = job.instances
        if job.expected:
            instances = len(self._jobs.files_of_series(job.series_key))
        return completeness(
            SeriesSoFar(instances, job.arrived, job.expected, job.released),
            time.time(),
            CompletenessSettings(settings.stable_s, settings.short_s),
        )

    def _has_unread(self, job: Job, settings: ServiceSettings) -> bool:
        """Whether a file beside those of a series is to be read yet, older than their
        arrival: it may be one of them.

        A look reads so many and no more, and begins anew where a worker died. What can
        never be read is waited for as long as for images that were announced.
        """
        if job.source != FOLDER or not settings.watch:
            return False
        if abs(time.time() - job.arrived) >= max(settings.short_s, settings.stable_s):
            return False
        if not self._unread:
            return self._unread is None
        files = self._jobs.files_of_series(job.series_key)
        return any(
            self._unread.get(path.parent, job.arrived) < job.arrived for path in files
        )

    def _decide(
        self,
        job: Job,
        rules: Sequence[Rule],
        settings: ServiceSettings,
        *,
        short: bool,
    ) -> None:
        paths = self._jobs.files_of_series(job.series_key)
        headers = read_headers(paths)
        if not headers:
            if _is_out_of_reach(paths):
                # A share that is away for a while: nothing of it is lost, so it waits.
                log.warning("a series is out of reach", extra={"job": job.job_id})
                return
            gone = Reason("files", "its files cannot be read any more")
            self._jobs.ignore(job, [gone], Dataset())
            return
        verdict = decide(headers, settings.acceptance())
        if verdict.decision is Decision.IGNORED:
            self._jobs.ignore(job, verdict.reasons, headers[0])
            return
        if short:
            reason = Reason("short", "fewer images came than were announced")
            verdict = Verdict(
                Decision.HELD, (*verdict.reasons, reason), verdict.warnings
            )
        choice = choose(rules, headers[0])
        row = self._jobs.settle(
            job, headers, paths, verdict, choice, self._template(choice)
        )
        log.info("a series is complete", extra={"job": job.job_id, "state": row.state})

    def _template(self, choice: Choice) -> TemplateVersion | None:
        if choice.template is None:
            return None
        try:
            return self._keeper.template(choice.template)
        except NoSuchThing:
            return None

    def _try_again(self, rules: Sequence[Rule]) -> None:
        """What waits for a template gets one where the changed rules choose one."""
        for job in self._jobs.in_states(("unmatched", "ambiguous")):
            headers = read_headers(self._jobs.files_of(job)[:1])
            choice = choose(rules, headers[0]) if headers else None
            if choice is None or choice.template is None:
                continue
            try:
                self._actions.choose_template(job.job_id, choice.template, "rules")
            except DicomClientError as err:
                log.warning(
                    "a rule's template cannot be taken",
                    extra={"job": job.job_id, "code": err.code},
                )


def read_headers(paths: Sequence[Path]) -> list[Dataset] | None:
    """Everything but the pixels, in the order of the slices; None where one is gone."""
    headers = []
    for path in paths:
        try:
            headers.append(pydicom.dcmread(path, stop_before_pixels=True, force=True))
        except (OSError, InvalidDicomError, ValueError, EOFError, KeyError):
            return None
    return sorted(headers, key=_number)


def _is_out_of_reach(paths: Sequence[Path]) -> bool:
    """Whether a file that is known cannot be opened; one that is gone is forgotten.

    The next look at the folders says which it is: only what it finds gone is.
    """
    for path in paths:
        try:
            path.open("rb").close()
        except OSError:
            return True
    return False


def _number(header: Dataset) -> int:
    text = str(header.get("InstanceNumber", "") or "")
    return int(text) if text.lstrip("-").isdigit() else 0


def _watching(settings: ServiceSettings) -> WatchSettings:
    start = 0.0
    if settings.pull_start:
        day = datetime.fromisoformat(settings.pull_start)
        start = day.replace(tzinfo=ZoneInfo(settings.time_zone)).timestamp()
    return WatchSettings(
        scans=settings.stable_scans,
        # The series as a whole is waited for besides: see `Intake.complete`.
        stable_s=min(settings.stable_s, 30.0),
        modified_from=start,
    )
