"""What people do with jobs: each action one transaction, with its audit line.

Whether a person may is decided where the request comes in; whether the state allows it,
here: `WrongState` says what the state is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.dicom_client import audit, transitions
from services.dicom_client.draw_server import Tokens
from services.dicom_client.errors import BadRequest, WrongState
from services.dicom_client.jobs import Jobs, of
from services.dicom_client.keeping import Keeper, TemplateVersion
from services.dicom_client.models import Delivery, DeliveryAttempt, Job, new_job_id
from services.dicom_client.rules import Choice
from services.dicom_client.states import (
    DELIVERY_UNKNOWN,
    ENDED,
    FOLLOWS,
    FOR_A_PERSON,
    NO_TOKEN,
    RETRIABLE,
    UPLOAD_UNKNOWN,
    WORK,
)


class Actions:
    """Everything that a planner may do with a series."""

    def __init__(self, jobs: Jobs, keeper: Keeper) -> None:
        self._jobs = jobs
        self._keeper = keeper

    def retry(self, job_id: str, who: str) -> Job:
        """Go on with a job that ended badly or was stopped, from where it can.

        One whose package still lies here goes on with it; else it begins anew.
        """
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            before = _told(job)
            if job.state in RETRIABLE:
                self._from_the_start(session, job, who)
            elif job.stopped is not None:
                if job.stopped == UPLOAD_UNKNOWN:
                    raise WrongState(
                        "say whether the server has the package: see its list of "
                        "tasks, then give the token or send it again"
                    )
                if job.stopped == DELIVERY_UNKNOWN:
                    raise WrongState(
                        "say whether the node has the structure set: look there, then "
                        "mark it as delivered or send it again"
                    )
                _go_on(session, job)
            elif job.state in WORK and job.lease_owner is None:
                _go_on(session, job)
            elif job.state == "rejected":
                transitions.change(session, job, "ready", actor=who, run=job.run + 1)
            else:
                raise WrongState(f"a series that is {job.state} cannot be retried")
            transitions.note(session, job_id, "retry", actor=who)
            audit.note(session, who, "retry", job_id=job_id, before=before)
            return job

    def _from_the_start(self, session: Session, job: Job, who: str) -> None:
        """From the package that lies here, or anew with the template's images."""
        packed = job.package_sha256 is not None and job.wiped is None
        transitions.change(
            session,
            job,
            "packed" if packed else "matched",
            actor=who,
            run=job.run + 1,
            task_sealed=None,
            server_status="",
            polls=0,
            wiped=None,
        )

    def put_tokens(self, tokens: Tokens, who: str) -> None:
        """Keep new tokens for the server; what waited for them goes on."""
        self._keeper.put_tokens(tokens, who)
        with self._jobs.database.writing() as session:
            waiting = session.scalars(select(Job).where(Job.stopped == NO_TOKEN)).all()
            for job in waiting:
                _go_on(session, job)
                transitions.note(session, job.job_id, "retry", "new token", who)

    def upload_again(self, job_id: str, who: str) -> Job:
        """The server does not have the package: send it again."""
        with self._jobs.database.writing() as session:
            job = _asked_about(session, job_id)
            _go_on(session, job)
            transitions.note(session, job_id, "upload-again", actor=who)
            audit.note(session, who, "upload-again", job_id=job_id)
            return job

    def upload_found(self, job_id: str, token: str, who: str) -> Job:
        """The server has the package: this is its token."""
        if set(token) == {"."} or not re.fullmatch(r"[A-Za-z0-9._~-]{1,200}", token):
            raise BadRequest("this is no token of a task")
        with self._jobs.database.writing() as session:
            job = _asked_about(session, job_id)
            transitions.change(session, job, "uploading", actor=who)
            transitions.change(
                session,
                job,
                "submitted",
                actor=who,
                run=job.run + 1,
                task_sealed=self._jobs.sealer.seal(token),
                submitted=time.time(),
            )
            audit.note(session, who, "upload-found", job_id=job_id)
            return job

    def settle_delivery(
        self, job_id: str, target: str, who: str, *, delivered: bool
    ) -> Job:
        """A person looked at a node that did not answer: it has the file, or not.

        Then nothing more is sent there, or it is sent again.
        """
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            if job.stopped != DELIVERY_UNKNOWN:
                raise WrongState("nobody asks about a delivery of this series")
            open_ = _unknown_deliveries(session, job_id, target)
            if not open_:
                raise WrongState("nobody asks about this target")
            code = "delivered" if delivered else "released"
            for row in open_:
                session.add(
                    DeliveryAttempt(
                        job_id=job_id,
                        file=row.file,
                        target=row.target,
                        node=row.node,
                        code=code,
                    )
                )
            _go_on(session, job)
            said = "delivery-found" if delivered else "delivery-again"
            transitions.note(session, job_id, said, target, who)
            audit.note(session, who, said, job_id=job_id, after={"target": target})
            return job

    def give_up(self, job_id: str, who: str) -> Job:
        """A rejected structure set will not be asked for again."""
        return self._to(job_id, "failed", who, "give-up")

    def cancel(self, job_id: str, who: str) -> Job:
        """Call a job off; what the server has of it is not asked for any more."""
        return self._to(job_id, "cancelled", who, "cancel")

    def ignore(self, job_id: str, who: str) -> Job:
        """A series that waits for a person is not to be segmented."""
        reason = [{"code": "person", "text": "a person decided so"}]
        return self._to(job_id, "ignored", who, "ignore", reasons=reason)

    def consider(self, job_id: str, who: str) -> Job:
        """Look at an ignored series anew, after rules or settings were changed."""
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            if job.duplicate_of is not None:
                raise WrongState("it is a duplicate: go on with the first one")
            taken = session.scalar(
                select(Job.job_id).where(Job.collecting == job.series_key)
            )
            if taken is not None:
                raise WrongState("the series is being looked at already")
            transitions.change(
                session,
                job,
                "discovered",
                actor=who,
                collecting=job.series_key,
                content_hash=None,
                template_digest="",
                template_name="",
                reasons=[],
            )
            audit.note(session, who, "consider", job_id=job_id)
            return job

    def pause(self, job_id: str, who: str) -> Job:
        """Let a job rest where it is."""
        return self._pause(job_id, who, paused=True)

    def resume(self, job_id: str, who: str) -> Job:
        """Let a job that rests go on."""
        return self._pause(job_id, who, paused=False)

    def _pause(self, job_id: str, who: str, *, paused: bool) -> Job:
        name = "pause" if paused else "resume"
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            if job.state in ENDED or job.paused is paused:
                raise WrongState(f"a series that is {job.state} cannot {name} now")
            # A worker that has it finds its lease gone at the end of its step.
            transitions.put(
                session, job, paused=paused, run=job.run + 1, lease_owner=None
            )
            transitions.note(session, job_id, name, actor=who)
            audit.note(session, who, name, job_id=job_id)
            return job

    def override(self, job_id: str, choice: Choice, who: str) -> Job:
        """Let a held series through, with the template that the rules choose."""
        if choice.template is None:
            raise WrongState("no rule chooses a template for it: choose one yourself")
        return self._match(
            job_id, self._keeper.template(choice.template), who, "override"
        )

    def choose_template(self, job_id: str, name: str, who: str) -> Job:
        """Give a series that waits for a person its template.

        A series that has one already is segmented with this one as well: another job.
        """
        template = self._keeper.template(name)
        job = self._jobs.get(job_id)
        if job.state in FOR_A_PERSON:
            return self._match(job_id, template, who, "choose-template")
        return self._another(job_id, template, who)

    def _match(
        self, job_id: str, template: TemplateVersion, who: str, action: str
    ) -> Job:
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            before = _told(job)
            _require_new(session, job, template)
            transitions.change(
                session,
                job,
                "matched",
                actor=who,
                detail=template.template.name,
                overridden=job.state == "held",
                run=job.run + 1,
                **of(template),
            )
            audit.note(
                session,
                who,
                action,
                job_id=job_id,
                before=before,
                after={"template": template.digest},
            )
            return job

    def _another(self, job_id: str, template: TemplateVersion, who: str) -> Job:
        with self._jobs.database.writing() as session:
            first = transitions.get(session, job_id)
            if first.content_hash is None:
                raise WrongState(f"a series that is {first.state} has no images yet")
            _require_new(session, first, template)
            job = Job(
                job_id=new_job_id(),
                series_key=first.series_key,
                content_hash=first.content_hash,
                state="stable",
                source=first.source,
                modality=first.modality,
                instances=first.instances,
                facts_sealed=first.facts_sealed,
                files_sealed=first.files_sealed,
                warnings=first.warnings,
                overridden=first.overridden,
                # For the moment until it is matched: unique as its template will be.
                **of(template),
            )
            session.add(job)
            session.flush()
            transitions.note(session, job.job_id, "stable", "manual", who)
            transitions.change(
                session, job, "matched", actor=who, detail=template.template.name
            )
            audit.note(
                session,
                who,
                "start",
                job_id=job.job_id,
                after={"template": template.digest, "series": job_id},
            )
            return job

    def _to(
        self,
        job_id: str,
        state: Literal["cancelled", "ignored", "failed"],
        who: str,
        action: str,
        **kept: Any,  # Any: values of columns
    ) -> Job:
        with self._jobs.database.writing() as session:
            job = transitions.get(session, job_id)
            before = _told(job)
            if state not in FOLLOWS[job.state]:  # type: ignore[index]
                raise WrongState(f"a series that is {job.state} cannot be {state}")
            transitions.change(
                session,
                job,
                state,
                actor=who,
                run=job.run + 1,
                lease_owner=None,
                collecting=None,
                **kept,
            )
            audit.note(session, who, action, job_id=job_id, before=before)
            return job


def _asked_about(session: Session, job_id: str) -> Job:
    job = transitions.get(session, job_id)
    if job.state != "packed" or job.stopped != UPLOAD_UNKNOWN:
        raise WrongState("nobody asks about the upload of this series")
    return job


def _unknown_deliveries(
    session: Session, job_id: str, target: str
) -> Sequence[Delivery]:
    return session.scalars(
        select(Delivery).where(
            Delivery.job_id == job_id,
            Delivery.target == target,
            Delivery.code == "unknown",
            Delivery.delivered.is_(None),
        )
    ).all()


def _go_on(session: Session, job: Job) -> None:
    transitions.put(
        session,
        job,
        stopped=None,
        attempt=0,
        crashes=0,
        next_run_at=0.0,
        run=job.run + 1,
    )


def _require_new(session: Session, job: Job, template: TemplateVersion) -> None:
    """A content is segmented once with a template version."""
    same = session.scalar(
        select(Job.job_id).where(
            Job.content_hash == job.content_hash,
            Job.template_digest == template.digest,
            Job.job_id != job.job_id,
        )
    )
    if same is not None or job.template_digest == template.digest:
        raise WrongState("the series has been segmented with this template: retry that")


def _told(job: Job) -> dict[str, Any]:
    return {
        "state": job.state,
        "template": job.template_digest,
        "stopped": job.stopped,
        "paused": job.paused,
    }
