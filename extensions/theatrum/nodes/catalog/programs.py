"""Nodes that are not functions of ours: a notebook, a container.

Both get their inputs as files in a folder and leave outputs there. They are not pure:
what a program does is its own affair, so an earlier run never stands for a new one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from theatrum.node import (
    Array,
    BadInputs,
    BadValue,
    Context,
    File,
    Resources,
    node,
)

Scalar = str | float | int | bool
RUNTIMES = ("podman", "docker", "apptainer", "singularity")


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


def container_runtime() -> str | None:
    """Return the first container program that is here and answers, or None."""
    for name in RUNTIMES:
        program = shutil.which(name)
        if program is None:
            continue
        ask = "version" if name in ("apptainer", "singularity") else "info"
        answered = subprocess.run(
            [program, ask], capture_output=True, check=False, timeout=20
        )
        if answered.returncode == 0:
            return name
    return None


def container_command(
    runtime: str, image: str, words: Sequence[str], before: Path, after: Path
) -> list[str]:
    """Return the command that runs a container without network on two folders.

    What it reads is at /in and cannot be written; what it leaves in /out is taken.
    """
    if runtime in ("apptainer", "singularity"):
        binds = ["--bind", f"{before}:/in:ro", "--bind", f"{after}:/out"]
        alone = ["--containall", "--net", "--network", "none"]
        where = (
            image if "://" in image or image.endswith(".sif") else f"docker://{image}"
        )
        return [runtime, "exec", *alone, *binds, where, *words]
    mounts = [
        "--mount",
        f"type=bind,source={before},target=/in,readonly",
        "--mount",
        f"type=bind,source={after},target=/out",
    ]
    alone = ["--rm", "--network", "none", "--cap-drop", "ALL"]
    safe = ["--security-opt", "no-new-privileges", "--pids-limit", "512"]
    return [runtime, "run", *alone, *safe, *mounts, image, *words]


@node(
    version="1.0.0",
    kind="container",
    pure=False,
    resources=Resources(memory_bytes=4_000_000_000, seconds=3600),
)
def run_container(
    image: Array | None = None,
    folder: File | None = None,
    *,
    container: Annotated[str, Field(pattern=r"^[^\s-][^\s]*$")],
    command: tuple[str, ...] = (),
    bids_app: bool = False,
    timeout_s: Annotated[int, Field(ge=1, le=604_800)] = 3600,
    context: Context | None = None,
) -> Sequence[File]:
    """Run a container on an image or a folder; every file it leaves is an output.

    It has no network and no rights. Refused where no container runtime is.

    Parameters
    ----------
    container
        The image's name; by digest (name@sha256:...) it is the same for ever.
    command
        Words behind the name; the input is under /in, outputs belong into /out.
    bids_app
        Put the words of a BIDS app first: /in /out participant.
    """
    context = context or Context()
    runtime = container_runtime()
    if runtime is None:
        raise BadInputs(
            f"No container runtime answers here: install one of {', '.join(RUNTIMES)}."
        )
    after = context.path("out")
    after.mkdir()
    with tempfile.TemporaryDirectory(prefix="theatrum-in-") as temporary:
        before = Path(temporary)
        if image is not None:
            _nifti(image, Context(folder=before))
        if folder is not None:
            before = folder.path
        words = ["/in", "/out", "participant", *command] if bids_app else list(command)
        done = _watched(
            container_command(runtime, container, words, before, after),
            timeout_s,
            context,
        )
    if done:
        raise BadValue(f"The container failed: {done}")
    return [
        File(path, "application/octet-stream", "export", path.name)
        for path in sorted(after.rglob("*"))
        if path.is_file()
    ]


def _watched(command: Sequence[str], timeout_s: int, context: Context) -> str:
    """Run a command until it ends; returns what it complained of, "" if all is well.

    Cancelled or too late it is killed.
    """
    import time

    began = time.monotonic()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=complaints, stderr=complaints)
        try:
            while True:
                try:
                    process.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    context.check()
                if time.monotonic() - began > timeout_s:
                    return f"it took longer than {timeout_s} s"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()[-500:]
    return f"exit code {process.returncode}: {said}" if process.returncode else ""


def _nifti(image: Array, context: Context) -> Path:
    import nibabel

    from theatrum.nodes.catalog.nifti import nifti_image

    path = context.path("image.nii.gz")
    nibabel.save(nifti_image(image), path)
    return path
