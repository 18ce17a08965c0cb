"""How long questions to a catalogue of 100 000 images take (T2: below 200 ms).

    python -m benchmarks.catalog.query [--images 100000] [--postgres URL]

The catalogue is made in a temporary folder: 50 experiments, 5 000 samples, an
acquisition for each image, two channels for every fifth. Each figure is the median of
nine, with the smallest and the largest; the first question of a process, which also
plans, is shown by itself. Beside it stands the same condition as Python over all rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text
from theatrum.catalog.connection import Catalog
from theatrum.catalog.database import open_database
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.text import reindex
from theatrum.catalog.tables import (
    Acquisition,
    Channel,
    Experiment,
    Image,
    Project,
    Sample,
)

from hub.durable.database import Database

AT_ONCE = 5000
MODALITIES = ("MR", "CT", "FM", "SM")
MAKERS = ("Siemens", "Philips", "GE")


def fill(database: Database, images: int, *, words: bool = True) -> None:
    """Write a catalogue of that many images."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    samples = max(images // 20, 1)
    with database.writing() as session:
        project = Project(name="big")
        session.add(project)
        session.flush()
        common = {"project_id": project.id, "created_at": moment, "updated_at": moment}

        def write(table: Any, row: Callable[[int], dict[str, Any]], count: int) -> None:
            for begin in range(0, count, AT_ONCE):
                numbers = range(begin, min(begin + AT_ONCE, count))
                session.execute(insert(table), [row(one) for one in numbers])

        write(
            Experiment,
            lambda n: (
                common
                | {"id": f"e{n}", "name": f"{'Animal' if n % 10 == 0 else 'Plant'} {n}"}
            ),
            50,
        )
        write(
            Sample,
            lambda n: (
                common
                | {"id": f"s{n}", "name": f"sample {n}", "experiment_id": f"e{n % 50}"}
            ),
            samples,
        )
        write(
            Acquisition,
            lambda n: (
                common
                | {
                    "id": f"a{n}",
                    "modality": MODALITIES[n % 4],
                    "manufacturer": MAKERS[n % 3],
                    "series_uid": f"1.2.{n}",
                }
            ),
            images,
        )
        write(
            Image,
            lambda n: (
                common
                | {
                    "id": f"i{n}",
                    "name": f"image-{n}",
                    "title": f"Image {n}",
                    "path": f"/images/{n}",
                    "acquisition_id": f"a{n}",
                    "sample_id": f"s{n % samples}",
                    "modality": MODALITIES[n % 4],
                    "spacing": (n % 40) / 10,
                    "px_x": (n % 40) / 10,
                    "attrs": {"age": n % 90},
                }
            ),
            images,
        )
        write(
            Channel,
            lambda n: {
                "id": f"c{n}",
                "image_id": f"i{n // 2 * 5}",
                "index": n % 2,
                "name": ("DAPI", "GFP")[n % 2],
            },
            images // 5 * 2,
        )
        if words:
            reindex(session)
        session.execute(text("ANALYZE"))


def questions(catalog: Catalog) -> dict[str, Callable[[], Any]]:
    """What is measured."""
    animals = catalog.images.filter(
        sample__experiment__name__startswith="Animal",
        modality="MR",
        spacing__lte=1.0,
    )
    by_maker = catalog.images.filter(
        acquisition__manufacturer="Philips",
        sample__experiment__name__startswith="Animal",
    )
    return {
        "T2: filter + count over two joins (sample, experiment)": animals.count,
        "two relations side by side, counted": by_maker.count,
        "first of the same": animals.first,
        "20 of the same, sorted by spacing": lambda: [
            *animals.order_by("-spacing")[:20]
        ],
        "to-many: channels__name, counted": catalog.images.filter(
            channels__name="DAPI"
        ).count,
        "exclude over two joins, counted": catalog.images.exclude(
            sample__experiment__name__startswith="Animal"
        ).count,
        "facets: modality and maker of all": lambda: catalog.images.facets(
            "modality", "acquisition__manufacturer"
        ),
        "JSON path: attrs__age__gte, counted": catalog.images.filter(
            attrs__age__gte=80
        ).count,
        "search: two words, counted": catalog.images.search("animal siemens").count,
    }


def measure(ask: Callable[[], Any]) -> tuple[float, list[float]]:
    """Milliseconds of the first time, and of nine more."""
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
    return times[0], times[1:]


def by_hand(catalog: Catalog) -> int:
    """The same condition over all rows, as somebody without relations would."""
    experiments = {
        one["id"]: one["name"] for one in catalog.experiments.values("id", "name")
    }
    samples = {
        one["id"]: one["experiment_id"]
        for one in catalog.samples.values("id", "experiment_id")
    }
    rows = catalog.images.values("sample_id", "modality", "spacing")
    return sum(
        row["modality"] == "MR"
        and row["spacing"] <= 1.0
        and experiments[samples[row["sample_id"]]].startswith("Animal")
        for row in rows
    )


def main() -> None:
    """Print a line for each question."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--postgres", help="the address of an empty database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(options.postgres or folder)
        begin = time.perf_counter()
        fill(database, options.images)
        print(f"{options.images} images written in {time.perf_counter() - begin:.1f} s")
        catalog = Catalog(LocalBackend(database, Path(folder), "benchmark"))
        for name, ask in questions(catalog).items():
            first, times = measure(ask)
            print(
                f"{name:60s} {statistics.median(times):8.1f} ms "
                f"({min(times):.1f}..{max(times):.1f}; first {first:.1f})"
            )
        begin = time.perf_counter()
        found = by_hand(catalog)
        print(
            f"T2 by hand over all rows: {(time.perf_counter() - begin) * 1000:.0f} ms"
        )
        query = questions(catalog)
        assert (
            query["T2: filter + count over two joins (sample, experiment)"]() == found
        )
        database.close()


if __name__ == "__main__":
    main()
