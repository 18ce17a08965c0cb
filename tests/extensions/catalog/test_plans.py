"""Questions use the indexes that they were made for; figures are in `benchmarks/`."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from theatrum.catalog.connection import Catalog
from theatrum.catalog.database import open_database
from theatrum.catalog.local import LocalBackend

from benchmarks.catalog.query import fill, questions
from hub.durable.database import Database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    made = open_database(tmp_path_factory.mktemp("big"))
    fill(made, 3000)
    return made


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Catalog:
    return Catalog(LocalBackend(database, tmp_path, "erika"))


def plan(catalog: Catalog, database: Database, **asked: object) -> str:
    backend = catalog.backend
    assert isinstance(backend, LocalBackend)
    spec = catalog.images.filter(**asked).spec
    counted = backend.compiler.count(spec).compile(
        dialect=database.engine.dialect, compile_kwargs={"literal_binds": True}
    )
    with database.reading() as session:
        rows = session.execute(text(f"EXPLAIN QUERY PLAN {counted}"))
        return "\n".join(row.detail for row in rows)


@pytest.mark.parametrize(
    "asked",
    [
        {
            "sample__experiment__name__startswith": "Animal",
            "modality": "MR",
            "spacing__lte": 1.0,
        },
        {"channels__name": "DAPI"},
        {"acquisition__series_uid": "1.2.7"},
        {"tags": "good"},
        {"kv__dose__gte": 2},
        {"project__name": "big", "name": "image-7"},
    ],
    ids=str,
)
def test_a_question_walks_no_table_from_end_to_end(
    catalog: Catalog, database: Database, asked: dict[str, object]
) -> None:
    for line in plan(catalog, database, **asked).splitlines():
        # A scan of an index that holds all that is asked is no scan of the table, and
        # of samples and experiments there are few.
        few = line.startswith(("SCAN sample_", "SCAN experiment_"))
        assert few or not line.startswith("SCAN") or "COVERING INDEX" in line, line


def test_all_that_is_measured_is_answered(catalog: Catalog) -> None:
    for ask in questions(catalog).values():
        assert ask()
