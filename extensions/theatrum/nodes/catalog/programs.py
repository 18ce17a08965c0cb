"""Nodes that are not functions of ours: a notebook, a container, a BIDS app.

They get their inputs as files in a folder and leave outputs there. A notebook is not
pure: what it does is its own affair, so an earlier run never stands for a new one. A
container is named by its digest and has no network, so one may.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Context, File, Resources, node
from theatrum.nodes.catalog.containers import (
    IN,
    OUT,
    PINNED,
    WORK,
    Folders,
    Limits,
    filled,
    run,
)
from theatrum.nodes.catalog.exports import Entity, Suffix, to_bids


@dataclass(frozen=True)
class Executed:
    """The notebook with what its cells gave."""

    notebook: File
    page: File | None


@node(
    version="1.0.0",
    kind="notebook",
    pure=False,
    resources=Resources(memory_bytes=2_000_000_000, seconds=600),
)
def run_notebook(
    notebook: File,
    image: Array | None = None,
    *,
    parameters: dict[str, str] | None = None,
    kernel: str = "python3",
    timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 600,
    context: Context | None = None,
) -> Executed:
    """Run a notebook from top to bottom; the executed copy is the run's report.

    An image is given to it as NIfTI: the parameter `image` is the file's path.

    Parameters
    ----------
    notebook
        With a cell tagged `parameters`.
    parameters
        By name; a value that is JSON (a number, true, a list) is given as such.
    timeout_s
        Of one cell, in seconds.
    """
    import json

    import nbformat
    import papermill

    context = context or Context()
    given: dict[str, object] = {}
    for name, text in (parameters or {}).items():
        try:
            given[name] = json.loads(text)
        except ValueError:
            given[name] = text
    if image is not None:
        given["image"] = str(_nifti(image, context))
    out = context.path("executed.ipynb")
    context.progress(0.05, "running the notebook")
    try:
        papermill.execute_notebook(
            str(notebook.path),
            str(out),
            parameters=given,
            kernel_name=kernel,
            # Without a kernel of its own the notebook does not say it either.
            language="python" if kernel.startswith("python") else None,
            cwd=str(out.parent),
            progress_bar=False,
            execution_timeout=timeout_s,
        )
    except papermill.PapermillExecutionError as error:
        raise BadValue(
            f"Cell {error.exec_count or '?'} of the notebook failed: {error.ename}: "
            f"{error.evalue}. The executed copy shows where."
        ) from error
    context.progress(0.95, "writing the report")
    page = None
    try:
        from nbconvert import HTMLExporter
    except ImportError:
        pass  # without it the notebook itself is the report
    else:
        html, _ = HTMLExporter().from_notebook_node(nbformat.read(out, as_version=4))
        path = context.path("executed.html")
        path.write_text(html, encoding="utf-8")
        page = File(path, "text/html", "report", "Executed notebook")
    executed = File(out, "application/x-ipynb+json", "report", "Executed notebook")
    return Executed(executed, page)


@dataclass(frozen=True)
class Contained:
    """What a container left: images as such, other files, and what it said."""

    images: Sequence[Array]
    files: Sequence[File]
    log: File


@dataclass(frozen=True)
class Derived:
    """What a BIDS app left: its images, all of its output as it is, what it said."""

    images: Sequence[Array]
    derivatives: File
    log: File


Pinned = Annotated[str, Field(pattern=PINNED)]
Memory = Annotated[float, Field(gt=0, le=4096)]
Processors = Annotated[float, Field(gt=0, le=1024)]
Seconds = Annotated[int, Field(ge=1, le=2_592_000)]
IMAGES = ("**/*.nii", "**/*.nii.gz", "**/*.ome.zarr")


@node(
    version="2.0.0",
    kind="container",
    resources=Resources(memory_bytes=4_000_000_000, seconds=3600),
)
def run_container(
    image: Array | None = None,
    folder: File | None = None,
    *,
    container: Pinned,
    command: tuple[str, ...],
    form: Literal["nifti", "ome-zarr"] = "nifti",
    outputs: tuple[str, ...] = IMAGES,
    environment: dict[str, str] | None = None,
    memory_gb: Memory = 4.0,
    processors: Processors = 1.0,
    timeout_s: Seconds = 3600,
    context: Context | None = None,
) -> Contained:
    """Run a command in a container on an image, a folder, or both.

    It has no network, no rights, and limits; it reads /in and writes /out. By its
    digest it is the same for ever, so an earlier run may stand for a new one.

    Parameters
    ----------
    folder
        Files that it needs besides, such as a model or a licence; at /in/folder.
    container
        The image by its digest: name@sha256:..., or /a/file.sif@sha256:...
    command
        Words for the image's own program, with {image}, {folder}, {in}, {out} and
        {work} where it finds them.
    form
        How it gets the image: image.nii.gz or image.ome.zarr.
    outputs
        Patterns of what is an image among what it leaves; the rest are files.
    memory_gb, processors, timeout_s
        What it may use; beyond them it is killed.
    """
    context = context or Context()
    with _folders(context) as folders:
        places = {"in": IN, "out": OUT, "work": WORK}
        if image is not None:
            context.progress(0.05, "writing the input")
            path = _staged(image, form, folders.before)
            places["image"] = f"{IN}/{path.name}"
        if folder is not None:
            _copied(folder.path, folders.before / "folder")
            places["folder"] = f"{IN}/folder"
        log = _run(
            container,
            filled(command, places),
            folders,
            Limits(int(memory_gb * 1e9), processors, timeout_s),
            environment,
            context,
        )
    images = _images(folders.after, outputs)
    files = _files(folders.after, outputs)
    if not images and not files:
        raise BadValue("The container left nothing: its command has to write to {out}.")
    return Contained(images, files, log)


@node(
    version="1.0.0",
    kind="bids-app",
    resources=Resources(memory_bytes=8_000_000_000, seconds=36_000),
)
def run_bids_app(
    images: Annotated[Sequence[Array], Axes("z", "y", "x")],
    before: Sequence[File] | None = None,
    folder: File | None = None,
    *,
    container: Pinned,
    arguments: tuple[str, ...] = (),
    level: Literal["participant", "group"] = "participant",
    suffixes: tuple[Suffix, ...] = ("T1w",),
    task: Entity = "rest",
    outputs: tuple[str, ...] = IMAGES,
    environment: dict[str, str] | None = None,
    memory_gb: Memory = 8.0,
    processors: Processors = 1.0,
    timeout_s: Seconds = 86_400,
    context: Context | None = None,
) -> Derived:
    """Run a BIDS app: `bids_dir output_dir LEVEL --participant-label ...`.

    The images of an item are one participant, called 01: what the catalogue calls it
    is not told. At the level of the group each image is a participant of its own.

    Parameters
    ----------
    images
        Of one participant (or, for the group, of all), in the order of `suffixes`.
    before
        Earlier outputs, put into the output folder: the group's level reads them.
    folder
        Files that it needs besides, such as a licence; at /in/folder.
    container
        The app by its digest: name@sha256:..., or /a/file.sif@sha256:...
    arguments
        More words behind the label, with {folder} and {work}.
    suffixes
        What each image is; the last one stands for all that follow.
    task
        Of series of function.
    """
    context = context or Context()
    with _folders(context) as folders:
        context.progress(0.02, "writing the data set")
        bids = folders.before / "bids"
        labels = _dataset(bids, images, level, suffixes, task)
        places = {"in": IN, "out": OUT, "work": WORK}
        if folder is not None:
            _copied(folder.path, folders.before / "folder")
            places["folder"] = f"{IN}/folder"
        for one in before or ():
            _copied(one.path, folders.after)
        words = [f"{IN}/bids", OUT, level]
        if level == "participant":
            words += ["--participant-label", *labels]
        log = _run(
            container,
            [*words, *filled(arguments, places)],
            folders,
            Limits(int(memory_gb * 1e9), processors, timeout_s),
            environment,
            context,
        )
    if not any(folders.after.iterdir()):
        raise BadValue("The app left nothing in its output folder: see its log.")
    whole = File(folders.after, "application/x-bids", "export", "Derivatives")
    return Derived(_images(folders.after, outputs), whole, log)


@contextlib.contextmanager
def _folders(context: Context) -> Iterator[Folders]:
    """Folders for a container; what it read and worked in is cleared away."""
    after = context.path("out")
    after.mkdir()
    with tempfile.TemporaryDirectory(prefix="theatrum-container-") as temporary:
        before, work = Path(temporary) / "in", Path(temporary) / "work"
        before.mkdir()
        work.mkdir()
        yield Folders(before, after, work)


def _run(
    container: str,
    words: Sequence[str],
    folders: Folders,
    limits: Limits,
    environment: dict[str, str] | None,
    context: Context,
) -> File:
    log = context.path("log.txt")
    context.progress(0.1, "the container works")
    run(container, words, folders, limits, log, context, environment=environment)
    context.progress(0.9, "taking what it left")
    return File(log, "text/plain", "report", "Log")


def _staged(image: Array, form: str, folder: Path) -> Path:
    """Write an image under a name that says nothing of it."""
    if form == "nifti":
        return _nifti(image, Context(folder=folder))
    from theatrum.catalog.zarr_store import write_image

    path = folder / "image.ome.zarr"
    write_image(path, image)
    return path


def _dataset(
    root: Path,
    images: Sequence[Array],
    level: str,
    suffixes: Sequence[Suffix],
    task: str,
) -> list[str]:
    """Write a BIDS data set; returns its participants' labels."""
    labels: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    for at, image in enumerate(images):
        label = f"{at + 1:02d}" if level == "group" else "01"
        suffix = suffixes[min(at, len(suffixes) - 1)] if suffixes else "T1w"
        seen[label, suffix] += 1
        with tempfile.TemporaryDirectory() as single:
            written = to_bids(
                image,
                subject=label,
                suffix=suffix,
                task=task if suffix == "bold" else "",
                run=seen[label, suffix] if seen[label, suffix] > 1 else 0,
                dataset="Images",
                context=Context(folder=Path(single)),
            )
            _copied(written.path, root)
        if label not in labels:
            labels.append(label)
    rows = "".join(f"sub-{label}\n" for label in labels)
    (root / "participants.tsv").write_text(f"participant_id\n{rows}")
    return labels


def _copied(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _images(folder: Path, patterns: Sequence[str]) -> list[Array]:
    from theatrum.catalog.arrays import open_array

    return [
        open_array(path).assign_attrs(file=str(path.relative_to(folder)))
        for path in _matching(folder, patterns)
    ]


def _files(folder: Path, patterns: Sequence[str]) -> list[File]:
    """Other files; one in a folder is called by both names, which two never share."""
    images = set(_matching(folder, patterns))
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        if path in images or images & set(path.parents):
            continue
        flat = folder / "-".join(path.relative_to(folder).parts)
        if flat != path:
            path.rename(flat)
        found.append(File(flat, "application/octet-stream", "export", flat.name))
    return found


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({one for pattern in patterns for one in folder.glob(pattern)})


def _nifti(image: Array, context: Context) -> Path:
    import nibabel

    from theatrum.nodes.catalog.nifti import nifti_image

    path = context.path("image.nii.gz")
    nibabel.save(nifti_image(image), path)
    return path
