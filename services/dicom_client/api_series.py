"""The API of series: lists, details, what planners do, figures and the live feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hub.signin import Person
from services.dicom_client import audit, read_models
from services.dicom_client.actions import Actions
from services.dicom_client.errors import BadRequest, NoSuchThing
from services.dicom_client.feed import Feed
from services.dicom_client.intake import read_headers
from services.dicom_client.models import Job, Rating
from services.dicom_client.opening import Service
from services.dicom_client.people import Planner, Seer
from services.dicom_client.read_models import Filter
from services.dicom_client.rules import choose
from services.dicom_client.states import STATES


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TemplateChoice(_Body):
    """Which template a series gets."""

    template: str = Field(max_length=128)


class UploadDecision(_Body):
    """What a person found out about an upload: the task's token, or that none is."""

    token: str | None = Field(None, max_length=200)


class DeliveryDecision(_Body):
    """What a person found out at a node that did not answer."""

    target: str = Field(max_length=64)
    delivered: bool


class RatingForm(_Body):
    """What a person thinks of a structure set, or of one structure."""

    roi: str = Field("", max_length=64)
    score: int | None = Field(None, ge=0, le=10)
    modification: str = Field("", pattern=r"^(none|minor|major|not segmented)?$")
    minutes: float | None = Field(None, ge=0, le=600)
    kind: str = Field("", max_length=64)
    comment: str = Field("", max_length=1000)


def routes(service: Service, feed: Feed) -> APIRouter:
    """The routes below `api/`; `def` ones run in threads."""
    router = APIRouter()
    actions = Actions(service.jobs, service.keeper)

    @router.get("/series")
    def listed(
        _person: Seer,
        state: Annotated[list[str] | None, Query()] = None,
        modality: str = "",
        template: str = "",
        source: str = "",
        attention: bool = False,
        since: float = 0.0,
        before: float | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> dict[str, Any]:
        """Series, newest first."""
        return read_models.listed(
            service,
            Filter(
                _states(state or []),
                modality,
                template,
                source,
                attention=attention,
                since=since,
                before=before,
                limit=limit,
            ),
        )

    @router.post("/series/search")
    def search(_person: Seer, wanted: Search) -> dict[str, Any]:
        """The same by a patient's name or id, which no address may hold."""
        return read_models.listed(
            service,
            Filter(_states(wanted.states), text=wanted.text, limit=wanted.limit),
        )

    @router.get("/series/{job_id}")
    def detail(_person: Seer, job_id: str) -> dict[str, Any]:
        """All that is known of a series, with its time line."""
        return read_models.detailed(service, job_id)

    @router.post("/series/{job_id}/template")
    def choose_template(
        person: Planner, job_id: str, choice: TemplateChoice
    ) -> dict[str, Any]:
        """Segment a series with a template of one's choice."""
        job = actions.choose_template(job_id, choice.template, person.name)
        return read_models.summarised(service, job)

    @router.post("/series/{job_id}/override")
    def override(person: Planner, job_id: str) -> dict[str, Any]:
        """Let a held series through, with the template that the rules choose."""
        headers = read_headers(service.jobs.files_of(service.jobs.get(job_id)))
        if not headers:
            raise NoSuchThing("the images of this series are not there any more")
        choice = choose(service.keeper.rules()[1], headers[0])
        job = actions.override(job_id, choice, person.name)
        return read_models.summarised(service, job)

    @router.post("/series/{job_id}/upload")
    def upload(
        person: Planner, job_id: str, decision: UploadDecision
    ) -> dict[str, Any]:
        """Whether the server has a package of which nobody knew: its token, or null."""
        job = (
            actions.upload_again(job_id, person.name)
            if decision.token is None
            else actions.upload_found(job_id, decision.token, person.name)
        )
        return read_models.summarised(service, job)

    @router.post("/series/{job_id}/delivery")
    def delivery(
        person: Planner, job_id: str, decision: DeliveryDecision
    ) -> dict[str, Any]:
        """Whether a target has what it did not answer to; if not, it is sent again."""
        job = actions.settle_delivery(
            job_id, decision.target, person.name, delivered=decision.delivered
        )
        return read_models.summarised(service, job)

    for name, act in {
        "retry": actions.retry,
        "cancel": actions.cancel,
        "ignore": actions.ignore,
        "consider": actions.consider,
        "pause": actions.pause,
        "resume": actions.resume,
        "give-up": actions.give_up,
    }.items():
        router.add_api_route(
            f"/series/{{job_id}}/{name}", _acting(service, act), methods=["POST"]
        )

    @router.post("/series/{job_id}/ratings", status_code=201)
    def rate(person: Planner, job_id: str, form: RatingForm) -> dict[str, Any]:
        """Say what a structure set is worth."""
        content = form.model_dump(exclude={"roi"})
        with service.database.writing() as session:
            if session.get(Job, job_id) is None:
                raise NoSuchThing("there is no such series")
            session.add(
                Rating(job_id=job_id, who=person.name, roi=form.roi, content=content)
            )
            audit.note(session, person.name, "rating", job_id=job_id, after=form.roi)
        return read_models.detailed(service, job_id)

    @router.get("/statistics")
    def figures(
        _person: Seer, days: Annotated[int, Query(ge=1, le=3650)] = 30
    ) -> dict[str, Any]:
        """Counts by state and day, and how long a series takes."""
        return read_models.figures(service, days)

    @router.get("/feed")
    async def changes(_person: Seer, request: Request) -> Response:
        """Changes as they happen (server-sent events)."""
        return feed.answer(request)

    return router


class Search(_Body):
    """What is looked for."""

    text: str = Field(min_length=2, max_length=200)
    states: list[str] = []
    limit: int = Field(50, ge=1, le=500)


def _acting(
    service: Service, act: Callable[[str, str], Job]
) -> Callable[[Person, str], dict[str, Any]]:
    def action(person: Planner, job_id: str) -> dict[str, Any]:
        return read_models.summarised(service, act(job_id, person.name))

    action.__doc__ = (act.__doc__ or "").partition("\n")[0]
    return action


def _states(named: list[str]) -> tuple[str, ...]:
    strange = set(named) - set(STATES)
    if strange:
        raise BadRequest(f"there is no state {', '.join(sorted(strange))[:100]}")
    return tuple(named)
