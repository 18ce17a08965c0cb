"""One running catalogue for the tests of this folder, with two projects."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import nibabel
import numpy as np
import pytest
from theatrum.catalog.record import recording
from theatrum.catalog.tables import ProjectGroup

from hub.settings import load
from services.catalog import worker
from tests.services.catalog.running import Site, catalogue

PEOPLE = {
    "ann": ["researchers"],
    "bob": ["lab"],
    "eve": [],
    "stranger": ["researchers"],
    "dan": ["readers"],
    "flood": [],
    "pix": [],
    "wes": [],
    "root": [],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`mri` is ann's to maintain, the lab's to edit, for readers to read; `secret`
    belongs to the stranger alone."""
    with catalogue(tmp_path_factory.mktemp("catalogue"), PEOPLE) as running:
        fill(running)
        yield running


def fill(site: Site) -> None:
    """Write the two projects."""
    with recording(site.app.state.service.database, "ann") as book:
        for name, roles in {
            "mri": {"@ann": "maintainer", "lab": "editor", "readers": "viewer"},
            "secret": {"@stranger": "maintainer"},
        }.items():
            project = book.project(name, title=name.upper())
            project.groups.extend(
                ProjectGroup(group=group, role=role) for group, role in roles.items()
            )
            book.session.flush()
            animal = book.experiment(project, f"Animal {name}")
            subject = book.subject(project, f"{name}-1", diagnosis="glioma")
            sample = book.sample(
                project, f"{name} slide", experiment_id=animal.id, stain="HE"
            )
            run = book.run(project, node="by hand")
            for number in range(7):
                image = book.image(
                    project,
                    path=f"/nowhere/{name}/{number}.nii",
                    name=f"{name}-{number}",
                    modality="MR" if number % 2 else "CT",
                    subject_id=subject.id,
                    sample_id=sample.id,
                    px_x=1.0,
                    px_y=1.0,
                    px_z=None if number == 3 else 0.5 * number + 0.5,
                    channels=[{"index": 0, "name": "T1"}],
                )
            book.tag(image, "checked")
            book.roi(
                image, kind="box", geometry={"type": "Point", "coordinates": [1, 2]}
            )
            book.measurements(image, run, {"area": 3.0})


@pytest.fixture(scope="module")
def scans(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A project `work` of wes's with four scans, the last of which is none at all."""
    folder = tmp_path_factory.mktemp("work")
    with recording(site.app.state.service.database, "wes") as book:
        project = book.project("work")
        project.groups.append(ProjectGroup(group="@wes", role="maintainer"))
        project.groups.append(ProjectGroup(group="readers", role="viewer"))
        for number in range(4):
            path = folder / f"{number}.nii"
            values = np.full((4, 5, 6), number, np.int16)
            values[1:3] += 10
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            if number == 3:
                path.write_bytes(b"no scan")
            book.image(
                project, path=str(path), name=f"scan-{number}", modality="MR",
                px_x=1.0, px_y=1.0, px_z=1.0,
            )  # fmt: skip


@pytest.fixture
def wes(site: Site) -> Iterator[httpx.Client]:
    """Who maintains `work`."""
    with site.client("wes") as client:
        yield client


@pytest.fixture
def working(site: Site) -> Iterator[None]:
    """The worker, in a thread of the tests, without processes of its own."""
    settings = load(
        {"THEATRUM_HOME": str(site.home.root), "THEATRUM_CATALOG_ENGINE": "threads"}
    )
    stop = threading.Event()
    thread = threading.Thread(target=worker.work, args=(settings, stop))
    thread.start()
    yield
    stop.set()
    thread.join(60)


@pytest.fixture
def ann(site: Site) -> Iterator[httpx.Client]:
    """Who maintains `mri`."""
    with site.client("ann") as client:
        yield client


@pytest.fixture
def bob(site: Site) -> Iterator[httpx.Client]:
    """Who edits `mri`."""
    with site.client("bob") as client:
        yield client


@pytest.fixture
def dan(site: Site) -> Iterator[httpx.Client]:
    """Who reads `mri`."""
    with site.client("dan") as client:
        yield client
