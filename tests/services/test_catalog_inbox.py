"""What services hand in to the catalogue: one image and one result, whatever breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Image, Result

from hub.home import Home
from hub.scopes import named
from hub.signin import Person
from services.catalog import inbox, store
from services.catalog.api.rights import READ, Right
from tests.slides import YCBCR, write_slide
from tile_server.probing import Prober, ProbeSettings

READS = frozenset(named("catalog:read"))
TEACHER = Person("teacher", "user", frozenset({"teachers"}), READS)
STRANGER = Person("stranger", "user", frozenset({"others"}), READS)
MARKS = {"type": "FeatureCollection", "features": []}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    made.inbox.mkdir()
    write_slide(made.images / "one.svs", YCBCR)
    return made


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    opened = store.open_store(home)
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(ProbeSettings(workers=1)) as prober:
        yield prober


def _hand_in(home: Home, run: str = "job1", **changed: Any) -> Path:
    request = {
        "format": 1,
        "collection": "cases",
        "file": "one.svs",
        "title": "Case",
        "result": {
            "run": run,
            "app": "ki67",
            "node": "ki67",
            "node_version": "1.0.0",
            "node_digest": "d",
            "title": "Index",
            "numbers": {"index": 12.5},
            "marks": MARKS,
            "created": "2026-01-02T03:04:05+00:00",
        },
        **changed,
    }
    path = home.inbox / f"{run}.json"
    staging = home.inbox / f".{run}"
    staging.write_text(json.dumps(request))
    staging.replace(path)
    return path


def _count(engine: Engine, table: type[Image | Result]) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_an_image_and_its_result_are_taken_in(
    home: Home, engine: Engine, prober: Prober
) -> None:
    request = _hand_in(home)
    assert inbox.take_in(engine, home, prober) == 1
    assert not request.exists()
    with Session(engine) as session:
        (image,) = session.scalars(select(Image)).all()
        (result,) = store.results_of(session, image)
        assert result.numbers == {"index": 12.5}


def test_what_is_handed_in_again_is_still_one_image_and_one_result(
    home: Home, engine: Engine, prober: Prober
) -> None:
    for _ in range(3):
        _hand_in(home)
        inbox.take_in(engine, home, prober)
    assert (_count(engine, Image), _count(engine, Result)) == (1, 1)


def test_an_image_without_its_result_gets_it_at_the_next_look(
    home: Home, engine: Engine, prober: Prober
) -> None:
    # As a catalogue leaves it that is killed between the two.
    with Session(engine) as session:
        cases = store.ensure_collection(session, "cases")
        store.add_image(session, cases, home.images / "one.svs", prober=prober)
    _hand_in(home)
    inbox.take_in(engine, home, prober)
    assert (_count(engine, Image), _count(engine, Result)) == (1, 1)


def test_two_runs_on_one_slide_are_one_image_with_two_results(
    home: Home, engine: Engine, prober: Prober
) -> None:
    _hand_in(home)
    _hand_in(home, "job2")
    inbox.take_in(engine, home, prober)
    assert (_count(engine, Image), _count(engine, Result)) == (1, 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"file": "../catalog/theatrum.sqlite"},
        {"file": "/etc/passwd"},
        {"file": "missing.svs"},
        {"collection": "No Name"},
        {"format": 2},
        {"more": 1},
    ],
    ids=["outside", "absolute", "missing", "name", "format", "unknown"],
)
def test_a_request_that_cannot_be_taken_in_is_set_aside(
    home: Home, engine: Engine, prober: Prober, changed: dict[str, Any]
) -> None:
    request = _hand_in(home, **changed)
    assert inbox.take_in(engine, home, prober) == 0
    assert request.with_suffix(".refused").exists()
    assert (_count(engine, Image), _count(engine, Result)) == (0, 0)


def test_only_who_may_see_the_collection_finds_image_and_result(
    home: Home, engine: Engine, prober: Prober
) -> None:
    _hand_in(home)
    inbox.take_in(engine, home, prober)
    with Session(engine) as session:
        store.ensure_collection(session, "cases", ["teachers"])
        (image,) = session.scalars(select(Image))
        assert Right(TEACHER, READ).projects(session) == {image.project.name}
        assert Right(STRANGER, READ).projects(session) == frozenset()


def test_what_comes_while_the_catalogue_runs_is_taken_in(
    home: Home, engine: Engine, prober: Prober
) -> None:
    gone = threading.Event()
    with inbox.watched(engine, home, prober):
        request = _hand_in(home)
        for _ in range(600):
            if not request.exists():
                break
            gone.wait(0.05)
    assert _count(engine, Result) == 1
