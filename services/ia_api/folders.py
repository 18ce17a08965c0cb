"""The folders of jobs: slides and what was made of them, named by job id only.

All of it is for the account of the workers alone (0700, 0600), within a quota, and
goes when the job ends: here at the end of the job, and whatever was missed at the
start and now and then.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.home import write_private
from services.ia_api import outcome
from services.ia_api.download import DownloadLimits
from services.ia_api.errors import DiskFull
from services.ia_api.results import Answer
from services.ia_api.settings import ServiceSettings
from services.ia_api.slide_info import FocalPlane, SlideInfo


class JobFolder:
    """One job's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def slide(self) -> Path:
        """Where the slide's files lie, with their manifest once they are complete."""
        return self.path / "slide"

    @property
    def temporary(self) -> Path:
        """For whatever the analysis or its readers put somewhere for a moment."""
        return self.path / "tmp"

    @property
    def answer_file(self) -> Path:
        return self.path / "answer.json"

    def make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep_info(self, slide: SlideInfo) -> None:
        """Keep what the server says of the slide: LIS texts stay in here."""
        plain = dataclasses.asdict(slide)
        self._write("info.json", json.dumps(plain).encode())

    def info(self) -> SlideInfo | None:
        found = self._read("info.json")
        if found is None:
            return None
        plain: dict[str, Any] = json.loads(found)
        planes = tuple(FocalPlane(**plane) for plane in plain.pop("focal_planes"))
        for name in ("size", "tile_size", "tile_formats", "optical_paths"):
            plain[name] = tuple(plain[name])
        return SlideInfo(**plain, focal_planes=planes)

    def keep(self, name: str, content: bytes) -> None:
        """Keep something else of the slide while the job runs."""
        self._write(name, content)

    def keep_answer(self, answer: Answer) -> None:
        """The answer of the analysis, whole or not at all."""
        self._write(self.answer_file.name, outcome.to_json(answer))

    def answer(self) -> Answer | None:
        found = self._read(self.answer_file.name)
        return None if found is None else outcome.from_json(found)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, content: bytes) -> None:
        self.make()
        write_private(self.path / name, content)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None


class Folders:
    """All folders of jobs on this machine."""

    def __init__(self, root: Path, settings: ServiceSettings) -> None:
        self.root = root
        self._settings = settings
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)

    def of(self, job_id: str) -> JobFolder:
        return JobFolder(self.root / job_id)

    def ids(self) -> list[str]:
        """Ids of the jobs that have a folder here."""
        return [entry.name for entry in self.root.iterdir() if entry.is_dir()]

    def used_bytes(self) -> int:
        return sum(_sizes(self.root))

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def limits(self) -> DownloadLimits:
        """What a download may take now; DiskFull where the quota is used up."""
        left = self._settings.disk_quota_bytes - self.used_bytes()
        if left <= 0:
            raise DiskFull("the slides of other jobs take all the room there is")
        return DownloadLimits(
            slide_bytes=self._settings.slide_bytes,
            free_bytes=max(self._settings.min_free_bytes, self._beyond(left)),
        )

    def _beyond(self, left: int) -> int:
        """What has to stay free for the quota to hold, as far as the disk goes."""
        return max(0, self.free_bytes() - left)


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                yield (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                # Removed meanwhile, with its job.
                continue
