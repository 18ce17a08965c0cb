"""Looking at files in another process, so that a hostile one ends that process only.

What comes in was made by others. So nothing of it is opened here: a worker process of
limited means does (`tile_server.limited`), and says what it saw. One that crashes or
does not answer is replaced, and the file is refused with the reason. The worker unpacks
archives, de-identifies and writes OME-Zarr copies as well, since each of these reads
all that there is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from theatrum.catalog.errors import CatalogError
from theatrum.catalog.formats.errors import Damaged, FormatError, NotAnImage, NoVolume
from theatrum.catalog.ingest import archives
from theatrum.catalog.ingest.bare import Bare
from theatrum.catalog.ingest.deid import Given
from theatrum.catalog.ingest.errors import HostileArchive, IngestError
from theatrum.catalog.ingest.headers import Identified
from tile_server.limited import FILE_BYTES, Fell, LimitedProcess

log = logging.getLogger(__name__)

_MODULE: Final = "theatrum.catalog.ingest.look_worker"
_AT_ONCE: Final = 256
_KINDS: Final[Mapping[str, type[CatalogError]]] = {
    one.__name__: one
    for one in (Damaged, NotAnImage, NoVolume, HostileArchive, IngestError)
}


@dataclass(frozen=True)
class Limits:
    """Of the process that opens files.

    Attributes
    ----------
    seconds
        How long a file may take to be described. Longer lets huge and remote files
        through, and lets a hostile one hold the rest up longer.
    copying_s
        Likewise for each GiB that is copied, and at least once.
    memory_bytes
        Its address space, where the system can limit it. Less refuses large compressed
        planes; the machine must be able to spare it.
    """

    seconds: float = 120.0
    copying_s: float = 600.0
    memory_bytes: int = 6 * 2**30


class Looker:
    """The worker process; a context manager, for one thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._worker: LimitedProcess | None = None

    def warm_up(self) -> None:
        """Start the process now, so that the first file does not wait for it."""
        if self._worker is None:
            self._worker = LimitedProcess(_MODULE, self._limits.memory_bytes)

    def identify(self, paths: Sequence[Path]) -> list[Identified]:
        """Of each DICOM file its series; a file that harms the reader is refused."""
        found: list[Identified] = []
        for at in range(0, len(paths), _AT_ONCE):
            part = paths[at : at + _AT_ONCE]
            try:
                found += self._identified(part)
            except FormatError as error:
                if len(part) == 1:
                    found.append(Identified(refusal=str(error)))
                    continue
                # One of them did it: the others are found one by one.
                for one in part:
                    found += self.identify([one])
        return found

    def kinds(self, paths: Sequence[Path]) -> list[str]:
        """Of each file what it begins as, as `items.sniffed` says; "" for none."""
        found: list[str] = []
        for at in range(0, len(paths), _AT_ONCE):
            part = paths[at : at + _AT_ONCE]
            question = {"do": "kinds", "paths": [os.fspath(one) for one in part]}
            try:
                answer = self._ask(question, self._limits.seconds, part[0].name)
                found += [str(one) for one in answer["kinds"]]
            except FormatError:
                if len(part) == 1:
                    found.append("")
                    continue
                for one in part:
                    found += self.kinds([one])
        return found

    def unpack(self, path: Path, folder: Path, limits: archives.Limits) -> None:
        """Unpack an archive into a folder that is there and empty.

        Raises HostileArchive, and leaves to the caller what was written until then.
        """
        size = path.stat().st_size
        question = {
            "do": "unpack",
            "paths": [os.fspath(path)],
            "to": os.fspath(folder),
            "limits": asdict(limits),
        }
        seconds = self._limits.copying_s * max(size / 2**30, 1.0)
        try:
            self._ask(question, seconds, path.name, file_bytes=limits.most(size))
        except FormatError as error:
            raise HostileArchive(str(error)) from error

    def deidentify(
        self, paths: Sequence[Path], to: Path, *, profile: str, key: bytes
    ) -> Given:
        """Give out a series of DICOM files into a new folder; what came out.

        Raises FormatError where its reader fell.
        """
        question = {
            "do": "deidentify",
            "paths": [os.fspath(one) for one in paths],
            "to": os.fspath(to),
            "profile": profile,
            "key": key.hex(),
        }
        size = sum(one.stat().st_size for one in paths)
        seconds = self._limits.copying_s * max(size / 2**30, 1.0)
        answer = self._ask(question, seconds, paths[0].name)
        files = tuple(Path(one) for one in answer["files"])
        return Given(files, tuple(answer["reasons"]))

    def bare(self, paths: Sequence[Path], format_name: str, to: Path) -> Bare:
        """Copy an item of another format than DICOM without its words, see `bare`.

        Raises FormatError and IngestError.
        """
        question = {
            "do": "bare",
            "paths": [os.fspath(one) for one in paths],
            "format": format_name,
            "to": os.fspath(to),
        }
        # Packed pixels are several times what the file is.
        size = 8 * sum(one.stat().st_size for one in paths if one.is_file())
        seconds = self._limits.copying_s * max(size / 2**30, 1.0)
        answer = self._ask(question, seconds, paths[0].name)
        return Bare(Path(answer["path"]), str(answer["format"]))

    def describe(
        self, paths: Sequence[Path], format_name: str, *, planes: Path, key: bytes = b""
    ) -> list[dict[str, Any]]:
        """What the scenes of an item are, as JSON, see `describing`.

        Tables of planes are written into the folder `planes`. Raises FormatError.
        """
        answer = self._ask(
            {
                "do": "describe",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "planes": os.fspath(planes),
                "key": key.hex(),
            },
            self._limits.seconds,
            paths[0].name,
        )
        scenes: list[dict[str, Any]] = answer["scenes"]
        return scenes

    def copy(
        self, paths: Sequence[Path], format_name: str, scene: int, to: Path, size: int
    ) -> dict[str, Any]:
        """Write a scene as OME-Zarr; what `zarr_store.Written` says, as JSON.

        `size` is that of its numbers in bytes. Raises FormatError.
        """
        seconds = self._limits.copying_s * max(size / 2**30, 1.0)
        return self._ask(
            {
                "do": "copy",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "scene": scene,
                "to": os.fspath(to),
            },
            seconds,
            paths[0].name,
        )

    def draw(
        self, paths: Sequence[Path], format_name: str, to: Path, *, key: bytes = b""
    ) -> None:
        """Write a small JPEG of an item's first scene; raises FormatError."""
        self._ask(
            {
                "do": "draw",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "to": os.fspath(to),
                "key": key.hex(),
            },
            self._limits.seconds,
            paths[0].name,
        )

    def close(self) -> None:
        """End the process; what it is doing is lost."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _identified(self, paths: Sequence[Path]) -> list[Identified]:
        answer = self._ask(
            {"do": "identify", "paths": [os.fspath(one) for one in paths]},
            self._limits.seconds,
            paths[0].name,
        )
        return [Identified(**one) for one in answer["found"]]

    def _ask(
        self,
        question: Mapping[str, Any],
        seconds: float,
        name: str,
        *,
        file_bytes: int = FILE_BYTES,
    ) -> dict[str, Any]:
        if self._worker is None or not self._worker.alive:
            self._worker = LimitedProcess(_MODULE, self._limits.memory_bytes)
        try:
            answer = self._worker.ask(question, seconds, file_bytes=file_bytes).said
        except Fell as fall:
            self.close()
            log.warning("a file made the reading process fall: %s", fall)
            raise Damaged(f"{name} cannot be opened safely: {fall}.") from fall
        except BaseException:
            # Interrupted: what the process would answer later belongs to nothing.
            self.close()
            raise
        if "refusal" in answer:
            kind = _KINDS.get(str(answer.get("kind")), Damaged)
            raise kind(str(answer["refusal"]))
        return answer
