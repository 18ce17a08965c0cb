"""What is written to the catalogue: whole or not at all, once, and told."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from theatrum.catalog.errors import BadRecord, NoHuman
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import (
    Channel,
    Event,
    Image,
    ImageText,
    Project,
    Run,
    RunOutput,
    SourceFile,
)

from hub.durable.database import Database

SHA = "a" * 64


def _registered(book: Book) -> Image:
    project = book.project("mice", title="Mice")
    file = book.source_file(project, sha256=SHA, uri="/in/a.tif", size=9)
    experiment = book.experiment(project, "Animal 1")
    sample = book.sample(project, "slide 3", experiment_id=experiment.id, stain="HE")
    acquisition = book.acquisition(project, series_uid="1.2.3", modality="FM")
    book.members(acquisition, [{"source_file_id": file.id, "instance_uid": "1"}])
    return book.image(
        project, path="/in/a.tif", name="Slide 3!", sample_id=sample.id,
        acquisition_id=acquisition.id, px_x=0.001, px_y=0.002,
        channels=[{"name": "DAPI"}, {"name": "GFP", "emission_nm": 509.0}],
    )  # fmt: skip


def test_registering_twice_makes_one_of_each(database: Database) -> None:
    counts = []
    for _ in range(2):
        with recording(database, "erika") as book:
            image = _registered(book)
        with database.reading() as session:
            counts.append(
                [
                    session.scalar(select(func.count()).select_from(table))
                    for table in (Project, SourceFile, Image, Channel, Event)
                ]
            )
    assert counts[0] == counts[1]
    assert counts[0][:4] == [1, 1, 1, 2]
    assert (image.name, image.title, image.spacing) == ("slide-3", "Slide 3!", 0.002)


def test_a_block_that_fails_writes_nothing(database: Database) -> None:
    def failing() -> None:
        with recording(database, "erika") as book:
            _registered(book)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    with database.reading() as session:
        assert session.scalars(select(Project)).all() == []
        assert session.scalars(select(Event)).all() == []


def test_a_run_without_a_human_is_refused(database: Database) -> None:
    with pytest.raises(NoHuman), recording(database, ""):
        pass
    with recording(database, "erika") as book:
        project = book.project("p")
        with pytest.raises(NoHuman):
            book.run(project, node="x", requested_by="")
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(Run(project_id=1, requested_by=""))


def test_what_is_derived_needs_the_run_that_made_it(database: Database) -> None:
    with recording(database, "erika") as book:
        image = _registered(book)
        project = book.project("mice")
        with pytest.raises(BadRecord, match="run="):
            book.image(project, path="/out/m.zarr", name="mask", kind="label")
        run = book.run(project, node="threshold", params={"level": 3})
        book.input(run, "image", image)
        mask = book.image(
            project, path="/out/m.zarr", name="mask", kind="label", run=run
        )
        assert mask.run_id == run.id
        other = book.run(project, node="threshold")
        with pytest.raises(BadRecord, match="another row"):
            book.output(other, "image", mask)
    with database.reading() as session:
        outputs = session.scalars(select(RunOutput)).all()
        assert [(one.object_id, one.run_id) for one in outputs] == [(mask.id, run.id)]


def test_two_images_of_one_name_get_two_names(database: Database) -> None:
    with recording(database, "erika") as book:
        project = book.project("p")
        names = [
            book.image(project, path=f"/{i}.tif", name="brain").name for i in range(3)
        ]
    assert names == ["brain", "brain-2", "brain-3"]


def test_a_misspelt_column_is_named_with_its_like(database: Database) -> None:
    with recording(database, "erika") as book:
        image = _registered(book)
        with pytest.raises(BadRecord, match="modality"):
            book.change(image, modalty="MR")


def test_the_feed_tells_names_of_columns_and_never_their_contents(
    database: Database,
) -> None:
    with recording(database, "erika") as book:
        image = _registered(book)
    with recording(database, "max") as book:
        book.change(book.get(Image, image.id), description="secret words")
        book.tag(book.get(Image, image.id), "good")
    with database.reading() as session:
        events = session.scalars(select(Event).order_by(Event.seq)).all()
    assert [one.kind for one in events][:2] == ["project", "source_file"]
    changed = events[-2]
    assert (changed.op, changed.changed, changed.actor) == (
        "update", ["description"], "max",
    )  # fmt: skip
    assert changed.topic == f"image/{image.id}"
    assert not any("secret" in str(vars(one)) for one in events)


def test_an_images_words_follow_what_is_said_of_it(database: Database) -> None:
    def words() -> str:
        with database.reading() as session:
            return session.scalars(select(ImageText.body)).one()

    with recording(database, "erika") as book:
        image = _registered(book)
    assert "animal 1" in words()
    assert "dapi" in words()
    with recording(database, "erika") as book:
        image = book.get(Image, image.id)
        book.value(image, "Färbung", "Hämatoxylin")
        experiment = book.experiment(book.project("mice"), "Animal 1")
        book.change(experiment, description="Zebrafish")
    assert "farbung 0z0z0 hamatoxylin" in words()
    assert "zebrafish" in words()


def test_a_regions_box_follows_from_its_geometry(database: Database) -> None:
    with recording(database, "erika") as book:
        image = _registered(book)
        roi = book.roi(
            image,
            kind="polygon",
            geometry={"type": "Polygon", "coordinates": [[[1, 5], [9, 2], [4, 8]]]},
        )
    assert (roi.x0, roi.x1, roi.y0, roi.y1) == (1, 9, 2, 8)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_in_whatever_column(
    database: Database, number: float
) -> None:
    with recording(database, "erika") as book:
        image = _registered(book)
    for write in (
        lambda book, row: book.change(row, attrs={"a": [1, {"b": number}]}),
        lambda book, row: book.change(row, vmax=number),
        lambda book, row: book.value(row, "q", number),
        lambda book, row: book.roi(row, kind="point", score=number),
    ):
        with (
            pytest.raises(BadRecord, match="only finite numbers"),
            recording(database, "erika") as book,
        ):
            write(book, book.get(Image, image.id))
    with recording(database, "erika") as book:
        row = book.get(Image, image.id)
        assert (row.attrs, row.vmax) == ({}, None)
        # What a step of work found nobody can correct: it is told as it is.
        run = book.run(row.project_id, node="mean of nothing")
        (found,) = book.measurements(row, run, {"mean": number})
        assert (found.value, found.text) == (None, str(number))


def test_steps_are_kept_as_people_would_ask_for_them(database: Database) -> None:
    with recording(database, "erika") as book:
        project = book.project("mice")
        for at, step in enumerate((1.0000000252, 1.0000000000000664, 0.99999994)):
            affine = [[step, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
            image = book.image(project, path=f"/{at}", px_z=step, affine=affine)
            assert (image.px_z, image.spacing) == (1.0, 1.0)
            assert image.affine == affine
        image = book.image(project, path="/slide", px_x=0.00025051234)
        assert image.px_x == 0.0002505123
        book.change(image, px_x=0.1 + 0.2)
        assert image.px_x == 0.3
