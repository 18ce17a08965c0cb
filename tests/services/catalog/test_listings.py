"""Listings, searches and changes over HTTP."""

from __future__ import annotations

import io

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.catalog import answers, connect

from tests.services.catalog.running import Site


def _names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["name"] for row in answer.json()["items"]]


def test_words_of_an_address_go_over_relations(ann: httpx.Client) -> None:
    query = {
        "sample__experiment__name__startswith": "Animal",
        "modality": "MR",
        "spacing__lte": "1.0",
    }
    assert _names(ann.get("images", params=query)) == ["mri-1", "mri-3"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("sort", ["name", "-name", "px_z", "-px_z", "modality,-px_z"])
def test_pages_together_are_the_whole_listing(
    ann: httpx.Client, limit: int, sort: str
) -> None:
    whole = _names(ann.get("images", params={"sort": sort}))
    assert len(whole) == 7
    found: list[str] = []
    query = {"sort": sort, "limit": str(limit)}
    while True:
        answer = ann.get("images", params=query)
        found += _names(answer)
        if answer.json()["next"] is None:
            break
        query["cursor"] = answer.json()["next"]
    assert found == whole


@pytest.mark.parametrize("resource", ["run_outputs", "channels", "events", "projects"])
def test_pages_of_rows_that_are_alike_lose_none(
    ann: httpx.Client, resource: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"query": {"of": resource}}
    whole = ann.post("search", json=query | {"rows": True}).json()["rows"]
    monkeypatch.setattr(answers, "MOST_ROWS", 2)
    found: list[dict] = []
    cursor = ""
    while cursor is not None:
        said = ann.post("search", json=query | {"cursor": cursor}).json()
        found += said["rows"]
        cursor = said["next"]
    assert found == whole


@pytest.mark.parametrize("field", ["channels__name", "measurements__value", "tags"])
def test_a_field_of_several_rows_is_whole_on_its_page(
    ann: httpx.Client, field: str
) -> None:
    words = {"fields": f"name,{field}", "sort": "-name"}
    whole = ann.get("images", params=words).json()["items"]
    found: list[dict] = []
    query = words | {"limit": "3"}
    while True:
        said = ann.get("images", params=query).json()
        found += said["items"]
        if said["next"] is None:
            break
        query["cursor"] = said["next"]
    assert found == whole


def test_a_notebook_far_away_is_given_every_row_once(
    site: Site, bob: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_ROWS", 3)
    far = connect(site.url, token="bob")
    for query in (far.images, far.images.order_by("-px_z", "modality")):
        rows = [image.name for image in query]
        assert sorted(rows) == [f"mri-{n}" for n in range(7)]
        assert [image.name for image in query[2:6]] == rows[2:6]
        assert [image.name for image in query[:2]] == rows[:2]
    kinds = far.images.values("modality").distinct()
    assert [one["modality"] for one in kinds] == ["CT", "MR"]
    # What comes before meanwhile shifts nothing, and what goes is no more.
    made = [
        bob.post("subjects", json={"project": "mri", "label": f"far-{n}"}).json()["id"]
        for n in range(6)
    ]
    each = iter(far.subjects.filter(label__startswith="far-"))
    first = next(each).label
    assert bob.delete(f"subjects/{made[1]}").status_code == 204
    assert bob.delete(f"subjects/{made[4]}").status_code == 204
    rest = [one.label for one in each]
    assert [first, *rest] == ["far-0", "far-1", "far-2", "far-3", "far-5"]
    for key in (made[0], made[2], made[3], made[5]):
        bob.delete(f"subjects/{key}")


def test_all_usual_facets_are_counted_where_one_says_true(ann: httpx.Client) -> None:
    said = ann.post(
        "search", json={"query": {"of": "images"}, "facets": True, "rows": False}
    ).json()
    assert {one["value"]: one["count"] for one in said["facets"]["modality"]} == {
        "CT": 4,
        "MR": 3,
    }
    wrong = {"query": {"of": "runs"}, "facets": True}
    assert ann.post("search", json=wrong).status_code == 422


def test_a_row_that_goes_meanwhile_shifts_no_page(bob: httpx.Client) -> None:
    made = [
        bob.post("subjects", json={"project": "mri", "label": f"page-{n}"}).json()["id"]
        for n in range(4)
    ]
    query = {"label__startswith": "page-", "sort": "label", "limit": "2"}
    first = bob.get("subjects", params=query).json()
    assert bob.delete(f"subjects/{made[0]}").status_code == 204
    second = bob.get("subjects", params=query | {"cursor": first["next"]}).json()
    assert [row["label"] for row in second["items"]] == ["page-2", "page-3"]
    for key in made[1:]:
        bob.delete(f"subjects/{key}")


def test_no_cursor_breaks_the_service(ann: httpx.Client) -> None:
    @given(cursor=st.text(max_size=60))
    @settings(max_examples=60, deadline=None)
    def ask(cursor: str) -> None:
        answer = ann.get("images", params={"cursor": cursor})
        assert answer.status_code in (200, 422)

    ask()


def test_a_misspelt_word_is_refused_with_those_that_are_near(ann: httpx.Client) -> None:
    answer = ann.get("images", params={"modalty": "MR"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "modality" in answer.json()["detail"]


@pytest.mark.parametrize(
    "word", ["path", "path__startswith", "run__node__source", "files__uri", "uri"]
)
def test_no_question_tells_where_something_lies(ann: httpx.Client, word: str) -> None:
    answer = ann.get("images", params={word: "/"})
    if word == "run__node__source":
        assert answer.status_code == 200
    else:
        assert answer.status_code == 422
    body = {"query": {"of": "images", "where": [{"field": "path", "value": "x"}]}}
    assert ann.post("search", json=body).status_code == 422
    for row in ann.get("images").json()["items"]:
        assert "/nowhere" not in str(row)


def test_a_listing_comes_as_csv_and_parquet(ann: httpx.Client) -> None:
    query = {"fields": "name,modality", "format": "csv"}
    lines = ann.get("images", params=query).text.splitlines()
    assert lines[:2] == ["name,modality", "mri-0,CT"]
    accept = {"Accept": "application/vnd.apache.parquet"}
    answer = ann.get("images", params={"fields": "name"}, headers=accept)
    import pyarrow.parquet as pq

    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 7
    known = accept | {"If-None-Match": answer.headers["etag"]}
    again = ann.get("images", params={"fields": "name"}, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    other = ann.get("images", params={"fields": "id"}, headers=known)
    assert other.status_code == 200


def test_a_spreadsheet_takes_no_value_for_a_formula(bob: httpx.Client) -> None:
    made = bob.post("subjects", json={"project": "mri", "label": "=1+1"}).json()
    query = {"label": "=1+1", "fields": "label", "format": "csv"}
    assert bob.get("subjects", params=query).text.splitlines() == ["label", "'=1+1"]
    bob.delete(f"subjects/{made['id']}")


def test_what_one_has_is_not_sent_again(ann: httpx.Client) -> None:
    first = ann.get("images")
    again = ann.get("images", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_change_to_what_changed_meanwhile_is_refused(bob: httpx.Client) -> None:
    row = bob.post("subjects", json={"project": "mri", "label": "tagged"})
    address = f"subjects/{row.json()['id']}"
    tag = bob.get(address).headers["etag"]
    assert bob.patch(address, json={"sex": "female"}).status_code == 200
    late = bob.patch(address, json={"sex": "male"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert bob.get(address).json()["sex"] == "female"
    bob.delete(address)


def test_rows_can_be_put_in_place_of_ids(ann: httpx.Client) -> None:
    answer = ann.get("images", params={"expand": "sample,subject", "limit": "1"})
    (image,) = answer.json()["items"]
    assert image["sample"]["stain"] == "HE"
    assert image["subject"]["label"] == "mri-1"


def test_facets_count_what_the_words_leave(ann: httpx.Client) -> None:
    answer = ann.get("facets", params={"by": "modality", "name__gt": "mri-3"}).json()
    assert answer["count"] == 3
    assert answer["facets"]["modality"] == [
        {"value": "CT", "count": 2},
        {"value": "MR", "count": 1},
    ]


def test_a_search_tells_rows_count_facets_and_sql(ann: httpx.Client) -> None:
    question = {"of": "images", "where": [{"field": "tags", "value": "checked"}]}
    wanted = {"rows": True, "count": True, "facets": ["modality"], "sql": True}
    told = ann.post("search", json={"query": question, **wanted}).json()
    assert [row["name"] for row in told["rows"]] == ["mri-6"]
    assert told["count"] == 1
    assert told["facets"]["modality"] == [{"value": "CT", "count": 1}]
    assert told["sql"].startswith("SELECT")


def test_a_row_is_made_changed_and_taken_away(bob: httpx.Client) -> None:
    made = bob.post("samples", json={"project": "mri", "name": "block 7"})
    assert made.status_code == 201
    address = f"samples/{made.json()['id']}"
    assert made.headers["location"].endswith(address)
    assert bob.patch(address, json={"stain": "PAS"}).json()["stain"] == "PAS"
    assert bob.delete(address).status_code == 204
    assert bob.get(address).status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        {"project": "mri"},
        {"project": "mri", "name": "a", "id": "mine"},
        {"project": "mri", "name": "x" * 300},
        {"project": "nope", "name": "a"},
        {"name": "a"},
    ],
)
def test_what_does_not_fit_makes_nothing(bob: httpx.Client, said: dict) -> None:
    before = len(bob.get("samples").json()["items"])
    assert bob.post("samples", json=said).status_code in (404, 422)
    assert len(bob.get("samples").json()["items"]) == before


def test_a_question_is_kept_under_a_name(site: Site, bob: httpx.Client) -> None:
    catalog = connect(site.url, token="bob")
    query = catalog.images.filter(modality="MR", spacing__lte=1.0)
    catalog.keep_query(query, "fine-mr", project="mri", title="Fine MR")
    again = connect(site.url, token="dan").saved("fine-mr", project="mri")
    assert [one.name for one in again] == ["mri-1", "mri-3"]
    (kept,) = bob.get("saved_queries", params={"slug": "fine-mr"}).json()["items"]
    assert kept["author"] == "bob"
    assert bob.delete(f"saved_queries/{kept['id']}").status_code == 204


def test_a_number_over_64_bits_is_refused(bob: httpx.Client) -> None:
    (run, *_) = bob.get("runs").json()["items"]
    assert bob.get(f"runs/{run['id']}/events?after={2**80}").status_code == 422
    made = bob.post("subjects", json={"project": "mri", "label": "big"}).json()
    address = f"subjects/{made['id']}"
    assert bob.patch(address, json={"birth_year": 2**80}).status_code == 422
    big = {"project": "mri", "label": "bigger", "birth_year": 2**80}
    assert bob.post("subjects", json=big).status_code == 422
    assert bob.get("projects/99999999999999999999999").status_code in (404, 422)
    bob.delete(address)
