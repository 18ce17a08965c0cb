"""A job's slide and result for the catalogue, without the patient: only where wished.

An app with `publish = "<collection>"` hands in a de-identified copy of the slide. The
copy is made in the job's own folder, by a process of its own (files can harm who opens
them), searched for every identifier that the slide is known to hold, and only then
moved below the catalogue's images; a request in the catalogue's inbox names it. The
name is the digest of the copy: the same slide is one image, however often its jobs are
cut off or run again. What cannot be copied without doubt is not published, which never
harms the job: its result is at the pathology server by then.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pydicom
from theatrum.deidentify import Deidentifier, load_profile
from theatrum.deidentify.canary import Canary, Where
from theatrum.deidentify.errors import DeidentifyError
from theatrum.deidentify.identifiers import Identifiers

from hub.home import Home, private_key, write_private
from services.ia_api.apps import App
from services.ia_api.errors import IaApiError
from services.ia_api.results import Answer, Gallery
from services.ia_api.slide_info import SlideInfo
from tile_server.deidentified import copy_tiff, texts_of
from tile_server.errors import TileServerError
from tile_server.readers import open_slide
from tile_server.readers.dicom_files import is_dicom

log = logging.getLogger("theatrum.ia_api")

FOLDER = "ia_api"
"""Below the catalogue's images."""
_COPYING_S = 3600.0
_POLL_S = 0.2
_PIECE = 16 << 20
_OVERLAP = 512
_SHORTEST = 4
_REASON = 300


class NotPublished(IaApiError):
    """The slide stays inside; the message says why, and nothing about a patient."""


@dataclass(frozen=True)
class Copying:
    """What the process that copies is told."""

    files: tuple[Path, ...]
    target: Path
    key: bytes
    words: frozenset[str]
    """What the pathology server says of the slide, besides what the files hold."""
    size: tuple[int, int]


@dataclass(frozen=True)
class Published:
    """What is handed in besides the copy."""

    job_id: str
    app: App
    answer: Answer
    slide: SlideInfo


def available(home: Path) -> None:
    """Raise NotPublished where there is no catalogue to publish into."""
    if not Home(home).catalog_db.exists():
        raise NotPublished(
            "there is no catalogue in this home folder: publish works beside a hub"
        )


def publish(
    home: Path,
    published: Published,
    files: Iterable[Path],
    working: Path,
    *,
    processes: ForkServerContext,
    check: Callable[[], None],
) -> None:
    """Hand the slide and its result in to the catalogue; again does no harm.

    Parameters
    ----------
    files
        The slide's files as they were fetched.
    working
        A folder of the job for what is not finished; made, and empty afterwards.
    check
        Called all the while; stops it by what it raises.

    Raises
    ------
    NotPublished
        Where nothing was handed in.
    """
    here = Home(home)
    available(home)
    request = _request(published)
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(mode=0o700)
    copying = Copying(
        files=tuple(files),
        target=working / "copy",
        key=private_key(here.ia_api / "publish.key", os.urandom(32)),
        words=_known(published.slide),
        size=published.slide.size,
    )
    if _has_words(json.dumps(request).encode(), {published.slide.id}):
        raise NotPublished("the result names the slide")
    try:
        suffix = _in_process(processes, copying, check)
        file = _move(copying.target, here.images / FOLDER, suffix)
        request["file"] = f"{FOLDER}/{file}"
        here.inbox.mkdir(mode=0o700, exist_ok=True)
        body = json.dumps(request).encode()
        write_private(here.inbox / f"{published.job_id}.json", body)
    except OSError as err:
        reason = errno.errorcode.get(err.errno or 0, "an error")
        raise NotPublished(f"the copy could not be written ({reason})") from err
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _in_process(
    processes: ForkServerContext, copying: Copying, check: Callable[[], None]
) -> str:
    """Copy in another process; the ending of the copy's name, "" for a folder."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=copy_main, args=(copying, theirs), daemon=True)
    process.start()
    theirs.close()
    end = time.monotonic() + _COPYING_S
    try:
        while not ours.poll(_POLL_S):
            check()
            if time.monotonic() > end:
                raise NotPublished("copying takes too long")
        suffix, reason = ours.recv()
    except EOFError:
        raise NotPublished("the process that copies it ended") from None
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    if reason:
        raise NotPublished(reason)
    return str(suffix)


def copy_main(copying: Copying, pipe: Connection) -> None:
    """The other process: copy, search the copy, say how it went."""
    os.umask(0o077)
    try:
        pipe.send((copy(copying), ""))
    except NotPublished as err:
        pipe.send(("", str(err)[:_REASON]))
    except Exception as err:
        # The boundary of a process that opens others' files: only the class is told.
        pipe.send(("", f"the slide cannot be copied ({type(err).__name__})"))


def copy(copying: Copying) -> str:
    """Write the copy and search it; the ending of its name, "" for a folder."""
    volumes = [path for path in copying.files if is_dicom(path)]
    if volumes:
        if len(volumes) != len(copying.files):
            raise NotPublished("DICOM files with others among them are not copied")
        _copy_dicom(copying, volumes)
        suffix = ""
    elif len(copying.files) == 1:
        _copy_tiff(copying)
        suffix = ".tiff"
    else:
        raise NotPublished("slides of several files that are no DICOM are not copied")
    with open_slide(copying.target) as reader:
        full = reader.levels[0]
        if (full.width, full.height) != copying.size:
            raise NotPublished("the files have another size than the slide")
    return suffix


def _copy_tiff(copying: Copying) -> None:
    (source,) = copying.files
    try:
        copied = copy_tiff(source, copying.target)
    except TileServerError as err:
        # A reader's message names the file, which may be named after a patient.
        told = str(err) if not isinstance(err, OSError) else ""
        raise NotPublished(told.replace(source.name, "the slide")) from err
    own = {word.casefold() for word in copied.words}
    words = {*texts_of(source), *copying.words, source.stem}
    _search(copying.target, {word for word in words if word.casefold() not in own})


def _copy_dicom(copying: Copying, files: list[Path]) -> None:
    """The instances that hold the slide's levels; label and overview stay inside."""
    chosen = []
    for path in files:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["ImageType"]
        )
        if "VOLUME" in (header.get("ImageType") or []):
            chosen.append(path)
    if not chosen:
        raise NotPublished("none of the DICOM files holds a level of a slide")
    try:
        worker = Deidentifier(load_profile("basic"), copying.key)
        package = worker.package(chosen, copying.target, whole_series=True)
    except DeidentifyError as err:
        raise NotPublished(f"de-identification failed ({type(err).__name__})") from err
    kept = [*package.report.held, *package.report.refused]
    if kept or len(package.names) != len(chosen):
        reason = kept[0].reason if kept else "incomplete"
        raise NotPublished(f"de-identification keeps a file back ({reason})")
    # Of no use to who looks at the slide.
    (copying.target / "report.json").unlink()
    for path in copying.target.iterdir():
        _search(path, copying.words)


def _known(slide: SlideInfo) -> frozenset[str]:
    """What the pathology server calls the slide."""
    return frozenset({slide.id})


def _search(path: Path, words: Iterable[str]) -> None:
    """Raise NotPublished where one of the words stands in a file."""
    canary = _canary(words)
    with path.open("rb") as file:
        before = b""
        while piece := file.read(_PIECE):
            if canary.finds(before + piece, Where.COMPRESSED):
                raise NotPublished("a word of the slide would stand in the copy")
            before = piece[-_OVERLAP:]


def _has_words(text: bytes, words: Iterable[str]) -> bool:
    return _canary(words).finds(text)


def _canary(words: Iterable[str]) -> Canary:
    found = Identifiers()
    for word in words:
        if len(word) < _SHORTEST:
            continue
        plain = word.casefold()
        (found.words if plain.isalnum() else found.phrases).add(plain)
    return Canary(found, (), ())


def _move(copied: Path, folder: Path, suffix: str) -> str:
    """Bring the copy to its place, named by its digest; its name there."""
    name = f"{_digest(copied)}{suffix}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / name
    if target.exists():
        return name
    try:
        copied.rename(target)
    except OSError as err:
        if err.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            return name
        if err.errno != errno.EXDEV:
            raise
        _move_across(copied, target)
    _sync(folder)
    return name


def _move_across(copied: Path, target: Path) -> None:
    """The same from another file system: whole, or not under its name."""
    staging = target.with_name(f".{target.name}")
    if copied.is_dir():
        shutil.copytree(copied, staging, dirs_exist_ok=True)
    else:
        shutil.copyfile(copied, staging)
    for path in _files(staging):
        _sync(path)
    staging.rename(target)


def _digest(copied: Path) -> str:
    """Of the content: twenty-four hexadecimal digits."""
    found = hashlib.sha256()
    for path in _files(copied):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:24]


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# The request


def _request(published: Published) -> dict[str, Any]:
    """What the catalogue is told (services/catalog/inbox.py); numbers and marks."""
    node, answer = published.app.node, published.answer
    numbers: Mapping[str, Any] = answer.context.get("numbers") or {}
    return {
        "format": 1,
        "collection": published.app.settings.publish,
        "file": "",
        "title": published.app.title,
        "result": {
            "run": published.job_id,
            "app": published.app.id,
            "node": node.name,
            "node_version": node.version,
            "node_digest": node.code_digest,
            "title": published.app.title,
            "numbers": {
                name: float(value)
                for name, value in numbers.items()
                # JSON has no other numbers.
                if math.isfinite(value)
            },
            "marks": {
                "type": "FeatureCollection",
                "features": [*_features(answer)],
            },
            # The day only: the minute would lead to the job's slide.
            "created": datetime.now(UTC)
            .replace(hour=0, minute=0, second=0, microsecond=0)
            .isoformat(),
        },
    }


def _features(answer: Answer) -> Iterator[dict[str, Any]]:
    """GeoJSON in level-0 pixels."""
    if isinstance(answer.shown, Gallery):
        for ring in answer.shown.outlines:
            yield _polygon(ring, None)
        for patch in answer.shown.patches:
            properties = {"kind": "point", "class": answer.shown.tags[patch.tag]}
            yield _feature("Point", [*patch.centre], properties)
        return
    for item in answer.shown:
        for ring in item.polygons:
            yield _polygon(ring, item.style.stroke)


def _polygon(ring: Iterable[tuple[float, float]], colour: str | None) -> dict[str, Any]:
    points = [[*point] for point in ring]
    if points and points[0] != points[-1]:
        points.append(points[0])
    properties = {"kind": "polygon", **({"colour": colour} if colour else {})}
    return _feature("Polygon", [points], properties)


def _feature(
    kind: str, coordinates: list[Any], properties: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": dict(properties),
    }
