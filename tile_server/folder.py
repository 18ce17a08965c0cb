"""Serving a folder of slides without a hub: the list of its images, and a plain page.

The service issues its own tokens here, with a key that nobody else has. The list hands
them out without a sign-in, so it answers loopback names only: a page from elsewhere
whose name was pointed at this machine gets nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado import web
from tornado.routing import URLSpec

from tile_server.address import dicom_web_url, slide_url, tiles_url
from tile_server.errors import TileServerError
from tile_server.handlers import Handler
from tile_server.probing import Finding, Prober
from tile_server.protocols.dicom_web import dicom_web_routes
from tile_server.protocols.iiif import Identify, iiif_routes
from tile_server.readers.dicom_files import is_dicom
from tile_server.readers.ome_zarr import is_zarr
from tile_server.tokens import Capability, expiry, seal
from tile_server.versions import file_version

log = logging.getLogger(__name__)

_LIFE_S = 24 * 3600
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


Watch = Callable[[list[Path]], Iterable[Path]]


@dataclass(frozen=True)
class FolderImage:
    """One slide of the folder: its file, its version, and what `describe` says."""

    path: Path
    name: str
    version: str
    view: dict[str, Any]
    series: str
    file_bytes: int

    @property
    def id(self) -> str:
        """The same for a file of this name in this folder, whatever its version."""
        return hashlib.blake2b(self.name.encode(), digest_size=6).hexdigest()


class SlideFolder:
    """The slides below one folder; looks again each time it is asked."""

    def __init__(self, root: Path, prober: Prober) -> None:
        """List what `prober`, which stays the caller's, can open below `root`."""
        self._root = root.resolve()
        self._prober = prober
        # The files of one DICOM slide share a version, and are opened together.
        self._series: dict[tuple[Path, str], Finding] = {}
        self._known: dict[tuple[Path, str], FolderImage | None] = {}
        self._skipped: set[tuple[Path, str]] = set()
        self._lock = threading.Lock()
        self._named: dict[str, FolderImage] = {}

    def named(self, stem: str) -> FolderImage | None:
        """The first slide whose file is called `stem`, without its ending. Blocks."""
        image = self._named.get(stem)
        if image is not None:
            try:
                if file_version(image.path) == image.version:
                    return image
            except OSError:
                log.debug("a slide went; another file may have its name by now")
        self._named = {}
        for found in reversed(self.images()):
            self._named[Path(found.name).stem] = found
        return self._named.get(stem)

    def images(self, watch: Watch = iter) -> list[FolderImage]:
        """All slides, by name. Blocks; files that are no slides are named on stderr.

        A slide of many files (DICOM) is listed once, by its largest file. `watch` sees
        the files pass, to show progress.
        """
        with self._lock:
            return self._images(watch)

    def _images(self, watch: Watch) -> list[FolderImage]:
        found: dict[tuple[Path, str], FolderImage | None] = {}
        for path in watch(list(self._files())):
            try:
                version = file_version(path)
            except OSError:
                continue  # it went while we were looking
            key = path, version
            image = self._known.get(key)
            found[key] = image if key in self._known else self._look(path, version)
        self._known = found
        images: dict[str, FolderImage] = {}
        for image in found.values():
            if image is None:
                continue
            one = image.series or image.name
            if one not in images or image.file_bytes > images[one].file_bytes:
                images[one] = image
        return sorted(images.values(), key=lambda image: image.name)

    def _files(self) -> Iterator[Path]:
        for folder, below, names in os.walk(self._root):
            if is_zarr(Path(folder)):
                below[:] = []
                yield Path(folder)  # one image, of thousands of files
                continue
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in below:
                path = Path(folder, name)
                if path.is_symlink():
                    self._skip(path, "", f"{name} is a link to a folder: serve that.")
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or not path.is_file():
                    continue
                if not path.resolve().is_relative_to(self._root):
                    self._skip(path, "", f"{name} points outside the folder.")
                    continue
                yield path

    def _look(self, path: Path, version: str) -> FolderImage | None:
        one_of_many = (path.parent, version) if is_dicom(path) else None
        finding = self._series.get(one_of_many) if one_of_many else None
        try:
            if finding is None:
                finding = self._prober.probe(path, version)
            file_bytes = path.stat().st_size
        except TileServerError as error:
            self._skip(path, version, str(error))
            return None
        except FileNotFoundError:
            return None  # it went while we were looking
        if one_of_many and finding.series:
            self._series[one_of_many] = finding
        name = path.relative_to(self._root).as_posix()
        if path == self._root:
            name = path.name
        view, series = finding.view, finding.series
        return FolderImage(path, name, version, view, series, file_bytes)

    def _skip(self, path: Path, version: str, reason: str) -> None:
        if (path, version) not in self._skipped:
            self._skipped.add((path, version))
            below = path.parent.relative_to(self._root).as_posix()
            where = "" if below == "." else f"in {below}: "
            sys.stderr.write(f"skipped: {where}{reason}\n")


def folder_routes(folder: SlideFolder) -> list[URLSpec]:
    """The list and the page of a folder, at the root of the server."""
    shared = {"folder": folder}
    identify = _identify_in(folder)
    return [
        web.url(r"/images\.json", ImagesHandler, shared),
        web.url(r"/", PageHandler, shared),
        *iiif_routes("/", identify),
        *dicom_web_routes("/", identify),
    ]


def _identify_in(folder: SlideFolder) -> Identify:
    """Find the images of IIIF and DICOMweb addresses by their files' names."""

    async def identify(stem: str, host: str) -> Capability | None:
        if urlsplit(f"//{host}").hostname not in _LOOPBACK:
            return None
        image = await asyncio.to_thread(folder.named, stem)
        if image is None:
            return None
        ends = expiry(time.time(), _LIFE_S)
        return Capability(str(image.path), image.version, False, ends)

    return identify


class _FolderHandler(Handler):
    def initialize(self, folder: SlideFolder) -> None:
        self._folder = folder

    def prepare(self) -> None:
        if urlsplit(f"//{self.request.host}").hostname not in _LOOPBACK:
            raise web.HTTPError(404)

    async def images(self) -> list[dict[str, Any]]:
        """Each image as JSON, with addresses that are good for a day at least."""
        found = await asyncio.to_thread(self._folder.images)
        settings = self.service.settings
        ends = expiry(time.time(), _LIFE_S)
        listed = []
        for image in found:
            # Whoever serves a folder has the files, and with them their labels.
            capability = Capability(str(image.path), image.version, True, ends)
            token = seal(settings.key, capability)
            address = {
                "id": image.id,
                "name": image.name,
                "version": image.version,
                "tiles": tiles_url(settings.base, token),
                "thumbnail": slide_url(settings.base, token) + "thumbnail",
                "dicomweb": dicom_web_url(settings.base, token),
                "expires": datetime.fromtimestamp(ends, UTC).isoformat(),
            }
            listed.append(image.view | address)
        return listed


class ImagesHandler(_FolderHandler):
    async def get(self) -> None:
        images = await self.images()
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"images": images}))


class PageHandler(_FolderHandler):
    async def get(self) -> None:
        figures = "\n".join(_figure(image) for image in await self.images())
        policy = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
        self.set_header("Content-Security-Policy", policy)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_PAGE.replace("FIGURES", figures or "<p>No slides here.</p>"))


def _figure(image: dict[str, Any]) -> str:
    name = html.escape(image["name"])
    size = f"{image['width']} × {image['height']} px"
    source = html.escape(image["thumbnail"])
    return (
        f'<figure><img src="{source}" alt="{name}" loading="lazy">'
        f"<figcaption>{name}<br>{size}</figcaption></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Slides</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 1rem/1.4 system-ui, sans-serif; margin: 2rem; color: #222 }
main { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0; width: 256px }
img { max-width: 256px; max-height: 256px; border: 1px solid #767676 }
</style></head><body><h1>Slides</h1>
<p>The same list for programs: <a href="images.json">images.json</a></p>
<main>FIGURES</main></body></html>
"""
