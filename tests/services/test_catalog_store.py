"""The catalogue's store: who sees what, and files that change or go."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Base, Image

from hub.home import Home
from hub.scopes import named
from hub.signin import Person
from services.catalog import store
from services.catalog.api.rights import READ, Right
from services.catalog.errors import BadNameError, ImageGoneError
from services.catalog.thumbnails import thumbnail
from tests.slides import RGB_ODD, YCBCR, write_slide
from tile_server.errors import UnreadableSlide
from tile_server.probing import Prober, ProbeSettings
from tile_server.versions import file_version

READS = frozenset(named("catalog:read"))
STUDENT = Person("student1", "user", frozenset({"nbgrader-histo1"}), READS)
STRANGER = Person("stranger", "user", frozenset(), READS)
GRADER = Person("histo1", "service", frozenset(), READS)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    home = Home(tmp_path / "home")
    home.prepare()
    engine = store.open_store(home)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(ProbeSettings(workers=1)) as prober:
        yield prober


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


def test_only_members_of_a_named_group_see_a_collection(session: Session) -> None:
    collection = store.ensure_collection(session, "slides", ["nbgrader-histo1"])
    assert Right(STUDENT, READ).projects(session) == {collection.name}
    assert Right(STRANGER, READ).projects(session) == frozenset()


def test_a_courses_grader_sees_what_its_teachers_see(session: Session) -> None:
    collection = store.ensure_collection(session, "slides", ["formgrade-histo1"])
    assert Right(GRADER, READ).projects(session) == {collection.name}
    other = Person("histo2", "service", frozenset(), READS)
    assert Right(other, READ).projects(session) == frozenset()


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
    assert session.scalars(select(Image)).all() == []


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
    assert len(session.scalars(select(Image)).all()) == 1


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "x" * 65, ".a"])
def test_a_collection_needs_a_plain_name(session: Session, name: str) -> None:
    with pytest.raises(BadNameError):
        store.ensure_collection(session, name)


def test_a_thumbnail_is_made_once_for_each_version(
    session: Session, prober: Prober, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides")
    path = write_slide(tmp_path / "a.svs", YCBCR)
    image = store.add_image(session, collection, path)
    cache, named = tmp_path / "cache", (image.id, image.version)
    made = thumbnail(cache, prober, path, named, 64)
    path.unlink()
    assert thumbnail(cache, prober, path, named, 64) == made
    with pytest.raises(ImageGoneError):
        thumbnail(cache, prober, path, (image.id, "newer"), 64)


def test_thumbnails_of_every_size_are_kept_in_a_few_sizes(
    prober: Prober, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "a.svs", YCBCR)
    cache = tmp_path / "cache"
    for size in (16, 17, 64, 128, 200, 256, 700, 1024):
        jpeg = thumbnail(cache, prober, path, ("1", "v1"), size)
        with PIL.Image.open(io.BytesIO(jpeg)) as picture:
            assert max(picture.size) == min(size, YCBCR.width)
    assert sorted(file.name for file in cache.iterdir()) == [
        "1-v1-1024.jpg",
        "1-v1-128.jpg",
        "1-v1-256.jpg",
    ]


def test_thumbnails_of_an_older_version_go(prober: Prober, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", YCBCR)
    cache = tmp_path / "cache"
    for image_id, version in [("1", "v1"), ("2", "v1"), ("1", "v2")]:
        thumbnail(cache, prober, path, (image_id, version), 128)
    assert {file.name for file in cache.iterdir()} == {"1-v2-128.jpg", "2-v1-128.jpg"}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prober]:
    """A prober whose workers have a reader that some files crash, and some hold."""
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "sitecustomize.py").write_text(HOSTILE_READER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hostile"))
    with Prober(ProbeSettings(seconds=2.0, drawing_s=2.0, workers=1)) as prober:
        yield prober


HOSTILE_READER = """
import os, signal
import tile_server.readers as readers
real = readers.open_slide
def open_slide(path, **options):
    content = path.read_bytes()[:5]
    if content == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while content == b"hangs":
        pass
    return real(path, **options)
readers.open_slide = open_slide
"""


@pytest.mark.parametrize("content", ["crash", "hangs"])
def test_a_hostile_file_cannot_take_the_catalogue_down(
    session: Session, hostile: Prober, tmp_path: Path, content: str
) -> None:
    collection = store.ensure_collection(session, "slides", ["nbgrader-histo1"])
    path = write_slide(tmp_path / "a.svs", YCBCR)
    other = write_slide(tmp_path / "b.svs", YCBCR)
    image = store.add_image(session, collection, path, prober=hostile)
    path.write_text(content)
    with pytest.raises(UnreadableSlide, match=r"^a\.svs cannot be opened safely"):
        store.add_image(session, collection, path, prober=hostile)
    with pytest.raises(ImageGoneError):
        store.refresh(session, image, prober=hostile)
    named = image.id, file_version(path)
    with pytest.raises(ImageGoneError):
        thumbnail(tmp_path / "cache", hostile, path, named, 128)
    second = store.add_image(session, collection, other, prober=hostile)
    assert second.geometry["width"] == YCBCR.width
    assert session.scalars(select(Image)).all() == [image, second]


def test_the_catalogue_knows_the_label_image(
    session: Session, prober: Prober, tmp_path: Path
) -> None:
    collection = store.ensure_collection(session, "slides")
    path = write_slide(tmp_path / "a.svs", YCBCR)
    image = store.add_image(session, collection, path, prober=prober)
    assert image.geometry["associated"] == ["label", "macro", "thumbnail"]
