"""What is written over HTTP: refused where it does not fit, answered as it is seen."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import text

from tests.services.catalog.running import Site


def _image(client: httpx.Client, name: str = "mri-0") -> str:
    return str(client.get("images", params={"name": name}).json()["items"][0]["id"])


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_has_not_breaks_no_listing(
    bob: httpx.Client, number: str
) -> None:
    key = _image(bob)
    note = (
        f'{{"target_kind":"image","target_id":"{key}","kind":"value","key":"q","value"'
    )
    for method, route, body in (
        ("PATCH", f"images/{key}", f'{{"attrs":{{"x":{number}}}}}'),
        ("POST", "annotations", f"{note}:{number}}}"),
        ("POST", "search", f'{{"of":"images","where":[["px_x__lt",{number}]]}}'),
    ):
        headers = {"Content-Type": "application/json"}
        answer = bob.request(method, route, content=body, headers=headers)
        assert answer.status_code == 422, answer.text
        assert "finite" in answer.json()["detail"]
    assert bob.get(f"images/{key}").json()["attrs"] == {}


def test_a_row_of_before_with_such_a_number_is_told_without_it(
    site: Site, bob: httpx.Client
) -> None:
    key = _image(bob)
    change = "UPDATE image SET attrs = :attrs, vmax = :vmax WHERE id = :key"
    for attrs, vmax in (('{"x": NaN}', float("inf")), ("{}", None)):
        with site.app.state.service.database.writing() as session:
            said = {"attrs": attrs, "vmax": vmax, "key": key}
            session.execute(text(change), said)
        listed = bob.get("images", params={"id": key}).json()["items"][0]
        found = bob.post("search", json={"of": "images"}).json()["rows"]
        row = bob.get(f"images/{key}").json()
        for one in (listed, row, next(one for one in found if one["id"] == key)):
            assert one["attrs"] in ({"x": None}, {})
            assert one["vmax"] is None


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "nonsense", "geometry": {"type": "Point", "coordinates": [1, 2]}},
        {"kind": "point", "geometry": {"type": "Point", "coordinates": "abc"}},
        {"kind": "point", "geometry": {"type": "Point", "coordinates": [1]}},
        {"kind": "point", "geometry": {"type": "Point", "coordinates": [True, 2]}},
        {"kind": "line", "geometry": {"type": "LineString", "coordinates": [None]}},
        {"kind": "line", "geometry": {"type": "LineString", "coordinates": [[1, 2]]}},
        {"kind": "line", "geometry": {"type": "Polygon", "coordinates": [[[1, 2]]]}},
        {
            "kind": "polygon",
            "geometry": {"type": "Polygon", "coordinates": [[["a", "b"]]]},
        },
        {
            "kind": "polygon",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[1, 2], [3, [4]], [5, 6]]],
            },
        },
        {
            "kind": "polygon",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[1, 2], [3, 4, 5], [6, 7]]],
            },
        },
        {"kind": "box", "geometry": {"type": "Polygon", "coordinates": [[1, 2]]}},
        {"kind": "box", "geometry": {}},
        {
            "kind": "point",
            "axes": ["x", "x"],
            "geometry": {"type": "Point", "coordinates": [1, 2]},
        },
    ],
    ids=str,
)
def test_a_region_whose_geometry_does_not_fit_its_kind_is_refused(
    bob: httpx.Client, said: dict[str, object]
) -> None:
    answer = bob.post("rois", json={"image_id": _image(bob), **said})
    assert answer.status_code == 422, answer.text


def test_a_regions_box_follows_when_it_is_drawn_anew(bob: httpx.Client) -> None:
    drawn = {"type": "Polygon", "coordinates": [[1, 2], [5, 9]]}
    said = {"image_id": _image(bob), "kind": "box", "geometry": drawn}
    roi = bob.post("rois", json=said).json()
    assert (roi["x0"], roi["x1"], roi["y1"]) == (1, 5, 9)
    ring = [[0, 0, 4], [7, 0, 4], [7, 3, 6], [0, 0, 4]]
    anew = {"kind": "polygon", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    roi = bob.patch(f"rois/{roi['id']}", json=anew).json()
    assert (roi["x1"], roi["y1"], roi["z0"], roi["z1"]) == (7, 3, 4, 6)
    assert roi["axes"] == ["x", "y", "z"]
    wrong = {"geometry": {"type": "Point", "coordinates": [1, 2]}}
    assert bob.patch(f"rois/{roi['id']}", json=wrong).status_code == 422
    assert bob.delete(f"rois/{roi['id']}").status_code == 204


def test_a_rule_and_a_query_that_cannot_be_used_are_refused(bob: httpx.Client) -> None:
    rule = {"project": "mri", "name": "r", "pattern": "(", "fields": {}}
    answer = bob.post("file_rules", json=rule)
    assert answer.status_code == 422
    assert "regular expression" in answer.json()["detail"]
    kept = bob.post("file_rules", json=rule | {"pattern": "(a)"}).json()
    assert (
        bob.patch(f"file_rules/{kept['id']}", json={"pattern": "("}).status_code == 422
    )
    wrong = {"fields": {"nothing__like": "it"}}
    assert bob.patch(f"file_rules/{kept['id']}", json=wrong).status_code == 422
    assert bob.delete(f"file_rules/{kept['id']}").status_code == 204
    where = [{"field": "nope", "value": 1}]
    for spec in ({"of": "nope"}, {"of": "images", "where": where}, {"where": []}):
        query = {"project": "mri", "slug": "q", "spec": spec}
        answer = bob.post("saved_queries", json=query)
        assert answer.status_code == 422, answer.text


def test_a_batch_by_a_field_that_is_none_is_refused(bob: httpx.Client) -> None:
    order = {"node": "minmax", "query": {"of": "images"}, "by": "nope"}
    answer = bob.post("batches", json=order)
    assert answer.status_code == 422, answer.text
    assert "nope" in answer.json()["detail"]


def test_no_answer_to_a_change_tells_where_something_lies(
    site: Site, bob: httpx.Client
) -> None:
    key = _image(bob)
    path = f"{site.home.root}/images/kept.nii"
    change = text("UPDATE image SET path = :path WHERE id = :key")
    with site.app.state.service.database.writing() as session:
        before = session.scalar(
            text("SELECT path FROM image WHERE id = :key"), {"key": key}
        )
        session.execute(change, {"path": path, "key": key})
    sample = bob.get("samples").json()["items"][0]["id"]
    point = {"type": "Point", "coordinates": [1, 2]}
    roi = {"image_id": key, "kind": "point", "geometry": point}
    note = {"target_kind": "image", "target_id": key, "kind": "tag", "key": "seen"}
    for answer in (
        bob.patch(f"images/{key}", json={"description": "told"}),
        bob.patch(f"samples/{sample}", json={"stain": "HE"}),
        bob.post("rois", json=roi),
        bob.post("annotations", json=note),
        bob.post("views", json={"image_id": key, "name": "near"}),
        bob.post("transforms", json={"from_image_id": key, "project": "mri"}),
        bob.post("samples", json={"project": "mri", "name": "another"}),
        bob.post("experiments", json={"project": "mri", "name": "another"}),
    ):
        assert answer.status_code in (200, 201), answer.text
        assert str(site.home.root) not in answer.text
        assert not {"path", "uri", "deleted_at"} & answer.json().keys()
    with site.app.state.service.database.writing() as session:
        session.execute(change, {"path": before, "key": key})
