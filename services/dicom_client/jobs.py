"""From files to jobs: what arrives is noted, and a complete series becomes a job.

A series is known by what it holds and never by where it lies: the digest over its
Series Instance UID and all its SOP Instance UIDs. The same images in another folder are
a duplicate; a series that got further images is another content, which is offered
anew, and what was not sent yet of the smaller one is called off.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.durable.database import Database
from hub.durable.sealing import Sealer, digest
from services.dicom_client import transitions
from services.dicom_client.acceptance import Decision, Reason, Verdict
from services.dicom_client.arrivals import (
    Arrival,
    content_hash,
    instance_key,
    person_in,
    person_of,
    series_key,
)
from services.dicom_client.errors import DicomClientError, NoSuchThing
from services.dicom_client.headers import Header
from services.dicom_client.keeping import TemplateVersion
from services.dicom_client.models import DeliveryAttempt, File, Job, new_job_id
from services.dicom_client.rules import Choice
from services.dicom_client.watch_folder import Scan, Snapshot

# For the pages; whoever may see a series may see these.
_FACTS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyDescription", "StudyInstanceUID"),
    *("SeriesDescription", "SeriesNumber", "SeriesInstanceUID", "ProtocolName"),
    *("BodyPartExamined", "Manufacturer", "SliceThickness", "AccessionNumber"),
)
_DELIVERED = {"RTSTRUCT": "RS", "SEG": "SEG"}
"""How `finishing` names what it makes, by modality."""
# Files noted in one transaction: others wait for it.
_PIECE = 500
# Nothing of it is at a server yet.
_ANOTHERS = Reason(
    "another-person",
    "the same UIDs came before for another patient: find out whose the images are",
)
_UNSENT = ("stable", "held", "unmatched", "ambiguous", "matched", "deidentified")


def path_key(path: Path) -> str:
    return digest("path", str(path))


class Jobs:
    """The jobs of one installation; safe to share between threads."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer

    # What arrives

    def note(
        self, source: str, arrivals: Sequence[Arrival], *, released: bool = False
    ) -> list[str]:
        """Remember instances in one transaction; returns the jobs that await more.

        What is known as it is changes nothing. `released`: the association or the
        retrieval that brought them has ended in order.
        """
        awaited: dict[str, Job] = {}
        with self.database.writing() as session:
            for one in arrivals:
                self._note(session, source, one, awaited)
            if released:
                for job in awaited.values():
                    job.released = time.time()
        return [job.job_id for job in awaited.values()]

    def _note(
        self, session: Session, source: str, one: Arrival, awaited: dict[str, Job]
    ) -> None:
        key = series_key(one.header.series)
        sop_key = instance_key(one.header.sop_instance)
        row = self._file(session, source, one.path, one.size, one.mtime_ns)
        if (row.series_key, row.sop_key, row.reason) == (key, sop_key, ""):
            return
        row.series_key, row.sop_key, row.reason = key, sop_key, ""
        if self._is_ours(session, one.header, sop_key):
            # What we delivered beside the images, met again.
            row.reason = "own"
            return
        job = awaited.get(key) or self._awaiting(session, source, one, key)
        awaited[key] = job
        job.arrived = job.updated = time.time()
        job.instances += 1
        if one.header.expected:
            job.expected = max(job.expected or 0, one.header.expected)

    def _awaiting(self, session: Session, source: str, one: Arrival, key: str) -> Job:
        job = session.scalar(select(Job).where(Job.collecting == key))
        if job is None:
            job = Job(
                job_id=new_job_id(),
                series_key=key,
                collecting=key,
                state="discovered",
                source=source,
                modality=one.header.modality,
                instances=0,
            )
            session.add(job)
            session.flush()
            transitions.note(session, job.job_id, "discovered", source)
        return job

    def _file(
        self, session: Session, source: str, path: Path, size: int, mtime_ns: int
    ) -> File:
        key = path_key(path)
        row = session.get(File, key)
        if row is None:
            row = File(
                path_key=key,
                path_sealed=self.sealer.seal(str(path)),
                source=source,
                size=size,
                mtime_ns=mtime_ns,
                series_key="",
                sop_key="",
                reason="",
            )
            session.add(row)
        elif (row.size, row.mtime_ns) != (size, mtime_ns):
            # Written anew: whatever was known of it may be wrong.
            row.series_key = row.sop_key = ""
        row.size, row.mtime_ns = size, mtime_ns
        row.seen = time.time()
        return row

    def _is_ours(self, session: Session, header: Header, key: str) -> bool:
        """Whether it is what a job delivered, or is about to deliver."""
        found = select(Job.job_id).where(Job.result_key == key).limit(1)
        if session.scalar(found) is not None:
            return True
        if header.modality not in _DELIVERED:
            return False
        # Of several files of one job the key tells the first; each has an attempt.
        name = f"{_DELIVERED[header.modality]}_{header.sop_instance}.dcm"
        sent = select(DeliveryAttempt.id).where(
            DeliveryAttempt.file == digest("file", name)[:16]
        )
        return session.scalar(sent.limit(1)) is not None

    def note_scan(self, source: str, scan: Scan) -> list[str]:
        """Remember what a look at the folders gave; returns the jobs that await more.

        Of a file that is not stable yet nothing is kept: the looks begin anew after a
        restart.
        """
        awaited: list[str] = []
        for start in range(0, len(scan.stable), _PIECE):
            awaited += self.note(source, scan.stable[start : start + _PIECE])
        if not scan.rejects and not scan.gone:
            return awaited
        with self.database.writing() as session:
            for reject in scan.rejects:
                seen = scan.snapshots[reject.path]
                row = self._file(session, source, reject.path, seen.size, seen.mtime_ns)
                row.reason = reject.reason[:32]
            for path in scan.gone:
                known = session.get(File, path_key(path))
                if known is not None:
                    session.delete(known)
        return awaited

    def snapshots(self, source: str) -> dict[Path, Snapshot]:
        """What is remembered of a source's files, as `watch_folder.scan` wants it."""
        with self.database.reading() as session:
            rows = list(session.scalars(select(File).where(File.source == source)))
        return {
            Path(self.sealer.open(row.path_sealed)): Snapshot(
                row.size,
                row.mtime_ns,
                row.seen,
                reason="" if row.reason == "own" else row.reason,
                offered=row.reason in {"", "own"},
            )
            for row in rows
        }

    def expect(self, series_uid: str, count: int | None, *, released: bool) -> None:
        """What a sender told of a series: how many images, and that it has ended."""
        with self.database.writing() as session:
            job = session.scalar(
                select(Job).where(Job.collecting == series_key(series_uid))
            )
            if job is None:
                return
            if count is not None:
                job.expected = max(job.expected or 0, count)
            if released:
                job.released = time.time()

    def is_known(self, key: str, instances: int | None) -> bool:
        """Whether a series came before, with at least so many images."""
        with self.database.reading() as session:
            most = session.scalar(
                select(func.max(Job.instances)).where(Job.series_key == key)
            )
        return most is not None and most >= (instances or 0)

    # What is complete

    def awaited(self) -> list[Job]:
        """Series whose files are still awaited."""
        with self.database.reading() as session:
            return list(session.scalars(select(Job).where(Job.collecting.is_not(None))))

    def files_of_series(self, key: str) -> list[Path]:
        """The files of a series as they lie now, one for each instance."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(File)
                .where(File.series_key == key, File.reason == "")
                .order_by(File.seen.desc())
            )
            chosen: dict[str, bytes] = {}
            for row in rows:
                chosen.setdefault(row.sop_key, row.path_sealed)
        return sorted(Path(self.sealer.open(sealed)) for sealed in chosen.values())

    def files_of(self, job: Job) -> list[Path]:
        """The images of a job, as they were when it was complete."""
        if job.files_sealed is None:
            return self.files_of_series(job.series_key)
        packed = self.sealer.open_bytes(job.files_sealed)
        return [Path(one) for one in json.loads(zlib.decompress(packed))]

    def ignore(self, job: Job, reasons: Sequence[Reason], facts: Dataset) -> None:
        """A discovered series will not be segmented."""
        with self.database.writing() as session:
            row = transitions.get(session, job.job_id)
            transitions.change(
                session,
                row,
                "ignored",
                detail=reasons[0].code,
                collecting=None,
                reasons=_plain(reasons),
                facts_sealed=self._facts(facts),
                modality=str(facts.get("Modality", ""))[:16],
            )

    def settle(
        self,
        job: Job,
        headers: Sequence[Dataset],
        paths: Sequence[Path],
        verdict: Verdict,
        choice: Choice,
        template: TemplateVersion | None,
    ) -> Job:
        """A complete series becomes a job, or waits for a person, or is a duplicate.

        `template` is the version in force of the choice's; None where there is none.
        """
        uid = str(headers[0].SeriesInstanceUID)
        person = person_in(headers[0])
        instances = (str(one.SOPInstanceUID) for one in headers)
        content = content_hash(uid, instances, person)
        with self.database.writing() as session:
            row = transitions.get(session, job.job_id)
            if row.arrived != job.arrived or row.collecting is None:
                # Further files came while we looked: it is looked at again.
                return row
            facts: dict[str, Any] = {
                "collecting": None,
                "facts_sealed": self._facts(headers[0]),
                "modality": str(headers[0].get("Modality", ""))[:16],
                "instances": len(headers),
            }
            same = session.scalar(
                select(Job).where(Job.content_hash == content).order_by(Job.created)
            )
            if same is not None:
                transitions.change(
                    session,
                    row,
                    "ignored",
                    detail="duplicate",
                    reasons=[{"code": "duplicate", "text": "the same images are here"}],
                    duplicate_of=same.job_id,
                    **facts,
                )
                return row
            if len({person_in(one) for one in headers}) > 1:
                pass  # it is held, and nobody's job is called off for it
            elif self._is_anothers(session, row, person):
                verdict = Verdict(
                    Decision.HELD, (*verdict.reasons, _ANOTHERS), verdict.warnings
                )
            else:
                self._call_off_smaller(session, row, len(headers))
            packed = zlib.compress(json.dumps([str(path) for path in paths]).encode())
            transitions.change(
                session,
                row,
                "stable",
                content_hash=content,
                files_sealed=self.sealer.seal_bytes(packed),
                warnings=_plain(verdict.warnings),
                **facts,
            )
            self._choose(session, row, verdict, choice, template)
            return row

    def _choose(
        self,
        session: Session,
        row: Job,
        verdict: Verdict,
        choice: Choice,
        template: TemplateVersion | None,
    ) -> None:
        if verdict.decision is Decision.HELD:
            transitions.change(
                session,
                row,
                "held",
                detail=verdict.reasons[0].code,
                reasons=_plain(verdict.reasons),
            )
        elif choice.ambiguous:
            named = [{"code": "rule", "text": name} for name in choice.matched]
            transitions.change(session, row, "ambiguous", reasons=named)
        elif template is None:
            missing = (
                [{"code": "template", "text": f"{choice.template} is no template"}]
                if choice.template
                else []
            )
            transitions.change(session, row, "unmatched", reasons=missing)
        else:
            transitions.change(
                session, row, "matched", detail=template.template.name, **of(template)
            )

    def _is_anothers(self, session: Session, row: Job, person: str) -> bool:
        """Whether the series' UID came before under another person."""
        found = session.scalars(
            select(Job).where(
                Job.series_key == row.series_key,
                Job.job_id != row.job_id,
                Job.content_hash.is_not(None),
                Job.facts_sealed.is_not(None),
            )
        )
        people = {person_of(self.facts(one)) for one in found}
        return bool(people - {person})

    def _call_off_smaller(self, session: Session, row: Job, images: int) -> None:
        """Jobs on fewer images of the series, which are not sent yet."""
        found = session.scalars(
            select(Job).where(
                Job.series_key == row.series_key,
                Job.job_id != row.job_id,
                Job.state.in_(_UNSENT),
                Job.instances <= images,
            )
        ).all()
        for smaller in found:
            state = "cancelled" if smaller.state in {"matched", "deidentified"} else ""
            if state:
                transitions.change(session, smaller, "cancelled", detail="grew")
            elif smaller.state != "stable":
                transitions.change(
                    session,
                    smaller,
                    "ignored",
                    detail="grew",
                    reasons=[{"code": "grew", "text": "further images came"}],
                )

    def _facts(self, header: Dataset) -> bytes:
        told = {name: str(header.get(name, "") or "")[:256] for name in _FACTS}
        return self.sealer.seal(json.dumps(told))

    def in_states(self, states: Sequence[str]) -> list[Job]:
        """All jobs that are in one of the states, oldest first."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Job).where(Job.state.in_(states)).order_by(Job.created)
                )
            )

    # Single jobs

    def get(self, job_id: str) -> Job:
        """A job as it is now; raises NoSuchThing."""
        with self.database.reading() as session:
            return transitions.get(session, job_id)

    def facts(self, job: Job) -> dict[str, str]:
        """What the pages show of patient and study."""
        if job.facts_sealed is None:
            return {}
        told: dict[str, str] = json.loads(self.sealer.open(job.facts_sealed))
        return told

    def task(self, job: Job) -> str:
        """The server's token of a job's task."""
        if job.task_sealed is None:
            raise NoSuchThing("the job has no task at the server")
        return self.sealer.open(job.task_sealed)


def of(template: TemplateVersion) -> dict[str, str]:
    """The columns that say which template version a job has."""
    return {
        "template_digest": template.digest,
        "template_name": template.template.name[:128],
        "engine": template.template.engine[:128],
    }


def _plain(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    return [{"code": one.code, "text": one.text} for one in reasons]


class Changed(DicomClientError):
    """The images are not those that were there when the series was complete."""

    code = "images-changed"
