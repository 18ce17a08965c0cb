"""The catalogue's store: who sees what, and files that change or go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from hub.home import Home
from hub.signin import Person
from services.catalog import store
from services.catalog.errors import BadNameError, ImageGoneError, NoSuchImageError
from services.catalog.models import Base
from services.catalog.thumbnails import thumbnail
from tests.slides import RGB_ODD, YCBCR, write_slide
from tile_server.errors import UnreadableSlide

STUDENT = Person("student1", "user", frozenset({"nbgrader-histo1"}))
STRANGER = Person("stranger", "user", frozenset())
GRADER = Person("histo1", "service", frozenset())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    home = Home(tmp_path / "home")
    home.prepare()
    engine = store.open_store(home)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_of_the_models(
    session: Session,
) -> None:
    made = inspect(session.connection())
    for name, table in Base.metadata.tables.items():
        columns = {column["name"] for column in made.get_columns(name)}
        assert columns == {column.name for column in table.columns}


def test_opening_the_store_again_keeps_what_is_in_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    with Session(store.open_store(home)) as first:
        store.ensure_collection(first, "slides", ["a"])
    with Session(store.open_store(home)) as second:
        assert store.ensure_collection(second, "slides").groups[0].group == "a"


def test_only_members_of_a_named_group_see_an_image(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides", ["nbgrader-histo1"])
    image = store.add_image(session, collection, write_slide(tmp_path / "a.svs", YCBCR))
    assert [one.id for one in store.visible(session, STUDENT)] == [image.id]
    assert store.visible(session, STRANGER) == []
    with pytest.raises(NoSuchImageError):
        store.find(session, STRANGER, image.id)


def test_a_courses_grader_sees_what_its_teachers_see(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides", ["formgrade-histo1"])
    image = store.add_image(session, collection, write_slide(tmp_path / "a.svs", YCBCR))
    assert store.find(session, GRADER, image.id) is image
    other = Person("histo2", "service", frozenset())
    with pytest.raises(NoSuchImageError):
        store.find(session, other, image.id)


def test_a_slide_that_is_added_twice_keeps_its_id(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides")
    path = write_slide(tmp_path / "a.svs", YCBCR)
    first = store.add_image(session, collection, path).id
    assert store.add_image(session, collection, path).id == first


def test_two_slides_of_one_name_get_two_names(session: Session, tmp_path: Path) -> None:
    collection = store.ensure_collection(session, "slides")
    names = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = write_slide(tmp_path / folder / "Größe 1.svs", YCBCR)
        names.append(store.add_image(session, collection, path).name)
    assert names == ["gr-e-1", "gr-e-1-2"]


def test_a_file_that_is_no_slide_is_not_registered(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides", ["nbgrader-histo1"])
    path = tmp_path / "a.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(UnreadableSlide, match=r"a\.svs"):
        store.add_image(session, collection, path)
    session.rollback()
    assert store.visible(session, STUDENT) == []


def test_a_replaced_file_gets_a_new_version_and_geometry(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides")
    path = write_slide(tmp_path / "a.svs", YCBCR)
    image = store.add_image(session, collection, path)
    before = image.version
    path.unlink()
    write_slide(path, RGB_ODD)
    store.refresh(session, image)
    assert image.version != before
    assert image.geometry["width"] == RGB_ODD.width


def test_a_missing_file_is_gone_and_its_entry_stays(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides", ["nbgrader-histo1"])
    path = write_slide(tmp_path / "a.svs", YCBCR)
    image = store.add_image(session, collection, path)
    path.unlink()
    with pytest.raises(ImageGoneError) as caught:
        store.refresh(session, image)
    assert str(tmp_path) not in str(caught.value)
    assert len(store.visible(session, STUDENT)) == 1


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "x" * 65, ".a"])
def test_a_collection_needs_a_plain_name(session: Session, name: str) -> None:
    with pytest.raises(BadNameError):
        store.ensure_collection(session, name)


def test_a_thumbnail_is_made_once_for_each_version(
    session: Session, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides")
    path = write_slide(tmp_path / "a.svs", YCBCR)
    image = store.add_image(session, collection, path)
    cache = tmp_path / "cache"
    made = thumbnail(cache, path, image.id, image.version, 64)
    path.unlink()
    assert thumbnail(cache, path, image.id, image.version, 64) == made
    with pytest.raises(ImageGoneError):
        thumbnail(cache, path, image.id, "newer", 64)
