"""Invocations bent along their own schema: never a 500, and no job from a bad one.

Each case is a lawful body with up to three members changed at places that the schema
names: left out, of another type, beyond its bounds, of a shape nobody has heard of. The
schema then says whether the case is bad, and each case has a slide of its own, so that
a job is traced to the body that made it. Seeded: a case is found again by its number.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pathology_server import PathologyServer, Viewer, synthetic_slide
from tests.pathology_server.schemas import document, schema_problem

from .running_site import Site

SCHEMAS = {
    "create": "Create",
    "modify": "Modify",
    "delete": "Delete",
    "cancel": "Cancel",
    "newImageFiles": "ImageNotification",
}
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**70),
    1e308,
    0.5,
    "",
    "..",
    "a\0b",
    "\ud800",
    "x" * 70_000,
    "../../etc/passwd",
    "' OR 1=1 --",
    [],
    [[]],
    {},
    {"x": {}},
    [{"x": 0.1, "y": 0.2}] * 3,
    float("nan"),
    float("inf"),
)
SQUARE = {"points": [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.1}, {"x": 0.2, "y": 0.2}]}
# Made anew at each call, and asked for at each step.
DEFINITIONS: dict[str, Any] = document(strict=True)["$defs"]
INPUTS: tuple[dict[str, Any], ...] = (
    {"type": "wholeSlide"},
    {"type": "wholeSlide", "content": None},
    {"type": "multiArea", "content": {"polygons": [SQUARE, SQUARE]}},
    {
        "type": "taggedPolygon",
        "content": {"polygon": SQUARE, "tags": ["a", "b"], "tagIndex": 1},
    },
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site without a worker, whose pathology server remembers little."""
    with PathologyServer(keep_requests=100) as server, Site(tmp_path, server) as made:
        made.serve()
        yield made


def _places(schema: dict[str, Any], body: Any, at: tuple[Any, ...] = ()) -> Any:
    """Each place of a body that its schema speaks of."""
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    if at:
        yield at
    for branch in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(branch, ()):
            yield from _places(one, body, at)
    if isinstance(body, dict):
        for name, one in schema.get("properties", {}).items():
            if name in body:
                yield from _places(one, body[name], (*at, name))
    if isinstance(body, list) and isinstance(schema.get("items"), dict):
        for number, one in enumerate(body):
            yield from _places(schema["items"], one, (*at, number))


def _bent(dice: random.Random, schema: str, body: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(body)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        places = sorted(
            set(_places({"$ref": f"#/$defs/{schema}"}, body)), key=lambda one: str(one)
        )
        if not places:
            break
        place = dice.choice(places)
        holder: Any = body
        for step in place[:-1]:
            holder = holder[step]
        kind = dice.randrange(4)
        if kind == 0 and isinstance(holder, dict):
            del holder[place[-1]]
        elif kind == 1 and isinstance(holder, dict):
            holder[f"unheard {dice.randrange(9)}"] = dice.choice(ODD)
        else:
            holder[place[-1]] = copy.deepcopy(dice.choice(ODD))
    return body


def _body(dice: random.Random, viewer: Viewer, slide_id: str) -> tuple[str, Any]:
    action = dice.choice(["create"] * 4 + list(SCHEMAS))
    more: dict[str, Any] = {}
    if action == "create":
        more = {"input": copy.deepcopy(dice.choice(INPUTS))}
    elif action in {"modify", "delete"}:
        more = {"input": _stored(slide_id)}
    elif action == "newImageFiles":
        more = {"imageInfo": copy.deepcopy(_INFO) | {"id": slide_id}}
    return action, _bent(dice, SCHEMAS[action], viewer.body(action, slide_id, more))


def _stored(slide_id: str) -> dict[str, Any]:
    item = {
        "style": {"strokeStyle": "#FFA500", "fillStyle": None, "size": 2},
        "polygons": [SQUARE],
        "polylines": [],
        "labels": [{"location": {"x": 0.5, "y": 0.0}, "label": "a"}],
    }
    return {
        "id": 987_654_321,
        "versionId": "1",
        "slideId": slide_id,
        "displayResult": "a",
        "displayProperties": {"a": "b"},
        "applicationVersion": "1",
        "attachments": [],
        "data": {"context": {}, "result": {"type": "primitive", "content": [item]}},
    }


_INFO: dict[str, Any] = {
    "id": "",
    "isStreamable": True,
    "imageSize": {"width": 320, "height": 200},
    "tileSize": {"width": 256, "height": 256},
    "micronsPerPixel": 0.25,
    "focalPlanes": [{"id": "0", "offsetUm": 0.0}],
    "opticalPaths": [],
    "storedTileFormat": {"mimeType": "image/jpeg", "extension": "jpg"},
    "availableTileFormats": [{"mimeType": "image/jpeg", "extension": "jpg"}],
    "fileFormat": {"mimeType": "application/dicom"},
    "staining": {"displayName": "HE"},
    "block": {"displayName": "A 1"},
}


def _is_bad(action: str, body: dict[str, Any]) -> bool:
    """Whether no job may come of a body; extra and odd slide info is told, not used."""
    said = body.get("action")
    if said is None and action == "newImageFiles":
        # Absent or null: old servers leave it out on the notifications' own route.
        said = action
        body = {**body, "action": said}
    if not isinstance(said, str) or said not in SCHEMAS:
        return True
    judged = dict(body)
    if said == "newImageFiles" and isinstance(judged.get("imageInfo"), dict):
        judged["imageInfo"] = {**_INFO, "id": "x"}
        judged.pop("input", None)
    return schema_problem(SCHEMAS[said], judged) is not None


def _fuzz(site: Site, cases: int, seed: int) -> None:
    viewer = site.viewer("region")
    model = synthetic_slide("model", width=320, height=200)
    names = [f"fuzz-{number}" for number in range(cases)]
    for name in names:
        site.server.add(dataclasses.replace(model, slide_id=name))
    statuses: Counter[int] = Counter()
    bad: set[str] = set()
    refused: set[str] = set()
    client = httpx.Client(timeout=30)

    def one(numbered: tuple[int, str]) -> None:
        number, name = numbered
        # A seeded generator repeats a case; nothing is kept secret by it.
        dice = random.Random(seed * 1_000_000 + number)  # noqa: S311
        action, body = _body(dice, viewer, name)
        route = "/imagenotification" if action == "newImageFiles" else ""
        text = json.dumps(body, ensure_ascii=True)
        answer = client.post(f"{site.url}/apps/region{route}", content=text)
        statuses[answer.status_code] += 1
        assert answer.status_code != 500, f"case {number} of seed {seed}: {text[:2000]}"
        if _is_bad(action, body):
            bad.add(name)
        if answer.status_code >= 400:
            refused.add(name)
            assert answer.json()["status"] == answer.status_code

    with client, ThreadPoolExecutor(4) as pool:
        list(pool.map(one, enumerate(names)))
    database = sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite")
    rows = database.execute(
        "SELECT slide_id FROM ia_job WHERE state != 'dead'"
    ).fetchall()
    database.close()
    made = {str(row[0]) for row in rows}
    print(dict(statuses), f"{len(bad)} bad, {len(made)} jobs")
    assert made & bad == set(), "a bad body made a job"
    assert made & refused == set(), "a refused body made a job"
    # The lawful ones among them did: the cases are not all bad for one silly reason.
    assert len(made) > cases / 20


def test_no_bent_invocation_is_an_error_of_ours_or_makes_a_job(site: Site) -> None:
    _fuzz(site, 400, seed=1)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(2, 12))
def test_none_of_fifty_thousand_bent_invocations_is_an_error_of_ours_or_makes_a_job(
    site: Site, seed: int
) -> None:
    """In ten parts, which may run one after the other or at once."""
    _fuzz(site, 5_000, seed=seed)
