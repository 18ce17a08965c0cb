"""No trick gets anything out of another project, nor anything of this machine (T9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import JSON, String, select, update
from theatrum.catalog.query.fields import RESOURCES, table_of, ways_from
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Base, Event, Image, Project

from services.catalog.api.live import QUEUED
from services.catalog.api.wire import INSIDE, OverTheWire
from tests.services.catalog.conftest import PEOPLE, fill
from tests.services.catalog.running import Site, catalogue

WORD = "zyzzyva"
"""Stands in the hidden project alone, in every text that a trick could lead to."""

FURTHER = ("images", "annotations", "run_inputs")
"""Resources from which ways of two steps are tried, too."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A catalogue of our own: what is written here is in nobody's way."""
    with catalogue(tmp_path_factory.mktemp("tricks"), PEOPLE) as running:
        fill(running)
        yield running


@pytest.fixture(scope="module", autouse=True)
def hidden(site: Site) -> dict[str, str]:
    """Rows of `secret` that have the word in every text; some of their ids."""
    with recording(site.app.state.service.database, "stranger") as book:
        project = book.project("secret")
        study = book.experiment(project, f"study {WORD}", description=WORD)
        subject = book.subject(
            project, WORD, diagnosis=WORD, experiment_id=study.id, attrs={"a": WORD}
        )
        sample = book.sample(project, WORD, stain=WORD, subject_id=subject.id)
        run = book.run(project, node=f"method of {WORD}", params={"a": WORD})
        image = book.image(
            project,
            path=f"/{WORD}/1.nii",
            name=WORD,
            modality="MR",
            subject_id=subject.id,
            sample_id=sample.id,
            attrs={"a": WORD},
            channels=[{"index": 0, "name": WORD}],
        )
        book.tag(image, WORD)
        book.comment(image, WORD)
        book.value(image, WORD, WORD)
        book.measurements(image, run, {WORD: 1.0})
        book.input(run, "image", image)
        return {
            "image": image.id,
            "subject": subject.id,
            "sample": sample.id,
            "run": run.id,
            "study": study.id,
        }


def _linked(book: Book, hidden: dict[str, str]) -> str:
    """An image of `mri` that points at rows of `secret`, past what the book refuses."""
    image = book.image(book.project("mri"), path="/nowhere/linked.nii", name="linked")
    book.session.flush()
    pointers = {"subject_id": hidden["subject"], "sample_id": hidden["sample"]}
    book.session.execute(update(Image).where(Image.id == image.id).values(pointers))
    run = book.run(book.project("mri"), node="join")
    book.input(run, "image", image)
    return image.id


@pytest.fixture(scope="module")
def linked(site: Site, hidden: dict[str, str]) -> Iterator[str]:
    database = site.app.state.service.database
    with recording(database, "stranger") as book:
        key = _linked(book, hidden)
    yield key
    with recording(database, "stranger") as book:
        book.delete(book.get(Image, key))


def _ask(client: httpx.Client, query: dict[str, Any], **more: Any) -> httpx.Response:
    said = {"query": query, "rows": True, "count": True, "sql": True, **more}
    answer = client.post("search", json=said)
    assert answer.status_code in (200, 422), answer.text
    return answer


def test_no_way_leads_out(site: Site, linked: str) -> None:
    service = site.app.state.service
    seen = OverTheWire(
        database=service.database,
        files=service.home.root,
        user="ann",
        projects=frozenset({"mri"}),
    )
    for resource in sorted(RESOURCES):
        for name, way in ways_from(table_of(resource).name).items():
            ends = [(name, way.target)]
            if resource in FURTHER and not way.many:
                ends += [
                    (f"{name}__{onward}", further.target)
                    for onward, further in ways_from(way.target).items()
                ]
            for path, table in ends:
                columns = _texts(table)
                spec = Spec(resource, values=tuple(f"{path}__{one}" for one in columns))
                told = json.dumps(seen.rows(replace(spec, limit=100)), default=str)
                assert WORD not in told, path


def _texts(table: str) -> list[str]:
    return [
        column.name
        for column in Base.metadata.tables[table].columns
        if isinstance(column.type, String | JSON) and column.name not in INSIDE
    ]


def test_no_condition_counts_what_is_hidden(ann: httpx.Client, linked: str) -> None:
    for field in (
        "subject__label", "subject__diagnosis", "subject__attrs__a", "sample__stain",
        "sample__subject__label", "sample__subject__experiment__name", "tags",
        "comments", "channels__name", "measurements__name", "kv__zyzzyva",
        "run__node__name", "used_in__run__node__name", "search", "attrs__a",
    ):  # fmt: skip
        lookup = (
            "" if field in ("search", "tags") or field[:2] == "kv" else "__contains"
        )
        answer = _ask(
            ann,
            {"of": "images", "where": [{"field": field + lookup, "value": WORD}]},
            facets=["modality", "subject__diagnosis"],
        ).json()
        assert answer.get("count", 0) == 0, field
        assert answer.get("rows", []) == [], field


def test_a_query_within_a_query_sees_no_more(ann: httpx.Client) -> None:
    inner = {"of": "subjects", "where": [{"field": "label", "value": WORD}]}
    for field, value in (
        ("subject_id__in", {"query": inner}),
        ("subject_id__in", {"query": {**inner, "values": ["id"]}}),
    ):
        where = [{"field": field, "value": value}]
        for condition in (where, [{"or": where}], [{"not": {"not": where[0]}}]):
            said = _ask(ann, {"of": "images", "where": condition})
            assert said.json().get("count", 0) == 0


def test_facets_and_text_tell_nothing_hidden(ann: httpx.Client, linked: str) -> None:
    for field in ("subject__label", "sample__stain", "tags", "channels__name"):
        said = ann.get("facets", params={"by": field}).text
        assert WORD not in said
    assert WORD not in ann.get("facets", params={"of": "nodes", "by": "name"}).text
    assert ann.get("images", params={"search": WORD}).json()["items"] == []


def test_nodes_that_somebody_wrote_stay_in_their_project(
    site: Site, ann: httpx.Client
) -> None:
    assert WORD not in ann.get("nodes", params={"limit": 1000}).text
    with site.client("stranger") as stranger:
        assert WORD in stranger.get("nodes", params={"limit": 1000}).text


@pytest.mark.parametrize(
    "change", [str.upper, str.title, "{}%20".format, "{}%00".format]
)
def test_an_id_written_otherwise_is_absent(
    ann: httpx.Client, hidden: dict[str, str], change: Any
) -> None:
    for kind, resource in (("image", "images"), ("subject", "subjects")):
        said = ann.get(f"{resource}/{change(hidden[kind])}")
        assert said.status_code in (404, 422)
        assert WORD not in said.text


def test_a_lineage_ends_where_ones_rights_end(
    ann: httpx.Client, site: Site, hidden: dict[str, str]
) -> None:
    with recording(site.app.state.service.database, "stranger") as book:
        project = book.project("mri")
        run = book.run(project, node="join two")
        book.input(run, "image", book.get(Image, hidden["image"]))
        made = book.image(
            project, path="/nowhere/made.nii", name="made", kind="derived", run=run
        ).id
    for prov in ("true", "false"):
        said = ann.get(f"images/{made}/lineage", params={"prov": prov})
        assert said.status_code == 200
        assert WORD not in said.text
        assert hidden["image"] not in said.text
    for resource in ("run_inputs", "run_outputs"):
        assert hidden["image"] not in ann.get(resource, params={"limit": 1000}).text
    assert made in ann.get("run_outputs", params={"limit": 1000}).text


def test_a_note_cannot_be_moved_to_what_one_may_not_see(
    bob: httpx.Client, hidden: dict[str, str]
) -> None:
    image = bob.get("images", params={"name": "mri-0"}).json()["items"][0]["id"]
    note = {"target_kind": "image", "target_id": image, "kind": "tag", "key": "spy"}
    made = bob.post("annotations", json=note)
    assert made.status_code == 201, made.text
    address = f"annotations/{made.json()['id']}"
    for said in (
        {"target_id": hidden["image"]},
        {"target_kind": "subject", "target_id": hidden["subject"]},
    ):
        assert bob.patch(address, json=said).status_code == 422
    assert bob.delete(address).status_code == 204


def test_what_is_kept_is_made_of_what_one_sees(
    bob: httpx.Client, hidden: dict[str, str]
) -> None:
    kept = {"project": "mri", "name": "spy", "inputs": [hidden["image"]]}
    said = bob.post(
        "images", data={"kept": json.dumps(kept)}, files={"array": b"no zip"}
    )
    assert said.status_code in (404, 422)
    assert WORD not in said.text


@pytest.mark.parametrize("column", sorted(INSIDE))
def test_places_of_this_machine_are_not_asked_for(
    ann: httpx.Client, column: str
) -> None:
    root = next(
        name for name in ("images", "assets", "versions") if column in table_of(name).c
    )
    for query in (
        {"of": root, "where": [{"field": f"{column}__startswith", "value": "/"}]},
        {"of": root, "values": [column]},
        {"of": root, "order": [f"-{column}"]},
        {"of": "projects", "values": [f"{root}__{column}"]},
        {"of": root, "where": [{"not": {"or": [{"field": column, "value": "x"}]}}]},
    ):
        assert _ask(ann, query).status_code == 422, query
    assert ann.get(root, params={"sort": column}).status_code == 422
    assert ann.get("facets", params={"of": root, "by": column}).status_code == 422


def test_a_cursor_leads_to_nothing_but_the_listing_it_is_of(
    ann: httpx.Client, site: Site
) -> None:
    with site.client("stranger") as stranger:
        page = stranger.get("images", params={"limit": 1}).json()
    said = ann.get("images", params={"limit": 50, "cursor": page["next"]})
    assert said.status_code == 200
    assert WORD not in said.text
    assert "secret" not in said.text


def test_what_was_missed_is_told_however_much_else_happened(
    site: Site, bob: httpx.Client
) -> None:
    database, feed = site.app.state.service.database, site.app.state.feed
    with database.reading() as session:
        ids = dict(session.execute(select(Project.name, Project.id)).all())
    before = feed._newest()
    with recording(database, "stranger") as book:
        book.session.add_all(
            Event(
                project_id=ids["secret"],
                topic="image/x",
                kind="image",
                op="update",
                object_id="x",
                changed=[],
                actor="stranger",
            )
            for _ in range(QUEUED + 5)
        )
    made = bob.post("subjects", json={"project": "mri", "label": "late"}).json()
    told = feed.since(before, {f"project/{ids['mri']}"}, 10)
    assert [one["id"] for one in told] == [made["id"]]
    assert bob.delete(f"subjects/{made['id']}").status_code == 204
