"""Containers: one command on a folder that is read and a folder that is written.

Docker, Podman and Apptainer are spoken to by their programs, whichever is on PATH and
answers. What is run is named by its digest, so that it is the same for ever. It has no
network, no rights, no user of the host, so much memory and so many processors as it was
given, and sees nothing of the host but the two folders: no name of an image or of a
person, since these are not in its input's file names. Cancelled or too late, the
container itself is killed, not only the program that started it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from theatrum.node import BadInputs, BadValue, Context

RUNTIMES = ("podman", "docker", "apptainer", "singularity")
IN, OUT, WORK = "/in", "/out", "/work"
PINNED = r"^(?:[^\s@-][^\s@]*@)?sha256:[0-9a-f]{64}$"
"""`name@sha256:...`, an image's id `sha256:...`, or `/a/file.sif@sha256:...`."""
_NOBODY = 65534
_LOG_BYTES = 5_000_000
_LOOK_S = 0.1
_SIF = ("apptainer", "singularity")


@dataclass(frozen=True)
class Limits:
    """What a container may use."""

    memory_bytes: int
    processors: float
    seconds: float


@dataclass(frozen=True)
class Folders:
    """On the host: what the container reads, writes, and works in."""

    before: Path
    after: Path
    work: Path


def runtime_here() -> str:
    """The first container program on PATH that answers; raises BadInputs for none."""
    for name in RUNTIMES:
        program = shutil.which(name)
        if program is None:
            continue
        ask = "version" if name in _SIF else "info"
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answered = subprocess.run(
                [program, ask], capture_output=True, check=False, timeout=30
            )
            if answered.returncode == 0:
                return name
    raise BadInputs(
        "No container runtime answers here: install podman, docker or apptainer on "
        "the machines that work, and see that its `info` gives no error."
    )


def filled(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """A command with `{name}` replaced; `{{` stands for a brace. Raises BadValue."""
    unknown: set[str] = set()

    def place(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        name = found[1]
        if name not in places:
            unknown.add(name)
        return places.get(name, "")

    told = [re.sub(r"\{\{|\}\}|\{(\w+)\}", place, word) for word in words]
    if unknown:
        raise BadValue(
            f"The command names {', '.join(sorted(unknown))}, which is not given here: "
            f"it can name {', '.join(sorted(places))}."
        )
    return told


def command(
    runtime: str,
    image: str,
    words: Sequence[str],
    folders: Folders,
    limits: Limits,
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line that runs a container; see the module for what it may."""
    told = {"HOME": WORK, "TMPDIR": WORK, **(environment or {})}
    if runtime in _SIF:
        return _apptainer(runtime, image, words, folders, limits, told)
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{_NOBODY}:{_NOBODY}"
    binds = (
        f"type=bind,source={folders.before},target={IN},readonly",
        f"type=bind,source={folders.after},target={OUT}",
        f"type=bind,source={folders.work},target={WORK}",
    )
    line = [runtime, "run", "--rm", "--name", name, "--network", "none"]
    line += ["--user", user, "--cap-drop", "ALL"]
    line += ["--security-opt", "no-new-privileges", "--read-only"]
    line += ["--memory", str(limits.memory_bytes), "--cpus", f"{limits.processors:g}"]
    line += ["--pids-limit", "1024", "--workdir", WORK]
    if runtime == "podman" and os.getuid():
        line += ["--userns", "keep-id"]
    for key, value in told.items():
        line += ["--env", f"{key}={value}"]
    for one in binds:
        line += ["--mount", one]
    return [*line, image, *words]


def _apptainer(
    runtime: str,
    image: str,
    words: Sequence[str],
    folders: Folders,
    limits: Limits,
    environment: Mapping[str, str],
) -> list[str]:
    """The same for Apptainer, which runs as who calls it and reads files of its own."""
    place, _, digest = image.rpartition("@")
    if place.endswith(".sif"):
        where = str(_checked(Path(place), digest))
    elif place:
        where = f"docker://{image}"
    else:
        raise BadInputs(
            "Apptainer knows no image by its id alone: name it as name@sha256:..., or "
            "as /a/file.sif@sha256:..."
        )
    line = [runtime, "run", "--containall", "--no-home", "--net", "--network", "none"]
    line += ["--no-privs", "--memory", str(limits.memory_bytes)]
    line += ["--cpus", f"{limits.processors:g}", "--pwd", WORK]
    for key, value in environment.items():
        line += ["--env", f"{key}={value}"]
    line += ["--bind", f"{folders.before}:{IN}:ro", "--bind", f"{folders.after}:{OUT}"]
    return [*line, "--bind", f"{folders.work}:{WORK}", where, *words]


def _checked(place: Path, digest: str) -> Path:
    """An image's file, whose contents are what was named."""
    try:
        with place.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadInputs(f"The image {place.name} cannot be read here.") from error
    if f"sha256:{found}" != digest:
        raise BadInputs(
            f"The image {place.name} is another than was named: it is sha256:{found}."
        )
    return place


def run(
    image: str,
    words: Sequence[str],
    folders: Folders,
    limits: Limits,
    log: Path,
    context: Context,
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a container until it ends; what it says goes into `log`.

    Raises
    ------
    BadInputs
        Where no runtime is.
    BadValue
        Where it fails, with the end of what it said, or takes longer than it may.
    Cancelled
        Once the run is not wanted any more; the container is killed.
    """
    runtime = runtime_here()
    name = f"theatrum-{secrets.token_hex(8)}"
    for folder in (folders.after, folders.work):
        _opened(folder, 0o777)
    _opened(folders.before, 0o755)
    line = command(
        runtime, image, words, folders, limits, name=name, environment=environment
    )
    why = _watched(runtime, name, line, limits.seconds, log, context)
    _only_files(folders.after)
    if why:
        said = log.read_text(errors="replace").strip()[-1500:]
        raise BadValue(f"The container {why}{f': {said}' if said else '.'}")


def _opened(folder: Path, mode: int) -> None:
    """Let the container's user in; what lies above the folder keeps others out."""
    folder.chmod(mode)
    for one in folder.rglob("*"):
        if not one.is_symlink():
            one.chmod(mode if one.is_dir() else mode & 0o666)


def _only_files(folder: Path) -> None:
    """Take away all but files and folders: a link would show what lies on the host."""
    for one in folder.rglob("*"):
        if one.is_symlink() or not (one.is_file() or one.is_dir()):
            one.unlink()


def _watched(
    runtime: str,
    name: str,
    line: Sequence[str],
    seconds: float,
    log: Path,
    context: Context,
) -> str:
    """Wait for the end; returns what was wrong, "" if nothing was."""
    began = time.monotonic()
    process = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=log.parent,  # Podman's monitor leaves marks where it is begun
    )
    assert process.stdout is not None  # noqa: S101  (asked for above; for mypy)
    reader = threading.Thread(target=_copied, args=(process.stdout, log), daemon=True)
    reader.start()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_LOOK_S)
                break
            context.check()
            if time.monotonic() - began > seconds:
                return f"took longer than {seconds:g} s, and was stopped"
    finally:
        if process.poll() is None:
            _kill(runtime, name, process)
        reader.join(timeout=10)
        process.stdout.close()
    if not process.returncode:
        return ""
    more = {125: " (it could not be begun)", 137: " (killed: often no memory left)"}
    return f"failed with code {process.returncode}{more.get(process.returncode, '')}"


def _kill(runtime: str, name: str, process: subprocess.Popen[bytes]) -> None:
    """End the container itself; Docker's would outlive the program that began it."""
    ends = () if runtime in _SIF else (["kill", name], ["rm", "--force", name])
    for words in ends:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [runtime, *words], capture_output=True, check=False, timeout=20
            )
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def _copied(said: IO[bytes], log: Path) -> None:
    """Keep what a container says, the beginning of it where it says very much."""
    left = _LOG_BYTES
    with log.open("wb") as kept:
        while some := said.read1(65536):  # type: ignore[attr-defined]  # a pipe's has it
            kept.write(some[:left])
            kept.flush()
            if left and len(some) >= left:
                kept.write(b"\n(the rest is not kept)\n")
            left = max(0, left - len(some))
