"""An image through the whole of it: written, de-identified as a package, read again."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from theatrum import deidentify

from benchmarks.deidentify.corpus import base, people

KEY = b"the tests' key, of 32 bytes, yes"
PERSON = people(1)[0]

MODIFIED = "retain_longitudinal_modified_dates"


def profile(*options: str, more: str = "") -> deidentify.Profile:
    """A profile with some options on; `more` is YAML for further fields."""
    text = f"format: 1\nname: tested\nversion: '1'\noptions: {list(options)}\n{more}"
    return deidentify.parse_profile(text, "tested")


def image(modality: str = "CT") -> Dataset:
    """A plain slice of somebody who does not exist."""
    return base(modality, PERSON, 1, 0)


def put(image: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a file."""
    image.ensure_file_meta()
    image.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save_as(path, enforce_file_format=True)
    return path


def package(
    source: Path, target: Path, using: deidentify.Profile | None = None, **more: bool
) -> deidentify.Package:
    """De-identify a folder with the tests' key."""
    worker = deidentify.Deidentifier(using or profile(), KEY)
    files = deidentify.files_below(source)
    return worker.package(files, target, root=source, **more)


def through(
    tmp_path: Path, image: Dataset, *options: str, more: str = ""
) -> tuple[Dataset, bytes]:
    """What comes out for one image: as a data set, and as bytes.

    Raises AssertionError with the report where the file stays inside.
    """
    source = tmp_path / "in"
    source.mkdir(exist_ok=True)
    put(image, source / "one.dcm")
    target = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    done = package(source, target, profile(*options, more=more))
    assert done.names, done.report.as_json()
    content = (target / done.names[1]).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(content)), content
