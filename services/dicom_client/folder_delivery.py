"""A file into a folder from which others import, never half and never twice.

It is written beside its place under a hidden name, synced, noted, and renamed. So the
hidden file is there exactly as long as the delivery is not done: whoever comes after a
crash finds the hidden file and goes on, or finds it gone and knows that the delivery
was done, even where the importer has taken the file away meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from secrets import token_hex
from shutil import copyfileobj

from pydicom import dcmread

from services.dicom_client.arrivals import sync_folder
from services.dicom_client.outcomes import Attempt, Outcome


@dataclass(frozen=True)
class FolderTarget:
    """A folder that another program reads."""

    name: str
    folder: Path
    ready: bool = False
    """Put an empty `<file>.ready` beside the file when it is there."""
    prefix: str = "RS"
    """The file is called `<prefix>.<digest of its UID>.dcm`: no name of a patient."""
    mode: int = 0o640
    """The file's permissions."""
    required: bool = True


def file_name(target: FolderTarget, sop_instance: str) -> str:
    """How a structure set is called in the folder; the same each time."""
    prefix = re.sub(r"[^A-Za-z0-9_-]", "_", target.prefix) or "RS"
    return f"{prefix}.{sha256(sop_instance.encode()).hexdigest()[:16]}.dcm"


def place(
    file: Path,
    target: FolderTarget,
    mine: Sequence[Attempt],
    on_attempt: Callable[[Attempt], None],
) -> Outcome:
    """Deliver a file to a folder; the folder itself must be there.

    A folder that is missing is a share that is not mounted, and is not made.
    """
    instance = dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
    final = target.folder / file_name(target, str(instance.SOPInstanceUID))
    begun = any(one.code == "sending" for one in mine)
    try:
        return _place(file, final, target, begun, on_attempt)
    except FileNotFoundError:
        code, text = "unreachable", "The folder is not there: is its share mounted?"
    except PermissionError:
        code, text = "denied", "The folder may not be written to."
    except OSError as err:
        code, text = (
            "no_space",
            f"The folder cannot be written: {os.strerror(err.errno or 0)}.",
        )
    return Outcome(target.name, target.name, code, text)


def _place(
    file: Path,
    final: Path,
    target: FolderTarget,
    begun: bool,
    on_attempt: Callable[[Attempt], None],
) -> Outcome:
    # A random name that nobody can foresee, and a pattern that finds it again.
    hidden = sorted(target.folder.glob(f".{final.name}.*.part"))
    if begun and not hidden and not final.exists():
        target.folder.stat()  # raises where the share is gone: then nothing is known
        on_attempt(Attempt(target.name, target.name, "delivered"))
        text = "It was there, and was taken since."
        return Outcome(target.name, target.name, "already_there", text)
    if final.exists():
        _remove(hidden)
        if _digest(final) != _digest(file):
            text = (
                "Another file has its name: move that one away, or look which is right."
            )
            return Outcome(target.name, target.name, "conflict", text)
        return _done(final, target, "already_there", on_attempt)
    if begun and hidden and _digest(hidden[0]) == _digest(file):
        part = hidden.pop(0)
    else:
        part = _write(file, target, final.name)
    _remove(hidden)
    on_attempt(Attempt(target.name, target.name, "sending"))
    part.rename(final)
    return _done(final, target, "delivered", on_attempt)


def _write(file: Path, target: FolderTarget, name: str) -> Path:
    part = target.folder / f".{name}.{token_hex(8)}.part"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as copy, file.open("rb") as source:
            copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fchmod(copy.fileno(), target.mode)
            os.fsync(copy.fileno())
        if _digest(part) != _digest(file):
            raise OSError(5, "the copy differs")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(target.folder)
    return part


def _done(
    final: Path,
    target: FolderTarget,
    code: str,
    on_attempt: Callable[[Attempt], None],
) -> Outcome:
    if target.ready:
        final.with_name(f"{final.name}.ready").touch(mode=target.mode)
    sync_folder(final.parent)
    on_attempt(Attempt(target.name, target.name, "delivered"))
    return Outcome(target.name, target.name, code, "The file is in the folder.")


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
