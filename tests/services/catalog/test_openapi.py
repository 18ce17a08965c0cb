"""Whatever is asked of the interface, its answer is one that its document tells of.

Schemathesis makes requests from the OpenAPI document, half of them with ids that are
there, and looks at each answer: no 500, no status, type or shape that is not told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as told
from sqlalchemy import select
from theatrum.catalog.query.fields import RESOURCES, table_of
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import ProjectGroup

from tests.services.catalog.running import PREFIX, Site, catalogue

CHECKS = [
    not_a_server_error,
    told.status_code_conformance,
    told.content_type_conformance,
    told.response_schema_conformance,
    told.response_headers_conformance,
]
WHO = {"Authorization": "token ann"}
ENDLESS = {"/events"}
"""Answers that go on until one hangs up; `test_live.py` listens to them."""
LIKE_ALL = {"samples", "annotations", "runs"}
"""Resources whose generic routes stand for those of the others, in the short run."""
LAST = ("PATCH", "PUT", "DELETE")


@schemathesis.serializer("application/offset+octet-stream", "application/zip")
def _plain(_context: Any, value: Any) -> dict[str, Any]:
    """A body that is sent as it is."""
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A catalogue with a row of most kinds, in which nobody asks too often."""
    folder = tmp_path_factory.mktemp("asked")
    with catalogue(folder / "home", {"ann": ["researchers"]}) as site:
        clock = itertools.count(step=1000)
        site.app.state.service.limiter.clock = lambda: float(next(clock))
        with recording(site.app.state.service.database, "ann") as book:
            _fill(book, folder)
        _freeze(site)
        yield site


def _freeze(site: Site) -> None:
    """A version and a table, which have files."""
    with site.client("ann") as ann:
        said = {"project": "mri", "name": "v", "version": "1"}
        ann.post("versions", json=said | {"query": {"of": "images"}})
        ann.post("tables", json={"project": "mri", "name": "t", "columns": {"a": [1]}})


def _fill(book: Book, folder: Path) -> None:
    scan = folder / "scan.nii.gz"
    voxels = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), scan)
    project = book.project("mri")
    project.groups.append(ProjectGroup(group="@ann", role="maintainer"))
    subject = book.subject(project, "one")
    study = book.experiment(project, "Animal")
    sample = book.sample(project, "slide", experiment_id=study.id)
    run = book.run(project, node="by hand")
    # A step that ann's program has taken, and holds for as long as this takes.
    book.run(
        project,
        node="external",
        id="leased000000",
        state="waiting",
        engine_key="external:drawn",
        metrics={"holder": "ann/", "lease_until": 4e9, "gives": {"x": "number"}},
    )
    for path in (scan, folder / "gone.nii"):
        image = book.image(
            project,
            path=str(path),
            name=path.name,
            modality="MR",
            subject_id=subject.id,
            sample_id=sample.id,
            px_x=1.0,
            px_y=2.0,
            px_z=3.0,
            dims=list("zyx"),
            shape=[7, 6, 5],
            channels=[{"index": 0, "name": "T1"}],
        )
        book.tag(image, "checked")
        book.roi(image, kind="box", geometry={"type": "Point", "coordinates": [1, 2]})
        book.measurements(image, run, {"area": 3.0})


def _known(site: Site) -> dict[str, str]:
    """A key of each resource, where it has one."""
    keys = {}
    with site.app.state.service.database.reading() as session:
        for name in RESOURCES:
            columns = table_of(name).c
            if "id" in columns:
                found = session.scalars(select(columns.id).limit(1)).first()
                if found is not None:
                    keys[name] = str(found)
    return keys | {"leases": "leased000000"}


def _operations(site: Site) -> list[Any]:
    document = requests.get(
        f"{site.url}/api/v1/openapi.json",
        headers=WHO,
        timeout=30,
    ).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=site.url.removesuffix(PREFIX.rstrip("/")))
    found = [result.ok() for result in schema.get_all_operations()]
    # What takes away comes last, or nothing is left to ask about.
    return sorted(found, key=lambda one: one.method.upper() in LAST)


def _is_like_another(operation: Any) -> bool:
    doing, _, resource = operation.definition.raw.get("operationId", "").partition("_")
    generic = doing in {"list", "get", "make", "change", "delete"}
    return generic and resource in RESOURCES and resource not in LIKE_ALL


def _ask(site: Site, examples: int, seed: int | None) -> list[str]:
    """What was wrong with any answer, as sentences; without a seed of some routes."""
    faults: dict[str, str] = {}
    with requests.Session() as session:
        for operation in _operations(site):
            below = operation.path.removeprefix(f"{PREFIX}api/v1")
            short = seed is None and _is_like_another(operation)
            if below not in ENDLESS and not short:
                known = _known(site).get(below.split("/")[1])
                _ask_one(operation, known, session, examples, seed, faults)
    return list(faults.values())


def _ask_one(
    operation: Any,
    known: str | None,
    session: requests.Session,
    examples: int,
    seed: int | None,
    faults: dict[str, str],
) -> None:
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=seed is None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(), st.booleans())
    def ask(case: Any, there: bool) -> None:
        for name in ("key", "image_id"):
            if there and known and name in (case.path_parameters or {}):
                case.path_parameters[name] = known
        try:
            case.call_and_validate(
                session=session, headers=WHO, checks=CHECKS, timeout=120
            )
        except schemathesis.errors.FailureGroup as group:
            for fault in group.exceptions:
                key = f"{operation.label} {fault.title} {fault.message[:60]}"
                faults.setdefault(key, f"{operation.label}: {fault}\n{case!r}")

    ask()


def test_no_answer_is_a_500_and_none_is_undocumented(asked: Site) -> None:
    assert not _ask(asked, 3, None)


@pytest.mark.fuzz
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_answer_of_many_is_a_500_or_undocumented(asked: Site) -> None:
    assert not _ask(asked, 100, 1)
