"""What waits in the inbox is seen and decided by editors of its project alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from theatrum.catalog.ingest import Wishes, Workers
from theatrum.catalog.ingest.inbox import collect, forget
from theatrum.catalog.record import recording
from theatrum.catalog.tables import FileRule, ProjectGroup

from services.catalog import intake
from tests.services.catalog.running import Site


@pytest.fixture(scope="module", autouse=True)
def project(site: Site) -> None:
    """`review`: the lab's to edit, for readers to read; a rule knows the animals."""
    with recording(site.app.state.service.database, "ann") as book:
        made = book.project("review")
        roles = {"@ann": "maintainer", "lab": "editor", "readers": "viewer"}
        for group, role in roles.items():
            made.groups.append(ProjectGroup(group=group, role=role))
        book.session.flush()
        fields = {"animal": "subject__label", "sample__stain": "HE"}
        rule = FileRule(project_id=made.id, name="animals", fields=fields)
        rule.pattern = r"(?P<animal>m\d+)"
        book.add(rule)


@pytest.fixture(scope="module")
def workers(site: Site) -> Iterator[Workers]:
    with Workers(site.home) as made:
        yield made


SEEDS = iter(range(1000))


def _wait(site: Site, workers: Workers, folder: Path, *names: str) -> list[str]:
    """Let scans of these names wait; their ids."""
    paths = []
    for name in names:
        values = np.random.default_rng(next(SEEDS)).integers(0, 99, (8, 9, 10))
        path = folder / f"{name}.nii"
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)), path)
        paths.append(str(path))
    wishes = Wishes("review", "bob", received_from="the scanner")
    database = site.app.state.service.database
    report = collect(database, site.home, paths, wishes, workers=workers)
    assert report.counts["waiting"] == len(names), report.entries
    with site.client("bob") as client:
        items = client.get("inbox").json()["items"]
    ids = {item["title"].removesuffix(".nii"): item["id"] for item in items}
    return [ids[name] for name in names]


def _titles(client: httpx.Client, **words: str) -> list[str]:
    return [one["title"] for one in client.get("inbox", params=words).json()["items"]]


def test_an_item_is_let_in_as_its_reviewer_says(
    site: Site, workers: Workers, tmp_path: Path, bob: httpx.Client
) -> None:
    (key,) = _wait(site, workers, tmp_path, "m07")
    item = bob.get(f"inbox/{key}").json()
    assert item["rule"] == "animals"
    assert item["proposal"] == {"subject__label": "m07", "sample__stain": "HE"}
    assert item["received_from"] == "the scanner"
    assert "path" not in item
    assert str(site.home.root) not in bob.get("inbox").text
    assert item["thumbnail"].endswith(f"inbox/{key}/thumbnail")
    picture = bob.get(f"inbox/{key}/thumbnail")
    assert picture.headers["content-type"] == "image/jpeg"
    said = {"proposal": {"subject__label": "m08", "sample__name": "slice"}}
    assert bob.patch(f"inbox/{key}", json=said).status_code == 200
    wrong = bob.patch(f"inbox/{key}", json={"proposal": {"subject__secret": "x"}})
    assert wrong.status_code == 422
    assert bob.post("inbox/accept", json={"items": [key]}).status_code == 202
    assert bob.get(f"inbox/{key}").json()["coming"]
    intake.do_all(site.app.state.service.database, site.home)
    assert bob.get(f"inbox/{key}").json()["state"] == "accepted"
    words = {"project__name": "review", "subject__label": "m08", "sample__stain": "HE"}
    assert len(bob.get("images", params=words).json()["items"]) == 1
    again = bob.post("inbox/accept", json={"items": [key]})
    assert again.status_code == 422
    assert "accepted already" in again.json()["detail"]


def test_several_are_kept_out_and_that_is_undone(
    site: Site, workers: Workers, tmp_path: Path, bob: httpx.Client
) -> None:
    keys = _wait(site, workers, tmp_path, "m11", "m12", "m13")
    said = {"items": keys[:2], "reason": "the wrong animal"}
    assert bob.post("inbox/reject", json=said).status_code == 200
    assert "m11.nii" not in _titles(bob)
    assert {"m11.nii", "m12.nii"} <= {*_titles(bob, state="rejected")}
    item = bob.get(f"inbox/{keys[0]}").json()
    assert (item["reason"], item["decided_by"]) == ("the wrong animal", "bob")
    assert bob.post(f"inbox/{keys[0]}/restore").json()["state"] == "pending"
    assert bob.get(f"inbox/{keys[0]}/thumbnail").status_code == 200
    bob.post("inbox/accept", json={"items": [keys[0]]})
    intake.do_all(site.app.state.service.database, site.home)
    assert bob.get(f"inbox/{keys[0]}").json()["state"] == "accepted"
    # After a week the files are gone, and that is said.
    forget(site.app.state.service.database, site.home, -intake.UNDO)
    answer = bob.post(f"inbox/{keys[1]}/restore")
    assert answer.status_code == 422
    assert "send it again" in answer.json()["detail"]


def test_of_several_all_are_decided_or_none(
    site: Site, workers: Workers, tmp_path: Path, bob: httpx.Client
) -> None:
    (key,) = _wait(site, workers, tmp_path, "m21")
    for act in ("accept", "reject"):
        answer = bob.post(f"inbox/{act}", json={"items": [key, "absent"]})
        assert answer.status_code == 404
    assert bob.get(f"inbox/{key}").json()["state"] == "pending"
    assert not bob.get(f"inbox/{key}").json()["coming"]


def test_a_rule_is_tried_without_a_change(
    site: Site, workers: Workers, tmp_path: Path, bob: httpx.Client
) -> None:
    (key,) = _wait(site, workers, tmp_path, "x31")
    said = {
        "project": "review",
        "pattern": r"^x(?P<n>\d+)",
        "fields": {"subject__label": "animal {n}"},
    }
    rows = bob.post("inbox/try", json=said).json()["items"]
    told = {row["title"]: row["fields"] for row in rows}
    assert told["x31.nii"] == {"subject__label": "animal 31"}
    assert [one for one in told.values() if one is None]
    assert bob.get(f"inbox/{key}").json()["proposal"] == {}
    for wrong in ({"pattern": "("}, {"fields": {"secret": "x"}}, {"pattern": "(a+)+$"}):
        assert bob.post("inbox/try", json=said | wrong).status_code == 422


def test_only_editors_of_the_project_see_what_waits(
    site: Site, workers: Workers, tmp_path: Path, dan: httpx.Client
) -> None:
    (key,) = _wait(site, workers, tmp_path, "m41")
    with site.client("stranger") as stranger:
        for client in (dan, stranger):
            assert client.get("inbox").json()["items"] == []
            said = {"items": [key]}
            for answer in (
                client.get(f"inbox/{key}"),
                client.get(f"inbox/{key}/thumbnail"),
                client.patch(f"inbox/{key}", json={"proposal": {}}),
                client.post("inbox/accept", json=said),
                client.post("inbox/reject", json=said),
                client.post(f"inbox/{key}/restore"),
            ):
                assert answer.status_code == 404, answer.text
        rule = {"project": "review", "pattern": "x", "fields": {}}
        assert dan.post("inbox/try", json=rule).status_code == 403
        assert stranger.post("inbox/try", json=rule).status_code == 404
