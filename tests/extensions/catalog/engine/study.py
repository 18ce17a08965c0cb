"""A catalogue of small images in a folder, and nodes to run on them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.record import recording
from theatrum.node import Array, Context, Measure, node
from theatrum.node.arrays import File


def study(folder: Path, count: int, bad: int = 0, project: str = "mice") -> Catalog:
    """Make a catalogue of `count` volumes; the last `bad` of them cannot be read."""
    pictures = folder / f"files-{project}"
    pictures.mkdir(parents=True)
    catalog = connect(folder / "home", user="erika")
    with recording(catalog.backend.database, "erika") as book:
        made = book.project(project)
        for at in range(count):
            path = pictures / f"{at:04d}.nii"
            if at < count - bad:
                values = np.full((5, 4, 3), at, np.int16)
                values[0, 0, :] = (1000 + at, 900, 800)
                nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 2, 3, 1])), path)
            else:
                path.write_bytes(b"not an image")
            book.image(
                made,
                path=str(path),
                name=f"scan-{at:04d}",
                kind="original",
                modality="MR",
            )
    return catalog


@node(version="1.0.0", name="brightest")
def brightest(image: Array) -> Annotated[int, Measure(title="Brightest")]:
    """Tell the brightest voxel."""
    return int(image.max())


@node(version="1.0.0", name="counted")
def counted(image: Array, *, folder: str) -> Array:
    """Leave a mark each time that it runs, and give twice the image."""
    marks = Path(folder)
    name = str(image.name)
    (marks / f"{name}-{time.monotonic_ns()}-{os.getpid()}").touch()
    return image * 2


@node(version="1.0.0", name="waits")
def waits(image: Array, *, started: str, context: Context | None = None) -> int:
    """Work for a minute, looking whether it is still wanted."""
    context = context or Context()
    Path(started).touch()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        context.progress(0.5, "waiting")
        time.sleep(0.01)
    return int(image.size)


@node(version="1.0.0", name="stuck")
def stuck(image: Array, *, started: str) -> int:
    """Never look whether it is wanted, as code of others does."""
    Path(started).write_text(str(os.getpid()))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.5)
    return int(image.size)


@node(version="1.0.0", name="deadly")
def deadly(image: Array, *, victim: str) -> int:
    """Take the worker's process down, on one image."""
    if image.name == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return int(image.max())


@node(version="1.0.0", name="flaky")
def flaky(image: Array, *, folder: str, fails: int) -> int:
    """Lose the connection a few times, then work."""
    mark = Path(folder) / str(image.name)
    tries = int(mark.read_text()) if mark.exists() else 0
    mark.write_text(str(tries + 1))
    if tries < fails:
        raise ConnectionResetError("the store is away")
    return tries


@node(version="1.0.0", name="picky")
def picky(image: Array) -> int:
    """Refuse every second image."""
    value = int(image.min())
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


@node(version="1.0.0", name="writes")
def writes(image: Array, *, context: Context | None = None) -> File:
    """Write a file beside numbers."""
    path = (context or Context()).path("note.txt")
    path.write_text(str(int(image.max())))
    return File(path, "text/plain", "report")
