"""Nobody sees or changes what a project's roles and the token do not give them (T9)."""

from __future__ import annotations

import re

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from theatrum.catalog.query.fields import RESOURCES
from theatrum.catalog.query.fields import table_of as table

from hub.scopes import CATALOG
from services.catalog.api.limits import READ
from tests.services.catalog.running import PREFIX, Site

PUBLIC = {"/healthz"}
"""What says nothing but that the service is well: monitors have no account."""


@pytest.fixture(autouse=True)
def unhurried(site: Site) -> None:
    """A walk over all routes is not what the limits are for."""
    site.app.state.service.limiter._left.clear()


def _routes(site: Site) -> list[tuple[str, str, frozenset[str]]]:
    """(method, path below the API, scopes) of each route that asks who asks."""
    document = site.app.openapi()
    return [
        (
            method.upper(),
            path.removeprefix(f"{PREFIX}api/v1"),
            frozenset(one for wanted in route["security"] for one in wanted["hub"]),
        )
        for path, methods in document["paths"].items()
        for method, route in methods.items()
        if path.removeprefix(f"{PREFIX}api/v1") not in PUBLIC
    ]


def _filled(path: str, key: str) -> str:
    path = path.replace("{kind}", "jpg").replace("{level}/{x}/{y}", "0/0/0")
    return re.sub(r"\{[^}]+\}", key, path).lstrip("/")


def test_every_route_asks_for_exactly_one_scope(site: Site) -> None:
    routes = _routes(site)
    assert len(routes) > 60
    for method, path, scopes in routes:
        assert len(scopes) == 1, f"{method} {path}"
        assert scopes <= CATALOG.keys(), f"{method} {path}"


def test_no_route_answers_without_a_token(site: Site) -> None:
    with site.client(None) as nobody:
        for method, path, _ in _routes(site):
            answer = nobody.request(method, _filled(path, "1"))
            assert answer.status_code == 403, f"{method} {path}"


def test_no_route_answers_to_a_token_without_its_scope(site: Site) -> None:
    with site.client(None) as client:
        for method, path, scopes in _routes(site):
            others = ",".join(sorted(CATALOG.keys() - scopes))
            narrowed = {"Authorization": f"token ann/{others}"}
            answer = client.request(method, _filled(path, "1"), headers=narrowed)
            assert answer.status_code == 403, f"{method} {path}"


def test_a_token_that_may_only_read_changes_nothing(site: Site) -> None:
    with site.client("ann/catalog:read,pixels:read") as reading:
        assert reading.get("images").json()["items"]
        for method, path, scopes in _routes(site):
            if scopes & {"catalog:read", "pixels:read"}:
                continue
            answer = reading.request(method, _filled(path, "1"))
            assert answer.status_code == 403, f"{method} {path}"
            assert "does not carry" in answer.json()["detail"]


def _secrets(site: Site) -> dict[str, list[str]]:
    """The ids of all rows of the project `secret`, by resource."""
    with Session(site.app.state.service.database.engine) as session:
        project = table("projects")
        secret = session.scalar(select(project.c.id).where(project.c.name == "secret"))
        found = {"projects": [str(secret)]}
        for name in RESOURCES:
            columns = table(name).c
            if "project_id" in columns and "id" in columns:
                rows = select(columns.id).where(columns.project_id == secret)
                found[name] = [str(one) for one in session.scalars(rows)]
    return found


def test_no_row_of_another_project_comes_by_any_address(
    site: Site, ann: httpx.Client
) -> None:
    secrets = _secrets(site)
    assert secrets["images"]
    for method, path, _ in _routes(site):
        resource = path.split("/")[1]
        if "{" not in path or method not in ("GET", "DELETE"):
            continue
        for key in secrets.get(resource, [])[:2]:
            answer = ann.request(method, _filled(path, key))
            absent = ann.request(method, _filled(path, "9" * 6))
            assert answer.status_code == 404, f"{method} {path} {answer.text}"
            said = answer.text.replace(key, "KEY")
            assert said == absent.text.replace("9" * 6, "KEY"), f"{method} {path}"


def test_no_listing_and_no_question_shows_another_project(
    site: Site, ann: httpx.Client
) -> None:
    hidden = {key for keys in _secrets(site).values() for key in keys if len(key) > 4}
    assert len(hidden) > 10
    for method, path, _ in _routes(site):
        if method == "GET" and "{" not in path:
            said = ann.get(path.lstrip("/")).text
            assert not [key for key in hidden if key in said], path
            assert "secret" not in said, path
    for resource in RESOURCES:
        answer = ann.post("search", json={"query": {"of": resource}})
        assert answer.status_code == 200, resource
        assert "secret" not in answer.text, resource


@pytest.mark.parametrize(
    "field", ["sample__name", "subject__diagnosis", "run__requested_by", "tags"]
)
def test_a_relation_leads_into_no_other_project(ann: httpx.Client, field: str) -> None:
    query = {"of": "images", "values": ["name", field]}
    rows = ann.post("search", json={"query": query}).json()["rows"]
    assert {row["name"].split("-")[0] for row in rows} == {"mri"}


def test_a_row_cannot_point_into_another_project(site: Site, bob: httpx.Client) -> None:
    (hidden,) = _secrets(site)["subjects"]
    said = {"project": "mri", "name": "spy", "subject_id": hidden}
    assert bob.post("samples", json=said).status_code in (404, 422)
    note = {"target_kind": "subject", "target_id": hidden, "kind": "tag", "key": "x"}
    assert bob.post("annotations", json=note).status_code in (404, 422)


def test_who_may_read_may_not_write(dan: httpx.Client) -> None:
    said = {"project": "mri", "label": "new"}
    assert dan.get("subjects").json()["items"]
    assert dan.post("subjects", json=said).status_code == 403


def test_who_edits_does_not_share(bob: httpx.Client) -> None:
    (project,) = bob.get("projects").json()["items"]
    answer = bob.put(f"projects/{project['id']}/roles/all", json={"role": "viewer"})
    assert answer.status_code == 403


def test_a_role_that_is_given_and_taken_works_at_once(
    site: Site, ann: httpx.Client
) -> None:
    (project,) = ann.get("projects").json()["items"]
    role = f"projects/{project['id']}/roles/@eve"
    with site.client("eve") as eve:
        assert eve.get("images").json()["items"] == []
        assert ann.put(role, json={"role": "viewer"}).status_code == 204
        assert len(eve.get("images").json()["items"]) == 7
        assert ann.delete(role).status_code == 204
        assert eve.get("images").json()["items"] == []


def test_the_last_maintainer_stays(ann: httpx.Client) -> None:
    (project,) = ann.get("projects").json()["items"]
    answer = ann.delete(f"projects/{project['id']}/roles/@ann")
    assert answer.status_code == 409


def test_everybody_looks_at_a_project_that_is_internal(
    site: Site, ann: httpx.Client
) -> None:
    made = ann.post("projects", json={"name": "open-data"}).json()
    address = f"projects/{made['id']}"
    with site.client("eve") as eve:
        assert eve.get(address).status_code == 404
        assert ann.patch(address, json={"visibility": "internal"}).status_code == 200
        assert eve.get(address).status_code == 200
        assert eve.patch(address, json={"title": "mine"}).status_code == 403
        assert ann.patch(address, json={"visibility": "private"}).status_code == 200


def test_only_researchers_begin_projects(bob: httpx.Client, ann: httpx.Client) -> None:
    assert bob.post("projects", json={"name": "bobs"}).status_code == 403
    assert ann.post("projects", json={"name": "mri"}).status_code == 409


def test_who_asks_without_end_is_told_when_to_try_again(site: Site) -> None:
    limiter = site.app.state.service.limiter
    limiter._left["flood", READ] = (-100 * READ.per_s, limiter.clock())
    with site.client("flood") as client, site.client("ann") as other:
        answer = client.get("projects")
        assert other.get("projects").status_code == 200
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
