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
