"""Batches and flows on SQLite and PostgreSQL: the same runs, results and numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import map_query
from theatrum.catalog.flows import run_flow
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording

from hub.durable.database import Database
from tests.extensions.catalog.engine.study import brightest, picky
from tests.extensions.catalog.flows.test_keeping import chain, folders, made


def filled(database: Database, folder: Path) -> Catalog:
    with recording(database, "erika") as book:
        project = book.project("mice")
        for at in range(3):
            path = folder / f"{at}.nii"
            values = np.full((5, 4, 3), at, np.int16)
            values[0, 0, :] = (1000 + at, 900, 800)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            book.image(
                project, path=str(path), name=f"scan-{at}", kind="original",
                modality="MR",
            )  # fmt: skip
    return Catalog(LocalBackend(database, folder / "files", "erika"))


def test_runs_results_and_numbers_are_the_same_on_both(
    database: Database, tmp_path: Path
) -> None:
    catalog = filled(database, tmp_path)
    images = catalog.images.filter(kind="original")
    first = map_query(images, brightest, engine="sync").wait(60)
    found = map_query(images, brightest, engine="sync").wait(60)
    assert (first.counts, found.counts) == ({"succeeded": 3}, {"cached": 3})
    for batch in (first, found):
        assert sorted(one["result"] for one in batch.numbers()) == [1000, 1001, 1002]
    odd = map_query(images, picky, engine="sync").wait(60)
    assert odd.counts == {"succeeded": 2, "failed": 1}
    odd.retry("sync").wait(60)
    assert odd.counts == {"succeeded": 2, "failed": 1}
    assert [one["attempt"] for one in odd.failures] == [2]


def test_a_flow_keeps_what_it_is_for_on_both(
    database: Database, tmp_path: Path
) -> None:
    catalog = filled(database, tmp_path)
    images = catalog.images.filter(kind="original")
    batch = run_flow(images, chain(), engine="sync").wait(120)
    assert made(batch) == ["clip-percentile"] * 3 + ["project"] * 3
    assert folders(catalog) == 6
    again = run_flow(images, chain(how="mean"), engine="sync").wait(120)
    assert again.counts == {"cached": 3, "succeeded": 9}
    assert "gauss (not kept)" in str(again.results.first().lineage)
