"""What came up: one series and one template, and nothing that tells whose it is."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pydicom
import yaml
from pydicom import Dataset
from pydicom.dataelem import DataElement

_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_MODEL_KEYS = {"name", "config", "map", "trainer_name", "postprocess"}


class BadPackage(ValueError):
    """A package that the server refuses with 400."""


@dataclass(frozen=True)
class Package:
    """A package that was taken."""

    images: tuple[Dataset, ...]
    template: dict
    names: tuple[str, ...]

    @property
    def wanted(self) -> list[str]:
        """The names of the structures, in the order of the template."""
        return [
            name
            for model in self.template["models"].values()
            for name in model["map"].values()
        ]


def opened(content: bytes) -> Package:
    """Open a package as strictly as the server's worker reads it."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise BadPackage("no zip") from error
    names = archive.namelist()
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            raise BadPackage("a path leads out of the package")
        if "/" in name:
            raise BadPackage("the package is not flat")
    pictures = [name for name in names if name.endswith(".dcm")]
    templates = [name for name in names if name.endswith(".yml")]
    if not pictures:
        raise BadPackage("no image")
    if len(templates) != 1 or len(pictures) + 1 != len(names):
        raise BadPackage("there is one .yml and nothing but images besides")
    images = []
    for name in pictures:
        try:
            images.append(pydicom.dcmread(io.BytesIO(archive.read(name))))
        except pydicom.errors.InvalidDicomError as error:
            raise BadPackage(f"{name} is no DICOM file") from error
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len({one.get(keyword) for one in images}) != 1:
            raise BadPackage(f"more than one {keyword}")
    if len({one.SOPInstanceUID for one in images}) != len(images):
        raise BadPackage("an image stands twice")
    template = _template(archive.read(templates[0]))
    return Package(tuple(images), template, tuple(names))


def _template(text: bytes) -> dict:
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadPackage("the template is no YAML") from error
    if not isinstance(said, dict) or not {"name", "protocol", "models"} <= set(said):
        raise BadPackage("the template lacks name, protocol or models")
    if not isinstance(said["models"], dict) or not said["models"]:
        raise BadPackage("the template has no models")
    for number, model in said["models"].items():
        if type(number) is not int or number <= 10:
            raise BadPackage("a model's key is a whole number above 10")
        if not isinstance(model, dict) or set(model) != _MODEL_KEYS:
            raise BadPackage("a model has exactly five keys")
        if not all(
            type(key) is int and key > 0 and isinstance(name, str)
            for key, name in model["map"].items()
        ):
            raise BadPackage("a structure's key is a whole number above 0")
    return said


def leaks(content: bytes, package: Package, canaries: Iterable[str]) -> Iterator[str]:
    """What in a package tells whose it is, or that nobody looked."""
    searched = [canary for canary in canaries if canary]
    archive = zipfile.ZipFile(io.BytesIO(content))
    for name in package.names:
        for canary in searched:
            if canary.casefold() in name.casefold():
                yield f"file name: {canary}"
        raw = archive.read(name)
        for canary in searched:
            for encoding in ("utf-8", "latin-1", "utf-16-le"):
                try:
                    coded = canary.encode(encoding)
                except UnicodeEncodeError:
                    continue
                if coded.lower() in raw.lower():
                    yield f"{name}: bytes of {canary}"
                    break
    for at, image in enumerate(package.images):
        yield from (f"image {at}: {one}" for one in _unmarked(image))
        for element in _everything(image):
            if element.tag.is_private:
                yield f"image {at}: private element {element.tag}"
            if element.VR == "UI":
                yield from (f"image {at}: {one}" for one in _bad_uids(element))
            text = "" if element.VR in {"OB", "OW", "SQ"} else str(element.value)
            for canary in searched:
                if canary.casefold() in text.casefold():
                    yield f"image {at}: {element.tag} holds {canary}"


def _unmarked(image: Dataset) -> Iterator[str]:
    if image.get("PatientIdentityRemoved") != "YES":
        yield "PatientIdentityRemoved is not YES"
    if not image.get("DeidentificationMethodCodeSequence"):
        yield "no DeidentificationMethodCodeSequence"
    for keyword in ("StudyDate", "StudyTime", "StudyID"):
        if keyword not in image:
            yield f"{keyword} is missing, which the worker cannot take"


def _bad_uids(element: DataElement) -> Iterator[str]:
    values = element.value if element.VM > 1 else [element.value]
    for value in values:
        text = str(value or "")
        if text and (len(text) > 64 or not _UID.fullmatch(text)):
            yield f"{element.tag} holds an illegal UID"


def _everything(image: Dataset) -> Iterator[DataElement]:
    yield from image.file_meta
    yield from image.iterall()
