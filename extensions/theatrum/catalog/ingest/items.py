"""Files put together to items: what is one image, or one series, is one item.

DICOM files are grouped by series within the source that they came from; a NIfTI file
takes its JSON along, a header its numbers, a slide its folder; an OME-Zarr folder is
one. Everything else is an item by itself, known or not: what is not known is refused
with a reason, so that no file is passed over in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from theatrum.catalog.formats import FormatError, sniff
from theatrum.catalog.formats.ome_zarr import is_zarr
from theatrum.catalog.formats.volumes import pair_of, sidecar_of
from theatrum.catalog.ingest.headers import Identified, identify

_MOST_FILES: Final = 5_000_000
_AT_ONCE: Final = 256
_PASSED_OVER: Final = frozenset({"__MACOSX", "lost+found"})


@dataclass(frozen=True)
class Item:
    """What is taken in, or refused, as one.

    Attributes
    ----------
    paths
        Its files, the one that is opened first; a folder for OME-Zarr.
    format
        As `formats.sniff` says, or "".
    root
        What was asked for, to which names in reports are relative.
    beside
        Files that belong to it and are not opened by themselves.
    refusal
        Why it cannot be taken in, where that is known already.
    """

    paths: tuple[Path, ...]
    format: str
    root: Path
    beside: tuple[Path, ...] = ()
    refusal: str = ""
    series: str = ""
    whole_slide: bool = False

    @property
    def every(self) -> tuple[Path, ...]:
        """All files of it, those in a folder too."""
        found: list[Path] = []
        for path in (*self.paths, *self.beside):
            if path.is_dir():
                found += sorted(one for one in path.rglob("*") if one.is_file())
            else:
                found.append(path)
        return tuple(found)


def files_below(root: Path) -> Iterator[Path]:
    """The files of a folder in order; links, hidden files and Zarr's insides left out.

    A folder that is an OME-Zarr image is given as one.
    """
    if root.is_file():
        yield root
        return
    if is_zarr(root):
        yield root
        return
    for folder, names, files in os.walk(root, followlinks=False):
        here = Path(folder)
        keep = []
        for name in sorted(names):
            below = here / name
            if name.startswith(".") or name in _PASSED_OVER or below.is_symlink():
                continue
            if is_zarr(below):
                yield below
            else:
                keep.append(name)
        names[:] = keep
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def sniffed(paths: Sequence[Path]) -> list[str]:
    """What files begin as, as `formats.sniff` says; "" where nobody knows."""
    return [_kind(path) for path in paths]


def items_of(
    files: Iterable[Path],
    root: Path,
    *,
    seen: Callable[[Path], None] = lambda _: None,
    kinds_of: Callable[[Sequence[Path]], Sequence[str]] = sniffed,
    identified: Callable[[Sequence[Path]], Sequence[Identified]] = identify,
) -> list[Item]:
    """The items that some files are.

    Parameters
    ----------
    files
        In the order in which they are to come.
    root
        What names in reports are relative to.
    seen
        Is told each file as it is looked at.
    kinds_of
        Says what files begin as, some at a time; `look.Looker.kinds` does it in a
        process of its own.
    identified
        Says of DICOM files which series they belong to; `look.Looker.identify` does it
        in a process of its own.
    """
    kinds: dict[Path, str] = {}
    listed = list(islice(files, _MOST_FILES))
    for at in range(0, len(listed), _AT_ONCE):
        part = listed[at : at + _AT_ONCE]
        for path, kind in zip(part, kinds_of(part), strict=True):
            kinds[path] = kind
            seen(path)
    owned: dict[Path, Path] = {}
    for path, kind in kinds.items():
        for other in _belongings(path, kind, kinds):
            owned.setdefault(other, path)
    found: list[Item] = []
    series: dict[str, list[Path]] = {}
    slides: set[str] = set()
    scans = [path for path, kind in kinds.items() if kind == "dicom"]
    scans = [path for path in scans if path not in owned]
    for path, kind in kinds.items():
        if path not in owned and kind != "dicom":
            beside = tuple(other for other, owner in owned.items() if owner == path)
            found.append(Item((path,), kind, root, beside))
    for path, about in zip(scans, identified(scans), strict=True):
        if about.refusal:
            found.append(Item((path,), "dicom", root, refusal=about.refusal))
            continue
        # Nothing says that files without a series belong to one another. A slide's
        # files have to lie in one folder; a series may be spread.
        key = about.series or f"\0{path}"
        if about.whole_slide:
            key = f"{path.parent}\0{about.series}"
            slides.add(key)
        series.setdefault(key, []).append(path)
    found += [
        Item(
            tuple(sorted(members)),
            "dicom",
            root,
            series=key.rpartition("\0")[2] if key in slides else key.lstrip("\0"),
            whole_slide=key in slides,
        )
        for key, members in series.items()
    ]
    return sorted(found, key=lambda item: item.paths[0])


def _kind(path: Path) -> str:
    try:
        return sniff(path)
    except FormatError:
        return ""


def _belongings(path: Path, kind: str, known: dict[Path, str]) -> Sequence[Path]:
    """The files among those that are known which belong to `path`."""
    wanted: list[Path] = []
    if kind == "nifti":
        sidecar = sidecar_of(path)
        wanted += [] if sidecar is None else [sidecar]
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        wanted += [path.with_name(stem + end) for end in (".bval", ".bvec")]
    if kind in ("nifti", "analyze") and path.suffix.lower() == ".hdr":
        pair = pair_of(path)
        wanted += [] if pair is None else [pair]
    if kind in ("metaimage", "nrrd") and path.suffix.lower() in (".mhd", ".nhdr"):
        stem = path.stem
        wanted += [
            other
            for other in known
            if other.parent == path.parent
            and other != path
            and other.name.startswith(stem + ".")
            and not known[other]
        ]
    if kind == "slide":
        folder = path.with_suffix("")
        wanted += [other for other in known if folder in other.parents]
    if kind == "tiff" and path.name.endswith(".companion.ome"):
        from tile_server.readers.same_folder import named_files

        wanted += [other for other in named_files(path) if other != path]
    return [other for other in wanted if other in known]
