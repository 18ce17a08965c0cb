"""Nobody sees or changes what a project's roles and the token do not give them (T9);
no route comes, goes or asks for another scope unseen (T12)."""

from __future__ import annotations

import difflib
import re
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from theatrum.catalog import connect
from theatrum.catalog.flows import Builder
from theatrum.catalog.query.fields import RESOURCES
from theatrum.catalog.query.fields import table_of as table
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import (
    Batch,
    Flow,
    Image,
    InboxItem,
    SavedQuery,
    View,
    new_id,
)
from theatrum.nodes.catalog import gauss

from hub.scopes import CATALOG
from services.catalog.api.limits import READ
from services.catalog.export_jobs import Exports
from services.catalog.export_jobs import Order as Export
from services.catalog.intake import Order, Orders, new_key
from tests.services.catalog import routes
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
    path = path.replace("{port}", "x").replace("{group}", "x")
    return re.sub(r"\{[^}]+\}", key, path).lstrip("/")


def test_every_route_asks_for_exactly_one_scope(site: Site) -> None:
    routes = _routes(site)
    assert len(routes) > 60
    for method, path, scopes in routes:
        assert len(scopes) == 1, f"{method} {path}"
        assert scopes <= CATALOG.keys(), f"{method} {path}"


def test_the_interface_is_as_it_was_reviewed(site: Site) -> None:
    kept, now = routes.FILE.read_text(), routes.brief(site.app)
    changed = "\n".join(
        difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", n=0)
    )
    assert kept == now, (
        "the interface changed: look at each line, see that the documentation tells "
        f"it, and renew the file by `{routes.RENEW}`\n{changed}"
    )


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


@pytest.fixture(scope="module", autouse=True)
def hidden(site: Site) -> dict[str, list[str]]:
    """Keys of what is not ann's: rows of `secret`, and what the stranger began."""
    with recording(site.app.state.service.database, "stranger") as book:
        project = book.project("secret")
        asked = {"of": "images", "where": [{"field": "project", "value": "secret"}]}
        mine = {"project_id": project.id}
        batch = book.add(
            Batch(
                id=new_id(), query=asked, params={}, engine={"by": "service"},
                counts={}, state="succeeded", requested_by="stranger", **mine,
            )
        )  # fmt: skip
        run = book.run(
            project, node="by hand", state="waiting", batch_id=batch.id,
            engine_key="external:hidden",
        )  # fmt: skip
        image = book.session.scalars(select(Image).filter_by(**mine)).first()
        assert image is not None
        book.input(run, "image", image)
        graph = Builder("hidden")
        graph.add(gauss, image=graph.input())
        book.add_all(
            [
                Flow(
                    id=new_id(), name="hidden", version="1", author="stranger",
                    graph=graph.build().to_json(), def_hash="0", **mine,
                ),
                SavedQuery(
                    id=new_id(), slug="hidden", spec=asked, parameters={},
                    author="stranger", **mine,
                ),
                View(id=new_id(), name="hidden", image_id=image.id, **mine),
                InboxItem(
                    id=new_id(), title="hidden", proposal={}, findings=[], **mine
                ),
            ]
        )  # fmt: skip
    here = connect(site.home.root, user="stranger")
    here.freeze(here.images.filter(project="secret"), "hidden", "1", project="secret")
    with site.client("stranger") as stranger:
        said = {"project": "secret", "name": "x", "size": 3, "sha256": "0" * 64}
        upload = stranger.post("uploads", json=said).json()["id"]
    order = Orders(site.home).put(
        Order(key=new_key(), kind="source", owner="stranger", project="secret",
              source="s3://hidden", state="done")
    )  # fmt: skip
    exported = Exports(site.app.state.service.database, site.home.cache).order(
        Export(Spec("images"), "originals", {}, [project.id], "stranger"), "tag", 1
    )
    keys = _secrets(site)
    return keys | {
        "queries": ["hidden"], "leases": keys["runs"][-1:], "uploads": [upload],
        "ingest": [order.key], "exports": [exported.id],
    }  # fmt: skip


BODIES: dict[str, dict[str, Any]] = {
    "/flows/{key}/run": {"query": {"of": "images"}},
    "/runs/{key}/review": {"approve": True},
    "/leases/{key}/fail": {"reason": "x"},
    "/inbox/{key}": {"proposal": {}},
    "/projects/{key}/roles/{group}": {"role": "viewer"},
}
"""What a route needs to be told before it looks for what its address names."""
HEADERS = {"Upload-Offset": "0"}


def test_no_row_of_another_project_comes_by_any_address(
    site: Site, ann: httpx.Client, hidden: dict[str, list[str]]
) -> None:
    walked = set()
    for method, path, _ in _routes(site):
        resource = path.split("/")[1]
        if "{" not in path:
            continue
        assert hidden.get(resource) or resource in NONE_THERE, path
        body = None if method in ("GET", "DELETE") else BODIES.get(path, {})
        for key in hidden.get(resource, [])[-2:]:
            walked.add(resource)
            address, nowhere = _filled(path, key), _filled(path, "9" * len(key))
            answer = ann.request(method, address, json=body, headers=HEADERS)
            absent = ann.request(method, nowhere, json=body, headers=HEADERS)
            assert answer.status_code == 404, f"{method} {path} {answer.text}"
            said = answer.text.replace(key, "KEY")
            assert said == absent.text.replace("9" * len(key), "KEY"), path
    assert len(walked) > 20


NONE_THERE = {
    *("file_rules", "files", "acquisitions", "members", "channels", "plane_tables"),
    *("assets", "results", "labels", "transforms", "nodes", "tables", "visits"),
    *("groups", "run_inputs", "run_outputs"),
}
"""Resources of which `secret` has no row with a project of its own: the relations that
lead to them are walked by `test_every_trick.py`."""


def test_nothing_is_put_into_another_project(
    site: Site, ann: httpx.Client, hidden: dict[str, list[str]]
) -> None:
    before = _secrets(site)
    theirs = {"of": "images", "where": [{"field": "id__in", "value": before["images"]}]}
    image, subject = before["images"][0], before["subjects"][0]
    graph = {"name": "x", "steps": [], "edges": []}
    bodies: dict[str, dict[str, Any]] = {
        "batches": {"node": "project", "query": theirs},
        "flows": {"graph": graph},
        "versions": {"name": "x", "version": "1", "query": {"of": "images"}},
        "uploads": {"name": "x", "size": 1, "sha256": "0" * 64},
        "ingest": {"source": "s3://x/"},
        "inbox/accept": {"items": before["inbox"]},
        "inbox/reject": {"items": before["inbox"], "reason": "x"},
        "inbox/try": {"pattern": "x", "fields": {}},
        "saved_queries": {"slug": "x", "spec": {"of": "images"}},
        "rois": {"image_id": image, "kind": "mask", "geometry": {}},
        "views": {"image_id": image, "name": "x"},
        "transforms": {"from_image_id": image, "kind": "affine"},
        "annotations": {"target_kind": "image", "target_id": image, "kind": "tag",
                        "key": "x"},
        "visits": {"subject_id": subject, "label": "x"},
        "projects": {"name": "secret"},
    }  # fmt: skip
    walked = set()
    for method, path, _ in _routes(site):
        name = path.strip("/")
        if method != "POST" or "{" in path or name in NOT_PLACED:
            continue
        said = bodies.get(
            name, {"name": "x", "label": "x", "pattern": "x", "fields": {}}
        )
        walked.add(name)
        for more in ({"project": "secret"}, {}):
            answer = ann.post(name, json=said | more, params=more)
            assert answer.status_code in (403, 404, 409, 422), f"{path} {answer.text}"
    assert bodies.keys() <= walked
    assert _secrets(site) == before
    # Their images are found by no order of ours, and given to no program of ours.
    order = {"node": "project", "query": theirs, "project": "mri"}
    assert ann.post("batches", json=order).status_code == 422
    assert ann.post("leases", json={"served": "hidden"}).status_code == 204


NOT_PLACED = {"search", "leases", "engine/scale", "flows/check", "images/cases"}
"""What is posted to and goes into no project by its name."""


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
