"""The folders of jobs: named by job id only, for the service's account alone.

    package/   the de-identified package, its mapping and what is known of it
    engine/    what a local engine made
    result/    the structure set as it came
    finished/  the structure set as it is delivered; in `quarantine/`, a rejected one

All of it lies in `phi/dicom_client/jobs` of the home (0700). Staging goes when a job is
done; `finished/` and the mapping go with the job's retention.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.home import Home, write_private


class JobFolder:
    """One job's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def package(self) -> Path:
        return self.path / "package"

    @property
    def result(self) -> Path:
        return self.path / "result" / "rtstruct.dcm"

    @property
    def finished(self) -> Path:
        return self.path / "finished"

    def make(self) -> None:
        for folder in (self.path, self.path / "result", self.finished):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, name: str, value: Any) -> None:  # Any: JSON
        """Keep a small fact, whole or not at all, and on the disk."""
        self.keep_bytes(name, json.dumps(value).encode())

    def keep_bytes(self, name: str, content: bytes) -> None:
        self.make()
        write_private(self.path / name, content)
        sync(self.path)

    def kept(self, name: str) -> Any:  # Any: JSON, None where there is none
        content = self.kept_bytes(name)
        return None if content is None else json.loads(content)

    def kept_bytes(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def wipe(self) -> None:
        """Remove what was staged; the mapping and the finished files stay.

        What an earlier result was quarantined for is over as well: it can tell more
        of a patient than any file that is kept.
        """
        if not self.path.is_dir():
            return
        kept = {self.finished, self.package, self.package / "mapping"}
        entries = [*self.path.iterdir(), *_entries(self.package)]
        entries += [one for one in _entries(self.finished) if one.is_dir()]
        for entry in entries:
            if entry in kept:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        sync(self.path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Folders:
    """All folders of the service on this machine."""

    def __init__(self, home: Path) -> None:
        self.root = Home(home).phi / "dicom_client"
        self.jobs = self.root / "jobs"
        self.incoming = self.root / "incoming"
        for folder in (self.root, self.jobs, self.incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def of(self, job_id: str) -> JobFolder:
        return JobFolder(self.jobs / job_id)

    def ids(self) -> list[str]:
        """Ids of the jobs that have a folder here."""
        return [entry.name for entry in self.jobs.iterdir() if entry.is_dir()]

    def used_bytes(self) -> int:
        return sum(_sizes(self.root))

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def sync(folder: Path) -> None:
    """Have the disk know which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                yield (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                # Removed meanwhile, with its job.
                continue
