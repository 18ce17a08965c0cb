"""A small study with files: an original scan, what was made of it and said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from theatrum.catalog import arrays
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.facts import facts_of_array
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording

AFFINE = np.array([[1, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
SHAPE = (8, 6, 4)  # x, y, z


def study(folder: Path) -> Catalog:
    """A catalogue with the project `mice`, and `secret` beside it."""
    catalog = connect(folder / "home", user="erika")
    backend = catalog.backend
    assert isinstance(backend, LocalBackend)
    for project, label in (("mice", "m-1"), ("secret", "hidden-1")):
        path = folder / "private place" / project / "scan.nii"
        path.parent.mkdir(parents=True)
        voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)
        with recording(backend.database, "erika") as book:
            owner = book.project(project, licence="CC-BY-4.0", title=project.title())
            experiment = book.experiment(owner, "Animal 1")
            group = book.group(owner, "controls", experiment, is_control=True)
            subject = book.subject(owner, label, group_id=group.id, sex="F")
            visit = book.visit(subject, "day 2")
            sample = book.sample(owner, "head", subject_id=subject.id)
            file = book.source_file(
                owner,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                uri=str(path),
                size=path.stat().st_size,
            )
            acquisition = book.acquisition(
                owner, series_uid=f"1.2.{len(project)}", modality="MR",
                description="T1 MPRAGE", subject_id=subject.id, visit_id=visit.id,
                protocol={"echo_time_ms": 2.5, "repetition_time_ms": 2300.0},
            )  # fmt: skip
            book.members(acquisition, [{"source_file_id": file.id}])
            facts = facts_of_array(arrays.open_array(path)) | {"modality": "MR"}
            image = book.image(
                owner, path=str(path), name="scan", acquisition_id=acquisition.id,
                sample_id=sample.id, subject_id=subject.id, format="nifti",
                channels=[{"name": "T1"}], **facts,
            )  # fmt: skip
            book.tag(image, "good")
            book.value(image, "dose", 2.5, unit="Gy")
            label_row = book.label("tumour", project_id=owner.id)
            geometry = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4]]]}
            run = book.run(owner, node="by hand", params={"level": 3})
            book.input(run, "image", image)
            roi = book.roi(
                image, kind="polygon", geometry=geometry, label_id=label_row.id, run=run
            )
            book.comment(roi, "here")
            book.measurements(image, run, {"area": 8.0}, roi=roi)
        scan = catalog.images.get(name="scan", project=project)
        scan.derive("upper half", lambda array: array.isel(z=slice(2, None))).save(
            "half"
        )
    return catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """The study."""
    made = study(tmp_path / "here")
    yield made
    made.close()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[[str], Catalog]]:
    """Makes empty catalogues by name."""
    opened: list[Catalog] = []

    def make(name: str) -> Catalog:
        opened.append(connect(tmp_path / name, user="karl"))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
