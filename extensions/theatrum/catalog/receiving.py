"""Arrays that come from far away: an OME-Zarr group in a zip, unpacked and kept.

Nothing of the zip is believed: names stay within the group, sizes within bounds, and
the array is read and written anew, so that what lies in the catalogue is what the
catalogue writes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

PACKED_BYTES = 4 << 30
UNPACKED_BYTES = 16 << 30
MOST_FILES = 200_000
_MEMBER = re.compile(r"(?:[A-Za-z0-9_-]{1,64}/){0,12}(?:zarr\.json|[0-9]{1,9}|c)")
_KEPT = frozenset(
    {"name", "project", "title", "kind", "node", "params", "inputs", "code_version"}
)
_FIELDS = frozenset({"description", "attrs", "value_unit", "plane", "modality"})


# Any: JSON, as `Backend.keep` says
def receive(backend: LocalBackend, package: Path, kept: Mapping[str, Any]) -> RowData:
    """Keep the array in a zip; see `Backend.keep`.

    Raises
    ------
    BadRecord
        Where the zip is no group, or what is said of it is not of the form.
    NotOpened
        Where the group cannot be read as an image.
    """
    from theatrum.catalog.arrays import labelled, open_scene

    said = _checked(kept)
    folder = backend.files / "derived"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".coming-") as staging:
        group = Path(staging, "image.ome.zarr")
        group.mkdir()
        _unpack(package, group)
        array = labelled((backend.scenes or open_scene)(str(group), 0))
        if said.get("kind") == "label":
            array = array.assign_attrs(is_label=True)
        return backend.keep(array, said)


def _checked(kept: Mapping[str, Any]) -> dict[str, Any]:
    fields = kept.get("fields") or {}
    inputs = kept.get("inputs") or []
    texts = ("name", "project", "title", "kind", "node", "code_version")
    fits = (
        kept.keys() <= _KEPT | {"fields"}
        and all(isinstance(kept.get(one) or "", str) for one in texts)
        and isinstance(kept.get("params") or {}, Mapping)
        and isinstance(inputs, list)
        and all(isinstance(one, str) for one in inputs)
        and isinstance(fields, Mapping)
        and fields.keys() <= _FIELDS
    )
    if not fits:
        raise BadRecord(
            f"say of an array {', '.join(sorted(_KEPT))}, and under fields "
            f"{', '.join(sorted(_FIELDS))}"
        )
    return {name: value for name, value in kept.items() if value is not None}


def _unpack(package: Path, group: Path) -> None:
    left = UNPACKED_BYTES
    try:
        with zipfile.ZipFile(package) as archive:
            members = archive.infolist()
            if not 0 < len(members) <= MOST_FILES:
                raise BadRecord(f"an array has 1 to {MOST_FILES} files")
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise BadRecord("the zip holds what belongs to no OME-Zarr group")
                left -= member.file_size
                if left < 0:
                    raise BadRecord("the array is too large when it is unpacked")
                place = group / member.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, place.open("xb") as file:
                    # As many bytes as the zip said, whatever comes out of it.
                    shutil.copyfileobj(_Bounded(packed, member.file_size), file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as err:
        raise BadRecord("this is no zip that can be read") from err
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as err:
        raise BadRecord("two files of the zip have one name") from err


class _Bounded:
    """A file that ends where it was said to."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, wanted: int = -1) -> bytes:
        size = self._left if wanted < 0 else min(wanted, self._left)
        part: bytes = self._file.read(size)
        self._left -= len(part)
        return part
